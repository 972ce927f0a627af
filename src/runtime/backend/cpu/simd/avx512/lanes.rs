//! The two element types of the kernels with AVX-512, what they are stored as, and how sixteen of them
//! move through a register.

use std::arch::x86_64::*;

use half::bf16;

#[cfg(test)]
use super::super::has_bf16;
use super::super::pack::odd_lines;
use super::super::powers::{FULL, SHORT};
use super::super::tile::{Panel, Tile, Write};
use super::super::{PANEL, Step};
use super::exp::exp2;
use super::micro;
use super::pack::PackAs;

/// What the kernels multiply: f32, or pairs of bf16. The methods that [`Element`](super::super::Element)
/// names, too, are its.
///
/// # Safety
/// The unsafe methods need the processor features of `has_f32` (of bf16: `has_bf16`, which tests go
/// without) and pointers valid for the elements the mask or count names.
pub(crate) trait Lanes: Register<Self> + 'static {
    /// Consecutive values of the summed dimension in one step.
    const GROUP: usize;

    /// Round two times sixteen f32 and store them one after the other.
    unsafe fn store_two(to: *mut Self, low: __m512, high: __m512);
    /// Round sixteen columns of two consecutive rows, the first of even number, and store them as steps of
    /// a panel.
    unsafe fn store_steps(panel: *mut u32, first: __m512, second: __m512);
    /// The same, and also as rows, `stride` apart.
    unsafe fn store_steps_and_rows(
        panel: *mut u32,
        rows: *mut Self,
        stride: usize,
        first: __m512,
        second: __m512,
    );
    /// Sixteen f32 rounded, one to a lane.
    unsafe fn lanes_of(value: __m512) -> __m512i;
    /// One step of sixteen columns from the lanes of `GROUP` consecutive rows.
    unsafe fn step(first: __m512i, second: __m512i) -> __m512i;
    /// Sixteen steps from `count ≤ 16·GROUP` consecutive f32, rounded.
    unsafe fn row_steps_of(from: *const f32, count: usize) -> __m512i;
    /// 2^x for x ≤ 100, as exactly as the type can tell; 0 outside `mask`.
    unsafe fn exp2(x: __m512, mask: __mmask16) -> __m512;
    /// `micro::row` of this type.
    unsafe fn row_kernel(rows: usize, steps: usize, a: *const Self, lda: usize, b: Panel, c: Tile);
    /// `micro::slice` of this type.
    unsafe fn slice_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile);
    /// `micro::column` of this type.
    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile);
}

/// What narrow values are stored as, for kernels that multiply `E`: `E` itself, or bf16 for a processor
/// that multiplies f32 alone.
///
/// # Safety
/// As for [`Lanes`].
pub(crate) trait Register<E: Lanes>: PackAs<E> {
    /// How a tile is written as stored values.
    const WRITE: Write;

    /// Sixteen values as f32; lanes outside `mask` are 0 and not read.
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512;
    /// Round sixteen f32 and store the lanes of `mask`.
    unsafe fn store(to: *mut Self, value: __m512, mask: __mmask16);
    /// As [`Stored::rows`](super::super::Stored::rows): where they lie, unless the types differ.
    #[inline]
    unsafe fn rows(
        from: *const Self,
        ld: usize,
        _rows: usize,
        _values: usize,
        _scratch: &mut [Step],
    ) -> (*const E, usize) {
        const { assert!(size_of::<Self>() == size_of::<E>()) };
        (from.cast(), ld)
    }
    /// As [`Stored::room`](super::super::Stored::room).
    fn room(_rows: usize, _values: usize) -> usize {
        0
    }
    /// As [`Stored::gather`](super::super::Stored::gather).
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(count: usize, d: usize, from: *const Self, ld: usize, to: *mut E) {
        const { assert!(size_of::<Self>() == size_of::<E>()) };
        // SAFETY: by the caller.
        unsafe { copy_rows(count, d, from.cast::<E>(), ld, to) }
    }
}

/// The first `count` of sixteen lanes.
pub(super) fn first(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1u16 << count) - 1 }
}

/// The first `count` of 32 lanes.
pub(super) fn first32(count: usize) -> __mmask32 {
    if count >= 32 { !0 } else { (1u32 << count) - 1 }
}

/// Round sixteen f32 to bf16: to nearest, ties to even; NaN stays NaN, denormals become 0.
///
/// Written as the instruction itself because the intrinsic would not be inlined into functions that
/// serve f32 too and so cannot require AVX512-BF16.
///
/// # Safety
/// Needs `has_bf16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn round(value: __m512) -> __m256i {
    #[cfg(test)]
    if !has_bf16() {
        return round_by_arithmetic(value);
    }
    let rounded: __m256i;
    // SAFETY: reads one register and writes one, nothing else; the caller vouches for the feature.
    unsafe {
        std::arch::asm!(
            "vcvtneps2bf16 {0}, {1}",
            out(ymm_reg) rounded,
            in(zmm_reg) value,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    rounded
}

/// As [`round`] on any processor; denormals are kept.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn round_by_arithmetic(value: __m512) -> __m256i {
    let bits = _mm512_castps_si512(value);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    // Rounding could carry a NaN's payload over into an infinity.
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(value, value);
    let rounded = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0_0000));
    _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded))
}

