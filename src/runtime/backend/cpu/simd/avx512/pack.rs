//! Packing of operands into panels and slices.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use half::bf16;

use super::super::pack::{AHEAD, SliceStep, steps};
use super::super::tile::ROWS;
use super::super::{PANEL, Step};
use super::lanes::{Lanes, Register, first, first32};

/// What can be packed as `E`: `E` itself, what stands for it in memory, or a weight.
///
/// # Safety
/// As for the methods of [`Lanes`].
pub(crate) trait PackAs<E: Lanes>: Copy + Send + Sync {
    /// Bits of sixteen values of `from`, one to a lane; lanes outside `mask` are 0 and not read.
    unsafe fn lanes(from: *const Self, mask: __mmask16) -> __m512i;
    /// Sixteen steps from `count ≤ 16·GROUP` consecutive values of one row.
    unsafe fn row_steps(from: *const Self, count: usize) -> __m512i;
}

impl PackAs<f32> for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes(from: *const f32, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, from)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps(from: *const f32, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { <f32 as PackAs<f32>>::lanes(from, first(count)) }
    }
}

impl PackAs<bf16> for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes(from: *const bf16, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps(from: *const bf16, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_maskz_loadu_epi16(first32(count), from.cast()) }
    }
}

impl PackAs<f32> for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes(from: *const bf16, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        _mm512_castps_si512(unsafe { <bf16 as Register<f32>>::load(from, mask) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps(from: *const bf16, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { <bf16 as PackAs<f32>>::lanes(from, first(count)) }
    }
}

/// An f32 of a weight, rounded to whatever it is packed as.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Weight(#[allow(dead_code)] f32);

impl<E: Lanes> PackAs<E> for Weight {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes(from: *const Weight, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        unsafe { E::lanes_of(_mm512_maskz_loadu_ps(mask, from.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps(from: *const Weight, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { E::row_steps_of(from.cast(), count) }
    }
}

/// Pack one panel of B = `from`, a row-major `[k, ld]` matrix, of its `columns ≤ 32` columns from the
/// pointer on.
///
/// # Safety
/// Needs the features of `has_f32`; `from` holds `k` rows `ld` apart with `columns` values each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn rows<E: Lanes, S: PackAs<E>>(
    from: *const S,
    ld: usize,
    k: usize,
    columns: usize,
    to: &mut [Step],
) {
    let masks = [first(columns), first(columns.saturating_sub(16))];
    for (p, step) in to.iter_mut().enumerate().take(steps::<E>(k)) {
        let out = step.0.as_mut_ptr();
        for row in p * E::GROUP..(p + 1) * E::GROUP {
            let ahead = from.wrapping_add((row + AHEAD) * ld);
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            if PANEL * size_of::<S>() > 64 {
                _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(PANEL / 2).cast());
            }
        }
        for (half, mask) in masks.into_iter().enumerate() {
            // SAFETY: the rows of this step are below `k`; masked lanes are not read.
            unsafe {
                let row = from.wrapping_add(p * E::GROUP * ld + 16 * half);
                let low = S::lanes(row, mask);
                let odd = E::GROUP == 2 && p * 2 + 1 < k;
                let high = S::lanes(row.wrapping_add(ld), if odd { mask } else { 0 });
                _mm512_store_si512(out.add(16 * half).cast(), E::step(low, high));
            }
        }
    }
}

/// Pack `columns` columns of `from`, row-major `[k, ld]`, as slices of [`ROWS`] columns, each of them
/// `steps::<E>(k)` steps with the columns side by side, `depth` steps from slice to slice: A of a transposed
/// product, as few cache lines of it as there are values.
///
/// # Safety
/// As for [`rows`]; `to` has room for the slices, of which these steps are written.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn slices<E: Lanes, S: PackAs<E>>(
    from: *const S,
    ld: usize,
    k: usize,
    columns: usize,
    depth: usize,
    to: &mut [MaybeUninit<SliceStep>],
) {
    let all = first(ROWS);
    for p in 0..steps::<E>(k) {
        for (slice, at) in (0..columns).step_by(ROWS).enumerate() {
            let mask = first((columns - at).min(ROWS));
            for row in p * E::GROUP..(p + 1) * E::GROUP {
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add((row + AHEAD) * ld + at).cast());
            }
            // SAFETY: the rows of this step are below `k`; masked lanes are neither read nor written.
            unsafe {
                let row = from.wrapping_add(p * E::GROUP * ld + at);
                let low = S::lanes(row, mask);
                let odd = E::GROUP == 2 && p * 2 + 1 < k;
                let high = S::lanes(row.wrapping_add(ld), if odd { mask } else { 0 });
                let to = to[slice * depth + p].as_mut_ptr();
                _mm512_mask_storeu_epi32(to.cast(), all, E::step(low, high));
            }
        }
    }
}

/// Pack one panel of B = `from`ᵀ, `from` being row-major `[columns, ld]` with `k` values to a row.
///
/// # Safety
/// Needs the features of `has_f32`; `from` holds `columns ≤ 32` rows `ld` apart with `k` values each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn columns<E: Lanes, S: PackAs<E>>(
    from: *const S,
    ld: usize,
    k: usize,
    columns: usize,
    to: &mut [Step],
) {
    let total = steps::<E>(k);
    for at in (0..total).step_by(16) {
        let values = (k - at * E::GROUP).min(16 * E::GROUP);
        for half in 0..2 {
            let mut block = [_mm512_setzero_si512(); 16];
            for (j, line) in block.iter_mut().enumerate() {
                let column = 16 * half + j;
                if column < columns {
                    // SAFETY: the row is below `columns`, its values below `k`.
                    *line = unsafe { S::row_steps(from.add(column * ld + at * E::GROUP), values) };
                }
            }
            transpose(&mut block);
            for (p, line) in block.iter().enumerate().take((total - at).min(16)) {
                // SAFETY: a step has 32 aligned values.
                unsafe { _mm512_store_si512(to[at + p].0.as_mut_ptr().add(16 * half).cast(), *line) };
            }
        }
    }
}

/// Transpose sixteen registers of sixteen u32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn transpose(m: &mut [__m512i; 16]) {
    let mut t = [_mm512_setzero_si512(); 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(m[2 * i], m[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(m[2 * i], m[2 * i + 1]);
    }
    for i in 0..4 {
        m[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        m[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        m[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        m[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    // Now m[4i + c] holds, in its 128-bit lane l, column 4l + c of rows 4i..4i+4.
    for c in 0..4 {
        t[c] = _mm512_shuffle_i32x4::<0x88>(m[c], m[4 + c]);
        t[4 + c] = _mm512_shuffle_i32x4::<0xdd>(m[c], m[4 + c]);
        t[8 + c] = _mm512_shuffle_i32x4::<0x88>(m[8 + c], m[12 + c]);
        t[12 + c] = _mm512_shuffle_i32x4::<0xdd>(m[8 + c], m[12 + c]);
    }
    for c in 0..4 {
        m[c] = _mm512_shuffle_i32x4::<0x88>(t[c], t[8 + c]);
        m[8 + c] = _mm512_shuffle_i32x4::<0xdd>(t[c], t[8 + c]);
        m[4 + c] = _mm512_shuffle_i32x4::<0x88>(t[4 + c], t[12 + c]);
        m[12 + c] = _mm512_shuffle_i32x4::<0xdd>(t[4 + c], t[12 + c]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows to a step; the last of an odd number is beside zeros. Needs no product of bf16.
    #[test]
    fn slices_of_pairs() {
        if !super::super::super::has_f32() {
            eprintln!("skipped: no AVX-512 here");
            return;
        }
        let (k, ld, columns, depth) = (5, 20, ROWS + 3, 4);
        let values: Vec<bf16> = (0..k * ld).map(|i| bf16::from_bits(i as u16 + 1)).collect();
        let mut to = vec![MaybeUninit::new([7u32; ROWS]); 2 * depth];
        // SAFETY: the features are there; five rows of `columns` lie at the start, and there is room.
        unsafe { slices::<bf16, bf16>(values.as_ptr(), ld, k, columns, depth, &mut to) };
        // SAFETY: all of them were initialised above.
        let to: Vec<SliceStep> = to.into_iter().map(|step| unsafe { step.assume_init() }).collect();
        for step in 0..3 {
            for column in 0..2 * ROWS {
                let bits = |row: usize| {
                    let inside = row < k && column < columns;
                    if inside { u32::from(values[row * ld + column].to_bits()) } else { 0 }
                };
                let got = to[column / ROWS * depth + step][column % ROWS];
                assert_eq!(got, bits(2 * step) | bits(2 * step + 1) << 16, "{step} {column}");
            }
        }
        // Steps between the slices are left alone.
        assert_eq!(to[3], [7; ROWS]);
    }
}
