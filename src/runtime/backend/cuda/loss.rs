//! The loss: logits a block of rows at a time, never all of them, and never as themselves: the product
//! that makes them leaves exponentials in bf16.

use super::backend::Cuda;
use super::device::{Argument, DeviceFailure};
use super::memory::{Index, Narrow, Wide};
use super::product::{Order, Output, PART, PART_BYTES, Product};
use crate::runtime::backend::LossShape;
use Argument::{Float, Int, Long, Pointer};

/// Largest block of logits, in bytes. Every block reads and writes the whole gradient of the head once more.
const LOGITS: usize = 2 << 30;
/// Rows of a block of logits at most: enough tiles for every multiprocessor in the products that follow.
const LOGIT_ROWS: usize = 4096;

/// Rows of logits that exist at once, and values per row.
fn block(vocab: usize, tokens: usize) -> (usize, usize) {
    let stride = vocab.next_multiple_of(8);
    let rows = (LOGITS / (stride * 2)).clamp(128, LOGIT_ROWS) / 128 * 128;
    (rows.min(tokens.max(1)), stride)
}

/// Bytes of the parts of a block of logits.
fn parts_bytes(vocab: usize, rows: usize) -> usize {
    rows * vocab.div_ceil(PART) * PART_BYTES
}

/// Bytes of a block of logits and of what is kept beside it: parts, and the logit of each row's target.
pub(super) fn scratch(vocab: usize, tokens: usize) -> usize {
    let (rows, stride) = block(vocab, tokens);
    rows * stride * 2 + parts_bytes(vocab, rows) + rows * 4
}

/// A block of logits on the device.
struct Logits {
    /// `[rows, stride]` in bf16: exponentials, then their gradient. 0 where they are not kept.
    values: u64,
    /// `[rows, vocab / PART]` rounded up, each a largest logit and a sum in f32.
    parts: u64,
    /// `[rows]` in f32.
    of_target: u64,
    /// `[rows]`.
    targets: u64,
}

impl Cuda {
    /// What of `rows` rows from `first` on the loss is made of; the exponentials where they are `kept`.
    fn logits(
        &self,
        shape: LossShape,
        (first, rows): (usize, usize),
        x: &Narrow,
        w: u64,
        targets: &Index,
        room: &Narrow,
        kept: bool,
    ) -> Result<Logits, DeviceFailure> {
        let (block, stride) = block(shape.vocab, shape.tokens);
        debug_assert!(room.0.bytes() >= scratch(shape.vocab, shape.tokens));
        let at = room.0.at();
        let parts = at + (block * stride * 2) as u64;
        let logits = Logits {
            values: if kept { at } else { 0 },
            parts,
            of_target: parts + parts_bytes(shape.vocab, block) as u64,
            targets: targets.0.at() + (first * 4) as u64,
        };
        let Logits { values, parts, of_target, targets } = logits;
        self.product(Product {
            order: Order::Nt,
            a: x.0.at() + (first * shape.width * 2) as u64,
            lda: shape.width,
            b: w,
            ldb: shape.width,
            c: values,
            ldc: stride,
            m: rows,
            n: shape.vocab,
            k: shape.width,
            output: Output::Exponentials { targets, parts, of_target },
        })?;
        Ok(logits)
    }

    pub(super) fn nll(
        &self,
        shape: LossShape,
        x: &Narrow,
        w: &Wide,
        targets: &Index,
        nll: &mut Wide,
        scratch: &Narrow,
    ) -> Result<(), DeviceFailure> {
        let (block, _) = block(shape.vocab, shape.tokens);
        let (w, nll) = (self.operand(w)?, nll.change());
        for first in (0..shape.tokens).step_by(block) {
            let rows = block.min(shape.tokens - first);
            let logits = self.logits(shape, (first, rows), x, w, targets, scratch, false)?;
            let mut arguments = [
                Pointer(logits.parts),
                Pointer(logits.of_target),
                Pointer(logits.targets),
                Pointer(nll + (first * 4) as u64),
                Int(shape.vocab as i32),
            ];
            self.launch("cross_entropy_forward", [rows, 1, 1], 256, 0, &mut arguments)?;
        }
        Ok(())
    }

    pub(super) fn nll_backward(
        &self,
        shape: LossShape,
        x: &Narrow,
        w: &Wide,
        targets: &Index,
        nll: &mut Wide,
        grad_x: &mut Narrow,
        accumulate: bool,
        grad_w: &mut Wide,
        scratch: &Narrow,
    ) -> Result<(), DeviceFailure> {
        let (block, stride) = block(shape.vocab, shape.tokens);
        let (w, nll, grad_w) = (self.operand(w)?, nll.change(), grad_w.change());
        for first in (0..shape.tokens).step_by(block) {
            let rows = block.min(shape.tokens - first);
            let logits = self.logits(shape, (first, rows), x, w, targets, scratch, true)?;
            let mut arguments = [
                Pointer(logits.values),
                Pointer(logits.parts),
                Pointer(logits.of_target),
                Pointer(logits.targets),
                Pointer(nll + (first * 4) as u64),
                Int(shape.vocab as i32),
                Long(stride as i64),
                Float(shape.gradient_scale as f32),
                Float(shape.z_loss as f32),
            ];
            self.launch("cross_entropy_backward", [rows, 1, 1], 256, 0, &mut arguments)?;
            // The gradient lies where the exponentials were.
            self.product(Product {
                order: Order::Nn,
                a: logits.values,
                lda: stride,
                b: w,
                ldb: shape.width,
                c: grad_x.0.at() + (first * shape.width * 2) as u64,
                ldc: shape.width,
                m: rows,
                n: shape.width,
                k: shape.vocab,
                output: Output::Bf16,
            })?;
            self.product(Product {
                order: Order::Tn,
                a: logits.values,
                lda: stride,
                b: x.0.at() + (first * shape.width * 2) as u64,
                ldb: shape.width,
                c: grad_w,
                ldc: shape.width,
                m: shape.vocab,
                n: shape.width,
                k: rows,
                output: Output::F32 { add: if accumulate || first > 0 { grad_w } else { 0 } },
            })?;
        }
        Ok(())
    }
}
