//! The operations of a training step on one GPU: bf16 products with f32 sums, f32 weights and stream.
//!
//! Every operation is a few launches on one stream. No kernel uses atomics and no launch depends on
//! anything but shapes, so equal inputs give equal bits.

use std::cell::RefCell;
use std::sync::Arc;

use super::device::{Argument, Device, DeviceFailure, Launch};
use super::memory::{Index, Memory, Narrow, Scratch, Wide, bytes, bytes_mut};
use super::norm::NORM_SHARES;
use super::product::{self, Order, Output, Product, Rotation};
use super::{attention, loss};
use crate::runtime::backend::{AdamW, AttentionShape, Backend, Gate, Load, LossShape, Momentum, NormShape};
use crate::runtime::engine::EngineError;
use Argument::{Float, Int, Long, Pointer};

/// Shares of a sum of squares; as in `reduce.cu`.
const SHARES: usize = 512;
/// Buffers whose shares are summed by one launch.
const ARRAYS: usize = 16;
/// Bytes of the shares of so many, and of their sum.
const NORM_SUMS_BYTES: usize = (ARRAYS * SHARES + 1) * 8;

/// One GPU.
#[derive(Debug)]
pub struct Cuda {
    pub(super) device: Arc<dyn Device>,
    failure: RefCell<Option<DeviceFailure>>,
    pub(super) scratch: RefCell<ScratchSpace>,
}

#[derive(Debug, Default)]
pub(super) struct ScratchSpace {
    /// Δ of the attention backward pass.
    pub(super) delta: Scratch,
    /// Shares of sums.
    pub(super) shares: Scratch,
}

/// Bytes of both, for training on a load.
fn scratch_of(load: Load) -> [usize; 2] {
    let Load { tokens, positions, heads, head_dim, widest_norm, .. } = load;
    let norms = (NORM_SHARES.min(tokens) * widest_norm).max(NORM_SHARES * head_dim);
    let delta = attention::scratch(tokens.div_ceil(positions.max(1)), positions, heads, head_dim);
    [delta, (norms * 4).max(NORM_SUMS_BYTES)]
}

impl Cuda {
    /// On a device.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Cuda { device, failure: RefCell::new(None), scratch: RefCell::default() }
    }

    fn error(&self, failure: DeviceFailure) -> EngineError {
        EngineError::Device {
            device: self.device.describe(),
            reason: format!("{}: {}", failure.what, failure.reason),
        }
    }

    /// Do something unless something failed before; remember the first failure.
    fn attempt<T: Default>(&self, work: impl FnOnce() -> Result<T, DeviceFailure>) -> T {
        if self.failure.borrow().is_some() {
            return T::default();
        }
        work().unwrap_or_else(|failure| {
            *self.failure.borrow_mut() = Some(failure);
            T::default()
        })
    }

    pub(super) fn launch(
        &self,
        kernel: &'static str,
        grid: [usize; 3],
        threads: u32,
        shared: usize,
        arguments: &mut [Argument],
    ) -> Result<(), DeviceFailure> {
        if grid.contains(&0) {
            return Ok(());
        }
        let refuse = |reason: String| Err(DeviceFailure { what: format!("launching `{kernel}`"), reason });
        if shared > self.device.shared_limit() {
            return refuse(format!(
                "it needs {shared} bytes of shared memory, a block can have {}",
                self.device.shared_limit()
            ));
        }
        if grid[0] > i32::MAX as usize || grid[1] > 65_535 || grid[2] > 65_535 {
            return refuse(format!("a grid of {grid:?} blocks is too large"));
        }
        let launch = Launch { kernel, grid: grid.map(|g| g as u32), threads, shared };
        self.device.launch(launch, arguments)
    }

    /// One thread for each of `items`.
    pub(super) fn each(
        &self,
        kernel: &'static str,
        items: usize,
        arguments: &mut [Argument],
    ) -> Result<(), DeviceFailure> {
        self.launch(kernel, [items.div_ceil(256), 1, 1], 256, 0, arguments)
    }

    /// The bf16 copy of a weight.
    pub(super) fn operand(&self, weight: &Wide) -> Result<u64, DeviceFailure> {
        weight.narrow(&self.device, |from, to, len| {
            self.each("narrow_copy", len.div_ceil(8), &mut [Pointer(from), Pointer(to), Long(len as i64)])
        })
    }

    pub(super) fn product(&self, product: Product) -> Result<(), DeviceFailure> {
        product.run(&*self.device)
    }
}

