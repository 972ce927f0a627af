//! Attention: which kernels, which launches. Tiles, stages and slices are those of `kernels/attention_*.cu`.

use super::backend::Cuda;
use super::device::{Argument, DeviceFailure, Matrix, TensorMap};
use super::memory::{Index, Narrow, Wide};
use crate::runtime::backend::AttentionShape;
use Argument::{Float, Int, Pointer};

/// Names of a kernel for each head dimension.
fn attention_kernel(names: [&'static str; 5], shape: AttentionShape) -> Result<&'static str, DeviceFailure> {
    match shape.head_dim {
        32 => Ok(names[0]),
        64 => Ok(names[1]),
        96 => Ok(names[2]),
        128 => Ok(names[3]),
        256 => Ok(names[4]),
        other => Err(DeviceFailure {
            what: format!("attention with heads of {other} values"),
            reason: "the kernels have heads of 32, 64, 96, 128 and 256 values".into(),
        }),
    }
}

/// Width of the heads whose backward pass is one kernel on Hopper.
const FUSED_HEAD: usize = 128;

/// Whether there are kernels of Hopper's own instructions for heads of this width.
fn hopper_has(head_dim: usize) -> bool {
    matches!(head_dim, 64 | 128)
}

/// What Hopper's backward pass keeps between its kernels, in bytes from the front of the scratch memory.
/// Tiles are those of 64 queries.
struct BackwardScratch {
    /// Log-sum and Δ, f32 `[rows, heads, tiles, 2, 64]`.
    sums: u64,
    /// The gradients of queries, f32 `[rows, heads, tiles, 64 · head_dim]`.
    grad_q: u64,
    /// What queries attend from, u32 `[rows, tiles, 64]`.
    from: u64,
    /// Whose turn it is at each tile, u32 `[rows · heads · tiles + 1]`.
    turns: u64,
    bytes: usize,
}

impl BackwardScratch {
    fn of(rows: usize, context: usize, heads: usize, head_dim: usize) -> Self {
        let mut bytes = 0;
        let mut piece = |len: usize| {
            let at = bytes as u64;
            bytes += (len * 4).next_multiple_of(256);
            at
        };
        let tiles = context.div_ceil(64);
        let sums = piece(rows * heads * tiles * 128);
        let grad_q = piece(rows * heads * tiles * 64 * head_dim);
        let from = piece(rows * tiles * 64);
        let turns = piece(rows * heads * tiles + 1);
        BackwardScratch { sums, grad_q, from, turns, bytes }
    }
}

/// Bytes of scratch memory of the backward pass at most, whatever the device.
pub(super) fn scratch(rows: usize, context: usize, heads: usize, head_dim: usize) -> usize {
    let delta = rows * context * heads * 4;
    if head_dim == FUSED_HEAD {
        delta.max(BackwardScratch::of(rows, context, heads, head_dim).bytes)
    } else {
        delta
    }
}

impl Cuda {
    /// Whether the backward pass is one kernel.
    fn fused(&self, shape: AttentionShape) -> bool {
        self.hopper(shape) && shape.head_dim == FUSED_HEAD
    }

    /// Whether attention takes Hopper's own instructions.
    pub(super) fn hopper(&self, shape: AttentionShape) -> bool {
        self.device.hopper() && hopper_has(shape.head_dim)
    }

    pub(super) fn attend(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        attend_from: &Index,
        out: &mut Narrow,
        log_sum: &mut Wide,
    ) -> Result<(), DeviceFailure> {
        if self.hopper(shape) {
            return self.attention_hopper(shape, qkv, attend_from, out, log_sum);
        }
        let kernel = attention_kernel(
            [
                "attention_forward_32",
                "attention_forward_64",
                "attention_forward_96",
                "attention_forward_128",
                "attention_forward_256",
            ],
            shape,
        )?;
        let keys = if shape.head_dim > 128 { 32 } else { 64 };
        let mut arguments = [
            Pointer(qkv.0.at()),
            Pointer(attend_from.0.at()),
            Pointer(out.0.at()),
            Pointer(log_sum.change()),
            Int(shape.context as i32),
            Int(shape.heads as i32),
            Int(shape.kv_heads as i32),
            Float(shape.scale as f32),
        ];
        let grid = [shape.context.div_ceil(64), shape.heads, shape.rows];
        self.launch(kernel, grid, 128, (64 + 4 * keys) * shape.head_dim * 2, &mut arguments)
    }

    /// The forward pass on Hopper's own instructions, for heads of 64 and 128 values.
    fn attention_hopper(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        attend_from: &Index,
        out: &mut Narrow,
        log_sum: &mut Wide,
    ) -> Result<(), DeviceFailure> {
        let map = self.heads_map(qkv.0.at(), shape.tokens(), shape.qkv_width())?;
        let kernel = match shape.head_dim {
            64 => "attention_forward_sm90_64",
            _ => "attention_forward_sm90_128",
        };
        let mut arguments = [
            Argument::Map(map),
            Pointer(attend_from.0.at()),
            Pointer(out.0.at()),
            Pointer(log_sum.change()),
            Int(shape.context as i32),
            Int(shape.heads as i32),
            Int(shape.kv_heads as i32),
            Float(shape.scale as f32),
        ];
        let grid = [shape.context.div_ceil(128), shape.heads, shape.rows];
        self.launch(kernel, grid, 384, 5 * 128 * shape.head_dim * 2 + 128, &mut arguments)
    }

    /// Rows of heads, in boxes of 64 by 64.
    fn heads_map(&self, at: u64, height: usize, width: usize) -> Result<TensorMap, DeviceFailure> {
        let pitch = width * 2;
        self.device.tensor_map(Matrix { at, width, height, pitch, box_width: 64, box_height: 64 })
    }

    pub(super) fn attend_backward(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        out: &Narrow,
        log_sum: &Wide,
        attend_from: &Index,
        grad_out: &Narrow,
        rope: [u64; 3],
        grad_qkv: &mut Narrow,
    ) -> Result<(), DeviceFailure> {
        if self.fused(shape) {
            return self.backward_fused(shape, qkv, out, log_sum, attend_from, grad_out, rope, grad_qkv);
        }
        let queries = shape.tokens() * shape.heads;
        let delta = self.scratch.borrow_mut().delta.at_least(&self.device, queries * 4)?;
        let mut arguments = [
            Pointer(out.0.at()),
            Pointer(grad_out.0.at()),
            Pointer(delta),
            Int(shape.rows as i32),
            Int(shape.context as i32),
            Int(shape.heads as i32),
            Int(shape.head_dim as i32),
        ];
        let lanes = (shape.head_dim / 8).next_power_of_two();
        self.each("attention_delta", queries * lanes, &mut arguments)?;
        let statistics =
            [Pointer(attend_from.0.at()), Pointer(log_sum.at()), Pointer(delta), Pointer(grad_qkv.0.at())];
        let tail = [
            Int(shape.context as i32),
            Int(shape.heads as i32),
            Int(shape.kv_heads as i32),
            Float(shape.scale as f32),
        ];
        if self.hopper(shape) {
            let arguments = [&statistics[..], &rope.map(Pointer), &tail].concat();
            return self.backward_hopper(shape, qkv, grad_out, arguments);
        }
        let kv = attention_kernel(
            [
                "attention_backward_kv_32",
                "attention_backward_kv_64",
                "attention_backward_kv_96",
                "attention_backward_kv_128",
                "attention_backward_kv_256",
            ],
            shape,
        )?;
        let q = attention_kernel(
            [
                "attention_backward_q_32",
                "attention_backward_q_64",
                "attention_backward_q_96",
                "attention_backward_q_128",
                "attention_backward_q_256",
            ],
            shape,
        )?;
        let mut arguments =
            [&[Pointer(qkv.0.at()), Pointer(grad_out.0.at())], &statistics[..], &tail].concat();
        // Tiles, stages and slices as in `attention_backward.cu`.
        let d = shape.head_dim;
        let stages = if d > 128 { 1 } else { 2 };
        let shared = |tile: usize| (128 + 2 * stages * tile) * d * 2;
        let (kv_tile, q_tile) = (if d <= 64 { 64 } else { 32 }, if d <= 96 { 64 } else { 32 });
        let tiles = shape.context.div_ceil(64);
        let slices = if d > 128 { 2 } else { 1 };
        let grid = [tiles, shape.kv_heads * slices, shape.rows];
        self.launch(kv, grid, 128, shared(kv_tile), &mut arguments)?;
        self.launch(q, [tiles, shape.heads, shape.rows], 128, shared(q_tile), &mut arguments)
    }

    /// The backward pass in one kernel, between one that prepares and one that rounds.
    fn backward_fused(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        out: &Narrow,
        log_sum: &Wide,
        attend_from: &Index,
        grad_out: &Narrow,
        rope: [u64; 3],
        grad_qkv: &mut Narrow,
    ) -> Result<(), DeviceFailure> {
        let AttentionShape { rows, context, heads, kv_heads, head_dim, scale } = shape;
        let scratch = BackwardScratch::of(rows, context, heads, head_dim);
        let front = self.scratch.borrow_mut().delta.at_least(&self.device, scratch.bytes)?;
        let [sums, grad_q, from, turns] =
            [scratch.sums, scratch.grad_q, scratch.from, scratch.turns].map(|at| Pointer(front + at));
        let tiles = context.div_ceil(64);
        let mut arguments = [
            Pointer(out.0.at()),
            Pointer(grad_out.0.at()),
            Pointer(attend_from.0.at()),
            Pointer(log_sum.at()),
            sums,
            from,
            turns,
            Int(context as i32),
            Int(heads as i32),
            Int(head_dim as i32),
        ];
        self.launch("attention_backward_fused_sm90_begin", [tiles, heads, rows], 256, 0, &mut arguments)?;
        let tail = [
            Pointer(grad_qkv.0.at()),
            Pointer(rope[0]),
            Pointer(rope[1]),
            Pointer(rope[2]),
            Int(context as i32),
            Int(heads as i32),
            Int(kv_heads as i32),
            Float(scale as f32),
        ];
        let qkv = Argument::Map(self.heads_map(qkv.0.at(), shape.tokens(), shape.qkv_width())?);
        let grad_out = Argument::Map(self.heads_map(grad_out.0.at(), shape.tokens(), shape.out_width())?);
        let front = [qkv, grad_out, Pointer(attend_from.0.at()), sums, from, grad_q, turns];
        // As in `attention_backward_fused_sm90.cu`.
        let shared = 214_784;
        let grid = [context.div_ceil(128), kv_heads, rows];
        self.launch(
            "attention_backward_fused_sm90_128",
            grid,
            384,
            shared,
            &mut [&front[..], &tail].concat(),
        )?;
        self.launch(
            "attention_backward_fused_sm90_end_128",
            [tiles, heads, rows],
            128,
            0,
            &mut [&[grad_q][..], &tail].concat(),
        )
    }

    /// The backward pass in two kernels of Hopper's own instructions, for heads of 64. `tail` are the arguments
    /// after the tensor maps.
    fn backward_hopper(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        grad_out: &Narrow,
        tail: Vec<Argument>,
    ) -> Result<(), DeviceFailure> {
        let maps = [
            Argument::Map(self.heads_map(qkv.0.at(), shape.tokens(), shape.qkv_width())?),
            Argument::Map(self.heads_map(grad_out.0.at(), shape.tokens(), shape.out_width())?),
        ];
        let mut arguments: Vec<Argument> = maps.into_iter().chain(tail).collect();
        // Tiles as in `attention_backward_sm90.cu`.
        let tiles = shape.context.div_ceil(128);
        let shared = |tile: usize| (256 + 5 * tile) * shape.head_dim * 2 + 128;
        let grid = [tiles, shape.kv_heads, shape.rows];
        self.launch("attention_backward_sm90_kv_64", grid, 384, shared(64) + 24 * 64, &mut arguments)?;
        let grid = [tiles, shape.heads, shape.rows];
        self.launch("attention_backward_sm90_q_64", grid, 384, shared(128), &mut arguments)
    }
}
