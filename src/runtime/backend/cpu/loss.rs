//! The output layer and cross-entropy together: logits exist for a few tokens at a time.

use std::sync::{Mutex, PoisonError};

use super::element::Element;
use super::linear::{Products, Shape};
use super::pool::Pool;
use super::softmax::{exponentials, largest};
use super::vectorise::vectorised;
use crate::runtime::backend::LossShape;
use crate::runtime::batch::IGNORE;

/// Logits held at once, about. Fixed, because the chunks decide the order in which gradients are summed.
const LOGITS: usize = 1 << 24;

vectorised! {
    /// `from · factor`, rounded.
    fn scaled<E: Element>(from: &[f32], factor: f32, to: &mut [E]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = E::of(*from * factor);
        }
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

/// Tokens of a chunk: all chunks alike, because each takes the whole matrix through the cache.
fn rows_at_once(tokens: usize, vocab: usize) -> usize {
    let chunks = ((tokens * vocab + LOGITS / 2) / LOGITS).clamp(1, tokens.div_ceil(16).max(1));
    tokens.div_ceil(chunks).max(1)
}

/// Bytes of a [`Chunk`] for narrow values of `narrow` bytes.
pub(super) fn chunk_bytes(tokens: usize, vocab: usize, narrow: usize) -> u64 {
    let of_gradient = if narrow == size_of::<f32>() { 0 } else { narrow };
    (rows_at_once(tokens, vocab) * vocab * (size_of::<f32>() + of_gradient)) as u64
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
    let rows = rows_at_once(tokens, vocab);
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
        let nll = &mut nll[start..start + n];
        let target = |i: usize| targets[start + i];
        if gradients.is_none() {
            pool.chunks2((nll, 1), (logits, vocab), |i, nll, logits| {
                nll[0] = row(shape, target(i), logits).0;
            });
            continue;
        }
        // The gradient of a row is made while its exponentials are still in the cache.
        let grad_logits = if E::as_f32(x).is_some() {
            pool.chunks2((nll, 1), (&mut *logits, vocab), |i, nll, logits| {
                let (loss, factor) = row(shape, target(i), logits);
                nll[0] = loss;
                multiply(logits, factor);
                if target(i) != IGNORE {
                    logits[target(i) as usize] -= shape.gradient_scale as f32;
                }
            });
            E::from_f32(logits)
        } else {
            if narrow.len() < n * vocab {
                narrow.resize(n * vocab, E::default());
            }
            let narrow = &mut narrow[..n * vocab];
            pool.chunks3((nll, 1), (logits, vocab), (&mut *narrow, vocab), |i, nll, logits, narrow| {
                let (loss, factor) = row(shape, target(i), logits);
                nll[0] = loss;
                scaled(logits, factor, narrow);
                if target(i) != IGNORE {
                    let hit = target(i) as usize;
                    narrow[hit] = E::of(logits[hit] * factor - shape.gradient_scale as f32);
                }
            });
            Some(&*narrow)
        };
        let (Some(g), Some(grad_logits)) = (&mut gradients, grad_logits) else { continue };
        let grad_x = &mut g.x[start * width..][..n * width];
        let accumulate = g.accumulate || start > 0;
        products.input_grad(pool, shape_of_chunk, grad_logits, w, grad_x);
        products.weight_grad(pool, shape_of_chunk, grad_logits, x, accumulate, g.w);
    }
}

/// Loss of one token; turns its logits into exponentials, of which the second value makes gradients
/// once the target's part is taken off.
fn row(shape: LossShape, target: u32, logits: &mut [f32]) -> (f32, f32) {
    if target == IGNORE {
        // Also where the logits are not finite: 0 · ∞ would not be 0.
        logits.fill(0.0);
        return (0.0, 0.0);
    }
    let hit = logits[target as usize];
    let max = largest(logits);
    let sum = exponentials(logits, max);
    let log_z = max + sum.ln();
    // d/dl of nll + z·log²Z is softmax · (1 + 2·z·logZ) − onehot.
    let slope = 1.0 + 2.0 * shape.z_loss as f32 * log_z;
    (log_z - hit, shape.gradient_scale as f32 * slope / sum)
}
