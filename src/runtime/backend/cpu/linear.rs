//! The three products of a linear layer: by the kernels for AVX-512 or AVX2 where the processor has them,
//! else by the portable f32 product, which other formats reach through f32 copies.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::buffer::Plain;
#[cfg(target_arch = "x86_64")]
use super::element::kernel;
use super::element::{Arithmetic, Element};
use super::pointwise;
use super::pool::Pool;
use super::product::{View, product};
#[cfg(target_arch = "x86_64")]
use super::simd::logits;
#[cfg(target_arch = "x86_64")]
use super::simd::{
    self,
    gemm::{self, Out},
};
use super::softmax::{exponentials, largest};

/// Dimensions of a layer and the tokens that go through it.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Values from one row of y (or of its gradient) to the next, where it is f32 or a gradient; other
    /// outputs are dense.
    pub(super) stride: usize,
}

impl Shape {
    /// With dense outputs.
    pub(super) fn new(rows: usize, inputs: usize, outputs: usize) -> Self {
        Self { rows, inputs, outputs, stride: outputs }
    }

    /// Values that the rows of outputs take, to the end of the last.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn extent(self) -> usize {
        self.rows.saturating_sub(1) * self.stride + self.outputs
    }
}

/// Columns of a row of logits whose exponentials are taken beside one largest.
pub(super) const BLOCK: usize = 256;

/// A block of a row of logits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    /// The largest logit.
    pub(super) largest: f32,
    /// Sum of `e^(logit − largest)`.
    pub(super) sum: f32,
}

// SAFETY: numbers.
unsafe impl Plain for Part {}

/// What the output layer makes of the logits of `rows` tokens.
pub(super) struct Exponentials<'a, E> {
    /// `e^(logit − largest)`, each [`BLOCK`] of columns beside its own largest; rows [`Shape::stride`] apart.
    pub(super) values: &'a mut [E],
    /// `[rows, blocks]`.
    pub(super) parts: &'a mut [Part],
    /// Logits of the targets, `[rows]`; left as it was where there is no target.
    pub(super) of_target: &'a mut [f32],
}

/// Scratch of the products: packed operands, and f32 copies where the portable product needs them.
/// Grown to the largest, then reused.
#[derive(Default)]
pub(super) struct Products {
    /// Which processor's kernels are to run, to test what others do.
    pub(super) like: Like,
    buffers: Mutex<Buffers>,
}

/// A processor to run like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Like {
    /// The one at hand.
    #[default]
    This,
    /// One with AVX-512 and a product of bf16, which is modelled where there is none.
    #[cfg(test)]
    WithBf16,
    /// One with AVX-512, but no product of bf16.
    #[cfg(test)]
    WithoutBf16,
    /// One with AVX2, but no AVX-512.
    #[cfg(test)]
    WithoutAvx512,
    /// One with neither.
    #[cfg(test)]
    Portable,
}

impl Like {
    /// By what its kernels sum over `k` values of the format, if it has any.
    pub(crate) fn arithmetic<E: Element>(self, k: usize) -> Option<Arithmetic> {
        match self {
            Like::This => E::arithmetic(k),
            #[cfg(test)]
            Like::WithBf16 if k.is_multiple_of(2) => f32::arithmetic(k),
            #[cfg(test)]
            Like::WithoutBf16 if size_of::<E>() == 2 => match f32::arithmetic(k) {
                Some(Arithmetic::Own) => Some(Arithmetic::Wide),
                other => other,
            },
            #[cfg(test)]
            Like::WithBf16 | Like::WithoutBf16 => E::arithmetic(k),
            #[cfg(test)]
            Like::WithoutAvx512 => Arithmetic::without_avx512(),
            #[cfg(test)]
            Like::Portable => None,
        }
    }
}

#[derive(Default)]
struct Buffers {
    #[cfg(target_arch = "x86_64")]
    packed: super::simd::Workspace,
    wide: [Vec<f32>; 2],
}

