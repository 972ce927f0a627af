//! The output layer and cross-entropy together: logits exist for a few tokens at a time.

use super::buffer::Pieces;
use super::element::Element;
use super::exp::exp;
use super::linear::{BLOCK, Exponentials, Part, Products, Shape};
use super::pool::Pool;
use super::vectorise::vectorised;
use crate::runtime::backend::LossShape;
use crate::runtime::batch::IGNORE;

/// Logits held at once, about. Fixed, because the chunks decide the order in which gradients are summed.
const LOGITS: usize = 3 << 23;

/// 2⁻¹⁰⁰: gradients of logits below it are 0. Nothing would come of them but denormals, which take some
/// processors a hundred times as long.
const LEAST: f32 = f32::from_bits((127 - 100) << 23);

vectorised! {
    /// `values ← values · factor`, rounded, for values that are not negative; 0 for products below [`LEAST`].
    fn scale<E: Element>(values: &mut [E], factor: f32) {
        let least = LEAST / factor.abs();
        for value in values {
            let old = value.get();
            *value = E::of(if old < least { 0.0 } else { old } * factor);
        }
    }

    /// Sum of the parts' exponentials, all beside `largest`.
    fn total(parts: &[Part], largest: f32) -> f32 {
        let mut sum = 0.0;
        for part in parts {
            sum += part.sum * exp::<FMA>(part.largest - largest);
        }
        sum
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

/// Values from one row to the next: an odd number of cache lines, because rows that are a multiple of
/// 4 KiB apart share one set of the first-level cache, and a product reads fourteen at once.
fn stride<E>(vocab: usize) -> usize {
    let line = 64 / size_of::<E>();
    line * (vocab.div_ceil(line) | 1)
}

/// Bytes of scratch.
pub(super) fn scratch<E>(tokens: usize, vocab: usize) -> usize {
    let rows = rows_at_once(tokens, vocab);
    Pieces::bytes::<E>(rows * stride::<E>(vocab))
        + Pieces::bytes::<Part>(rows * vocab.div_ceil(BLOCK))
        + Pieces::bytes::<f32>(rows)
}

/// Losses of all tokens and, where asked, gradients.
pub(super) fn loss<E: Element>(
    pool: &Pool,
    products: &Products,
    mut scratch: Pieces<'_>,
    shape: LossShape,
    x: &[E],
    w: &[f32],
    targets: &[u32],
    nll: &mut [f32],
    mut gradients: Option<Gradients<'_, E>>,
) {
    let LossShape { tokens, width, vocab, .. } = shape;
    let (rows, stride, blocks) = (rows_at_once(tokens, vocab), stride::<E>(vocab), vocab.div_ceil(BLOCK));
    // Exponentials of logits, and in their place the gradient of the logits; of each row, for each block
    // of columns; logit of each row's target.
    let values = scratch.take::<E>(rows * stride);
    let parts = scratch.take::<Part>(rows * blocks);
    let of_target = scratch.take::<f32>(rows);
    let w = &w[..vocab * width];
    for start in (0..tokens).step_by(rows) {
        let n = rows.min(tokens - start);
        let (x, targets) = (&x[start * width..][..n * width], &targets[start..start + n]);
        let (values, parts) = (&mut values[..n * stride], &mut parts[..n * blocks]);
        let of_target = &mut of_target[..n];
        let shape_of_chunk = Shape { stride, ..Shape::new(n, width, vocab) };
        let to = Exponentials { values: &mut *values, parts: &mut *parts, of_target: &mut *of_target };
        products.exponentials(pool, shape_of_chunk, x, w, targets, to);
        let nll = (&mut nll[start..start + n], 1);
        let Some(g) = &mut gradients else {
            pool.chunks2(nll, (parts, blocks), |i, nll, parts| {
                nll[0] = Softmax::of(shape, targets[i], of_target[i], parts).loss;
            });
            continue;
        };
        pool.chunks3(nll, (&mut *values, stride), (parts, blocks), |i, nll, values, parts| {
            let softmax = Softmax::of(shape, targets[i], of_target[i], parts);
            nll[0] = softmax.loss;
            softmax.gradient(shape, targets[i], of_target[i], parts, &mut values[..vocab]);
        });
        let grad_x = &mut g.x[start * width..][..n * width];
        products.input_grad(pool, shape_of_chunk, values, w, grad_x);
        products.weight_grad(pool, shape_of_chunk, values, x, g.accumulate || start > 0, g.w);
    }
}

/// The softmax of one row.
struct Softmax {
    loss: f32,
    largest: f32,
    /// Times an exponential beside `largest`: the gradient, the target's part aside.
    factor: f32,
}

impl Softmax {
    fn of(shape: LossShape, target: u32, of_target: f32, parts: &[Part]) -> Self {
        if target == IGNORE {
            return Softmax { loss: 0.0, largest: 0.0, factor: 0.0 };
        }
        let largest = parts.iter().fold(f32::NEG_INFINITY, |m, part| m.max(part.largest));
        let sum = total(parts, largest);
        let log_z = largest + sum.ln();
        // d/dl of nll + z·log²Z is softmax · (1 + 2·z·logZ) − onehot.
        let slope = 1.0 + 2.0 * shape.z_loss as f32 * log_z;
        Softmax { loss: log_z - of_target, largest, factor: shape.gradient_scale as f32 * slope / sum }
    }

    /// Turn exponentials into the gradient of the logits.
    fn gradient<E: Element>(
        &self,
        shape: LossShape,
        target: u32,
        of_target: f32,
        parts: &[Part],
        values: &mut [E],
    ) {
        if target == IGNORE {
            // Also where the logits are not finite: 0 · ∞ would not be 0.
            values.fill(E::default());
            return;
        }
        for (part, values) in parts.iter().zip(values.chunks_mut(BLOCK)) {
            scale(values, exp::<false>(part.largest - self.largest) * self.factor);
        }
        let softmax = exp::<false>(of_target - self.largest) * self.factor;
        values[target as usize] = E::of(softmax - shape.gradient_scale as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::backend::cpu::buffer::Buffer;

    #[test]
    fn gradients_of_logits_never_become_denormal() {
        let shape = LossShape { tokens: 4, width: 8, vocab: 600, gradient_scale: 0.25, z_loss: 0.0 };
        let pool = Pool::new(Some(1)).unwrap();
        // Logits of 0, −0.25, −0.5, …: their exponentials go through the whole range of an f32.
        let x = vec![0.5; shape.tokens * shape.width];
        let w: Vec<f32> = (0..shape.vocab).flat_map(|v| [-(v as f32) / 16.0; 8]).collect();
        let (mut nll, mut dx, mut dw) = (vec![0.0; 4], vec![0.0; x.len()], vec![0.0; w.len()]);
        let gradients = Gradients { x: &mut dx, w: &mut dw, accumulate: false };
        let mut room = Buffer::<f32>::new(scratch::<f32>(shape.tokens, shape.vocab) / 4).unwrap();
        let (products, room) = (Products::default(), Pieces::of(&mut room));
        loss::<f32>(&pool, &products, room, shape, &x, &w, &[0, 1, 2, 3], &mut nll, Some(gradients));
        assert!(dw.iter().all(|g| !g.is_subnormal()));
        let of_token = |v: usize| dw[v * shape.width];
        assert!(of_token(200) > 0.0 && of_token(599) == 0.0);
    }
}
