//! The exponential as straight-line arithmetic, so that loops over it become vector instructions.

use super::vectorise::multiply_add;

/// `e^x` within 2 units in the last place; 0 below −87.3, infinite above 88.7; NaN stays NaN.
///
/// `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`, `e^r` by its series up to r⁷/7! (remainder below 6e-9),
/// and `2^n` put together from its bits, in two halves so that the ends of the range are reached.
#[inline(always)]
pub(super) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5·2²³ leaves the nearest integer in the low bits of the mantissa.
    const SHIFT: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x > 89.0 { 89.0 } else { x };
    let bounded = if bounded < -104.0 { -104.0 } else { bounded };
    let shifted = multiply_add::<FMA>(bounded, std::f32::consts::LOG2_E, SHIFT);
    let n = shifted - SHIFT;
    let r = multiply_add::<FMA>(n, -LN2_HIGH, bounded);
    let r = multiply_add::<FMA>(n, -LN2_LOW, r);
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = multiply_add::<FMA>(p, r, c);
    }
    let n = (shifted.to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let value = p * power(half) * power(n - half);
    if x < -87.3 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn exp_is_close_to_the_exact_one() {
        let mut worst = 0.0f64;
        for i in -87_000..=88_700 {
            let x = i as f32 / 1000.0;
            let exact = f64::from(x).exp();
            for got in [exp::<true>(x), exp::<false>(x)] {
                worst = worst.max((f64::from(got) - exact).abs() / exact);
            }
        }
        assert!(worst < 2.5e-7, "{worst}");
    }

    #[test]
    fn exp_at_the_ends() {
        assert_eq!(exp::<true>(0.0), 1.0);
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(-1000.0), 0.0);
        assert_eq!(exp::<true>(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp::<true>(100.0), f32::INFINITY);
        assert!(exp::<true>(f32::NAN).is_nan());
    }
}
