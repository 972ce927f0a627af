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

impl Cuda {
    pub(super) fn attend(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        attend_from: &Index,
        out: &mut Narrow,
        log_sum: &mut Wide,
    ) -> Result<(), DeviceFailure> {
        if self.device.hopper() && matches!(shape.head_dim, 64 | 128) {
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

    #[allow(clippy::too_many_arguments)]
    pub(super) fn attend_backward(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        out: &Narrow,
        log_sum: &Wide,
        attend_from: &Index,
        grad_out: &Narrow,
        grad_qkv: &mut Narrow,
    ) -> Result<(), DeviceFailure> {
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
        self.launch("attention_delta", [queries.div_ceil(8), 1, 1], 256, 0, &mut arguments)?;
        let tail = [
            Pointer(attend_from.0.at()),
            Pointer(log_sum.at()),
            Pointer(delta),
            Pointer(grad_qkv.0.at()),
            Int(shape.context as i32),
            Int(shape.heads as i32),
            Int(shape.kv_heads as i32),
            Float(shape.scale as f32),
        ];
        if self.device.hopper() && matches!(shape.head_dim, 64 | 128) {
            return self.backward_hopper(shape, qkv, grad_out, tail);
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
            [Pointer(qkv.0.at()), Pointer(grad_out.0.at())].into_iter().chain(tail).collect::<Vec<_>>();
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

    /// The backward pass on Hopper's own instructions, for heads of 64 and 128 values. `tail` are the
    /// arguments after the tensor maps.
    fn backward_hopper(
        &self,
        shape: AttentionShape,
        qkv: &Narrow,
        grad_out: &Narrow,
        tail: [Argument; 8],
    ) -> Result<(), DeviceFailure> {
        let maps = [
            Argument::Map(self.heads_map(qkv.0.at(), shape.tokens(), shape.qkv_width())?),
            Argument::Map(self.heads_map(grad_out.0.at(), shape.tokens(), shape.out_width())?),
        ];
        let mut arguments: Vec<Argument> = maps.into_iter().chain(tail).collect();
        // Tiles as in `attention_backward_sm90.cu`.
        let d = shape.head_dim;
        let (kv, q, keys) = match d {
            64 => ("attention_backward_sm90_kv_64", "attention_backward_sm90_q_64", 128),
            _ => ("attention_backward_sm90_kv_128", "attention_backward_sm90_q_128", 64),
        };
        let tiles = shape.context.div_ceil(128);
        let shared = |tile: usize| (256 + 5 * tile) * d * 2 + 128;
        let grid = [tiles, shape.kv_heads, shape.rows];
        self.launch(kv, grid, 384, shared(64) + 24 * 64, &mut arguments)?;
        self.launch(q, [tiles, shape.heads, shape.rows], 384, shared(keys), &mut arguments)
    }
}
