//! RMSNorm forward and backward, row by row in f32. Statistics and the gradient of the weight are
//! summed in an order that does not depend on the number of threads.

use super::element::Element;
use super::pool::Pool;
use super::vectorise::{LANES, multiply_add, sum_lanes, vectorised};
use crate::runtime::backend::NormShape;

/// Rows whose part of the weight's gradient is summed by one task.
const ROWS: usize = 64;

vectorised! {
    /// Sum of squares.
    fn squares<E: Element>(x: &[E]) -> f32 {
        let mut lanes = [0.0; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for i in 0..LANES {
                lanes[i] = multiply_add::<FMA>(chunk[i].get(), chunk[i].get(), lanes[i]);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane = multiply_add::<FMA>(x.get(), x.get(), *lane);
        }
        sum_lanes(lanes)
    }

    /// Sum of `grad · (plus + w) · x`.
    fn weighted<E: Element>(grad: &[f32], plus: f32, w: &[f32], x: &[E]) -> f32 {
        let mut lanes = [0.0; LANES];
        let whole = x.len() / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            let (g, w, x) = (&grad[at..at + LANES], &w[at..at + LANES], &x[at..at + LANES]);
            for i in 0..LANES {
                lanes[i] = multiply_add::<FMA>(g[i] * (plus + w[i]), x[i].get(), lanes[i]);
            }
        }
        for i in whole..x.len() {
            let g = grad[i] * (plus + w[i]);
            lanes[i - whole] = multiply_add::<FMA>(g, x[i].get(), lanes[i - whole]);
        }
        sum_lanes(lanes)
    }

    /// `y = x · rstd · (plus + w)`.
    fn scale<E: Element>(x: &[E], rstd: f32, plus: f32, w: &[f32], y: &mut [f32]) {
        for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
            *y = x.get() * rstd * (plus + *w);
        }
    }

    /// `y = x`, rounded.
    fn round<E: Element>(x: &[f32], y: &mut [E]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = E::of(*x);
        }
    }

    /// `y = x`, exactly.
    fn widen<E: Element>(x: &[E], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y = x.get();
        }
    }

    /// `y += x`.
    fn add(x: &[f32], y: &mut [f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += *x;
        }
    }

    /// `grad ← rstd · (grad · (plus + w) − x̂ · mean)` and `grad_w += grad · x̂`, `x̂ = x · rstd`.
    fn backward<E: Element>(
        x: &[E], plus: f32, w: &[f32], rstd: f32, mean: f32, grad: &mut [f32], grad_w: &mut [f32],
    ) {
        for (((x, w), grad), grad_w) in x.iter().zip(w).zip(grad).zip(grad_w) {
            let unit = x.get() * rstd;
            let g = *grad;
            *grad_w = multiply_add::<FMA>(g, unit, *grad_w);
            *grad = rstd * multiply_add::<FMA>(-unit, mean, g * (plus + *w));
        }
    }
}

fn rstd_of<E: Element>(x: &[E], eps: f64) -> f32 {
    let mean = f64::from(squares(x)) / x.len() as f64;
    (1.0 / (mean + eps).sqrt()) as f32
}

/// Turn the gradient of one segment's output in `grad` into that of its input.
fn segment_backward<E: Element>(
    x: &[E],
    plus: f32,
    w: &[f32],
    rstd: f32,
    grad: &mut [f32],
    grad_w: &mut [f32],
) {
    let mean = weighted(grad, plus, w, x) * rstd / x.len() as f32;
    backward(x, plus, w, rstd, mean, grad, grad_w);
}

/// `x = stream`, rounded; `y = norm(stream)`, rounded.
pub(super) fn norm<E: Element>(
    pool: &Pool,
    shape: NormShape,
    eps: f64,
    stream: &[f32],
    w: &[f32],
    x: &mut [E],
    y: &mut [E],
    rstd: &mut [f32],
) {
    use rayon::prelude::*;
    let (width, len) = (shape.width, shape.rows * shape.width);
    pool.run(|| {
        let stream = stream[..len].par_chunks(ROWS * width);
        let x = x[..len].par_chunks_mut(ROWS * width);
        let y = y[..len].par_chunks_mut(ROWS * width);
        let rstd = rstd[..shape.rows].par_chunks_mut(ROWS);
        stream.zip(x).zip(y).zip(rstd).for_each(|(((stream, x), y), rstd)| {
            let mut normed = vec![0.0; width];
            let rows =
                stream.chunks_exact(width).zip(x.chunks_exact_mut(width)).zip(y.chunks_exact_mut(width));
            for (((stream, x), y), rstd) in rows.zip(rstd) {
                round(stream, x);
                *rstd = rstd_of(stream, eps);
                scale(stream, *rstd, shape.plus(), w, &mut normed);
                round(&normed, y);
            }
        });
    });
}

/// `stream += norm(x)`.
pub(super) fn norm_residual<E: Element>(
    pool: &Pool,
    shape: NormShape,
    eps: f64,
    x: &[E],
    w: &[f32],
    stream: &mut [f32],
    rstd: &mut [f32],
) {
    let width = shape.width;
    let (stream, rstd) = (&mut stream[..shape.rows * width], &mut rstd[..shape.rows]);
    pool.chunks2((stream, ROWS * width), (rstd, ROWS), |chunk, stream, rstd| {
        let mut normed = vec![0.0; width];
        for (i, (stream, rstd)) in stream.chunks_exact_mut(width).zip(rstd).enumerate() {
            let x = &x[(chunk * ROWS + i) * width..][..width];
            *rstd = rstd_of(x, eps);
            scale(x, *rstd, shape.plus(), w, &mut normed);
            add(&normed, stream);
        }
    });
}

