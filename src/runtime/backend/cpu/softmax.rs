//! Maximum and exponentials of a row of scores, which the loss and attention share.

use super::exp::exp;
use super::vectorise::{LANES, sum_lanes, vectorised};

/// Values whose exponentials are taken before they are added up: both loops become vector
/// instructions, which one loop over both would not, and the values stay in the first-level cache.
const BLOCK: usize = 256;

vectorised! {
    /// The largest value; −∞ of none. NaN is passed over: the exponentials show it.
    pub(super) fn largest(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = x.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane = if *x > *lane { *x } else { *lane };
        }
        lanes.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x))
    }

    /// `x ← e^(x − max)`; the sum.
    pub(super) fn exponentials(x: &mut [f32], max: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        for block in x.chunks_mut(BLOCK) {
            for x in block.iter_mut() {
                *x = exp::<FMA>(*x - max);
            }
            let (chunks, rest) = block.as_chunks::<LANES>();
            for chunk in chunks {
                for i in 0..LANES {
                    lanes[i] += chunk[i];
                }
            }
            for (lane, x) in lanes.iter_mut().zip(rest) {
                *lane += *x;
            }
        }
        sum_lanes(lanes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_lengths() {
        for n in [1, 2, 15, 16, 17, 255, 256, 257, 1000] {
            let mut x: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32 / 10.0 - 3.0).collect();
            let want = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest(&x), want);
            let exact: f64 = x.iter().map(|v| f64::from(v - want).exp()).sum();
            assert!((f64::from(exponentials(&mut x, want)) - exact).abs() < 1e-5 * exact, "{n}");
        }
        assert_eq!(largest(&[]), f32::NEG_INFINITY);
    }
}
