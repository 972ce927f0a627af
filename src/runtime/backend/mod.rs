//! The operations a training step needs, over opaque buffers.
//!
//! A backend knows shapes and arithmetic; it knows neither the order of operations in a decoder nor
//! the names of weights. `reference` is the oracle, `cpu` the fast path; a device backend fits behind
//! the same trait because no operation hands a value back to the host except [`Backend::read`],
//! [`Backend::squared_norm`] and [`Backend::finish`].

#![allow(clippy::too_many_arguments, reason = "an operation names each of its operands, as in BLAS")]

#[cfg(test)]
mod conformance;
pub mod cpu;
pub mod cuda;
pub mod peak;
pub mod reference;

use crate::runtime::engine::EngineError;

/// Where a norm reads and writes: `rows` rows of `stride` values, of each the `segments` segments of
/// `width` values that begin at `offset`. Every segment is normalised on its own with the same
/// weight of `width` values.
///
/// A norm over the residual stream has one segment as wide as the row; OLMo 2's q norm one segment
/// within the qkv row; Qwen3's one segment per head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormShape {
    /// Tokens.
    pub rows: usize,
    /// Values from one row to the next.
    pub stride: usize,
    /// First value within the row.
    pub offset: usize,
    /// Segments per row.
    pub segments: usize,
    /// Values per segment.
    pub width: usize,
    /// Whether what is multiplied by is 1 + w (Gemma), not w.
    pub zero_centred: bool,
}

impl NormShape {
    /// The norm of whole rows.
    pub fn whole(rows: usize, width: usize) -> Self {
        NormShape { rows, stride: width, offset: 0, segments: 1, width, zero_centred: false }
    }

    /// What is added to every weight.
    pub fn plus(&self) -> f32 {
        if self.zero_centred { 1.0 } else { 0.0 }
    }
}

/// What the gate of a gated linear unit goes through (Shazeer, arXiv:2002.05202).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// `x · σ(x)`: SwiGLU.
    Silu,
    /// `x · σ(2·√(2/π)·(x + 0.044715·x³))`, GELU by its usual approximation with a hyperbolic tangent
    /// (Hendrycks & Gimpel, arXiv:1606.08415, section 2): GeGLU as Gemma has it.
    GeluTanh,
}

impl Gate {
    /// `2·√(2/π)`, of [`GeluTanh`](Gate::GeluTanh).
    pub const LINEAR: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::SQRT_2;
    /// That times the factor of the cube.
    pub const CUBIC: f32 = 0.044_715 * Self::LINEAR;
}

/// Rows of queries, keys and values in one matrix: `rows · context` rows of
/// `(heads + 2 · kv_heads) · head_dim` values, queries first, then keys, then values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Sequences.
    pub rows: usize,
    /// Tokens per sequence.
    pub context: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; head `h` of the queries reads key head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Multiplies the scores.
    pub scale: f64,
}

impl AttentionShape {
    /// Tokens of all sequences.
    pub fn tokens(&self) -> usize {
        self.rows * self.context
    }

    /// Values per row of the qkv matrix.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Values per row of the output.
    pub fn out_width(&self) -> usize {
        self.heads * self.head_dim
    }
}

/// Shape and constants of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossShape {
    /// Tokens.
    pub tokens: usize,
    /// Width of the hidden state.
    pub width: usize,
    /// Rows of the output matrix.
    pub vocab: usize,
    /// Multiplies every gradient: 1 over the number of predicted positions of the whole batch.
    pub gradient_scale: f64,
    /// Weight of log²Z.
    pub z_loss: f64,
}

/// Constants of one AdamW update (Loshchilov & Hutter, arXiv:1711.05101, algorithm 2, with the
/// learning rate multiplied into the decay as in PyTorch).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the corrected second moment.
    pub eps: f64,
    /// Decoupled decay of this tensor.
    pub weight_decay: f64,
    /// `1 − βᵢ^step`.
    pub corrections: [f64; 2],
    /// Multiplies the gradient first: the clipping factor.
    pub gradient_scale: f64,
}

/// Constants of the momentum from which Muon takes its direction (Jordan et al. 2024, "Muon: an optimizer for
/// hidden layers in neural networks"; `torch.optim.Muon`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Momentum {
    /// How much of the momentum stays: `m ← μ · m + (1 − μ) · g`.
    pub momentum: f64,
    /// Look ahead as Nesterov does: the direction is `μ · m + (1 − μ) · g` of the new m, else m itself.
    pub nesterov: bool,
    /// Multiplies the gradient first: the clipping factor.
    pub gradient_scale: f64,
}

