//! The three products of a linear layer, for narrow values of any format: f32 goes to the product as
//! it is, other formats through f32 scratch.

use std::sync::{Mutex, PoisonError};

use super::element::Element;
use super::pointwise;
use super::pool::Pool;
use super::product::{View, product};

/// f32 copies of operands whose format the product does not take. Grown to the largest, then reused.
#[derive(Default)]
pub(super) struct Widened {
    buffers: Mutex<[Vec<f32>; 3]>,
}

impl Widened {
    pub(super) fn bytes(&self) -> u64 {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.iter().map(|b| 4 * b.capacity() as u64).sum()
    }
}

/// `values[..len]` as f32, copied to `scratch` where the format is another.
fn widen<'a, E: Element>(pool: &Pool, values: &'a [E], len: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
    match E::as_f32(values) {
        Some(values) => &values[..len],
        None => {
            room(scratch, len);
            pointwise::widen(pool, &values[..len], &mut scratch[..len]);
            &scratch[..len]
        }
    }
}

fn room(scratch: &mut Vec<f32>, len: usize) {
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
}

/// Run a product into `y[..rows · columns]`, through scratch where the format is not f32.
fn into_narrow<E: Element>(
    pool: &Pool,
    y: &mut [E],
    len: usize,
    scratch: &mut Vec<f32>,
    f: impl FnOnce(&mut [f32]) + Send,
) {
    if let Some(y) = E::as_f32_mut(y) {
        return pool.run(|| f(&mut y[..len]));
    }
    room(scratch, len);
    pool.run(|| f(&mut scratch[..len]));
    pointwise::narrow(pool, &scratch[..len], &mut y[..len]);
}

/// `y = x · wᵀ`.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward<E: Element>(
    pool: &Pool,
    wide: &Widened,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[E],
    w: &[f32],
    y: &mut [E],
) {
    let mut buffers = wide.buffers.lock().unwrap_or_else(PoisonError::into_inner);
    let [a, b, _] = &mut *buffers;
    let x = widen(pool, x, rows * inputs, a);
    into_narrow(pool, y, rows * outputs, b, |y| {
        let (x, w) = (View::rows(x, inputs), View::transposed(w, inputs));
        product(rows, outputs, inputs, x, w, false, y, outputs, true);
    });
}

/// `y += x · wᵀ`.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward_add<E: Element>(
    pool: &Pool,
    wide: &Widened,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[E],
    w: &[f32],
    y: &mut [f32],
) {
    let mut buffers = wide.buffers.lock().unwrap_or_else(PoisonError::into_inner);
    let x = widen(pool, x, rows * inputs, &mut buffers[0]);
    pool.run(|| {
        let (x, w) = (View::rows(x, inputs), View::transposed(w, inputs));
        product(rows, outputs, inputs, x, w, true, y, outputs, true);
    });
}

/// `grad_x = grad_y · w`.
#[allow(clippy::too_many_arguments)]
pub(super) fn input_grad<E: Element>(
    pool: &Pool,
    wide: &Widened,
    rows: usize,
    inputs: usize,
    outputs: usize,
    grad_y: &[E],
    w: &[f32],
    grad_x: &mut [E],
) {
    let mut buffers = wide.buffers.lock().unwrap_or_else(PoisonError::into_inner);
    let [a, b, _] = &mut *buffers;
    let grad_y = widen(pool, grad_y, rows * outputs, a);
    into_narrow(pool, grad_x, rows * inputs, b, |grad_x| {
        let (g, w) = (View::rows(grad_y, outputs), View::rows(w, inputs));
        product(rows, inputs, outputs, g, w, false, grad_x, inputs, true);
    });
}

/// `grad_w = grad_yᵀ · x`, or `+=`.
#[allow(clippy::too_many_arguments)]
pub(super) fn weight_grad<E: Element>(
    pool: &Pool,
    wide: &Widened,
    rows: usize,
    inputs: usize,
    outputs: usize,
    grad_y: &[E],
    x: &[E],
    accumulate: bool,
    grad_w: &mut [f32],
) {
    let mut buffers = wide.buffers.lock().unwrap_or_else(PoisonError::into_inner);
    let [a, b, _] = &mut *buffers;
    let grad_y = widen(pool, grad_y, rows * outputs, a);
    let x = widen(pool, x, rows * inputs, b);
    pool.run(|| {
        let (g, x) = (View::transposed(grad_y, outputs), View::rows(x, inputs));
        product(outputs, inputs, rows, g, x, accumulate, grad_w, inputs, true);
    });
}

/// `y = x · wᵀ`, kept wide.
#[allow(clippy::too_many_arguments)]
pub(super) fn forward_wide<E: Element>(
    pool: &Pool,
    wide: &Widened,
    rows: usize,
    inputs: usize,
    outputs: usize,
    x: &[E],
    w: &[f32],
    y: &mut [f32],
) {
    let mut buffers = wide.buffers.lock().unwrap_or_else(PoisonError::into_inner);
    let x = widen(pool, x, rows * inputs, &mut buffers[0]);
    pool.run(|| {
        let (x, w) = (View::rows(x, inputs), View::transposed(w, inputs));
        product(rows, outputs, inputs, x, w, false, y, outputs, true);
    });
}
