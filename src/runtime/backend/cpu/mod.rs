//! The fast path on a CPU: all cores, vector instructions chosen at run time, narrow values in f32 or
//! bf16, sums in f32.
//!
//! Results do not depend on the number of threads: work is cut into tasks by shape alone.

mod adamw;
mod attention;
mod bias;
mod buffer;
mod disjoint;
mod element;
mod exp;
mod linear;
mod loss;
mod muon;
mod norm;
mod pointwise;
mod pool;
mod product;
#[cfg(target_arch = "x86_64")]
mod simd;
mod softmax;
mod vectorise;

use std::marker::PhantomData;
use std::sync::Arc;

use super::{AdamW, AttentionShape, Backend, Gate, Load, LossShape, Momentum, NormShape};
use crate::runtime::engine::EngineError;
use buffer::{Buffer, Pieces, Slab};
use element::Arithmetic;
pub(crate) use element::Element;
#[cfg(target_arch = "x86_64")]
use element::kernel;
#[cfg(test)]
pub(crate) use linear::Like;
use linear::Shape;
use pool::Pool;

/// Whether this processor multiplies bf16 as it is stored.
pub(crate) fn multiplies_bf16() -> bool {
    <half::bf16 as Element>::arithmetic(2) == Some(Arithmetic::Own)
}

/// A pool of threads and its scratch memory; `E` is the format of narrow values.
pub(crate) struct Cpu<E> {
    pool: Pool,
    products: linear::Products,
    narrow: PhantomData<E>,
}

impl<E: Element> Cpu<E> {
    /// So many threads, or one for each core.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub(crate) fn new(threads: Option<usize>) -> Result<Self, EngineError> {
        let (pool, products) = (Pool::new(threads)?, linear::Products::default());
        Ok(Cpu { pool, products, narrow: PhantomData })
    }
}

impl<E: Element> Cpu<E> {
    /// The same with the kernels that another processor runs.
    #[cfg(test)]
    pub(crate) fn like(like: Like, threads: Option<usize>) -> Result<Self, EngineError> {
        let mut cpu = Self::new(threads)?;
        cpu.products.like = like;
        Ok(cpu)
    }
}

impl<E: Element> Backend for Cpu<E> {
    type Wide = Buffer<f32>;
    type Narrow = Buffer<E>;
    type Index = Buffer<u32>;
    type Slab = Arc<Slab>;

    const WIDE_BYTES: usize = 4;
    const NARROW_BYTES: usize = size_of::<E>();

    fn describe(&self) -> String {
        let threads = self.pool.threads();
        let level = match (self.products.like.arithmetic::<E>(2), size_of::<E>()) {
            (Some(Arithmetic::Own), 2) => "avx512bf16".into(),
            _ => format!("{:?}", vectorise::level()).to_lowercase(),
        };
        format!("cpu {} ({level}, {threads} threads)", E::NAME)
    }

    fn wide(&self, len: usize) -> Result<Buffer<f32>, EngineError> {
        Buffer::new(len)
    }

    fn narrow(&self, len: usize) -> Result<Buffer<E>, EngineError> {
        Buffer::new(len)
    }

    fn index(&self, len: usize) -> Result<Buffer<u32>, EngineError> {
        Buffer::new(len)
    }

    fn slab(&self, bytes: usize) -> Result<Arc<Slab>, EngineError> {
        Slab::new(bytes).map(Arc::new)
    }

    unsafe fn wide_over(&self, slab: &Arc<Slab>, at: usize, len: usize) -> Buffer<f32> {
        // SAFETY: by the caller.
        unsafe { Buffer::over(slab, at, len) }
    }

    unsafe fn narrow_over(&self, slab: &Arc<Slab>, at: usize, len: usize) -> Buffer<E> {
        // SAFETY: by the caller.
        unsafe { Buffer::over(slab, at, len) }
    }

    fn write(&self, values: &[f32], to: &mut Buffer<f32>, at: usize) {
        to[at..at + values.len()].copy_from_slice(values);
    }

    fn read(&self, from: &Buffer<f32>, at: usize, values: &mut [f32]) {
        values.copy_from_slice(&from[at..at + values.len()]);
    }