impl Products {
    fn lock(&self) -> MutexGuard<'_, Buffers> {
        // Whatever a panic left there is overwritten before use.
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bytes(&self) -> u64 {
        let buffers = self.lock();
        let wide: u64 = buffers.wide.iter().map(|b| 4 * b.capacity() as u64).sum();
        #[cfg(target_arch = "x86_64")]
        return wide + buffers.packed.bytes();
        #[cfg(not(target_arch = "x86_64"))]
        wide
    }

    /// `y = x · wᵀ`.
    pub(super) fn forward<E: Element>(&self, pool: &Pool, s: Shape, x: &[E], w: &[f32], y: &mut [E]) {
        let mut buffers = self.lock();
        #[cfg(target_arch = "x86_64")]
        if let Some(arithmetic) = self.like.arithmetic::<E>(s.inputs) {
            let packed = &mut buffers.packed;
            return pool.run(|| kernel!(arithmetic, E, gemm::linear(packed, s, x, w, Out::Narrow(y))));
        }
        let [a, b] = &mut buffers.wide;
        let x = widen(pool, x, s.rows * s.inputs, a);
        into_narrow(pool, y, s.rows * s.outputs, b, |y| {
            let (x, w) = (View::rows(x, s.inputs), View::transposed(w, s.inputs));
            product(s.rows, s.outputs, s.inputs, x, w, false, y, s.outputs, true);
        });
    }

    /// `y = x · wᵀ` or `y += x · wᵀ`, kept wide.
    pub(super) fn forward_wide<E: Element>(
        &self,
        pool: &Pool,
        s: Shape,
        x: &[E],
        w: &[f32],
        add: bool,
        y: &mut [f32],
    ) {
        let mut buffers = self.lock();
        #[cfg(target_arch = "x86_64")]
        if let Some(arithmetic) = self.like.arithmetic::<E>(s.inputs) {
            let packed = &mut buffers.packed;
            let out = if add { Out::Add(y) } else { Out::Wide(y) };
            return pool.run(|| kernel!(arithmetic, E, gemm::linear(packed, s, x, w, out)));
        }
        let x = widen(pool, x, s.rows * s.inputs, &mut buffers.wide[0]);
        pool.run(|| {
            let (x, w) = (View::rows(x, s.inputs), View::transposed(w, s.inputs));
            product(s.rows, s.outputs, s.inputs, x, w, add, y, s.stride, true);
        });
    }

    /// Exponentials of the logits `x · wᵀ`.
    pub(super) fn exponentials<E: Element>(
        &self,
        pool: &Pool,
        s: Shape,
        x: &[E],
        w: &[f32],
        targets: &[u32],
        to: Exponentials<'_, E>,
    ) {
        let mut buffers = self.lock();
        #[cfg(target_arch = "x86_64")]
        if let Some(arithmetic) = self.like.arithmetic::<E>(s.inputs) {
            let packed = &mut buffers.packed;
            return pool.run(|| kernel!(arithmetic, E, logits::exponentials(packed, s, x, w, targets, to)));
        }
        let Exponentials { values, parts, of_target } = to;
        let [a, b] = &mut buffers.wide;
        let x = widen(pool, x, s.rows * s.inputs, a);
        let blocks = s.outputs.div_ceil(BLOCK);
        let logits_of = |logits: &mut [f32], stride| {
            pool.run(|| {
                let (x, w) = (View::rows(x, s.inputs), View::transposed(w, s.inputs));
                product(s.rows, s.outputs, s.inputs, x, w, false, logits, stride, true);
            });
        };
        let row = |i: usize, logits: &mut [f32], parts: &mut [Part], of_target: &mut f32| {
            if let Some(logit) = logits.get(targets[i] as usize) {
                *of_target = *logit;
            }
            for (logits, part) in logits.chunks_mut(BLOCK).zip(parts) {
                let largest = largest(logits);
                *part = Part { largest, sum: exponentials(logits, largest) };
            }
        };
        let each = (parts, of_target);
        if let Some(values) = E::as_f32_mut(values) {
            logits_of(values, s.stride);
            pool.chunks3((values, s.stride), (each.0, blocks), (each.1, 1), |i, logits, parts, of_target| {
                row(i, &mut logits[..s.outputs], parts, &mut of_target[0]);
            });
            return;
        }
        room(b, s.rows * s.outputs);
        let logits = &mut b[..s.rows * s.outputs];
        logits_of(logits, s.outputs);
        pool.chunks3(
            (&mut *logits, s.outputs),
            (each.0, blocks),
            (each.1, 1),
            |i, logits, parts, of_target| {
                row(i, logits, parts, &mut of_target[0]);
            },
        );
        let logits = &*logits;
        pool.chunks(values, s.stride, |i, to| {
            for (to, from) in to.iter_mut().zip(&logits[i * s.outputs..][..s.outputs]) {
                *to = E::of(*from);
            }
        });
    }

