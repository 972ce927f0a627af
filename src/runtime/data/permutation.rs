//! A keyed permutation of `0..n` in constant memory: a Feistel network on the smallest even number
//! of bits that holds `n`, walked until it lands inside (Black & Rogaway 2002, "Ciphers with
//! arbitrary finite domains", section 3). The round function is Philox-2x32's multiply and fold
//! (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") with keys from blake3.

const ROUNDS: usize = 10;

/// A permutation of `0..len`.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u32; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` that belongs to (`seed`, `label`, `epoch`).
    pub fn new(len: u64, seed: u64, label: &str, epoch: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("midc data order v1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&epoch.to_le_bytes());
        hasher.update(label.as_bytes());
        let mut bytes = [0u8; 4 * ROUNDS];
        hasher.finalize_xof().fill(&mut bytes);
        let mut keys = [0u32; ROUNDS];
        for (key, b) in keys.iter_mut().zip(bytes.chunks_exact(4)) {
            *key = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        }
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        Self { len, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// Where `at` goes; `at` itself when it lies outside `0..len`.
    pub fn apply(&self, at: u64) -> u64 {
        if at >= self.len {
            return at;
        }
        // The domain is less than four times `len`, so four steps are enough on average, and the
        // walk ends because the cycle returns to `at`.
        let mut x = self.rounds(at);
        while x >= self.len {
            x = self.rounds(x);
        }
        x
    }

    fn rounds(&self, x: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for key in self.keys {
            let product = right.wrapping_mul(0xD256_D193).wrapping_add(u64::from(key));
            let mixed = (product >> 32) ^ product.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 29 ^ u64::from(key);
            (left, right) = (right, (left ^ mixed) & mask);
        }
        left << self.half_bits | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_permuted() {
        for len in (0..70).chain([100, 255, 256, 257, 1000, 4096, 5000]) {
            let p = Permutation::new(len, 7, "web", 3);
            let mut seen = vec![false; len as usize];
            for i in 0..len {
                let j = p.apply(i) as usize;
                assert!(!seen[j], "{len}: {i} collides at {j}");
                seen[j] = true;
            }
        }
    }

    #[test]
    fn every_part_of_the_key_counts() {
        let order = |seed, label, epoch| -> Vec<u64> {
            let p = Permutation::new(1000, seed, label, epoch);
            (0..1000).map(|i| p.apply(i)).collect()
        };
        let base = order(1, "web", 0);
        assert_eq!(base, order(1, "web", 0));
        for other in [order(2, "web", 0), order(1, "code", 0), order(1, "web", 1)] {
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} of 1000 places agree");
        }
    }

    /// Chi-squared of where the first eighth of the inputs land, over many keys: a permutation
    /// that mixes puts them evenly into eighths.
    #[test]
    fn places_are_even() {
        let mut cells = [[0f64; 8]; 8];
        for seed in 0..200 {
            let p = Permutation::new(512, seed, "s", 0);
            for i in 0..512 {
                cells[(i / 64) as usize][(p.apply(i) / 64) as usize] += 1.0;
            }
        }
        let expected = 200.0 * 64.0 / 8.0;
        let chi: f64 = cells.iter().flatten().map(|n| (n - expected).powi(2) / expected).sum();
        // 49 degrees of freedom; 0.9999 quantile is about 92.
        assert!(chi < 92.0, "{chi}");
    }

    #[test]
    fn the_order_is_pinned() {
        let p = Permutation::new(10, 42, "web", 0);
        let order: Vec<u64> = (0..10).map(|i| p.apply(i)).collect();
        assert_eq!(order, PINNED);
    }

    /// Changing this changes the data order of every run.
    const PINNED: [u64; 10] = [4, 0, 5, 1, 9, 2, 8, 3, 7, 6];
}