    fn view<'a>(&self, from: &'a Buffer<f32>, at: usize, len: usize) -> Option<&'a [f32]> {
        from.get(at..at + len)
    }

    fn write_index(&self, values: &[u32], to: &mut Buffer<u32>) {
        to[..values.len()].copy_from_slice(values);
    }

    fn zero(&self, len: usize, buffer: &mut Buffer<f32>) {
        self.pool.chunks(&mut buffer[..len], 1 << 16, |_, part| part.fill(0.0));
    }

    fn finish(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn scratch_bytes(&self) -> u64 {
        self.pool.scratch_bytes() + self.products.bytes()
    }

    /// Packed operands of products and the program itself: what resident memory shows beyond the buffers,
    /// within a few MiB.
    fn overhead_bytes(load: Load) -> u64 {
        const PROGRAM: usize = 20 << 20;
        // Of a weight, a part at a time; of what a layer read, for the gradient of its weight, all of it.
        let value = if E::arithmetic(2) == Some(Arithmetic::Own) { size_of::<E>() } else { size_of::<f32>() };
        let packed = (8 << 20).max(load.tokens * load.widest_input * value);
        (PROGRAM + packed) as u64
    }

    /// Packed keys, values and queries.
    fn attention_scratch(shape: AttentionShape, backward: bool) -> usize {
        #[cfg(target_arch = "x86_64")]
        if let Some(arithmetic) = E::arithmetic(shape.head_dim) {
            let bytes = match arithmetic {
                // Tests run like other processors, too.
                Arithmetic::Own if !cfg!(test) => simd::attention::scratch::<E>(&shape, backward),
                _ => simd::attention::scratch::<f32>(&shape, backward),
            };
            return bytes / size_of::<E>();
        }
        let _ = (shape, backward);
        0
    }

    /// Logits of a chunk of the tokens.
    fn loss_scratch(tokens: usize, vocab: usize) -> usize {
        loss::scratch::<E>(tokens, vocab) / size_of::<E>()
    }

    fn narrow_copy(&self, len: usize, from: &Buffer<f32>, to: &mut Buffer<E>) {
        pointwise::narrow(&self.pool, from, &mut to[..len]);
    }

    fn add_narrow(&self, len: usize, from: &Buffer<E>, to: &mut Buffer<f32>, copy: &mut Buffer<E>) {
        pointwise::add_narrow(&self.pool, from, &mut to[..len], &mut copy[..len]);
    }

    fn embed(
        &self,
        tokens: usize,
        width: usize,
        scale: f32,
        table: &Buffer<f32>,
        ids: &Buffer<u32>,
        out: &mut Buffer<f32>,
    ) {
        pointwise::embed(&self.pool, width, scale, table, ids, &mut out[..tokens * width]);
    }

    fn embed_backward(
        &self,
        tokens: usize,
        width: usize,
        scale: f32,
        grad: &Buffer<f32>,
        ids: &Buffer<u32>,
        grad_table: &mut Buffer<f32>,
    ) {
        pointwise::embed_backward(&self.pool, width, scale, grad, &ids[..tokens], grad_table);
    }

    fn linear(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        y: &mut Buffer<E>,
    ) {
        self.products.forward(&self.pool, Shape::new(rows, inputs, outputs), x, w, y);
    }

    fn linear_residual(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        stream: &mut Buffer<f32>,
    ) {
        let shape = Shape::new(rows, inputs, outputs);
        self.products.forward_wide(&self.pool, shape, x, w, true, stream);
    }

    fn linear_input_grad(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        grad_y: &Buffer<E>,
        w: &Buffer<f32>,
        grad_x: &mut Buffer<E>,
    ) {
        let shape = Shape::new(rows, inputs, outputs);
        self.products.input_grad(&self.pool, shape, grad_y, w, grad_x);
    }

    fn linear_weight_grad(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        grad_y: &Buffer<E>,
        x: &Buffer<E>,
        accumulate: bool,
        grad_w: &mut Buffer<f32>,
    ) {
        let shape = Shape::new(rows, inputs, outputs);
        self.products.weight_grad(&self.pool, shape, grad_y, x, accumulate, grad_w);
    }

    fn norm(
        &self,
        shape: NormShape,
        eps: f64,
        stream: &Buffer<f32>,
        w: &Buffer<f32>,
        x: &mut Buffer<E>,
        y: &mut Buffer<E>,
        rstd: &mut Buffer<f32>,
    ) {
        norm::norm(&self.pool, shape, eps, stream, w, x, y, rstd);
    }

    fn norm_backward(
        &self,
        shape: NormShape,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        rstd: &Buffer<f32>,
        grad_y: &Buffer<E>,
        grad: &mut Buffer<f32>,
        copy: &mut Buffer<E>,
        grad_w: &mut Buffer<f32>,
    ) {
        norm::norm_backward(&self.pool, shape, x, w, rstd, grad_y, grad, copy, grad_w);
    }

    fn norm_residual(
        &self,
        shape: NormShape,
        eps: f64,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        stream: &mut Buffer<f32>,
        rstd: &mut Buffer<f32>,
    ) {
        norm::norm_residual(&self.pool, shape, eps, x, w, stream, rstd);
    }

    fn norm_residual_backward(
        &self,
        shape: NormShape,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        rstd: &Buffer<f32>,
        grad_y: &Buffer<f32>,
        grad_x: &mut Buffer<E>,
        grad_w: &mut Buffer<f32>,
    ) {
        norm::norm_residual_backward(&self.pool, shape, x, w, rstd, grad_y, grad_x, grad_w);
    }

    fn norm_segments(
        &self,
        shape: NormShape,
        eps: f64,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        y: &mut Buffer<E>,
        rstd: &mut Buffer<f32>,
    ) {
        norm::norm_segments(&self.pool, shape, eps, x, w, y, rstd);
    }

    fn norm_segments_backward(
        &self,
        shape: NormShape,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        rstd: &Buffer<f32>,
        grad: &mut Buffer<E>,
        grad_w: &mut Buffer<f32>,
    ) {
        norm::norm_segments_backward(&self.pool, shape, x, w, rstd, grad, grad_w);
    }

    fn add_bias(&self, rows: usize, width: usize, bias: &Buffer<f32>, x: &mut Buffer<E>) {
        bias::add(&self.pool, &bias[..width], &mut x[..rows * width]);
    }

    fn bias_grad(&self, rows: usize, width: usize, grad: &Buffer<E>, grad_bias: &mut Buffer<f32>) {
        bias::gradient(&self.pool, &grad[..rows * width], &mut grad_bias[..width]);
    }

    fn copy_columns(
        &self,
        rows: usize,
        stride: usize,
        offset: usize,
        width: usize,
        from: &Buffer<E>,
        to: &mut Buffer<E>,
    ) {
        pointwise::copy_columns(&self.pool, stride, offset, width, from, &mut to[..rows * stride]);
    }

    fn rope(
        &self,
        shape: AttentionShape,
        positions: &Buffer<u32>,
        cos: &Buffer<f32>,
        sin: &Buffer<f32>,
        backward: bool,
        qkv: &mut Buffer<E>,
    ) {
        pointwise::rope(&self.pool, shape, positions, cos, sin, backward, qkv);
    }

    fn attention(
        &self,
        shape: AttentionShape,
        qkv: &Buffer<E>,
        attend_from: &Buffer<u32>,
        out: &mut Buffer<E>,
        log_sum: &mut Buffer<f32>,
        scratch: &mut Buffer<E>,
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(arithmetic) = self.products.like.arithmetic::<E>(shape.head_dim) {
            let work = Pieces::of(scratch);
            return self.pool.run(|| {
                kernel!(
                    arithmetic,
                    E,
                    simd::attention::forward(work, &shape, qkv, attend_from, out, log_sum)
                );
            });
        }
        let _ = scratch;
        attention::forward(&self.pool, shape, qkv, attend_from, out, log_sum);
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: &Buffer<E>,
        out: &Buffer<E>,
        log_sum: &Buffer<f32>,
        attend_from: &Buffer<u32>,
        grad_out: &Buffer<E>,
        grad_qkv: &mut Buffer<E>,
        scratch: &mut Buffer<E>,
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(arithmetic) = self.products.like.arithmetic::<E>(shape.head_dim) {
            let work = Pieces::of(scratch);
            return self.pool.run(|| {
                kernel!(
                    arithmetic,
                    E,
                    simd::attention::backward(
                        work,
                        &shape,
                        qkv,
                        out,
                        log_sum,
                        attend_from,
                        grad_out,
                        grad_qkv
                    )
                );
            });
        }
        let _ = scratch;
        attention::backward(&self.pool, shape, qkv, out, log_sum, attend_from, grad_out, grad_qkv);
    }

    fn glu(&self, gate: Gate, rows: usize, width: usize, gate_up: &Buffer<E>, y: &mut Buffer<E>) {
        pointwise::glu(&self.pool, gate, width, gate_up, &mut y[..rows * width]);
    }

    fn glu_backward(
        &self,
        gate: Gate,
        rows: usize,
        width: usize,
        grad_y: &Buffer<E>,
        gate_up: &mut Buffer<E>,
        y: &mut Buffer<E>,
    ) {
        let (gate_up, y) = (&mut gate_up[..rows * 2 * width], &mut y[..rows * width]);
        pointwise::glu_backward(&self.pool, gate, width, grad_y, gate_up, y);
    }

    fn loss(
        &self,
        shape: LossShape,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        targets: &Buffer<u32>,
        nll: &mut Buffer<f32>,
        scratch: &mut Buffer<E>,
    ) {
        loss::loss(&self.pool, &self.products, Pieces::of(scratch), shape, x, w, targets, nll, None);
    }

    fn loss_backward(
        &self,
        shape: LossShape,
        x: &Buffer<E>,
        w: &Buffer<f32>,
        targets: &Buffer<u32>,
        nll: &mut Buffer<f32>,
        grad_x: &mut Buffer<E>,
        accumulate: bool,
        grad_w: &mut Buffer<f32>,
        scratch: &mut Buffer<E>,
    ) {
        let (scratch, gradients) =
            (Pieces::of(scratch), loss::Gradients { x: grad_x, w: grad_w, accumulate });
        loss::loss(&self.pool, &self.products, scratch, shape, x, w, targets, nll, Some(gradients));
    }

    fn squared_norm(&self, len: usize, buffer: &Buffer<f32>) -> f64 {
        adamw::squared_norm(&self.pool, &buffer[..len])
    }

    fn adamw(
        &self,
        len: usize,
        constants: AdamW,
        grad: &Buffer<f32>,
        weight: &mut Buffer<f32>,
        first: &mut Buffer<f32>,
        second: &mut Buffer<f32>,
    ) {
        let (weight, first) = (&mut weight[..len], &mut first[..len]);
        adamw::update(&self.pool, constants, &grad[..len], weight, first, &mut second[..len]);
    }

    fn momentum(
        &self,
        at: usize,
        len: usize,
        constants: Momentum,
        grad: &Buffer<f32>,
        momentum: &mut Buffer<f32>,
        direction: &mut Buffer<f32>,
    ) {
        let (grad, momentum) = (&grad[at..at + len], &mut momentum[at..at + len]);
        muon::momentum(&self.pool, constants, grad, momentum, &mut direction[..len]);
    }

    fn combine(
        &self,
        len: usize,
        scale: f64,
        x: &mut Buffer<f32>,
        plus: Option<(f64, &Buffer<f32>)>,
        copy: &mut Buffer<E>,
    ) {
        muon::combine(&self.pool, scale, &mut x[..len], plus.map(|(f, y)| (f, &y[..len])), &mut copy[..len]);
    }

    fn transpose(&self, rows: usize, columns: usize, from: &Buffer<E>, to: &mut Buffer<E>) {
        let len = rows * columns;
        muon::transpose(&self.pool, columns, &from[..len], &mut to[..len]);
    }

    fn descend(
        &self,
        at: usize,
        len: usize,
        keep: f64,
        step: f64,
        direction: &Buffer<f32>,
        weight: &mut Buffer<f32>,
    ) {
        muon::descend(&self.pool, keep, step, &direction[..len], &mut weight[at..at + len]);
    }
}