impl Backend for Cuda {
    type Wide = Wide;
    type Narrow = Narrow;
    type Index = Index;
    type Slab = Arc<Memory>;
    const WIDE_BYTES: usize = 4;
    const PEAK_SIDES: &'static [usize] = &[4096, 8192];
    // A device is filled by more tokens than a processor, and has the memory.
    const ACTIVATIONS_AT_ONCE: u64 = u64::MAX;
    const TOKENS_AT_ONCE: usize = 16_384;
    const KEEPS_INPUTS: bool = true;
    const NARROW_BYTES: usize = 2;

    fn describe(&self) -> String {
        format!("cuda bf16 ({})", self.device.describe())
    }

    fn wide(&self, len: usize) -> Result<Wide, EngineError> {
        Memory::zeroed(&self.device, len * 4).map(Wide::new).map_err(|f| self.error(f))
    }

    fn narrow(&self, len: usize) -> Result<Narrow, EngineError> {
        Memory::zeroed(&self.device, len * 2).map(Narrow).map_err(|f| self.error(f))
    }

    fn index(&self, len: usize) -> Result<Index, EngineError> {
        Memory::zeroed(&self.device, len * 4).map(Index).map_err(|f| self.error(f))
    }

    fn slab(&self, bytes: usize) -> Result<Arc<Memory>, EngineError> {
        Memory::zeroed(&self.device, bytes).map(Arc::new).map_err(|f| self.error(f))
    }

    unsafe fn wide_over(&self, slab: &Arc<Memory>, at: usize, len: usize) -> Wide {
        Wide::new(Memory::within(slab, at, len * 4))
    }

    unsafe fn narrow_over(&self, slab: &Arc<Memory>, at: usize, len: usize) -> Narrow {
        Narrow(Memory::within(slab, at, len * 2))
    }

    fn write(&self, values: &[f32], to: &mut Wide, at: usize) {
        self.attempt(|| self.device.upload(to.change() + (at * 4) as u64, bytes(values)));
    }

    fn read(&self, from: &Wide, at: usize, values: &mut [f32]) {
        self.attempt(|| self.device.download(from.at() + (at * 4) as u64, bytes_mut(values)));
    }

    fn write_index(&self, values: &[u32], to: &mut Index) {
        self.attempt(|| self.device.upload(to.0.at(), bytes(values)));
    }

    fn zero(&self, len: usize, buffer: &mut Wide) {
        self.attempt(|| self.device.clear(buffer.change(), len * 4));
    }

    fn finish(&self) -> Result<(), EngineError> {
        self.attempt(|| self.device.wait());
        match self.failure.borrow_mut().take() {
            Some(failure) => Err(self.error(failure)),
            None => Ok(()),
        }
    }

    fn scratch_bytes(&self) -> u64 {
        let scratch = self.scratch.borrow();
        scratch.delta.bytes() + scratch.shares.bytes()
    }

    fn keep_operand(&self, weight: &Wide) -> Result<(), EngineError> {
        weight.reserve_copy(&self.device).map_err(|f| self.error(f))
    }

    fn keep_scratch(&self, load: Option<Load>) -> Result<(), EngineError> {
        let mut scratch = self.scratch.borrow_mut();
        let Some(load) = load else {
            *scratch = ScratchSpace::default();
            return Ok(());
        };
        let [delta, shares] = scratch_of(load);
        scratch.delta.at_least(&self.device, delta).map_err(|f| self.error(f))?;
        scratch.shares.at_least(&self.device, shares).map_err(|f| self.error(f))?;
        Ok(())
    }

    fn has_scratch(&self, load: Load) -> bool {
        let ([delta, shares], scratch) = (scratch_of(load), self.scratch.borrow());
        scratch.delta.bytes() >= delta as u64 && scratch.shares.bytes() >= shares as u64
    }