/// Partial gradients of the weight, one for each block of rows, added up in order.
fn reduce(pool: &Pool, partial: &[f32], width: usize, grad_w: &mut [f32]) {
    pool.chunks(&mut grad_w[..width], 256, |i, grad_w| {
        for block in partial.chunks_exact(width) {
            add(&block[i * 256..][..grad_w.len()], grad_w);
        }
    });
}

/// Backward of [`norm`]: see [`Backend::norm_backward`](crate::runtime::backend::Backend::norm_backward).
pub(super) fn norm_backward<E: Element>(
    pool: &Pool,
    shape: NormShape,
    x: &[E],
    w: &[f32],
    rstd: &[f32],
    grad_y: &[E],
    grad: &mut [f32],
    copy: &mut [E],
    grad_w: &mut [f32],
) {
    let width = shape.width;
    let blocks = shape.rows.div_ceil(ROWS);
    let mut partial = vec![0.0; blocks * width];
    pool.run(|| {
        use rayon::prelude::*;
        let grad = grad[..shape.rows * width].par_chunks_mut(ROWS * width);
        let copy = copy[..shape.rows * width].par_chunks_mut(ROWS * width);
        let partial = partial.par_chunks_exact_mut(width);
        grad.zip(copy).zip(partial).enumerate().for_each(|(block, ((grad, copy), partial))| {
            let mut g = vec![0.0; width];
            for (i, (grad, copy)) in
                grad.chunks_exact_mut(width).zip(copy.chunks_exact_mut(width)).enumerate()
            {
                let row = block * ROWS + i;
                let range = row * width..(row + 1) * width;
                widen(&grad_y[range.clone()], &mut g);
                segment_backward(&x[range], shape.plus(), w, rstd[row], &mut g, partial);
                add(&g, grad);
                round(grad, copy);
            }
        });
    });
    reduce(pool, &partial, width, grad_w);
}

/// Backward of [`norm_residual`].
pub(super) fn norm_residual_backward<E: Element>(
    pool: &Pool,
    shape: NormShape,
    x: &[E],
    w: &[f32],
    rstd: &[f32],
    grad_y: &[f32],
    grad_x: &mut [E],
    grad_w: &mut [f32],
) {
    let width = shape.width;
    let mut partial = vec![0.0; shape.rows.div_ceil(ROWS) * width];
    let grad_x = &mut grad_x[..shape.rows * width];
    pool.chunks2((grad_x, ROWS * width), (&mut partial, width), |block, grad_x, partial| {
        let mut g = vec![0.0; width];
        for (i, grad_x) in grad_x.chunks_exact_mut(width).enumerate() {
            let row = block * ROWS + i;
            let range = row * width..(row + 1) * width;
            g.copy_from_slice(&grad_y[range.clone()]);
            segment_backward(&x[range], shape.plus(), w, rstd[row], &mut g, partial);
            round(&g, grad_x);
        }
    });
    reduce(pool, &partial, width, grad_w);
}

/// The norm of segments: see [`Backend::norm_segments`](crate::runtime::backend::Backend::norm_segments).
pub(super) fn norm_segments<E: Element>(
    pool: &Pool,
    shape: NormShape,
    eps: f64,
    x: &[E],
    w: &[f32],
    y: &mut [E],
    rstd: &mut [f32],
) {
    let NormShape { rows, stride, offset, segments, width, .. } = shape;
    let (y, rstd) = (&mut y[..rows * stride], &mut rstd[..rows * segments]);
    pool.chunks2((y, ROWS * stride), (rstd, ROWS * segments), |block, y, rstd| {
        let mut normed = vec![0.0; width];
        for (i, (y, rstd)) in y.chunks_exact_mut(stride).zip(rstd.chunks_exact_mut(segments)).enumerate() {
            let row = &x[(block * ROWS + i) * stride..][..stride];
            for (s, rstd) in rstd.iter_mut().enumerate() {
                let range = offset + s * width..offset + (s + 1) * width;
                let x = &row[range.clone()];
                *rstd = rstd_of(x, eps);
                scale(x, *rstd, shape.plus(), w, &mut normed);
                round(&normed, &mut y[range]);
            }
        }
    });
}

/// Backward of [`norm_segments`].
pub(super) fn norm_segments_backward<E: Element>(
    pool: &Pool,
    shape: NormShape,
    x: &[E],
    w: &[f32],
    rstd: &[f32],
    grad: &mut [E],
    grad_w: &mut [f32],
) {
    let NormShape { rows, stride, offset, segments, width, .. } = shape;
    let mut partial = vec![0.0; rows.div_ceil(ROWS) * width];
    let grad = &mut grad[..rows * stride];
    pool.chunks2((grad, ROWS * stride), (&mut partial, width), |block, grad, partial| {
        let mut g = vec![0.0; width];
        for (i, grad) in grad.chunks_exact_mut(stride).enumerate() {
            let row = block * ROWS + i;
            for s in 0..segments {
                let range = offset + s * width..offset + (s + 1) * width;
                widen(&grad[range.clone()], &mut g);
                let x = &x[row * stride..][..stride][range.clone()];
                segment_backward(x, shape.plus(), w, rstd[row * segments + s], &mut g, partial);
                round(&g, &mut grad[range]);
            }
        }
    });
    reduce(pool, &partial, width, grad_w);
}
