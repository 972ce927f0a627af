//! Operations without products or sums over rows: copies, RoPE, SwiGLU, the embedding.

use super::element::Element;
use super::exp::exp;
use super::pool::Pool;
use super::vectorise::vectorised;
use crate::runtime::backend::AttentionShape;

/// Values per task of flat loops.
const BLOCK: usize = 1 << 14;
/// Tokens per task of row-wise loops.
const ROWS: usize = 32;

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

    fn add_f32(from: &[f32], to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += *from;
        }
    }

    fn rotate<E: Element>(low: &mut [E], high: &mut [E], cos: &[f32], sin: &[f32], sign: f32) {
        for (((a, b), c), s) in low.iter_mut().zip(high).zip(cos).zip(sin) {
            let (x, y, s) = (a.get(), b.get(), sign * *s);
            *a = E::of(x * *c - y * s);
            *b = E::of(y * *c + x * s);
        }
    }

    fn swiglu_row<E: Element>(gate: &[E], up: &[E], y: &mut [E]) {
        for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
            let g = g.get();
            *y = E::of(g / (1.0 + exp::<FMA>(-g)) * u.get());
        }
    }

    fn swiglu_backward_row<E: Element>(grad: &[E], gate: &mut [E], up: &mut [E], y: &mut [E]) {
        for (((y, d), g), u) in y.iter_mut().zip(grad).zip(gate).zip(up) {
            let (x, v, d) = (g.get(), u.get(), d.get());
            let sigmoid = 1.0 / (1.0 + exp::<FMA>(-x));
            let silu = x * sigmoid;
            *y = E::of(silu * v);
            *g = E::of(d * v * (sigmoid + silu * (1.0 - sigmoid)));
            *u = E::of(d * silu);
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

/// Rows of `table`.
pub(super) fn embed(pool: &Pool, width: usize, table: &[f32], ids: &[u32], out: &mut [f32]) {
    pool.chunks(out, ROWS * width, |i, out| {
        for (out, id) in out.chunks_exact_mut(width).zip(&ids[i * ROWS..]) {
            out.copy_from_slice(&table[*id as usize * width..][..width]);
        }
    });
}

/// Adds the gradient of every token to the row of its id: each task owns a range of ids and goes
/// through the tokens in order, so the sums do not depend on the number of threads.
pub(super) fn embed_backward(pool: &Pool, width: usize, grad: &[f32], ids: &[u32], table: &mut [f32]) {
    let vocab = table.len() / width;
    let rows = vocab.div_ceil(4 * pool.threads()).max(1);
    pool.chunks(table, rows * width, |i, part| {
        let first = i * rows;
        let end = first + part.len() / width;
        for (id, grad) in ids.iter().zip(grad.chunks_exact(width)) {
            let id = *id as usize;
            if (first..end).contains(&id) {
                add_f32(grad, &mut part[(id - first) * width..][..width]);
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

/// `y = silu(gate) · up`.
pub(super) fn swiglu<E: Element>(pool: &Pool, width: usize, gate_up: &[E], y: &mut [E]) {
    pool.chunks(y, ROWS * width, |i, y| {
        let gate_up = gate_up[i * ROWS * 2 * width..].chunks_exact(2 * width);
        for (y, gate_up) in y.chunks_exact_mut(width).zip(gate_up) {
            swiglu_row(&gate_up[..width], &gate_up[width..], y);
        }
    });
}

/// Gradient of `gate_up` in place, and `y` again.
pub(super) fn swiglu_backward<E: Element>(
    pool: &Pool,
    width: usize,
    grad: &[E],
    gate_up: &mut [E],
    y: &mut [E],
) {
    pool.chunks2((y, ROWS * width), (gate_up, ROWS * 2 * width), |i, y, gate_up| {
        let grad = grad[i * ROWS * width..].chunks_exact(width);
        for ((y, gate_up), grad) in
            y.chunks_exact_mut(width).zip(gate_up.chunks_exact_mut(2 * width)).zip(grad)
        {
            let (gate, up) = gate_up.split_at_mut(width);
            swiglu_backward_row(grad, gate, up, y);
        }
    });
}