    fn overhead_bytes(load: Load) -> u64 {
        let Load { operands, tokens, positions, tables, indices, head_dim, .. } = load;
        let [delta, shares] = scratch_of(load);
        let inputs = 4 * indices * tokens + tables * 2 * 4 * positions * head_dim / 2;
        // Every piece of the arena ends at a multiple of 256 bytes.
        let rounding = 1 << 20;
        (2 * operands + delta + shares + inputs + rounding) as u64
    }

    fn loss_scratch(tokens: usize, vocab: usize) -> usize {
        loss::scratch(vocab, tokens).div_ceil(2)
    }

    fn narrow_copy(&self, len: usize, from: &Wide, to: &mut Narrow) {
        self.attempt(|| {
            let mut arguments = [Pointer(from.at()), Pointer(to.0.at()), Long(len as i64)];
            self.each("narrow_copy", len.div_ceil(8), &mut arguments)
        });
    }

    fn add_narrow(&self, len: usize, from: &Narrow, to: &mut Wide, copy: &mut Narrow) {
        let mut arguments =
            [Pointer(from.0.at()), Pointer(to.change()), Pointer(copy.0.at()), Long(len as i64)];
        self.attempt(|| self.each("add_narrow", len.div_ceil(8), &mut arguments));
    }

    fn embed(&self, tokens: usize, width: usize, scale: f32, table: &Wide, ids: &Index, out: &mut Wide) {
        self.attempt(|| {
            whole_quads(width)?;
            let mut arguments = [
                Pointer(table.at()),
                Pointer(ids.0.at()),
                Pointer(out.change()),
                Int(width as i32),
                Float(scale),
            ];
            self.launch("embedding_forward", [tokens, 1, 1], 128, 0, &mut arguments)
        });
    }

    fn embed_backward(
        &self,
        tokens: usize,
        width: usize,
        scale: f32,
        grad: &Wide,
        ids: &Index,
        grad_table: &mut Wide,
    ) {
        self.attempt(|| {
            whole_quads(width)?;
            let mut arguments = [
                Pointer(grad.at()),
                Pointer(ids.0.at()),
                Pointer(grad_table.change()),
                Int(tokens as i32),
                Int(width as i32),
                Float(scale),
            ];
            self.launch("embedding_backward", [tokens, width.div_ceil(512), 1], 128, 0, &mut arguments)
        });
    }

    fn linear(&self, rows: usize, inputs: usize, outputs: usize, x: &Narrow, w: &Wide, y: &mut Narrow) {
        self.attempt(|| {
            self.product(Product {
                order: Order::Nt,
                a: x.0.at(),
                lda: inputs,
                b: self.operand(w)?,
                ldb: inputs,
                c: y.0.at(),
                ldc: outputs,
                m: rows,
                n: outputs,
                k: inputs,
                output: Output::Bf16,
            })
        });
    }

    fn linear_residual(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        x: &Narrow,
        w: &Wide,
        stream: &mut Wide,
    ) {
        self.attempt(|| {
            let c = stream.change();
            self.product(Product {
                order: Order::Nt,
                a: x.0.at(),
                lda: inputs,
                b: self.operand(w)?,
                ldb: inputs,
                c,
                ldc: outputs,
                m: rows,
                n: outputs,
                k: inputs,
                output: Output::F32 { add: c },
            })
        });
    }

    fn linear_rope(
        &self,
        shape: AttentionShape,
        inputs: usize,
        x: &Narrow,
        w: &Wide,
        positions: &Index,
        cos: &Wide,
        sin: &Wide,
        qkv: &mut Narrow,
    ) {
        if !product::rotates(&*self.device, shape.head_dim) {
            self.linear(shape.tokens(), inputs, shape.qkv_width(), x, w, qkv);
            return self.rope(shape, positions, cos, sin, false, qkv);
        }
        let rotation =
            Rotation { positions: positions.0.at(), cos: cos.at(), sin: sin.at(), head_dim: shape.head_dim };
        self.attempt(|| {
            self.product(Product {
                order: Order::Nt,
                a: x.0.at(),
                lda: inputs,
                b: self.operand(w)?,
                ldb: inputs,
                c: qkv.0.at(),
                ldc: shape.qkv_width(),
                m: shape.tokens(),
                n: shape.qkv_width(),
                k: inputs,
                output: Output::Rotated { rotation, turned: (shape.heads + shape.kv_heads) * shape.head_dim },
            })
        });
    }

