//! e^x for sixteen f32 at once.

use std::arch::x86_64::*;

/// e^x with a relative error below 2e-7 for x in [-87, 88]; 0 below −104, so also for −∞.
///
/// 2^(x·log₂e) with the integer part as exponent and a polynomial on [−½, ½] for the rest, its
/// coefficients the Taylor series of 2^f, whose eighth term is far below f32's precision there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn exp(x: __m512) -> __m512 {
    let log2e = _mm512_set1_ps(std::f32::consts::LOG2_E);
    // −∞ would make 0·∞ below; −104 already underflows to 0.
    let x = _mm512_max_ps(x, _mm512_set1_ps(-104.0));
    let n =
        _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(x, log2e));
    // x − n·ln 2 in two parts keeps the bits that x·log₂e loses.
    let f = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693_359_4), x);
    let f = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.121_944_4e-4), f);
    let mut p = _mm512_set1_ps(1.0 / 5040.0);
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
    }
    _mm512_scalef_ps(p, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_to_the_library() {
        if !super::super::has_f32() {
            eprintln!("skipped: no AVX-512 here");
            return;
        }
        let mut worst = 0.0f64;
        for i in 0..20_000 {
            let x = -87.0 + i as f32 * (175.0 / 20_000.0);
            let mut out = [0.0f32; 16];
            // SAFETY: the features are there; `out` has sixteen values.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), exp(_mm512_set1_ps(x))) };
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(out[3]) - want).abs() / want);
        }
        assert!(worst < 2e-7, "relative error {worst:e}");
        let mut out = [1.0f32; 16];
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), exp(_mm512_set1_ps(f32::NEG_INFINITY))) };
        assert!(out[0] < 1e-44);
    }
}