/// What a backend trains on, as far as its own memory depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Values of all weights that are operands of products.
    pub operands: usize,
    /// Tokens at once.
    pub tokens: usize,
    /// Rows of the RoPE tables.
    pub positions: usize,
    /// RoPE tables, each of cosines and of sines.
    pub tables: usize,
    /// Values of u32 for each token.
    pub indices: usize,
    /// Query heads.
    pub heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// Values of the widest norm.
    pub widest_norm: usize,
    /// Values of the widest row that a linear layer reads.
    pub widest_input: usize,
    /// Rows of the output matrix.
    pub vocab: usize,
}

/// The arithmetic of a training step.
///
/// Matrices are row-major. `Wide` values carry weights, gradients of weights, the residual stream and
/// statistics; `Narrow` values go between the operations of a layer and may have fewer bits. A buffer
/// may be longer than an operation needs; the operation uses its front. What `scratch` holds before and
/// after is arbitrary.
///
/// Operations return at once and may fail later: the first failure is reported by
/// [`finish`](Backend::finish).
pub trait Backend: Send {
    /// Buffer of wide values.
    type Wide: Send;
    /// Buffer of narrow values.
    type Narrow: Send;
    /// Buffer of u32.
    type Index: Send;
    /// Memory that buffers can be laid over.
    type Slab: Send;

    /// Bytes of one wide value.
    const WIDE_BYTES: usize;
    /// Bytes of one narrow value.
    const NARROW_BYTES: usize;
    /// Buffers within a slab begin at multiples of so many bytes.
    const SLAB_ALIGNMENT: usize = 256;
    /// Sides of the square products that show the most the device can do.
    const PEAK_SIDES: &'static [usize] = &[768, 1024, 1536];
    /// Bytes that the activations of the rows which go through the model together should stay below,
    /// where fewer rows than fit do: more rows at once make better products, at this price.
    const ACTIVATIONS_AT_ONCE: u64 = 512 << 20;
    /// Whether what a block reads of the stream is kept for the backward pass behind its norm too, rather than
    /// normalised again.
    const KEEPS_INPUTS: bool = false;
    /// Tokens that go through the model at once at most, unless a row has more.
    const TOKENS_AT_ONCE: usize = 8192;

    /// For logs: the device, the precision, the instruction set.
    fn describe(&self) -> String;