/// As [`round`] for two times sixteen.
///
/// # Safety
/// Needs `has_bf16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn round_two(low: __m512, high: __m512) -> __m512i {
    #[cfg(test)]
    if !has_bf16() {
        let (low, high) = (round_by_arithmetic(low), round_by_arithmetic(high));
        return _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    }
    let rounded: __m512i;
    // SAFETY: as for `round`.
    unsafe {
        std::arch::asm!(
            "vcvtne2ps2bf16 {0}, {1}, {2}",
            out(zmm_reg) rounded,
            in(zmm_reg) high,
            in(zmm_reg) low,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    rounded
}

/// Words 0, 16, 1, 17, … of the 32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn interleave(words: __m512i) -> __m512i {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: 64 bytes of a constant.
    _mm512_permutexvar_epi16(unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) }, words)
}

impl Lanes for f32 {
    const GROUP: usize = 1;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store_two(to: *mut f32, low: __m512, high: __m512) {
        // SAFETY: by the caller.
        unsafe {
            _mm512_storeu_ps(to, low);
            _mm512_storeu_ps(to.add(16), high);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store_steps(panel: *mut u32, first: __m512, second: __m512) {
        // SAFETY: by the caller; a row is a step.
        unsafe {
            _mm512_storeu_ps(panel.cast(), first);
            _mm512_storeu_ps(panel.add(PANEL).cast(), second);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store_steps_and_rows(
        panel: *mut u32,
        rows: *mut f32,
        stride: usize,
        first: __m512,
        second: __m512,
    ) {
        // SAFETY: by the caller.
        unsafe {
            f32::store_steps(panel, first, second);
            _mm512_storeu_ps(rows, first);
            _mm512_storeu_ps(rows.add(stride), second);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes_of(value: __m512) -> __m512i {
        _mm512_castps_si512(value)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn step(first: __m512i, _second: __m512i) -> __m512i {
        first
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps_of(from: *const f32, count: usize) -> __m512i {
        // SAFETY: by the caller.
        _mm512_castps_si512(unsafe { _mm512_maskz_loadu_ps(first(count), from) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn exp2(x: __m512, mask: __mmask16) -> __m512 {
        exp2(&FULL, x, mask)
    }

    unsafe fn row_kernel(rows: usize, steps: usize, a: *const f32, lda: usize, b: Panel, c: Tile) {
        // SAFETY: by the caller.
        unsafe { micro::single::row(rows, steps, a.cast(), lda * size_of::<f32>(), b, c) }
    }

    unsafe fn slice_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile) {
        // SAFETY: by the caller.
        unsafe { micro::single::slice(rows, steps, a, b, c) }
    }

    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile) {
        // SAFETY: by the caller.
        unsafe { micro::single::column(rows, steps, a, b, c) }
    }
}

impl Lanes for bf16 {
    const GROUP: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store_two(to: *mut bf16, low: __m512, high: __m512) {
        // SAFETY: by the caller.
        unsafe { _mm512_storeu_si512(to.cast(), round_two(low, high)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store_steps(panel: *mut u32, first: __m512, second: __m512) {
        // SAFETY: by the caller.
        unsafe { _mm512_storeu_si512(panel.cast(), interleave(round_two(first, second))) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store_steps_and_rows(
        panel: *mut u32,
        rows: *mut bf16,
        stride: usize,
        first: __m512,
        second: __m512,
    ) {
        // SAFETY: by the caller.
        unsafe {
            let both = round_two(first, second);
            _mm512_storeu_si512(panel.cast(), interleave(both));
            _mm256_storeu_si256(rows.cast(), _mm512_castsi512_si256(both));
            _mm256_storeu_si256(rows.add(stride).cast(), _mm512_extracti64x4_epi64::<1>(both));
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes_of(value: __m512) -> __m512i {
        // SAFETY: the caller vouches for `has_bf16`.
        _mm512_cvtepu16_epi32(unsafe { round(value) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn step(first: __m512i, second: __m512i) -> __m512i {
        _mm512_or_si512(first, _mm512_slli_epi32::<16>(second))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps_of(from: *const f32, count: usize) -> __m512i {
        // SAFETY: by the caller; a masked load does not touch what the mask leaves out.
        unsafe {
            let low = _mm512_maskz_loadu_ps(first(count), from);
            let high = _mm512_maskz_loadu_ps(first(count.saturating_sub(16)), from.wrapping_add(16));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(round(low)), round(high))
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn exp2(x: __m512, mask: __mmask16) -> __m512 {
        exp2(&SHORT, x, mask)
    }

    unsafe fn row_kernel(rows: usize, steps: usize, a: *const bf16, lda: usize, b: Panel, c: Tile) {
        #[cfg(test)]
        if !has_bf16() {
            // SAFETY: by the caller.
            return unsafe { micro::modelled::row(rows, steps, a.cast(), lda * size_of::<bf16>(), b, c) };
        }
        // SAFETY: by the caller.
        unsafe { micro::pairs::row(rows, steps, a.cast(), lda * size_of::<bf16>(), b, c) }
    }

    unsafe fn slice_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile) {
        #[cfg(test)]
        if !has_bf16() {
            // SAFETY: by the caller.
            return unsafe { micro::modelled::slice(rows, steps, a, b, c) };
        }
        // SAFETY: by the caller.
        unsafe { micro::pairs::slice(rows, steps, a, b, c) }
    }

    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile) {
        #[cfg(test)]
        if !has_bf16() {
            // SAFETY: by the caller.
            return unsafe { micro::modelled::column(rows, steps, a, b, c) };
        }
        // SAFETY: by the caller.
        unsafe { micro::pairs::column(rows, steps, a, b, c) }
    }
}

/// As [`Register::gather`] where nothing is converted.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn copy_rows<T: Copy>(count: usize, d: usize, from: *const T, ld: usize, to: *mut T) {
    let lines = d * size_of::<T>() / 64;
    for i in 0..count {
        // SAFETY: by the caller.
        unsafe {
            let (from, to) = (from.add(i * ld), to.add(i * d));
            for line in 0..lines {
                let at = line * 64 / size_of::<T>();
                _mm512_storeu_si512(to.add(at).cast(), _mm512_loadu_si512(from.add(at).cast()));
            }
            let at = lines * 64 / size_of::<T>();
            if at < d {
                std::ptr::copy_nonoverlapping(from.add(at), to.add(at), d - at);
            }
        }
    }
}

impl Register<f32> for f32 {
    const WRITE: Write = Write::Set;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const f32, mask: __mmask16) -> __m512 {
        // SAFETY: by the caller.
        unsafe { _mm512_maskz_loadu_ps(mask, from) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store(to: *mut f32, value: __m512, mask: __mmask16) {
        // SAFETY: by the caller.
        unsafe { _mm512_mask_storeu_ps(to, mask, value) }
    }
}

impl Register<bf16> for bf16 {
    const WRITE: Write = Write::Rounded;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const bf16, mask: __mmask16) -> __m512 {
        // SAFETY: by the caller.
        let lanes = unsafe { <bf16 as PackAs<bf16>>::lanes(from, mask) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(lanes))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store(to: *mut bf16, value: __m512, mask: __mmask16) {
        // SAFETY: by the caller.
        unsafe {
            _mm256_mask_storeu_epi16(to.cast(), mask, round(value));
        }
    }
}

/// For processors that have no product of bf16 or a slow one: values are widened on their way to the kernels, which
/// need not round weights then.
impl Register<f32> for bf16 {
    const WRITE: Write = Write::Rounded;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const bf16, mask: __mmask16) -> __m512 {
        // SAFETY: by the caller.
        unsafe { <bf16 as Register<bf16>>::load(from, mask) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn store(to: *mut bf16, value: __m512, mask: __mmask16) {
        // SAFETY: by the caller.
        unsafe { _mm256_mask_storeu_epi16(to.cast(), mask, round_by_arithmetic(value)) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn rows(
        from: *const bf16,
        ld: usize,
        rows: usize,
        values: usize,
        scratch: &mut [Step],
    ) -> (*const f32, usize) {
        assert!(scratch.len() >= <bf16 as Register<f32>>::room(rows, values));
        let (to, stride) = (scratch.as_mut_ptr().cast::<f32>(), odd_lines(values));
        for i in 0..rows {
            // SAFETY: by the caller; there is room for as many rows.
            unsafe { widen(values, from.add(i * ld), to.add(i * stride)) }
        }
        (to, stride)
    }

    fn room(rows: usize, values: usize) -> usize {
        (rows * odd_lines(values)).div_ceil(PANEL)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn gather(count: usize, d: usize, from: *const bf16, ld: usize, to: *mut f32) {
        for i in 0..count {
            // SAFETY: by the caller.
            unsafe { widen(d, from.add(i * ld), to.add(i * d)) }
        }
    }
}

/// `count` values as f32.
///
/// # Safety
/// Needs `has_f32`; both hold as many.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn widen(count: usize, from: *const bf16, to: *mut f32) {
    for at in (0..count).step_by(16) {
        let mask = first(count - at);
        // SAFETY: by the caller; masked lanes are not touched.
        unsafe { _mm512_mask_storeu_ps(to.add(at), mask, <bf16 as Register<f32>>::load(from.add(at), mask)) }
    }
}
