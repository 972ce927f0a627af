//! The block formats (ggml's `ggml-common.h`): how so many numbers are packed into so many bytes, and
//! back to f32 with the same roundings as ggml's own reference.

use half::f16;
use rayon::prelude::*;

use crate::runtime::model::Dtype;

/// A format midc reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quant {
    Plain(Dtype),
    /// 32 signed bytes and a scale.
    Q8_0,
    /// 32 nibbles less 8 and a scale.
    Q4_0,
    /// 32 nibbles, a scale and a minimum.
    Q4_1,
}

/// Names of ggml's formats by number, for messages.
const NAMES: &[(u32, &str)] = &[
    (6, "Q5_0"),
    (7, "Q5_1"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (12, "Q4_K"),
    (13, "Q5_K"),
    (14, "Q6_K"),
    (15, "Q8_K"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
];

/// The name of the format `id`, known or not.
pub(super) fn name(id: u32) -> String {
    match (Quant::from_id(id), NAMES.iter().find(|(n, _)| *n == id)) {
        (Some(quant), _) => quant.name().into(),
        (None, Some((_, name))) => (*name).into(),
        (None, None) => format!("ggml's format {id}"),
    }
}

impl Quant {
    pub(super) fn from_id(id: u32) -> Option<Self> {
        match id {
            0 => Some(Self::Plain(Dtype::F32)),
            1 => Some(Self::Plain(Dtype::F16)),
            2 => Some(Self::Q4_0),
            3 => Some(Self::Q4_1),
            8 => Some(Self::Q8_0),
            30 => Some(Self::Plain(Dtype::Bf16)),
            _ => None,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain(Dtype::F32) => "F32",
            Self::Plain(Dtype::F16) => "F16",
            Self::Plain(Dtype::Bf16) => "BF16",
            Self::Q8_0 => "Q8_0",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
        }
    }

    /// Numbers and bytes of one block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::Plain(dtype) => (1, dtype.size()),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
        }
    }

    /// Bytes of a tensor; `None` if a row is not whole blocks or the number overflows.
    pub(super) fn bytes(self, extents: &[usize]) -> Option<usize> {
        let (numbers, bytes) = self.block();
        let row = extents.first().copied().unwrap_or(1);
        let count = extents.iter().try_fold(1usize, |product, extent| product.checked_mul(*extent))?;
        row.is_multiple_of(numbers).then(|| (count / numbers).checked_mul(bytes))?
    }

    /// Unpack blocks, on all cores.
    pub(super) fn decode(self, from: &[u8], to: &mut [f32]) {
        let (numbers, bytes) = self.block();
        let blocks = (1 << 18) / numbers;
        to.par_chunks_mut(blocks * numbers).zip(from.par_chunks(blocks * bytes)).for_each(|(to, from)| {
            if let Self::Plain(dtype) = self {
                return dtype.decode(from, to);
            }
            for (to, from) in to.chunks_exact_mut(numbers).zip(from.chunks_exact(bytes)) {
                self.decode_block(from, to);
            }
        });
    }

    fn decode_block(self, from: &[u8], to: &mut [f32]) {
        let half = |at: usize| f16::from_le_bytes([from[at], from[at + 1]]).to_f32();
        let scale = half(0);
        match self {
            Self::Plain(dtype) => dtype.decode(from, to),
            Self::Q8_0 => {
                for (to, q) in to.iter_mut().zip(&from[2..]) {
                    *to = f32::from(q.cast_signed()) * scale;
                }
            }
            Self::Q4_0 => nibbles(&from[2..], to, |q| (q - 8.0) * scale),
            Self::Q4_1 => {
                let minimum = half(2);
                nibbles(&from[4..], to, |q| q * scale + minimum);
            }
        }
    }
}

/// The low nibbles are the first half of the block, the high ones the second.
fn nibbles(packed: &[u8], to: &mut [f32], number: impl Fn(f32) -> f32) {
    let (low, high) = to.split_at_mut(packed.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(packed) {
        *low = number(f32::from(byte & 15));
        *high = number(f32::from(byte >> 4));
    }
}