    /// A buffer of zeros.
    fn wide(&self, len: usize) -> Result<Self::Wide, EngineError>;
    /// A buffer of zeros.
    fn narrow(&self, len: usize) -> Result<Self::Narrow, EngineError>;
    /// A buffer of zeros.
    fn index(&self, len: usize) -> Result<Self::Index, EngineError>;
    /// Memory for buffers that are laid over it.
    fn slab(&self, bytes: usize) -> Result<Self::Slab, EngineError>;
    /// `len` values of arbitrary content from the byte `at` of a slab on, a multiple of
    /// [`SLAB_ALIGNMENT`](Backend::SLAB_ALIGNMENT). It keeps the slab alive.
    ///
    /// # Safety
    /// No operation is given two buffers over the same bytes; what one holds is gone when another is
    /// written.
    unsafe fn wide_over(&self, slab: &Self::Slab, at: usize, len: usize) -> Self::Wide;
    /// As [`wide_over`](Backend::wide_over).
    ///
    /// # Safety
    /// As there.
    unsafe fn narrow_over(&self, slab: &Self::Slab, at: usize, len: usize) -> Self::Narrow;
    /// Copy `values` to `to[at..]`.
    fn write(&self, values: &[f32], to: &mut Self::Wide, at: usize);
    /// Copy `from[at..]` to `values`.
    fn read(&self, from: &Self::Wide, at: usize, values: &mut [f32]);
    /// `from[at..][..len]` where it lies, if the host sees it.
    fn view<'a>(&self, _from: &'a Self::Wide, _at: usize, _len: usize) -> Option<&'a [f32]> {
        None
    }
    /// Copy `values` to the front of `to`.
    fn write_index(&self, values: &[u32], to: &mut Self::Index);
    /// Set `buffer[..len]` to zero.
    fn zero(&self, len: usize, buffer: &mut Self::Wide);
    /// Wait for everything asked for so far; the first failure of any of it.
    fn finish(&self) -> Result<(), EngineError>;
    /// Scratch memory of the backend's own in bytes.
    fn scratch_bytes(&self) -> u64;
    /// Make now what the first product with `weight` would make and keep as long as the weight.
    fn keep_operand(&self, _weight: &Self::Wide) -> Result<(), EngineError> {
        Ok(())
    }
    /// Make now all the scratch memory of its own that training on a load takes; without a load, give back what there
    /// is.
    fn keep_scratch(&self, _load: Option<Load>) -> Result<(), EngineError> {
        Ok(())
    }
    /// Whether there is as much as training on a load takes.
    fn has_scratch(&self, _load: Load) -> bool {
        true
    }
    /// Narrow values of scratch that [`attention`](Backend::attention) is to be given and, if asked, its
    /// backward pass.
    fn attention_scratch(_shape: AttentionShape, _backward: bool) -> usize {
        0
    }
    /// Narrow values of scratch that [`loss`](Backend::loss) and its backward pass are to be given.
    fn loss_scratch(_tokens: usize, _vocab: usize) -> usize {
        0
    }
    /// What will be held beside the buffers of weights and activations, where it counts.
    fn overhead_bytes(_load: Load) -> u64 {
        0
    }

    /// `to = from`, rounded.
    fn narrow_copy(&self, len: usize, from: &Self::Wide, to: &mut Self::Narrow);
    /// `to += from`, then `copy = to`, rounded.
    fn add_narrow(&self, len: usize, from: &Self::Narrow, to: &mut Self::Wide, copy: &mut Self::Narrow);

    /// `out[t] = scale · table[ids[t]]` for `tokens` rows of `width`.
    fn embed(
        &self,
        tokens: usize,
        width: usize,
        scale: f32,
        table: &Self::Wide,
        ids: &Self::Index,
        out: &mut Self::Wide,
    );
    /// `grad_table[ids[t]] += scale · grad[t]`.
    fn embed_backward(
        &self,
        tokens: usize,
        width: usize,
        scale: f32,
        grad: &Self::Wide,
        ids: &Self::Index,
        grad_table: &mut Self::Wide,
    );

    /// `y = x · wᵀ`: x is `[rows, inputs]`, w is `[outputs, inputs]`.
    fn linear(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        x: &Self::Narrow,
        w: &Self::Wide,
        y: &mut Self::Narrow,
    );
    /// `stream += x · wᵀ`.
    fn linear_residual(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        x: &Self::Narrow,
        w: &Self::Wide,
        stream: &mut Self::Wide,
    );
    /// `x += bias` in every row: x is `[rows, width]`.
    fn add_bias(&self, rows: usize, width: usize, bias: &Self::Wide, x: &mut Self::Narrow);
    /// Backward of [`add_bias`](Backend::add_bias): adds the sum of the rows of `grad` to `grad_bias`.
    fn bias_grad(&self, rows: usize, width: usize, grad: &Self::Narrow, grad_bias: &mut Self::Wide);
    /// [`linear`](Backend::linear) to rows of queries, keys and values, then [`rope`](Backend::rope).
    fn linear_rope(
        &self,
        shape: AttentionShape,
        inputs: usize,
        x: &Self::Narrow,
        w: &Self::Wide,
        positions: &Self::Index,
        cos: &Self::Wide,
        sin: &Self::Wide,
        qkv: &mut Self::Narrow,
    ) {
        self.linear(shape.tokens(), inputs, shape.qkv_width(), x, w, qkv);
        self.rope(shape, positions, cos, sin, false, qkv);
    }
    /// [`linear`](Backend::linear) to rows of `[gate, up]`, `width` values each, then
    /// [`glu`](Backend::glu).
    fn linear_glu(
        &self,
        gate: Gate,
        rows: usize,
        inputs: usize,
        width: usize,
        x: &Self::Narrow,
        w: &Self::Wide,
        gate_up: &mut Self::Narrow,
        y: &mut Self::Narrow,
    ) {
        self.linear(rows, inputs, 2 * width, x, w, gate_up);
        self.glu(gate, rows, width, gate_up, y);
    }
    /// `grad_x = grad_y · w`.
    fn linear_input_grad(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        grad_y: &Self::Narrow,
        w: &Self::Wide,
        grad_x: &mut Self::Narrow,
    );
    /// `grad_w = grad_yᵀ · x`, or `+=` when `accumulate`.
    fn linear_weight_grad(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        grad_y: &Self::Narrow,
        x: &Self::Narrow,
        accumulate: bool,
        grad_w: &mut Self::Wide,
    );

    /// RMSNorm (arXiv:1910.07467) of the stream: `y = stream · rstd · w`,
    /// `rstd = (mean(stream²) + eps)^(−1/2)`, one per segment. The shape must be of whole rows.
    ///
    /// `x = stream`, rounded, is for the backward pass: [`norm_segments`](Backend::norm_segments) of it
    /// gives y again but for that rounding.
    fn norm(
        &self,
        shape: NormShape,
        eps: f64,
        stream: &Self::Wide,
        w: &Self::Wide,
        x: &mut Self::Narrow,
        y: &mut Self::Narrow,
        rstd: &mut Self::Wide,
    );
    /// Backward of [`norm`](Backend::norm): adds the gradient of x to `grad`, writes `copy = grad`
    /// rounded, adds the gradient of w to `grad_w`.
    fn norm_backward(
        &self,
        shape: NormShape,
        x: &Self::Narrow,
        w: &Self::Wide,
        rstd: &Self::Wide,
        grad_y: &Self::Narrow,
        grad: &mut Self::Wide,
        copy: &mut Self::Narrow,
        grad_w: &mut Self::Wide,
    );
    /// `stream += norm(x)` over whole rows.
    fn norm_residual(
        &self,
        shape: NormShape,
        eps: f64,
        x: &Self::Narrow,
        w: &Self::Wide,
        stream: &mut Self::Wide,
        rstd: &mut Self::Wide,
    );
    /// Backward of [`norm_residual`](Backend::norm_residual): writes the gradient of x, adds that of w.
    fn norm_residual_backward(
        &self,
        shape: NormShape,
        x: &Self::Narrow,
        w: &Self::Wide,
        rstd: &Self::Wide,
        grad_y: &Self::Wide,
        grad_x: &mut Self::Narrow,
        grad_w: &mut Self::Wide,
    );
    /// The norm of segments of `x` into the same segments of `y`; the rest of `y` is left alone.
    fn norm_segments(
        &self,
        shape: NormShape,
        eps: f64,
        x: &Self::Narrow,
        w: &Self::Wide,
        y: &mut Self::Narrow,
        rstd: &mut Self::Wide,
    );
    /// Backward of [`norm_segments`](Backend::norm_segments): turns the gradient of y in `grad` into
    /// that of x, in place, and adds that of w to `grad_w`.
    fn norm_segments_backward(
        &self,
        shape: NormShape,
        x: &Self::Narrow,
        w: &Self::Wide,
        rstd: &Self::Wide,
        grad: &mut Self::Narrow,
        grad_w: &mut Self::Wide,
    );
    /// Copy `width` values at `offset` of each of `rows` rows of `stride` values.
    fn copy_columns(
        &self,
        rows: usize,
        stride: usize,
        offset: usize,
        width: usize,
        from: &Self::Narrow,
        to: &mut Self::Narrow,
    );

    /// Rotate queries and keys in place (RoPE, arXiv:2104.09864, halves as in transformers):
    /// value `i` and `i + head_dim/2` of a head turn by the angle of `positions[t]`. `cos` and `sin`
    /// are `[positions, head_dim/2]` and carry the attention factor. `backward` applies the transpose.
    fn rope(
        &self,
        shape: AttentionShape,
        positions: &Self::Index,
        cos: &Self::Wide,
        sin: &Self::Wide,
        backward: bool,
        qkv: &mut Self::Narrow,
    );

    /// Causal attention of each token over the tokens from `attend_from[t]` of its row to itself.
    /// `attend_from` never decreases within a row and never exceeds the position. Writes the output
    /// `[tokens, heads · head_dim]` and the natural log of each softmax's denominator,
    /// `[rows, heads, context]`. Nothing of size context × context is held.
    fn attention(
        &self,
        shape: AttentionShape,
        qkv: &Self::Narrow,
        attend_from: &Self::Index,
        out: &mut Self::Narrow,
        log_sum: &mut Self::Wide,
        scratch: &mut Self::Narrow,
    );
    /// Backward of [`attention`](Backend::attention).
    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: &Self::Narrow,
        out: &Self::Narrow,
        log_sum: &Self::Wide,
        attend_from: &Self::Index,
        grad_out: &Self::Narrow,
        grad_qkv: &mut Self::Narrow,
        scratch: &mut Self::Narrow,
    );

    /// [`attention_backward`](Backend::attention_backward), then [`rope`](Backend::rope) backwards.
    fn attention_rope_backward(
        &self,
        shape: AttentionShape,
        qkv: &Self::Narrow,
        out: &Self::Narrow,
        log_sum: &Self::Wide,
        attend_from: &Self::Index,
        grad_out: &Self::Narrow,
        positions: &Self::Index,
        cos: &Self::Wide,
        sin: &Self::Wide,
        grad_qkv: &mut Self::Narrow,
        scratch: &mut Self::Narrow,
    ) {
        self.attention_backward(shape, qkv, out, log_sum, attend_from, grad_out, grad_qkv, scratch);
        self.rope(shape, positions, cos, sin, true, grad_qkv);
    }

    /// `y = act(gate) · up` for rows of `[gate, up]`, `width` values each (arXiv:2002.05202).
    fn glu(&self, gate: Gate, rows: usize, width: usize, gate_up: &Self::Narrow, y: &mut Self::Narrow);
    /// Backward of [`glu`](Backend::glu): turns `gate_up` into its gradient in place and
    /// computes `y` again.
    fn glu_backward(
        &self,
        gate: Gate,
        rows: usize,
        width: usize,
        grad_y: &Self::Narrow,
        gate_up: &mut Self::Narrow,
        y: &mut Self::Narrow,
    );

    /// Negative log-likelihood of each target under `softmax(x · wᵀ)`, 0 for
    /// [`IGNORE`](crate::runtime::batch::IGNORE). Logits exist a block at a time.
    fn loss(
        &self,
        shape: LossShape,
        x: &Self::Narrow,
        w: &Self::Wide,
        targets: &Self::Index,
        nll: &mut Self::Wide,
        scratch: &mut Self::Narrow,
    );
    /// [`loss`](Backend::loss) with the gradients of `gradient_scale · Σ (nll + z_loss · log²Z)`:
    /// writes that of x; writes that of w, or adds it when `accumulate`.
    fn loss_backward(
        &self,
        shape: LossShape,
        x: &Self::Narrow,
        w: &Self::Wide,
        targets: &Self::Index,
        nll: &mut Self::Wide,
        grad_x: &mut Self::Narrow,
        accumulate: bool,
        grad_w: &mut Self::Wide,
        scratch: &mut Self::Narrow,
    );

    /// What follows until [`end`](Backend::end) is likely to be asked for again, value for value.
    fn begin(&self) {}
    /// End of what began last.
    fn end(&self) {}

    /// Sum of squares of `buffer[..len]`.
    fn squared_norm(&self, len: usize, buffer: &Self::Wide) -> f64;
    /// Sum of [`squared_norm`](Backend::squared_norm) over buffers with their lengths, in order.
    fn squared_norms<'a>(&self, buffers: impl Iterator<Item = (usize, &'a Self::Wide)>) -> f64
    where
        Self::Wide: 'a,
    {
        buffers.map(|(len, buffer)| self.squared_norm(len, buffer)).sum()
    }
    /// One update of `weight[..len]` and its moments.
    fn adamw(
        &self,
        len: usize,
        constants: AdamW,
        grad: &Self::Wide,
        weight: &mut Self::Wide,
        first: &mut Self::Wide,
        second: &mut Self::Wide,
    );

    /// Take the gradient of the `len` values from `at` on into their momentum; the direction goes to the
    /// front of `direction`.
    fn momentum(
        &self,
        at: usize,
        len: usize,
        constants: Momentum,
        grad: &Self::Wide,
        momentum: &mut Self::Wide,
        direction: &mut Self::Wide,
    );
    /// `x = scale · x + factor · y` for `plus = (factor, y)`, then `copy = x`, rounded.
    fn combine(
        &self,
        len: usize,
        scale: f64,
        x: &mut Self::Wide,
        plus: Option<(f64, &Self::Wide)>,
        copy: &mut Self::Narrow,
    );
    /// `to = fromᵀ`: `from` is `[rows, columns]`.
    fn transpose(&self, rows: usize, columns: usize, from: &Self::Narrow, to: &mut Self::Narrow);
    /// `weight = keep · weight − step · direction` for the `len` values of `weight` from `at` on.
    fn descend(
        &self,
        at: usize,
        len: usize,
        keep: f64,
        step: f64,
        direction: &Self::Wide,
        weight: &mut Self::Wide,
    );
}
