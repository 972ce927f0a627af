//! AdamW in one pass over a tensor, and sums of squares.

use super::pool::Pool;
use super::vectorise::{LANES, multiply_add, sum_lanes, vectorised};
use crate::runtime::backend::AdamW;

/// Values per task; also the length over which squares are summed in f32.
const BLOCK: usize = 1 << 14;

/// 2⁻¹¹⁰ and, for what is squared, 2⁻⁵⁶: what is smaller counts as 0. The moments of a weight without
/// gradients (the embedding of a token that is not used) would decay to denormals and stay there, and take
/// some processors twenty times as long in every step; an ε of 1e-8 hides them by ten orders of magnitude.
const LEAST: f32 = f32::from_bits((127 - 110) << 23);
const LEAST_SQUARED: f32 = f32::from_bits((127 - 56) << 23);

#[inline(always)]
fn unless_below(least: f32, x: f32) -> f32 {
    // Not the other way round: a NaN stays one.
    if x.abs() < least { 0.0 } else { x }
}

/// Constants of an update as the loop needs them.
#[derive(Clone, Copy)]
struct Constants {
    beta1: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    /// `lr / (1 − β₁^t)`.
    step: f32,
    /// `(1 − β₂^t)^(−1/2)`.
    second: f32,
    eps: f32,
    /// `lr · weight_decay`.
    decay: f32,
    gradient_scale: f32,
}

vectorised! {
    fn update_block(
        c: Constants, grad: &[f32], weight: &mut [f32], first: &mut [f32], second: &mut [f32],
    ) {
        for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(grad) {
            let g = *g * c.gradient_scale;
            *m = unless_below(LEAST, multiply_add::<FMA>(c.beta1, *m, c.one_minus_beta1 * g));
            let g = unless_below(LEAST_SQUARED, g);
            *v = unless_below(LEAST, multiply_add::<FMA>(c.beta2, *v, c.one_minus_beta2 * g * g));
            let update = c.step * *m / multiply_add::<FMA>(v.sqrt(), c.second, c.eps);
            *w = multiply_add::<FMA>(-c.decay, *w, *w) - update;
        }
    }

    fn squares_block(x: &[f32]) -> f32 {
        let mut lanes = [0.0; LANES];
        let chunks = x.chunks_exact(LANES);
        for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane = *x * *x;
        }
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] = multiply_add::<FMA>(chunk[i], chunk[i], lanes[i]);
            }
        }
        sum_lanes(lanes)
    }
}

/// One update of all four buffers, which have the same length.
pub(super) fn update(
    pool: &Pool,
    constants: AdamW,
    grad: &[f32],
    weight: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    use rayon::prelude::*;
    let AdamW { lr, betas, eps, weight_decay, corrections, gradient_scale } = constants;
    let c = Constants {
        beta1: betas[0] as f32,
        beta2: betas[1] as f32,
        one_minus_beta1: (1.0 - betas[0]) as f32,
        one_minus_beta2: (1.0 - betas[1]) as f32,
        step: (lr / corrections[0]) as f32,
        second: corrections[1].sqrt().recip() as f32,
        eps: eps as f32,
        decay: (lr * weight_decay) as f32,
        gradient_scale: gradient_scale as f32,
    };
    pool.run(|| {
        let moments = first.par_chunks_mut(BLOCK).zip(second.par_chunks_mut(BLOCK));
        let weights = weight.par_chunks_mut(BLOCK).zip(grad.par_chunks(BLOCK));
        weights.zip(moments).for_each(|((w, g), (m, v))| update_block(c, g, w, m, v));
    });
}

/// Sum of squares: in f32 within a block, in f64 over blocks, in order.
pub(super) fn squared_norm(pool: &Pool, x: &[f32]) -> f64 {
    let mut partial = vec![0.0f64; x.len().div_ceil(BLOCK)];
    pool.chunks(&mut partial, 4, |i, partial| {
        for (j, sum) in partial.iter_mut().enumerate() {
            let at = (4 * i + j) * BLOCK;
            *sum = f64::from(squares_block(&x[at..(at + BLOCK).min(x.len())]));
        }
    });
    partial.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_never_become_denormal() {
        let pool = Pool::new(Some(1)).unwrap();
        let constants = AdamW {
            lr: 1e-3,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.0,
            corrections: [1.0, 1.0],
            gradient_scale: 1.0,
        };
        // A gradient once, then none; and one whose square would be denormal.
        let mut grads = [1e-3, -1e-3, 1e-20, f32::NAN];
        let (mut weights, mut first, mut second) = ([1.0; 4], [0.0; 4], [0.0; 4]);
        for step in 0..2_000 {
            update(&pool, constants, &grads, &mut weights, &mut first, &mut second);
            assert!(
                !first.iter().chain(&second).any(|x| x.is_subnormal()),
                "step {step}: {first:?} {second:?}"
            );
            grads[..2].fill(0.0);
        }
        assert_eq!((&first[..2], &second[..3]), (&[0.0; 2][..], &[0.0; 3][..]));
        assert!(first[3].is_nan() && second[3].is_nan() && weights[3].is_nan());
    }
}
