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

/// Where the product goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Rounded to bf16.
    Bf16,
    /// f32, plus the matrix at this address unless it is 0.
    F32 { add: u64 },
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
        if device.hopper() { self.hopper(device) } else { self.ampere(device) }
    }

    fn tail(&self) -> Vec<Argument> {
        let mut tail = vec![Pointer(self.c), Long(self.ldc as i64)];
        if let Output::F32 { add } = self.output {
            tail.push(Pointer(add));
        }
        tail.extend([Int(self.m as i32), Int(self.n as i32), Int(self.k as i32)]);
        tail
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
            _ => return Err(self.unknown()),
        };
        let tiles = self.m.div_ceil(128) * self.n.div_ceil(128);
        let launch = Launch { kernel, grid: [tiles as u32, 1, 1], threads: 256, shared };
        let mut arguments =
            vec![Pointer(self.a), Long(self.lda as i64), Pointer(self.b), Long(self.ldb as i64)];
        arguments.extend(self.tail());
        device.launch(launch, &mut arguments)
    }

    fn hopper(&self, device: &dyn Device) -> Result<(), DeviceFailure> {
        // Wide tiles read less, but only when there are enough of them for every multiprocessor.
        let wide = self.m.div_ceil(128) * self.n.div_ceil(256) >= device.multiprocessors() as usize;
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
            _ => return Err(self.unknown()),
        };
        let shared = if wide { 196_672 } else { 196_704 };
        let operand = |at, ld: usize, mn: usize, k_last: bool, rows: u32| {
            let (width, height, box_height) = if k_last { (self.k, mn, rows) } else { (mn, self.k, 64) };
            device.tensor_map(Matrix { at, width, height, pitch: ld * 2, box_width: 64, box_height })
        };
        let a = operand(self.a, self.lda, self.m, self.order != Order::Tn, 128)?;
        let b = operand(self.b, self.ldb, self.n, self.order == Order::Nt, columns)?;
        let tiles = self.m.div_ceil(128) * self.n.div_ceil(columns as usize);
        let blocks = (tiles as u32).min(device.multiprocessors());
        let launch = Launch { kernel, grid: [blocks, 1, 1], threads: 384, shared };
        let mut arguments = vec![Map(a), Map(b)];
        arguments.extend(self.tail());
        device.launch(launch, &mut arguments)
    }
}