    fn linear_glu(
        &self,
        gate: Gate,
        rows: usize,
        inputs: usize,
        width: usize,
        x: &Narrow,
        w: &Wide,
        gate_up: &mut Narrow,
        y: &mut Narrow,
    ) {
        if gate != Gate::Silu {
            self.linear(rows, inputs, 2 * width, x, w, gate_up);
            return self.glu(gate, rows, width, gate_up, y);
        }
        self.attempt(|| {
            whole_chunks(width)?;
            self.product(Product {
                order: Order::Nt,
                a: x.0.at(),
                lda: inputs,
                b: self.operand(w)?,
                ldb: inputs,
                c: gate_up.0.at(),
                ldc: 2 * width,
                m: rows,
                n: width,
                k: inputs,
                output: Output::Gated { activated: y.0.at() },
            })
        });
    }

    fn linear_input_grad(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        grad_y: &Narrow,
        w: &Wide,
        grad_x: &mut Narrow,
    ) {
        self.attempt(|| {
            self.product(Product {
                order: Order::Nn,
                a: grad_y.0.at(),
                lda: outputs,
                b: self.operand(w)?,
                ldb: inputs,
                c: grad_x.0.at(),
                ldc: inputs,
                m: rows,
                n: inputs,
                k: outputs,
                output: Output::Bf16,
            })
        });
    }

    fn linear_weight_grad(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        grad_y: &Narrow,
        x: &Narrow,
        accumulate: bool,
        grad_w: &mut Wide,
    ) {
        self.attempt(|| {
            let c = grad_w.change();
            self.product(Product {
                order: Order::Tn,
                a: grad_y.0.at(),
                lda: outputs,
                b: x.0.at(),
                ldb: inputs,
                c,
                ldc: inputs,
                m: outputs,
                n: inputs,
                k: rows,
                output: Output::F32 { add: if accumulate { c } else { 0 } },
            })
        });
    }

    fn norm(
        &self,
        shape: NormShape,
        eps: f64,
        stream: &Wide,
        w: &Wide,
        x: &mut Narrow,
        y: &mut Narrow,
        rstd: &mut Wide,
    ) {
        let front = [
            Pointer(stream.at()),
            Pointer(w.at()),
            Pointer(x.0.at()),
            Pointer(y.0.at()),
            Pointer(rstd.change()),
        ];
        self.attempt(|| self.norm_forward("rmsnorm_forward", shape, eps, &front));
    }

    fn norm_backward(
        &self,
        shape: NormShape,
        x: &Narrow,
        w: &Wide,
        rstd: &Wide,
        grad_y: &Narrow,
        grad: &mut Wide,
        copy: &mut Narrow,
        grad_w: &mut Wide,
    ) {
        let front = [
            Pointer(x.0.at()),
            Pointer(w.at()),
            Pointer(rstd.at()),
            Pointer(grad_y.0.at()),
            Pointer(grad.change()),
            Pointer(copy.0.at()),
        ];
        self.attempt(|| self.norm_backward_pass("rmsnorm_backward", shape, &front, grad_w));
    }

    fn norm_residual(
        &self,
        shape: NormShape,
        eps: f64,
        x: &Narrow,
        w: &Wide,
        stream: &mut Wide,
        rstd: &mut Wide,
    ) {
        let front = [Pointer(x.0.at()), Pointer(w.at()), Pointer(stream.change()), Pointer(rstd.change())];
        self.attempt(|| self.norm_forward("rmsnorm_residual_forward", shape, eps, &front));
    }

    fn norm_residual_backward(
        &self,
        shape: NormShape,
        x: &Narrow,
        w: &Wide,
        rstd: &Wide,
        grad_y: &Wide,
        grad_x: &mut Narrow,
        grad_w: &mut Wide,
    ) {
        let front = [
            Pointer(x.0.at()),
            Pointer(w.at()),
            Pointer(rstd.at()),
            Pointer(grad_y.at()),
            Pointer(grad_x.0.at()),
        ];
        self.attempt(|| self.norm_backward_pass("rmsnorm_residual_backward", shape, &front, grad_w));
    }

