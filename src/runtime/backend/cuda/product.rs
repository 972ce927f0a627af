//! Matrix products: which kernel, which tile, which launch.

use super::device::{Argument, Device, DeviceFailure, Launch, Matrix};
use Argument::{Int, Long, Map, Pointer};

/// How the operands lie: k last in both, last in the left one, last in neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// A `[M, K]`, B `[N, K]`.
    Nt,
    /// A `[M, K]`, B `[K, N]`.
    Nn,
    /// A `[K, M]`, B `[K, N]`.
    Tn,
}

/// Columns of logits that share a largest one; `kernels/dev/parts.cuh` has the same number.
pub(super) const PART: usize = 128;
/// Bytes of a part: its largest logit and the sum of its exponentials, in f32.
pub(super) const PART_BYTES: usize = 8;

/// Where the product goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Rounded to bf16.
    Bf16,
    /// f32, plus the matrix at this address unless it is 0.
    F32 { add: u64 },
    /// Rounded to bf16 after RoPE of the first `turned` columns.
    Rotated { rotation: Rotation, turned: usize },
    /// The product has `2 · n` columns, gates then ups; silu(gate) · up goes to this address.
    Gated { activated: u64 },
    /// Logits, as e^(logit − largest of its part) rounded to bf16, or not stored where C is 0. Beside them
    /// go the parts, `[m, n / PART]` rounded up, and of each row of `targets` that has one its logit, in f32.
    Exponentials { targets: u64, parts: u64, of_target: u64 },
}

/// RoPE of the rows of a product: addresses of the positions and the tables, and the width of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rotation {
    pub(super) positions: u64,
    pub(super) cos: u64,
    pub(super) sin: u64,
    pub(super) head_dim: usize,
}

/// Whether a product can turn heads of this width before it stores them.
pub(super) fn rotates(device: &dyn Device, head_dim: usize) -> bool {
    matches!((device.hopper(), head_dim), (_, 64 | 128) | (false, 32))
}

/// Whether tiles of 256 columns take less time than those of 128.
///
/// Every multiprocessor takes its turns through the tiles. A narrow one takes about five eighths of the time
/// of a wide one, which reads less, and pays where wide ones would leave the last turn half empty.
fn wide(rows: usize, columns: usize, multiprocessors: usize) -> bool {
    let turns = |width| (rows.div_ceil(128) * columns.div_ceil(width)).div_ceil(multiprocessors);
    turns(256) * 8 <= turns(128) * 5
}

/// `C[M, N] = A · B`, bf16 operands with f32 sums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Product {
    pub(super) order: Order,
    pub(super) a: u64,
    pub(super) lda: usize,
    pub(super) b: u64,
    pub(super) ldb: usize,
    pub(super) c: u64,
    pub(super) ldc: usize,
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) output: Output,
}

impl Product {
    pub(super) fn run(&self, device: &dyn Device) -> Result<(), DeviceFailure> {
        if self.m == 0 || self.n == 0 {
            return Ok(());
        }
        for (name, ld) in [("A", self.lda), ("B", self.ldb), ("C", self.ldc)] {
            if !ld.is_multiple_of(8) {
                return Err(DeviceFailure {
                    what: format!("a product of {}x{}x{}", self.m, self.n, self.k),
                    reason: format!("rows of {name} have {ld} values; the kernels need a multiple of 8"),
                });
            }
        }
        let others = match self.output {
            Output::Bf16 | Output::Rotated { .. } => 0,
            Output::F32 { add } => add,
            Output::Gated { activated } => activated,
            // Parts and logits of targets are written one by one.
            Output::Exponentials { .. } => 0,
        };
        if !(self.a | self.b | self.c | others).is_multiple_of(16) {
            return Err(DeviceFailure {
                what: format!("a product of {}x{}x{}", self.m, self.n, self.k),
                reason: "an operand is not 16-byte aligned".into(),
            });
        }
        if device.hopper() { self.hopper(device) } else { self.ampere(device) }
    }

    fn tail(&self) -> Vec<Argument> {
        let mut tail = vec![Pointer(self.c), Long(self.ldc as i64)];
        match self.output {
            Output::Bf16 => {}
            Output::F32 { add } => tail.push(Pointer(add)),
            Output::Rotated { rotation, turned } => tail.extend([
                Pointer(rotation.positions),
                Pointer(rotation.cos),
                Pointer(rotation.sin),
                Int(turned as i32),
            ]),
            Output::Gated { activated } => tail.push(Pointer(activated)),
            Output::Exponentials { targets, parts, of_target } => {
                tail.extend([Pointer(targets), Pointer(parts), Pointer(of_target)]);
            }
        }
        tail.extend([Int(self.m as i32), Int(self.n as i32), Int(self.k as i32)]);
        tail
    }

    /// Rows of the right operand.
    fn width(&self) -> usize {
        if matches!(self.output, Output::Gated { .. }) { 2 * self.n } else { self.n }
    }

    fn unknown(&self) -> DeviceFailure {
        DeviceFailure {
            what: format!("a product {:?} to {:?}", self.order, self.output),
            reason: "no such kernel".into(),
        }
    }