    /// `grad_x = grad_y · w`.
    pub(super) fn input_grad<E: Element>(
        &self,
        pool: &Pool,
        s: Shape,
        grad_y: &[E],
        w: &[f32],
        grad_x: &mut [E],
    ) {
        let mut buffers = self.lock();
        #[cfg(target_arch = "x86_64")]
        if let Some(arithmetic) = self.like.arithmetic::<E>(s.outputs) {
            let packed = &mut buffers.packed;
            return pool.run(|| {
                kernel!(arithmetic, E, gemm::linear_input_grad(packed, s, grad_y, w, Out::Narrow(grad_x)));
            });
        }
        let [a, b] = &mut buffers.wide;
        let (grad_y, stride) = widen_rows(pool, grad_y, s, a);
        into_narrow(pool, grad_x, s.rows * s.inputs, b, |grad_x| {
            let (g, w) = (View::rows(grad_y, stride), View::rows(w, s.inputs));
            product(s.rows, s.inputs, s.outputs, g, w, false, grad_x, s.inputs, true);
        });
    }

    /// `grad_w = grad_yᵀ · x`, or `+=`.
    pub(super) fn weight_grad<E: Element>(
        &self,
        pool: &Pool,
        s: Shape,
        grad_y: &[E],
        x: &[E],
        accumulate: bool,
        grad_w: &mut [f32],
    ) {
        let mut buffers = self.lock();
        #[cfg(target_arch = "x86_64")]
        // A last token without another beside it is paired with zeros.
        if let Some(arithmetic) = self.like.arithmetic::<E>(s.rows.next_multiple_of(2)) {
            let packed = &mut buffers.packed;
            return pool.run(|| {
                kernel!(arithmetic, E, gemm::linear_weight_grad(packed, s, grad_y, x, accumulate, grad_w));
            });
        }
        let [a, b] = &mut buffers.wide;
        let (grad_y, stride) = widen_rows(pool, grad_y, s, a);
        let x = widen(pool, x, s.rows * s.inputs, b);
        pool.run(|| {
            let (g, x) = (View::transposed(grad_y, stride), View::rows(x, s.inputs));
            product(s.outputs, s.inputs, s.rows, g, x, accumulate, grad_w, s.inputs, true);
        });
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

/// Rows of outputs as f32, dense where they had to be copied to `scratch`; how far apart they are.
fn widen_rows<'a, E: Element>(
    pool: &Pool,
    values: &'a [E],
    s: Shape,
    scratch: &'a mut Vec<f32>,
) -> (&'a [f32], usize) {
    if let Some(values) = E::as_f32(values) {
        return (values, s.stride);
    }
    let len = s.rows * s.outputs;
    room(scratch, len);
    pool.chunks(&mut scratch[..len], s.outputs, |i, row| {
        for (to, from) in row.iter_mut().zip(&values[i * s.stride..]) {
            *to = from.get();
        }
    });
    (&scratch[..len], s.outputs)
}

fn room(scratch: &mut Vec<f32>, len: usize) {
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
}

/// Run a product into `y[..len]`, through scratch where the format is not f32.
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
