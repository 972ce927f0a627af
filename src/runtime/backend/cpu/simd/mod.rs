//! Kernels of the CPU backend for AVX-512 and AVX2, in f32 and in bf16 with f32 sums: plain functions over
//! slices, parallel over the caller's rayon pool. They know no decoder and no backend trait.
//!
//! Everything rests on one micro-kernel: a tile of up to 14 rows by 32 columns that multiplies broadcast
//! *steps* of A by *steps* of a packed panel of B. A step is four bytes of A (one f32, or two
//! consecutive bf16) and 128 bytes of B (32 columns of the same), so f32 and bf16 share all blocking
//! and attention code and differ in one instruction; `avx512` and `avx2` hold what instructions there
//! are for it. What is multiplied (`Element`) and what is stored (`Stored`) are two types: a processor
//! that multiplies f32 alone, or faster, widens bf16 as it packs.
//!
//! Each output value is summed by one task in one order: results do not depend on the number of
//! threads.

#![cfg(target_arch = "x86_64")]

pub(crate) mod attention;
mod avx2;
mod avx512;
mod element;
pub(crate) mod gemm;
pub(crate) mod logits;
mod pack;
mod powers;
mod tile;

pub(crate) use avx2::Avx2;
pub(crate) use avx512::glu;
pub(crate) use element::{Element, Stored};

use std::sync::OnceLock;

use super::buffer::Plain;

/// Whether this processor runs the f32 kernels for AVX-512.
pub(crate) fn has_f32() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512dq")
}

/// Whether this processor runs the kernels for AVX2.
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

/// Whether this processor runs the kernels that multiply bf16.
fn has_bf16() -> bool {
    has_f32() && std::arch::is_x86_feature_detected!("avx512bf16")
}

/// Whether they are the faster ones here. AMD's Zen 4 and 5 do `vdpbf16ps` as often as a multiply-add of
/// f32, and it has twice the products; Intel's Sapphire and Emerald Rapids a quarter as often, so that
/// widening bf16 to f32 takes half the time. By the maker and not by a measurement, which might come out
/// differently the next time and change the bits of a run.
pub(crate) fn prefers_bf16() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| has_bf16() && maker() != *b"GenuineIntel")
}

/// The processor's maker as it calls itself.
fn maker() -> [u8; 12] {
    let leaf = std::arch::x86_64::__cpuid(0);
    let mut name = [0; 12];
    for (part, register) in name.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    name
}

/// Columns of a panel of B.
const PANEL: usize = 32;

/// One step of a panel: four bytes for each of its 32 columns.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Step([u32; PANEL]);

// SAFETY: numbers without padding.
unsafe impl Plain for Step {}

/// Packed operands, kept between calls so that the steady state allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    /// Rows of A, where they have to be copied.
    rows: Vec<Step>,
    /// Panels of B.
    panels: Vec<Step>,
    /// Sums in f32, where they are made in parts and rounded at the end.
    sums: Vec<Step>,
}

impl Workspace {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        let buffers = [&self.rows, &self.panels, &self.sums];
        buffers.iter().map(|steps| (steps.capacity() * size_of::<Step>()) as u64).sum()
    }
}

/// The first `steps` steps of `buffer`, grown if it is short; their content is arbitrary.
fn room(buffer: &mut Vec<Step>, steps: usize) -> &mut [Step] {
    if buffer.len() < steps {
        buffer.resize(steps, Step([0; PANEL]));
    }
    &mut buffer[..steps]
}

/// A pointer that tasks may share because each writes other elements.
struct Shared<T>(*mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: the pointer is only used under the rule above, which each use site states.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// To be read only.
    fn of(slice: &[T]) -> Self {
        Self(slice.as_ptr().cast_mut())
    }

    /// The pointer `offset` elements on.
    ///
    /// # Safety
    /// `offset` is within the slice this was made of.
    unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: by the caller.
        unsafe { self.0.add(offset) }
    }
}
