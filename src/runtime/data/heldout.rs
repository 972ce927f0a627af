//! Which documents are kept out of training: a share of them by the hash of their text, so that a
//! document is held out in every run, every source and every file it appears in.

/// Whether a document with this hash is held out at `share`. A larger share holds out a superset.
pub(crate) fn is_held_out(hash: u128, share: f64) -> bool {
    let place = (hash >> 64) as u64;
    // Of a uniform place in [0, 2^64), exactly so up to rounding at 2^-53.
    (place as f64) < share * 18_446_744_073_709_551_616.0
}

/// Places `0..len` without some: maps the i-th that is left to its place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remaining {
    /// Ascending.
    removed: Vec<u64>,
}

impl Remaining {
    pub(crate) fn without(removed: Vec<u64>) -> Self {
        debug_assert!(removed.is_sorted());
        Self { removed }
    }

    pub(crate) fn place(&self, i: u64) -> u64 {
        // removed[k] - k places remain before removed[k].
        let (mut low, mut high) = (0, self.removed.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.removed[middle] - middle as u64 <= i {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        i + low as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_places_skip_the_removed() {
        for removed in [vec![], vec![0], vec![9], vec![0, 1, 5, 6, 9], (0..10).collect()] {
            let left: Vec<u64> = (0..10).filter(|p| !removed.contains(p)).collect();
            let r = Remaining::without(removed);
            assert_eq!((0..left.len() as u64).map(|i| r.place(i)).collect::<Vec<_>>(), left);
        }
    }

    #[test]
    fn shares_are_nested() {
        let hash = |i: u64| {
            let h = blake3::hash(&i.to_le_bytes());
            u128::from_le_bytes(h.as_bytes()[..16].try_into().unwrap())
        };
        let held = |share| (0..10_000).filter(|i| is_held_out(hash(*i), share)).collect::<Vec<_>>();
        let (one, five) = (held(0.01), held(0.05));
        assert!((60..140).contains(&one.len()) && (400..600).contains(&five.len()));
        assert!(one.iter().all(|i| five.contains(i)));
        assert!(held(0.0).is_empty());
        assert_eq!(held(1.0).len(), 10_000);
    }
}
