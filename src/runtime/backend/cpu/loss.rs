//! The output layer and cross-entropy together: logits exist for a few tokens at a time.

use std::sync::{Mutex, PoisonError};

use super::element::Element;
use super::exp::exp;
use super::linear::{Products, Shape};
use super::pointwise;
use super::pool::Pool;
use super::vectorise::{LANES, sum_lanes, vectorised};
use crate::runtime::backend::LossShape;
use crate::runtime::batch::IGNORE;

/// Logits held at once. Fixed, because the chunks decide the order in which gradients are summed.
const LOGITS: usize = 1 << 24;

vectorised! {
    fn largest(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let chunks = x.chunks_exact(LANES);
        for (lane, x) in lanes.iter_mut().zip(chunks.remainder()) {
            *lane = *x;
        }
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
            }
        }
        lanes.iter().fold(f32::NEG_INFINITY, |m, x| m.max(*x))
    }

    /// `x ← e^(x − max)`; the sum.
    fn exponentials(x: &mut [f32], max: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let mut chunks = x.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for i in 0..LANES {
                chunk[i] = exp::<FMA>(chunk[i] - max);
                lanes[i] += chunk[i];
            }
        }
        for (lane, x) in lanes.iter_mut().zip(chunks.into_remainder()) {
            *x = exp::<FMA>(*x - max);
            *lane += *x;
        }
        sum_lanes(lanes)
    }

    fn multiply(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

/// Scratch of the loss.
#[derive(Default)]
pub(super) struct Chunk<E> {
    buffers: Mutex<(Vec<f32>, Vec<E>)>,
}

impl<E> Chunk<E> {
    pub(super) fn bytes(&self) -> u64 {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        (4 * buffers.0.capacity() + size_of::<E>() * buffers.1.capacity()) as u64
    }
}

/// Where the gradients go.
pub(super) struct Gradients<'a, E> {
    pub(super) x: &'a mut [E],
    pub(super) w: &'a mut [f32],
    pub(super) accumulate: bool,
}

/// Losses of all tokens and, where asked, gradients.
#[allow(clippy::too_many_arguments)]
pub(super) fn loss<E: Element>(
    pool: &Pool,
    products: &Products,
    chunk: &Chunk<E>,
    shape: LossShape,
    x: &[E],
    w: &[f32],
    targets: &[u32],
    nll: &mut [f32],
    mut gradients: Option<Gradients<'_, E>>,
) {
    let LossShape { tokens, width, vocab, .. } = shape;
    let rows = (LOGITS / vocab).clamp(16, 4096).min(tokens);
    let mut buffers = chunk.buffers.lock().unwrap_or_else(PoisonError::into_inner);
    let (logits, narrow) = &mut *buffers;
    if logits.len() < rows * vocab {
        logits.resize(rows * vocab, 0.0);
    }
    let w = &w[..vocab * width];
    for start in (0..tokens).step_by(rows) {
        let n = rows.min(tokens - start);
        let x = &x[start * width..][..n * width];
        let logits = &mut logits[..n * vocab];
        let shape_of_chunk = Shape { rows: n, inputs: width, outputs: vocab };
        products.forward_wide(pool, shape_of_chunk, x, w, false, logits);
        let backward = gradients.is_some();
        pool.chunks2((&mut nll[start..start + n], 1), (&mut *logits, vocab), |i, nll, logits| {
            nll[0] = row(shape, targets[start + i], logits, backward);
        });
        let Some(g) = &mut gradients else { continue };
        let grad_x = &mut g.x[start * width..][..n * width];
        let accumulate = g.accumulate || start > 0;
        let grad_logits = match E::from_f32(logits) {
            Some(logits) => logits,
            None => {
                if narrow.len() < n * vocab {
                    narrow.resize(n * vocab, E::default());
                }
                pointwise::narrow(pool, logits, &mut narrow[..n * vocab]);
                &narrow[..n * vocab]
            }
        };
        products.input_grad(pool, shape_of_chunk, grad_logits, w, grad_x);
        products.weight_grad(pool, shape_of_chunk, grad_logits, x, accumulate, g.w);
    }
}

/// Loss of one token; turns its logits into their gradient when `backward`.
fn row(shape: LossShape, target: u32, logits: &mut [f32], backward: bool) -> f32 {
    if target == IGNORE {
        if backward {
            logits.fill(0.0);
        }
        return 0.0;
    }
    let target = target as usize;
    let hit = logits[target];
    let max = largest(logits);
    let sum = exponentials(logits, max);
    let log_z = max + sum.ln();
    if backward {
        // d/dl of nll + z·log²Z is softmax · (1 + 2·z·logZ) − onehot.
        let slope = 1.0 + 2.0 * shape.z_loss as f32 * log_z;
        let scale = shape.gradient_scale as f32;
        multiply(logits, scale * slope / sum);
        logits[target] -= scale;
    }
    log_z - hit
}