    fn ampere(&self, device: &dyn Device) -> Result<(), DeviceFailure> {
        let (kernel, shared) = match (self.order, self.output) {
            (Order::Nt, Output::Bf16) => ("gemm_nt_bf16", 61_440),
            (Order::Nt, Output::F32 { .. }) => ("gemm_nt_f32", 61_440),
            (Order::Nn, Output::Bf16) => ("gemm_nn_bf16", 56_832),
            (Order::Tn, Output::F32 { .. }) => ("gemm_tn_f32", 52_224),
            (Order::Nt, Output::Gated { .. }) => ("gemm_nt_swiglu", 61_440),
            (Order::Nt, Output::Exponentials { .. }) => ("gemm_nt_exponentials", 61_440),
            (Order::Nt, Output::Rotated { rotation, .. }) => match rotation.head_dim {
                32 => ("gemm_nt_rope_32", 61_440),
                64 => ("gemm_nt_rope_64", 61_440),
                128 => ("gemm_nt_rope_128", 61_440),
                _ => return Err(self.unknown()),
            },
            _ => return Err(self.unknown()),
        };
        let tiles = self.m.div_ceil(128) * self.width().div_ceil(128);
        let launch = Launch { kernel, grid: [tiles as u32, 1, 1], threads: 256, shared };
        let mut arguments =
            vec![Pointer(self.a), Long(self.lda as i64), Pointer(self.b), Long(self.ldb as i64)];
        arguments.extend(self.tail());
        device.launch(launch, &mut arguments)
    }

    fn hopper(&self, device: &dyn Device) -> Result<(), DeviceFailure> {
        let wide = wide(self.m, self.width(), device.multiprocessors() as usize);
        let columns = if wide { 256 } else { 128 };
        let kernel = match (self.order, self.output, wide) {
            (Order::Nt, Output::Bf16, false) => "gemm_sm90_nt_bf16_128",
            (Order::Nt, Output::Bf16, true) => "gemm_sm90_nt_bf16_256",
            (Order::Nt, Output::F32 { .. }, false) => "gemm_sm90_nt_f32_128",
            (Order::Nt, Output::F32 { .. }, true) => "gemm_sm90_nt_f32_256",
            (Order::Nn, Output::Bf16, false) => "gemm_sm90_nn_bf16_128",
            (Order::Nn, Output::Bf16, true) => "gemm_sm90_nn_bf16_256",
            (Order::Tn, Output::F32 { .. }, false) => "gemm_sm90_tn_f32_128",
            (Order::Tn, Output::F32 { .. }, true) => "gemm_sm90_tn_f32_256",
            (Order::Nt, Output::Gated { .. }, false) => "gemm_sm90_nt_swiglu_128",
            (Order::Nt, Output::Gated { .. }, true) => "gemm_sm90_nt_swiglu_256",
            (Order::Nt, Output::Exponentials { .. }, false) => "gemm_sm90_nt_exponentials_128",
            (Order::Nt, Output::Exponentials { .. }, true) => "gemm_sm90_nt_exponentials_256",
            (Order::Nt, Output::Rotated { rotation, .. }, wide) => match (rotation.head_dim, wide) {
                (64, false) => "gemm_sm90_nt_rope_64_128",
                (64, true) => "gemm_sm90_nt_rope_64_256",
                (128, false) => "gemm_sm90_nt_rope_128_128",
                (128, true) => "gemm_sm90_nt_rope_128_256",
                _ => return Err(self.unknown()),
            },
            _ => return Err(self.unknown()),
        };
        let shared = if wide { 196_672 } else { 196_704 };
        let operand = |at, ld: usize, mn: usize, k_last: bool, rows: u32| {
            let (width, height, box_height) = if k_last { (self.k, mn, rows) } else { (mn, self.k, 64) };
            device.tensor_map(Matrix { at, width, height, pitch: ld * 2, box_width: 64, box_height })
        };
        let a = operand(self.a, self.lda, self.m, self.order != Order::Tn, 128)?;
        // Gates and ups come in boxes of their own.
        let box_b = if self.width() > self.n { columns / 2 } else { columns };
        let b = operand(self.b, self.ldb, self.width(), self.order == Order::Nt, box_b)?;
        let tiles = self.m.div_ceil(128) * self.width().div_ceil(columns as usize);
        let blocks = (tiles as u32).min(device.multiprocessors());
        let launch = Launch { kernel, grid: [blocks, 1, 1], threads: 384, shared };
        let mut arguments = vec![Map(a), Map(b)];
        arguments.extend(self.tail());
        device.launch(launch, &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::{PART, wide};
    use crate::runtime::backend::cuda::sources::HEADERS;

    #[test]
    fn parts_are_as_wide_as_the_kernels_make_them() {
        let header = HEADERS.iter().find(|h| h.file == "dev/parts.cuh").unwrap();
        assert!(header.text.contains(&format!("constexpr int PART = {PART};")));
    }

    #[test]
    fn tiles_are_narrow_where_wide_ones_leave_a_turn_half_empty() {
        // Of a 1B model: all products of 16,384 tokens, and the gradients of weights but one.
        for (rows, columns) in [(16_384, 2048), (16_384, 3072), (16_384, 16_384), (2048, 2048), (2048, 8192)]
        {
            assert!(wide(rows, columns, 132), "{rows}x{columns}");
        }
        assert!(!wide(3072, 2048, 132));
        // Fewer tiles than multiprocessors.
        assert!(!wide(512, 2048, 132));
    }
}
