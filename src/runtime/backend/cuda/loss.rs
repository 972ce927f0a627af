//! The loss: logits a block of rows at a time, never all of them.

use super::backend::Cuda;
use super::device::{Argument, DeviceFailure};
use super::memory::{Index, Narrow, Wide};
use super::product::{Order, Output, Product};
use crate::runtime::backend::LossShape;
use Argument::{Float, Int, Long, Pointer};

/// Largest block of logits, in bytes. Every block reads and writes the whole gradient of the head once more.
const LOGITS: usize = 2 << 30;
/// Rows of a block of logits at most: enough tiles for every multiprocessor in the products that follow.
const LOGIT_ROWS: usize = 4096;

/// Rows of logits that exist at once, and values per row.
fn block(vocab: usize, tokens: usize) -> (usize, usize) {
    let stride = vocab.next_multiple_of(8);
    let rows = (LOGITS / (stride * 4)).clamp(128, LOGIT_ROWS) / 128 * 128;
    (rows.min(tokens.max(1)), stride)
}

/// Bytes of a block of logits.
pub(super) fn scratch(vocab: usize, tokens: usize) -> usize {
    let (rows, stride) = block(vocab, tokens);
    rows * stride * 4
}

impl Cuda {
    fn logits(
        &self,
        shape: LossShape,
        first: usize,
        rows: usize,
        x: &Narrow,
        w: u64,
    ) -> Result<u64, DeviceFailure> {
        let (_, stride) = block(shape.vocab, shape.tokens);
        let bytes = scratch(shape.vocab, shape.tokens);
        let logits = self.scratch.borrow_mut().logits.at_least(&self.device, bytes)?;
        self.product(Product {
            order: Order::Nt,
            a: x.0.at() + (first * shape.width * 2) as u64,
            lda: shape.width,
            b: w,
            ldb: shape.width,
            c: logits,
            ldc: stride,
            m: rows,
            n: shape.vocab,
            k: shape.width,
            output: Output::F32 { add: 0 },
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
    ) -> Result<(), DeviceFailure> {
        let (block, stride) = block(shape.vocab, shape.tokens);
        let (w, nll) = (self.operand(w)?, nll.change());
        for first in (0..shape.tokens).step_by(block) {
            let rows = block.min(shape.tokens - first);
            let logits = self.logits(shape, first, rows, x, w)?;
            let mut arguments = [
                Pointer(logits),
                Pointer(targets.0.at() + (first * 4) as u64),
                Pointer(nll + (first * 4) as u64),
                Int(shape.vocab as i32),
                Long(stride as i64),
            ];
            self.launch("cross_entropy_forward", [rows, 1, 1], 256, 0, &mut arguments)?;
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
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
    ) -> Result<(), DeviceFailure> {
        let (block, stride) = block(shape.vocab, shape.tokens);
        let (w, nll, grad_w) = (self.operand(w)?, nll.change(), grad_w.change());
        for first in (0..shape.tokens).step_by(block) {
            let rows = block.min(shape.tokens - first);
            let logits = self.logits(shape, first, rows, x, w)?;
            let mut arguments = [
                Pointer(logits),
                Pointer(targets.0.at() + (first * 4) as u64),
                Pointer(nll + (first * 4) as u64),
                Int(shape.vocab as i32),
                Long(stride as i64),
                Float(shape.gradient_scale as f32),
                Float(shape.z_loss as f32),
            ];
            self.launch("cross_entropy_backward", [rows, 1, 1], 256, 0, &mut arguments)?;
            // The gradient lies in the front half of each row, in bf16.
            self.product(Product {
                order: Order::Nn,
                a: logits,
                lda: 2 * stride,
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
                a: logits,
                lda: 2 * stride,
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
