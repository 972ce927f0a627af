//! AdamW in one pass over a tensor, and sums of squares.

use super::pool::Pool;
use super::vectorise::{LANES, multiply_add, sum_lanes, vectorised};
use crate::runtime::backend::AdamW;

/// Values per task; also the length over which squares are summed in f32.
const BLOCK: usize = 1 << 14;

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
            *m = multiply_add::<FMA>(c.beta1, *m, c.one_minus_beta1 * g);
            *v = multiply_add::<FMA>(c.beta2, *v, c.one_minus_beta2 * g * g);
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