    fn norm_segments(
        &self,
        shape: NormShape,
        eps: f64,
        x: &Narrow,
        w: &Wide,
        y: &mut Narrow,
        rstd: &mut Wide,
    ) {
        let front = [Pointer(x.0.at()), Pointer(w.at()), Pointer(y.0.at()), Pointer(rstd.change())];
        self.attempt(|| self.norm_forward("rmsnorm_segments_forward", shape, eps, &front));
    }

    fn norm_segments_backward(
        &self,
        shape: NormShape,
        x: &Narrow,
        w: &Wide,
        rstd: &Wide,
        grad: &mut Narrow,
        grad_w: &mut Wide,
    ) {
        let front = [Pointer(x.0.at()), Pointer(w.at()), Pointer(rstd.at()), Pointer(grad.0.at())];
        self.attempt(|| self.norm_backward_pass("rmsnorm_segments_backward", shape, &front, grad_w));
    }

    fn add_bias(&self, rows: usize, width: usize, bias: &Wide, x: &mut Narrow) {
        let mut arguments = [Pointer(bias.at()), Pointer(x.0.at()), Long(rows as i64), Int(width as i32)];
        self.attempt(|| self.each("bias_add", (rows * width).div_ceil(8), &mut arguments));
    }

    fn bias_grad(&self, rows: usize, width: usize, grad: &Narrow, grad_bias: &mut Wide) {
        self.attempt(|| self.bias_gradient(rows, width, grad, grad_bias));
    }

    fn copy_columns(
        &self,
        rows: usize,
        stride: usize,
        offset: usize,
        width: usize,
        from: &Narrow,
        to: &mut Narrow,
    ) {
        let mut arguments = [
            Pointer(from.0.at()),
            Pointer(to.0.at()),
            Long(rows as i64),
            Int(stride as i32),
            Int(offset as i32),
            Int(width as i32),
        ];
        self.attempt(|| self.each("copy_columns", (rows * width).div_ceil(16), &mut arguments));
    }

    fn rope(
        &self,
        shape: AttentionShape,
        positions: &Index,
        cos: &Wide,
        sin: &Wide,
        backward: bool,
        qkv: &mut Narrow,
    ) {
        self.attempt(|| {
            if !shape.head_dim.is_multiple_of(4) {
                return Err(DeviceFailure {
                    what: format!("RoPE over heads of {} values", shape.head_dim),
                    reason: "the kernel needs a multiple of 4".into(),
                });
            }
            let mut arguments = [
                Pointer(qkv.0.at()),
                Pointer(positions.0.at()),
                Pointer(cos.at()),
                Pointer(sin.at()),
                Long(shape.tokens() as i64),
                Int(shape.qkv_width() as i32),
                Int((shape.heads + shape.kv_heads) as i32),
                Int(shape.head_dim as i32),
                Float(if backward { -1.0 } else { 1.0 }),
            ];
            let chunks = shape.head_dim.div_ceil(16);
            let items = shape.tokens() * (shape.heads + shape.kv_heads) * chunks;
            self.launch("rope", [items.div_ceil(512), 1, 1], 256, 0, &mut arguments)
        });
    }

    fn attention(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        attend_from: &Index,
        out: &mut Narrow,
        log_sum: &mut Wide,
        _scratch: &mut Narrow,
    ) {
        self.attempt(|| self.attend(shape, qkv, attend_from, out, log_sum));
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        out: &Narrow,
        log_sum: &Wide,
        attend_from: &Index,
        grad_out: &Narrow,
        grad_qkv: &mut Narrow,
        _scratch: &mut Narrow,
    ) {
        self.attempt(|| {
            self.attend_backward(shape, qkv, out, log_sum, attend_from, grad_out, [0; 3], grad_qkv)
        });
    }

