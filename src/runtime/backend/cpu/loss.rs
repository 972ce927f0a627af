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
const LOGITS: usize = 3 << 23;

vectorised! {
    /// `from · factor`, rounded.
    fn scaled<E: Element>(from: &[f32], factor: f32, to: &mut [E]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = E::of(*from * factor);
        }
    }
}

/// Scratch of the loss: logits, and in their place their gradient.
#[derive(Default)]
pub(super) struct Chunk {
    logits: Mutex<Vec<f32>>,
}

impl Chunk {
    pub(super) fn bytes(&self) -> u64 {
        let logits = self.logits.lock().unwrap_or_else(PoisonError::into_inner);
        (size_of::<f32>() * logits.capacity()) as u64
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

/// Values from one row of logits to the next: an odd number of cache lines, because rows that are a
/// multiple of 4 KiB apart share one set of the first-level cache, and a product reads fourteen at once.
fn stride(vocab: usize) -> usize {
    16 * (vocab.div_ceil(16) | 1)
}

/// Bytes of a [`Chunk`].
pub(super) fn chunk_bytes(tokens: usize, vocab: usize) -> u64 {
    (rows_at_once(tokens, vocab) * stride(vocab) * size_of::<f32>()) as u64
}

/// Losses of all tokens and, where asked, gradients.
#[allow(clippy::too_many_arguments)]
pub(super) fn loss<E: Element>(
    pool: &Pool,
    products: &Products,
    chunk: &Chunk,
    shape: LossShape,
    x: &[E],
    w: &[f32],
    targets: &[u32],
    nll: &mut [f32],
    mut gradients: Option<Gradients<'_, E>>,
) {
    let LossShape { tokens, width, vocab, .. } = shape;
    let (rows, stride) = (rows_at_once(tokens, vocab), stride(vocab));
    let mut logits = chunk.logits.lock().unwrap_or_else(PoisonError::into_inner);
    if logits.len() < rows * stride {
        logits.resize(rows * stride, 0.0);
    }
    let w = &w[..vocab * width];
    for start in (0..tokens).step_by(rows) {
        let n = rows.min(tokens - start);
        let x = &x[start * width..][..n * width];
        let logits = &mut logits[..n * stride];
        let shape_of_chunk = Shape { stride, ..Shape::new(n, width, vocab) };
        products.forward_wide(pool, shape_of_chunk, x, w, false, logits);
        let nll = &mut nll[start..start + n];
        let target = |i: usize| targets[start + i];
        let Some(g) = &mut gradients else {
            pool.chunks2((nll, 1), (logits, stride), |i, nll, logits| {
                nll[0] = row(shape, target(i), &mut logits[..vocab]).0;
            });
            continue;
        };
        // The gradient of a row is made while its exponentials are still in the cache.
        pool.chunks2((nll, 1), (&mut *logits, stride), |i, nll, logits| {
            let logits = &mut logits[..vocab];
            let (loss, factor) = row(shape, target(i), logits);
            nll[0] = loss;
            let hit = (target(i) != IGNORE).then(|| target(i) as usize);
            let of_target = hit.map(|hit| logits[hit] * factor - shape.gradient_scale as f32);
            let gradient = scale_in_place::<E>(logits, factor);
            if let (Some(hit), Some(of_target)) = (hit, of_target) {
                gradient[hit] = E::of(of_target);
            }
        });
        let per_logit = size_of::<f32>() / size_of::<E>();
        // SAFETY: elements are no larger or stricter aligned than f32, and any bits are good for them.
        let gradient =
            unsafe { std::slice::from_raw_parts(logits.as_ptr().cast::<E>(), logits.len() * per_logit) };
        let shape_of_chunk = Shape { stride: stride * per_logit, ..shape_of_chunk };
        let grad_x = &mut g.x[start * width..][..n * width];
        products.input_grad(pool, shape_of_chunk, gradient, w, grad_x);
        products.weight_grad(pool, shape_of_chunk, gradient, x, g.accumulate || start > 0, g.w);
    }
}

/// `values · factor`, rounded, from where the values begin on.
fn scale_in_place<E: Element>(values: &mut [f32], factor: f32) -> &mut [E] {
    const { assert!(size_of::<E>() <= size_of::<f32>() && align_of::<E>() <= align_of::<f32>()) };
    let len = values.len();
    let values = values.as_mut_ptr();
    let mut block = [0.0; 512];
    for start in (0..len).step_by(block.len()) {
        let block = &mut block[..(len - start).min(512)];
        // SAFETY: within `values`; what the elements overwrite has been read, being no longer than f32.
        unsafe {
            std::ptr::copy_nonoverlapping(values.add(start), block.as_mut_ptr(), block.len());
            let to = std::slice::from_raw_parts_mut(values.cast::<E>().add(start), block.len());
            scaled(block, factor, to);
        }
    }
    // SAFETY: `len` elements have just been written there, and the caller's borrow goes with them.
    unsafe { std::slice::from_raw_parts_mut(values.cast::<E>(), len) }
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
