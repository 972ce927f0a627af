//! Norms: launches over segments of rows, and the sum of a weight's gradient in a fixed order.

use super::backend::Cuda;
use super::device::{Argument, DeviceFailure};
use super::memory::{Narrow, Wide};
use crate::runtime::backend::NormShape;
use Argument::{Float, Int, Long, Pointer};

/// Warps that go through the rows of a norm backwards, and the most blocks that they make up. Fixed, so that
/// the order of the sums is: as many as a large GPU has room for, or memory would wait for them.
const NORM_WARPS: usize = 2112;
pub(super) const NORM_SHARES: usize = 1056;

/// Widths of the rows that have a block each, and the most blocks they make up: of a power of two of rows all have
/// equally many.
const BY_ROW: std::ops::RangeInclusive<usize> = 1025..=8192;
const ROW_SHARES: usize = 512;

/// The widest segments that share a warp, and the most blocks that go through them backwards: two fit on a
/// multiprocessor.
const WIDEST_HEAD: usize = 256;
const HEAD_SHARES: usize = 256;

/// Rows that a share of a bias's gradient has at least, and the most shares. Fixed for the same reason.
const BIAS_ROWS: usize = 16;
const BIAS_SHARES: usize = 528;

/// Which values of a row a norm takes, as the kernels want it.
struct NormArguments {
    items: usize,
    tail: [Argument; 5],
}

/// How many segments a block of a kernel for heads takes at once, if they are such: in pieces of 16 bytes, and
/// counted in 32 bits.
fn heads_at_once(shape: NormShape, front: &[Argument]) -> Option<usize> {
    let NormShape { rows, stride, offset, segments, width, .. } = shape;
    let whole = width <= WIDEST_HEAD && [width, stride, offset].iter().all(|n| n.is_multiple_of(8));
    let aligned = front.iter().all(|a| !matches!(a, Pointer(at) if !at.is_multiple_of(16)));
    let few = rows * segments < 1 << 31 && rows * stride < 1 << 34;
    (whole && aligned && few).then(|| 8 * 4 * (32 / (width / 8).next_power_of_two()))
}

impl Cuda {
    fn norm_arguments(shape: NormShape) -> Result<NormArguments, DeviceFailure> {
        if [shape.width, shape.stride, shape.offset].iter().any(|n| !n.is_multiple_of(4)) {
            return Err(DeviceFailure {
                what: format!("a norm over {} values", shape.width),
                reason: "the kernels need multiples of 4".into(),
            });
        }
        Ok(NormArguments {
            items: shape.rows * shape.segments,
            tail: [
                Long(shape.rows as i64),
                Int(shape.stride as i32),
                Int(shape.offset as i32),
                Int(shape.segments as i32),
                Int(shape.width as i32),
            ],
        })
    }

    pub(super) fn norm_forward(
        &self,
        kernel: &'static str,
        shape: NormShape,
        eps: f64,
        front: &[Argument],
    ) -> Result<(), DeviceFailure> {
        let NormArguments { items, tail } = Self::norm_arguments(shape)?;
        let mut arguments = [front, &tail, &[Float(eps as f32), Float(shape.plus())]].concat();
        let (kernel, at_once) = match (kernel, heads_at_once(shape, front)) {
            ("rmsnorm_segments_forward", Some(at_once)) => ("rmsnorm_heads_forward", at_once),
            _ => (kernel, 8),
        };
        self.launch(kernel, [items.div_ceil(at_once), 1, 1], 256, 0, &mut arguments)
    }

    /// Sums over rows in shares, which are added up as those of a norm's weight are.
    pub(super) fn bias_gradient(
        &self,
        rows: usize,
        width: usize,
        grad: &Narrow,
        grad_bias: &mut Wide,
    ) -> Result<(), DeviceFailure> {
        if rows == 0 {
            return Ok(());
        }
        let shares = rows.div_ceil(BIAS_ROWS).min(BIAS_SHARES);
        let partial = self.scratch.borrow_mut().shares.at_least(&self.device, shares * width * 4)?;
        let mut arguments = [Pointer(grad.0.at()), Pointer(partial), Long(rows as i64), Int(width as i32)];
        self.launch("bias_grad", [shares, width.div_ceil(8 * 128), 1], 128, 0, &mut arguments)?;
        self.add_shares(partial, shares, width, grad_bias)
    }

    /// Adds the partial sums of `shares` blocks, in their order.
    fn add_shares(
        &self,
        partial: u64,
        shares: usize,
        width: usize,
        grad: &mut Wide,
    ) -> Result<(), DeviceFailure> {
        let mut arguments = [Pointer(partial), Pointer(grad.change()), Int(shares as i32), Int(width as i32)];
        self.launch("rmsnorm_weight_grad", [width.div_ceil(32), 1, 1], 1024, 0, &mut arguments)
    }

    /// `front` are the arguments up to the partial sums, which go to scratch memory and from there to
    /// `grad_w`.
    pub(super) fn norm_backward_pass(
        &self,
        kernel: &'static str,
        shape: NormShape,
        front: &[Argument],
        grad_w: &mut Wide,
    ) -> Result<(), DeviceFailure> {
        let NormArguments { items, tail } = Self::norm_arguments(shape)?;
        if items == 0 {
            return Ok(());
        }
        let by_row = match kernel {
            "rmsnorm_backward" => Some("rmsnorm_rows_backward"),
            "rmsnorm_residual_backward" => Some("rmsnorm_rows_residual_backward"),
            _ => None,
        };
        let by_head = heads_at_once(shape, front).filter(|_| kernel == "rmsnorm_segments_backward");
        // Each warp keeps one row of sums, a block's in 32 KiB where it can.
        let warps = (32_768 / (shape.width * 4)).clamp(1, 8);
        let whole = shape.segments == 1 && shape.stride == shape.width;
        let by_row = by_row.filter(|_| whole && BY_ROW.contains(&shape.width));
        let shares = match (by_row, by_head) {
            (Some(_), _) => items.min(ROW_SHARES),
            (None, Some(at_once)) => items.div_ceil(at_once).min(HEAD_SHARES),
            (None, None) => items.div_ceil(warps).min((NORM_WARPS / warps).min(NORM_SHARES)),
        };
        let partial = self.scratch.borrow_mut().shares.at_least(&self.device, shares * shape.width * 4)?;
        if let Some(kernel) = by_row {
            let rest =
                [Pointer(partial), Long(shape.rows as i64), Int(shape.width as i32), Float(shape.plus())];
            let threads = 128 * shape.width.div_ceil(2048) as u32;
            self.launch(kernel, [shares, 1, 1], threads, 0, &mut [front, &rest].concat())?;
        } else {
            let mut arguments = [front, &[Pointer(partial)], &tail, &[Float(shape.plus())]].concat();
            let (kernel, threads, shared) = match by_head {
                Some(_) => ("rmsnorm_heads_backward", 256, 0),
                None => (kernel, warps as u32 * 32, warps * shape.width * 4),
            };
            self.launch(kernel, [shares, 1, 1], threads, shared, &mut arguments)?;
        }
        self.add_shares(partial, shares, shape.width, grad_w)
    }
}