    fn attention_rope_backward(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        out: &Narrow,
        log_sum: &Wide,
        attend_from: &Index,
        grad_out: &Narrow,
        positions: &Index,
        cos: &Wide,
        sin: &Wide,
        grad_qkv: &mut Narrow,
        scratch: &mut Narrow,
    ) {
        if !self.hopper(shape) {
            self.attention_backward(shape, qkv, out, log_sum, attend_from, grad_out, grad_qkv, scratch);
            return self.rope(shape, positions, cos, sin, true, grad_qkv);
        }
        let rope = [positions.0.at(), cos.at(), sin.at()];
        self.attempt(|| {
            self.attend_backward(shape, qkv, out, log_sum, attend_from, grad_out, rope, grad_qkv)
        });
    }

    fn glu(&self, gate: Gate, rows: usize, width: usize, gate_up: &Narrow, y: &mut Narrow) {
        let kernel = match gate {
            Gate::Silu => "swiglu_forward",
            Gate::GeluTanh => "geglu_forward",
        };
        self.attempt(|| {
            whole_chunks(width)?;
            let mut arguments =
                [Pointer(gate_up.0.at()), Pointer(y.0.at()), Long(rows as i64), Int(width as i32)];
            self.each(kernel, rows * width / 8, &mut arguments)
        });
    }

    fn glu_backward(
        &self,
        gate: Gate,
        rows: usize,
        width: usize,
        grad_y: &Narrow,
        gate_up: &mut Narrow,
        y: &mut Narrow,
    ) {
        let kernel = match gate {
            Gate::Silu => "swiglu_backward",
            Gate::GeluTanh => "geglu_backward",
        };
        self.attempt(|| {
            whole_chunks(width)?;
            let mut arguments = [
                Pointer(grad_y.0.at()),
                Pointer(gate_up.0.at()),
                Pointer(y.0.at()),
                Long(rows as i64),
                Int(width as i32),
            ];
            self.each(kernel, rows * width / 8, &mut arguments)
        });
    }

    fn loss(
        &self,
        shape: LossShape,
        x: &Narrow,
        w: &Wide,
        targets: &Index,
        nll: &mut Wide,
        scratch: &mut Narrow,
    ) {
        self.attempt(|| self.nll(shape, x, w, targets, nll, scratch));
    }

    fn loss_backward(
        &self,
        shape: LossShape,
        x: &Narrow,
        w: &Wide,
        targets: &Index,
        nll: &mut Wide,
        grad_x: &mut Narrow,
        accumulate: bool,
        grad_w: &mut Wide,
        scratch: &mut Narrow,
    ) {
        self.attempt(|| self.nll_backward(shape, x, w, targets, nll, grad_x, accumulate, grad_w, scratch));
    }

    fn begin(&self) {
        self.attempt(|| self.device.begin());
    }

    fn end(&self) {
        // Also after a failure: nothing may stay behind for the next step.
        let ended = self.device.end();
        self.attempt(|| ended);
    }

    fn squared_norm(&self, len: usize, buffer: &Wide) -> f64 {
        self.squared_norms([(len, buffer)].into_iter())
    }

