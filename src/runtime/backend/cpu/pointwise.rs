//! Operations without products or sums over rows: copies, RoPE, gated linear units, the embedding.

use super::element::Element;
use super::exp::exp;
use super::pool::Pool;
#[cfg(target_arch = "x86_64")]
use super::simd;
use super::vectorise::vectorised;
use crate::runtime::backend::{AttentionShape, Gate};

/// Values per task of flat loops.
const BLOCK: usize = 1 << 14;
/// Tokens per task of row-wise loops.
const ROWS: usize = 32;

/// A gate x becomes `x · σ(u(x))`.
trait Gating {
    /// `u(x)` and its derivative.
    fn inner(x: f32) -> (f32, f32);
}

/// [`Gate::Silu`].
struct Silu;

impl Gating for Silu {
    #[inline(always)]
    fn inner(x: f32) -> (f32, f32) {
        (x, 1.0)
    }
}

/// [`Gate::GeluTanh`].
struct GeluTanh;

impl Gating for GeluTanh {
    #[inline(always)]
    fn inner(x: f32) -> (f32, f32) {
        let square = x * x;
        let inner = x * (Gate::LINEAR + Gate::CUBIC * square);
        (inner, Gate::LINEAR + 3.0 * Gate::CUBIC * square)
    }
}

vectorised! {
    fn convert_block<E: Element>(from: &[E], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.get();
        }
    }

    fn round_block<E: Element>(from: &[f32], to: &mut [E]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = E::of(*from);
        }
    }

    fn add_block<E: Element>(from: &[E], to: &mut [f32], copy: &mut [E]) {
        for ((to, copy), from) in to.iter_mut().zip(copy).zip(from) {
            *to += from.get();
            *copy = E::of(*to);
        }
    }

    fn scale_f32(from: &[f32], scale: f32, to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = scale * *from;
        }
    }

    fn add_f32(from: &[f32], scale: f32, to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += scale * *from;
        }
    }

    fn rotate<E: Element>(low: &mut [E], high: &mut [E], cos: &[f32], sin: &[f32], sign: f32) {
        for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (x, y, s) = (a.get(), b.get(), sign * *s);
            *a = E::of(x * *c - y * s);
            *b = E::of(y * *c + x * s);
        }
    }

    fn glu_row<E: Element, G: Gating>(gate: &[E], up: &[E], y: &mut [E]) {
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            let g = g.get();
            *y = E::of(g / (1.0 + exp::<FMA>(-G::inner(g).0)) * u.get());
        }
    }

    fn glu_backward_row<E: Element, G: Gating>(grad: &[E], gate: &mut [E], up: &mut [E], y: &mut [E]) {
        for (((y, d), g), u) in y.iter_mut().zip(grad).zip(gate).zip(up) {
            let (x, v, d) = (g.get(), u.get(), d.get());
            let (inner, slope) = G::inner(x);
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-inner));
            let gated = x * sigmoid;
            *y = E::of(gated * v);
            *g = E::of(d * v * (sigmoid + gated * slope * (1.0 - sigmoid)));
            *u = E::of(d * gated);
        }
    }
}

/// `to = from`, exactly.
pub(super) fn widen<E: Element>(pool: &Pool, from: &[E], to: &mut [f32]) {
    pool.chunks(to, BLOCK, |i, to| convert_block(&from[i * BLOCK..][..to.len()], to));
}

/// `to = from`, rounded.
pub(super) fn narrow<E: Element>(pool: &Pool, from: &[f32], to: &mut [E]) {
    pool.chunks(to, BLOCK, |i, to| round_block(&from[i * BLOCK..][..to.len()], to));
}

/// `to += from`, `copy = to`.
pub(super) fn add_narrow<E: Element>(pool: &Pool, from: &[E], to: &mut [f32], copy: &mut [E]) {
    pool.chunks2((to, BLOCK), (copy, BLOCK), |i, to, copy| {
        add_block(&from[i * BLOCK..][..to.len()], to, copy);
    });
}

/// Rows of `table`, times `scale`.
pub(super) fn embed(pool: &Pool, width: usize, scale: f32, table: &[f32], ids: &[u32], out: &mut [f32]) {
    pool.chunks(out, ROWS * width, |i, out| {
        for (out, id) in out.chunks_exact_mut(width).zip(&ids[i * ROWS..]) {
            scale_f32(&table[*id as usize * width..][..width], scale, out);
        }
    });
}

