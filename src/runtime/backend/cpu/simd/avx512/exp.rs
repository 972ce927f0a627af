//! 2^x for sixteen f32 at once.

use std::arch::x86_64::*;

use super::super::powers::LEAST;

/// 2^x for x ≤ 100 by a polynomial for the fraction; 0 below −100 and in lanes outside `mask`.
///
/// Attention takes it instead of e^x because log₂e then goes into the scale of the scores: one
/// multiply-add for `scale · s − max`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn exp2<const TERMS: usize>(polynomial: &[f32; TERMS], x: __m512, mask: __mmask16) -> __m512 {
    // Not less: a NaN stays one.
    let mask = _mm512_mask_cmp_ps_mask::<_CMP_NLT_UQ>(mask, x, _mm512_set1_ps(LEAST));
    let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
    let f = _mm512_sub_ps(x, n);
    let mut p = _mm512_set1_ps(polynomial[TERMS - 1]);
    for term in polynomial[..TERMS - 1].iter().rev() {
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(*term));
    }
    _mm512_maskz_scalef_ps(mask, p, n)
}

#[cfg(test)]
mod tests {
    use super::super::super::powers::{FULL, SHORT};
    use super::*;

    #[test]
    fn powers_of_two() {
        if !super::super::super::has_f32() {
            eprintln!("skipped: no AVX-512 here");
            return;
        }
        // SAFETY: the features are there; the array has sixteen values.
        let both = |x: f32| unsafe {
            let (mut exact, mut short) = ([0.0f32; 16], [0.0f32; 16]);
            _mm512_storeu_ps(exact.as_mut_ptr(), exp2(&FULL, _mm512_set1_ps(x), !0));
            _mm512_storeu_ps(short.as_mut_ptr(), exp2(&SHORT, _mm512_set1_ps(x), !0));
            (exact[5], short[5])
        };
        for i in -1_000..=10_000 {
            let x = -(i as f32) / 100.0;
            let want = f64::from(x).exp2();
            let (exact, short) = both(x);
            assert!((f64::from(exact) - want).abs() < 2e-7 * want, "{x}");
            assert!((f64::from(short) - want).abs() < 3e-6 * want, "{x}");
        }
        assert_eq!(both(0.0), (1.0, 1.0));
        assert_eq!(both(-100.01), (0.0, 0.0));
        assert_eq!(both(f32::NEG_INFINITY), (0.0, 0.0));
        assert!(both(f32::NAN).0.is_nan());
    }
}
