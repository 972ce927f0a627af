//! What Muon does besides products: momentum, sums of matrices, transposes and the step itself.

use super::element::Element;
use super::pool::Pool;
use super::vectorise::{multiply_add, vectorised};
use crate::runtime::backend::Momentum;

/// Values per task of flat loops.
const BLOCK: usize = 1 << 14;
/// Rows and columns of the squares that are transposed one at a time: source and target of one lie in the
/// first cache.
const SIDE: usize = 32;

vectorised! {
    fn momentum_block(
        keep: f32, rest: f32, ahead: f32, scale: f32, grad: &[f32], momentum: &mut [f32], direction: &mut [f32],
    ) {
        for ((d, m), g) in direction.iter_mut().zip(momentum).zip(grad) {
            let g = *g * scale;
            *m = multiply_add::<FMA>(keep, *m, rest * g);
            // g + ahead · (m − g): m itself without Nesterov's look ahead.
            *d = multiply_add::<FMA>(ahead, *m - g, g);
        }
    }

    fn scale_block<E: Element>(scale: f32, x: &mut [f32], copy: &mut [E]) {
        for (x, copy) in x.iter_mut().zip(copy) {
            *x *= scale;
            *copy = E::of(*x);
        }
    }

    fn combine_block<E: Element>(scale: f32, factor: f32, x: &mut [f32], y: &[f32], copy: &mut [E]) {
        for ((x, y), copy) in x.iter_mut().zip(y).zip(copy) {
            *x = multiply_add::<FMA>(scale, *x, factor * *y);
            *copy = E::of(*x);
        }
    }

    fn descend_block(keep: f32, step: f32, direction: &[f32], weight: &mut [f32]) {
        for (w, d) in weight.iter_mut().zip(direction) {
            *w = multiply_add::<FMA>(keep, *w, -step * *d);
        }
    }
}

/// The gradient into the momentum, and the direction out of both; all of one length.
pub(super) fn momentum(
    pool: &Pool,
    constants: Momentum,
    grad: &[f32],
    momentum: &mut [f32],
    direction: &mut [f32],
) {
    let Momentum { momentum: keep, nesterov, gradient_scale } = constants;
    let ahead = if nesterov { keep } else { 1.0 };
    let (rest, keep, ahead, scale) = ((1.0 - keep) as f32, keep as f32, ahead as f32, gradient_scale as f32);
    pool.chunks2((momentum, BLOCK), (direction, BLOCK), |i, momentum, direction| {
        momentum_block(keep, rest, ahead, scale, &grad[i * BLOCK..][..momentum.len()], momentum, direction);
    });
}

/// `x = scale · x + factor · y`, `copy = x`.
pub(super) fn combine<E: Element>(
    pool: &Pool,
    scale: f64,
    x: &mut [f32],
    plus: Option<(f64, &[f32])>,
    copy: &mut [E],
) {
    pool.chunks2((x, BLOCK), (copy, BLOCK), |i, x, copy| match plus {
        Some((factor, y)) => {
            combine_block(scale as f32, factor as f32, x, &y[i * BLOCK..][..x.len()], copy);
        }
        None => scale_block(scale as f32, x, copy),
    });
}

/// `to = fromᵀ`, rows of `columns` values; a task is a band of rows of the result.
pub(super) fn transpose<E: Element>(pool: &Pool, columns: usize, from: &[E], to: &mut [E]) {
    let rows = from.len() / columns.max(1);
    pool.chunks(to, SIDE * rows, |band, to| {
        for first in (0..rows).step_by(SIDE) {
            for (j, to) in to.chunks_exact_mut(rows).enumerate() {
                let column = from[first * columns + band * SIDE + j..].iter().step_by(columns);
                for (to, from) in to[first..].iter_mut().zip(column).take(SIDE) {
                    *to = *from;
                }
            }
        }
    });
}

/// `weight = keep · weight − step · direction`.
pub(super) fn descend(pool: &Pool, keep: f64, step: f64, direction: &[f32], weight: &mut [f32]) {
    pool.chunks(weight, BLOCK, |i, weight| {
        descend_block(keep as f32, step as f32, &direction[i * BLOCK..][..weight.len()], weight);
    });
}