/// Adds `scale` times the gradient of every token to the row of its id: each task owns a range of ids and goes
/// through the tokens in order, so the sums do not depend on the number of threads.
pub(super) fn embed_backward(
    pool: &Pool,
    width: usize,
    scale: f32,
    grad: &[f32],
    ids: &[u32],
    table: &mut [f32],
) {
    let vocab = table.len() / width;
    let rows = vocab.div_ceil(4 * pool.threads()).max(1);
    pool.chunks(table, rows * width, |i, part| {
        let first = i * rows;
        let end = first + part.len() / width;
        for (id, grad) in ids.iter().zip(grad.chunks_exact(width)) {
            let id = *id as usize;
            if (first..end).contains(&id) {
                add_f32(grad, scale, &mut part[(id - first) * width..][..width]);
            }
        }
    });
}

/// Columns of one matrix into another of the same shape.
pub(super) fn copy_columns<E: Element>(
    pool: &Pool,
    stride: usize,
    offset: usize,
    width: usize,
    from: &[E],
    to: &mut [E],
) {
    pool.chunks(to, ROWS * stride, |i, to| {
        for (to, from) in to.chunks_exact_mut(stride).zip(from[i * ROWS * stride..].chunks_exact(stride)) {
            to[offset..offset + width].copy_from_slice(&from[offset..offset + width]);
        }
    });
}

/// Rotate queries and keys in place.
pub(super) fn rope<E: Element>(
    pool: &Pool,
    shape: AttentionShape,
    positions: &[u32],
    cos: &[f32],
    sin: &[f32],
    backward: bool,
    qkv: &mut [E],
) {
    let (half, stride) = (shape.head_dim / 2, shape.qkv_width());
    let sign = if backward { -1.0 } else { 1.0 };
    pool.chunks(&mut qkv[..shape.tokens() * stride], ROWS * stride, |i, qkv| {
        for (row, position) in qkv.chunks_exact_mut(stride).zip(&positions[i * ROWS..]) {
            let at = *position as usize * half;
            let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
            for head in row.chunks_exact_mut(shape.head_dim).take(shape.heads + shape.kv_heads) {
                let (low, high) = head.split_at_mut(half);
                rotate(low, high, cos, sin, sign);
            }
        }
    });
}

/// `y = act(gate) · up`.
pub(super) fn glu<E: Element>(pool: &Pool, gate: Gate, width: usize, gate_up: &[E], y: &mut [E]) {
    let row = |gates: &[E], ups: &[E], y: &mut [E]| {
        #[cfg(target_arch = "x86_64")]
        if simd::has_f32()
            && let (Some(gates), Some(ups)) = (E::as_bf16(gates), E::as_bf16(ups))
            && let Some(y) = E::as_bf16_mut(y)
        {
            // SAFETY: the features are there.
            return unsafe { simd::glu::forward(gate, gates, ups, y) };
        }
        match gate {
            Gate::Silu => glu_row::<E, Silu>(gates, ups, y),
            Gate::GeluTanh => glu_row::<E, GeluTanh>(gates, ups, y),
        }
    };
    pool.chunks(y, ROWS * width, |i, y| {
        let gate_up = gate_up[i * ROWS * 2 * width..].chunks_exact(2 * width);
        for (y, gate_up) in y.chunks_exact_mut(width).zip(gate_up) {
            row(&gate_up[..width], &gate_up[width..], y);
        }
    });
}

/// Gradient of `gate_up` in place, and `y` again.
pub(super) fn glu_backward<E: Element>(
    pool: &Pool,
    gate: Gate,
    width: usize,
    grad: &[E],
    gate_up: &mut [E],
    y: &mut [E],
) {
    let row = |grad: &[E], gates: &mut [E], ups: &mut [E], y: &mut [E]| {
        #[cfg(target_arch = "x86_64")]
        if simd::has_f32()
            && let Some(grad) = E::as_bf16(grad)
            && let (Some(gates), Some(ups)) = (E::as_bf16_mut(gates), E::as_bf16_mut(ups))
            && let Some(y) = E::as_bf16_mut(y)
        {
            // SAFETY: the features are there.
            return unsafe { simd::glu::backward(gate, grad, gates, ups, y) };
        }
        match gate {
            Gate::Silu => glu_backward_row::<E, Silu>(grad, gates, ups, y),
            Gate::GeluTanh => glu_backward_row::<E, GeluTanh>(grad, gates, ups, y),
        }
    };
    pool.chunks2((y, ROWS * width), (gate_up, ROWS * 2 * width), |i, y, gate_up| {
        let grad = grad[i * ROWS * width..].chunks_exact(width);
        for ((y, gate_up), grad) in
            y.chunks_exact_mut(width).zip(gate_up.chunks_exact_mut(2 * width)).zip(grad)
        {
            let (gate, up) = gate_up.split_at_mut(width);
            row(grad, gate, up, y);
        }
    });
}
