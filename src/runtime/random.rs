//! Counter-based random numbers: the value at any index is a pure function of key and counter, so a
//! draw never depends on how many were made before it.

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4.3).
pub fn philox(key: u64, counter: [u32; 4]) -> [u32; 4] {
    const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
    const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
    let mut k = [key as u32, (key >> 32) as u32];
    let mut c = counter;
    for round in 0..10 {
        if round > 0 {
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
    }
    c
}

/// Two independent standard normal numbers from two words (Box & Muller 1958).
pub fn normal_pair(a: u32, b: u32) -> [f64; 2] {
    // Halves keep the logarithm away from 0.
    let u = (f64::from(a) + 0.5) / 4_294_967_296.0;
    let angle = std::f64::consts::TAU * (f64::from(b) / 4_294_967_296.0);
    let radius = (-2.0 * u.ln()).sqrt();
    [radius * angle.cos(), radius * angle.sin()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the Random123 distribution.
    #[test]
    fn philox_known_answers() {
        assert_eq!(philox(0, [0; 4]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox(u64::MAX, [u32::MAX; 4]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox(0x299f_31d0_a409_3822, [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn normals_have_unit_variance() {
        let n = 20_000u32;
        let (mut sum, mut squares) = (0.0, 0.0);
        for i in 0..n {
            let [a, b, ..] = philox(7, [i, 0, 0, 0]);
            for x in normal_pair(a, b) {
                sum += x;
                squares += x * x;
            }
        }
        let count = f64::from(2 * n);
        assert!((sum / count).abs() < 0.02, "{sum}");
        assert!((squares / count - 1.0).abs() < 0.03, "{squares}");
    }
}
