//! Gated linear units of bf16, sixteen values at once: a short polynomial and an approximate reciprocal with one step of
//! Newton's tell 3e-6 of what rounding to bf16 leaves to 2e-3.

use std::arch::x86_64::*;

use half::bf16;

use super::super::has_bf16;
use super::super::powers::SHORT;
use super::exp::exp2;
use super::lanes::{Lanes, Register, first};
use crate::runtime::backend::Gate;

/// `y = act(gate) · up`.
///
/// # Safety
/// Needs `has_f32`.
pub(crate) unsafe fn forward(gate: Gate, gates: &[bf16], ups: &[bf16], y: &mut [bf16]) {
    // SAFETY: by the caller; bf16 is what the processor rounds to where that is chosen.
    unsafe {
        match (gate, has_bf16()) {
            (Gate::Silu, true) => forward_row::<bf16, false>(gates, ups, y),
            (Gate::Silu, false) => forward_row::<f32, false>(gates, ups, y),
            (Gate::GeluTanh, true) => forward_row::<bf16, true>(gates, ups, y),
            (Gate::GeluTanh, false) => forward_row::<f32, true>(gates, ups, y),
        }
    }
}

/// Turns gates and ups into their gradients, and gives `y` again.
///
/// # Safety
/// As for [`forward`].
pub(crate) unsafe fn backward(
    gate: Gate,
    grad: &[bf16],
    gates: &mut [bf16],
    ups: &mut [bf16],
    y: &mut [bf16],
) {
    // SAFETY: as above.
    unsafe {
        match (gate, has_bf16()) {
            (Gate::Silu, true) => backward_row::<bf16, false>(grad, gates, ups, y),
            (Gate::Silu, false) => backward_row::<f32, false>(grad, gates, ups, y),
            (Gate::GeluTanh, true) => backward_row::<bf16, true>(grad, gates, ups, y),
            (Gate::GeluTanh, false) => backward_row::<f32, true>(grad, gates, ups, y),
        }
    }
}

/// σ(u(x)), and where `GELU` the derivative of u, which is 1 otherwise.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn sigmoid<const GELU: bool>(x: __m512) -> (__m512, __m512) {
    let one = _mm512_set1_ps(1.0);
    let (inner, slope) = if GELU {
        let square = _mm512_mul_ps(x, x);
        let linear = _mm512_set1_ps(Gate::LINEAR);
        let inner = _mm512_fmadd_ps(_mm512_set1_ps(Gate::CUBIC), square, linear);
        (_mm512_mul_ps(x, inner), _mm512_fmadd_ps(_mm512_set1_ps(3.0 * Gate::CUBIC), square, linear))
    } else {
        (x, one)
    };
    let power = _mm512_mul_ps(inner, _mm512_set1_ps(-std::f32::consts::LOG2_E));
    // What is less than 2⁻¹⁰⁰ is 0: its reciprocal may be infinite. Not greater: a NaN stays one.
    let some = _mm512_cmp_ps_mask::<_CMP_NGT_UQ>(power, _mm512_set1_ps(100.0));
    let sum = _mm512_add_ps(exp2(&SHORT, power, some), one);
    let about = _mm512_rcp14_ps(sum);
    let sigmoid = _mm512_maskz_mul_ps(some, about, _mm512_fnmadd_ps(sum, about, _mm512_set1_ps(2.0)));
    (sigmoid, slope)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn forward_row<E: Lanes, const GELU: bool>(gates: &[bf16], ups: &[bf16], y: &mut [bf16])
where
    bf16: Register<E>,
{
    let n = y.len();
    assert!(gates.len() == n && ups.len() == n);
    for at in (0..n).step_by(16) {
        let mask = first(n - at);
        // SAFETY: masked lanes are neither read nor written.
        unsafe {
            let x = bf16::load(gates.as_ptr().add(at), mask);
            let gated = _mm512_mul_ps(x, sigmoid::<GELU>(x).0);
            let up = bf16::load(ups.as_ptr().add(at), mask);
            bf16::store(y.as_mut_ptr().add(at), _mm512_mul_ps(gated, up), mask);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn backward_row<E: Lanes, const GELU: bool>(
    grad: &[bf16],
    gates: &mut [bf16],
    ups: &mut [bf16],
    y: &mut [bf16],
) where
    bf16: Register<E>,
{
    let n = y.len();
    assert!(grad.len() == n && gates.len() == n && ups.len() == n);
    let one = _mm512_set1_ps(1.0);
    for at in (0..n).step_by(16) {
        let mask = first(n - at);
        // SAFETY: as above.
        unsafe {
            let (gate, up) = (gates.as_mut_ptr().add(at), ups.as_mut_ptr().add(at));
            let (d, x, v) =
                (bf16::load(grad.as_ptr().add(at), mask), bf16::load(gate, mask), bf16::load(up, mask));
            let (sigmoid, slope) = sigmoid::<GELU>(x);
            let gated = _mm512_mul_ps(x, sigmoid);
            let rest = _mm512_mul_ps(gated, _mm512_sub_ps(one, sigmoid));
            // σ + x·σ·u'·(1 − σ).
            let derivative = _mm512_fmadd_ps(rest, slope, sigmoid);
            bf16::store(y.as_mut_ptr().add(at), _mm512_mul_ps(gated, v), mask);
            bf16::store(gate, _mm512_mul_ps(_mm512_mul_ps(d, v), derivative), mask);
            bf16::store(up, _mm512_mul_ps(d, gated), mask);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every bf16 as a gate, against f64: half a unit in the last place of bf16 and what a denormal is worth.
    #[test]
    fn every_gate() {
        if !super::super::super::has_f32() {
            eprintln!("skipped: no AVX-512 here");
            return;
        }
        let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).collect();
        let ones = vec![bf16::ONE; all.len()];
        for (gate, linear, cubic) in
            [(Gate::Silu, 1.0, 0.0), (Gate::GeluTanh, f64::from(Gate::LINEAR), f64::from(Gate::CUBIC))]
        {
            let (mut y, mut again) = (ones.clone(), ones.clone());
            let (mut gates, mut ups) = (all.clone(), ones.clone());
            // SAFETY: the features are there.
            unsafe {
                forward(gate, &all, &ones, &mut y);
                backward(gate, &ones, &mut gates, &mut ups, &mut again);
            }
            for (i, x) in all.iter().map(|x| f64::from(*x)).enumerate() {
                if x.is_nan() {
                    assert!(y[i].is_nan() && gates[i].is_nan(), "{x}");
                    continue;
                }
                if x.abs() > 1e12 {
                    continue;
                }
                let sigmoid = 1.0 / (1.0 + (-x * (linear + cubic * x * x)).exp());
                let slope = linear + 3.0 * cubic * x * x;
                let want = [x * sigmoid, sigmoid + x * sigmoid * slope * (1.0 - sigmoid)];
                for (got, want) in
                    [(y[i], want[0]), (ups[i], want[0]), (again[i], want[0]), (gates[i], want[1])]
                {
                    let error = (f64::from(got) - want).abs();
                    assert!(error <= want.abs() / 250.0 + 2e-7, "{gate:?} {x}: {got} for {want}");
                }
            }
        }
    }
}