    /// The sum stays on the device until the last buffer is in it.
    fn squared_norms<'a>(&self, buffers: impl Iterator<Item = (usize, &'a Wide)>) -> f64 {
        self.attempt(|| {
            let shares = self.scratch.borrow_mut().shares.at_least(&self.device, NORM_SUMS_BYTES)?;
            let total = shares + (ARRAYS * SHARES * 8) as u64;
            let add = |arrays: usize, accumulate: bool| {
                let mut arguments =
                    [Pointer(shares), Pointer(total), Int(arrays as i32), Int(i32::from(accumulate))];
                self.launch("squared_norm_total", [1, 1, 1], SHARES as u32, 0, &mut arguments)
            };
            let mut waiting = 0;
            let mut any = false;
            for (len, buffer) in buffers {
                if waiting == ARRAYS {
                    add(waiting, any)?;
                    (waiting, any) = (0, true);
                }
                let to = shares + (waiting * SHARES * 8) as u64;
                let mut arguments = [Pointer(buffer.at()), Pointer(to), Long(len as i64)];
                self.launch("squared_norm_partial", [SHARES, 1, 1], 256, 0, &mut arguments)?;
                waiting += 1;
            }
            add(waiting, any)?;
            let mut bytes = [0u8; 8];
            self.device.download(total, &mut bytes)?;
            Ok(f64::from_ne_bytes(bytes))
        })
    }

    fn adamw(
        &self,
        len: usize,
        constants: AdamW,
        grad: &Wide,
        weight: &mut Wide,
        first: &mut Wide,
        second: &mut Wide,
    ) {
        self.attempt(|| {
            let whole = len == weight.len();
            let at = weight.change();
            // The copy follows the weights when all of them change.
            let copy = if whole { weight.copy_to_update().unwrap_or(0) } else { 0 };
            let [beta1, beta2] = constants.betas;
            let [correction1, correction2] = constants.corrections;
            let mut arguments = [
                Pointer(grad.at()),
                Pointer(at),
                Pointer(first.change()),
                Pointer(second.change()),
                Pointer(copy),
                Pointer(0),
                Long(len as i64),
                Float(constants.lr as f32),
                Float(beta1 as f32),
                Float(beta2 as f32),
                Float(constants.eps as f32),
                Float(constants.weight_decay as f32),
                Float((1.0 / correction1) as f32),
                Float((1.0 / correction2) as f32),
                Float(constants.gradient_scale as f32),
            ];
            self.each("adamw_f32", len, &mut arguments)
        });
    }

    fn momentum(
        &self,
        at: usize,
        len: usize,
        constants: Momentum,
        grad: &Wide,
        momentum: &mut Wide,
        direction: &mut Wide,
    ) {
        let Momentum { momentum: keep, nesterov, gradient_scale } = constants;
        let offset = (at * 4) as u64;
        let mut arguments = [
            Pointer(grad.at() + offset),
            Pointer(momentum.change() + offset),
            Pointer(direction.change()),
            Long(len as i64),
            Float(keep as f32),
            Float((1.0 - keep) as f32),
            Float(if nesterov { keep as f32 } else { 1.0 }),
            Float(gradient_scale as f32),
        ];
        self.attempt(|| self.each("muon_momentum", len.div_ceil(8), &mut arguments));
    }

    fn combine(&self, len: usize, scale: f64, x: &mut Wide, plus: Option<(f64, &Wide)>, copy: &mut Narrow) {
        let (factor, y) = plus.map_or((0.0, 0), |(factor, y)| (factor, y.at()));
        let mut arguments = [
            Pointer(x.change()),
            Pointer(y),
            Pointer(copy.0.at()),
            Long(len as i64),
            Float(scale as f32),
            Float(factor as f32),
        ];
        self.attempt(|| self.each("combine", len.div_ceil(8), &mut arguments));
    }

    fn transpose(&self, rows: usize, columns: usize, from: &Narrow, to: &mut Narrow) {
        let grid = [columns.div_ceil(32), rows.div_ceil(32), 1];
        let mut arguments = [Pointer(from.0.at()), Pointer(to.0.at()), Int(rows as i32), Int(columns as i32)];
        self.attempt(|| self.launch("transpose", grid, 256, 0, &mut arguments));
    }

    fn descend(&self, at: usize, len: usize, keep: f64, step: f64, direction: &Wide, weight: &mut Wide) {
        let mut arguments = [
            Pointer(direction.at()),
            Pointer(weight.change() + (at * 4) as u64),
            Long(len as i64),
            Float(keep as f32),
            Float(step as f32),
        ];
        self.attempt(|| self.each("muon_descend", len.div_ceil(8), &mut arguments));
    }
}

fn whole_quads(width: usize) -> Result<(), DeviceFailure> {
    multiple(width, 4, "rows of an embedding")
}

fn whole_chunks(width: usize) -> Result<(), DeviceFailure> {
    multiple(width, 8, "rows of a gated linear unit")
}

fn multiple(width: usize, of: usize, what: &str) -> Result<(), DeviceFailure> {
    if width.is_multiple_of(of) {
        return Ok(());
    }
    Err(DeviceFailure {
        what: format!("{what} of {width} values"),
        reason: format!("the kernels need a multiple of {of}"),
    })
}
