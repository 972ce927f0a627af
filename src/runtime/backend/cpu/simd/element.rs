//! The two element types of the kernels and how sixteen of them move through a register.

use std::arch::x86_64::*;

use half::bf16;

use super::PANEL;
use super::exp::exp2;
use super::micro::{self, Tile};

/// f32 or bf16.
///
/// # Safety
/// The unsafe methods need the processor features of `has_f32` (kernels of bf16: `has_bf16`) and
/// pointers valid for the elements the mask or count names.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Consecutive values of the summed dimension in one step.
    const GROUP: usize;

    /// Sixteen values as f32; lanes outside `mask` are 0 and not read.
    unsafe fn load(from: *const Self, mask: __mmask16) -> __m512;
    /// Round sixteen f32 and store the lanes of `mask`.
    unsafe fn store(to: *mut Self, value: __m512, mask: __mmask16);
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
    /// Bits of sixteen values of `from`, one to a lane.
    unsafe fn lanes(from: *const Self, mask: __mmask16) -> __m512i;
    /// Sixteen f32 rounded, one to a lane.
    unsafe fn lanes_of(value: __m512) -> __m512i;
    /// One step of sixteen columns from the lanes of `GROUP` consecutive rows.
    unsafe fn step(first: __m512i, second: __m512i) -> __m512i;
    /// Sixteen steps from `count ≤ 16·GROUP` consecutive values of one row.
    unsafe fn row_steps(from: *const Self, count: usize) -> __m512i;
    /// As `row_steps`, rounding from f32.
    unsafe fn row_steps_of(from: *const f32, count: usize) -> __m512i;
    /// Round sixteen values at most.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn round_from(from: &[f32], to: &mut [Self]) {
        debug_assert!(from.len() == to.len() && to.len() <= 16);
        let mask = first(to.len());
        // SAFETY: by the caller; the mask names the values of both.
        unsafe { Self::store(to.as_mut_ptr(), _mm512_maskz_loadu_ps(mask, from.as_ptr()), mask) }
    }
    /// 2^x for x ≤ 100, as exactly as the type can tell.
    unsafe fn exp2(x: __m512) -> __m512;
    /// `micro::row` of this type.
    unsafe fn row_kernel(rows: usize, steps: usize, a: *const Self, lda: usize, b: *const u8, c: Tile);
    /// `micro::column` of this type.
    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: *const u8, c: Tile);
}

/// The first `count` of sixteen lanes.
pub(super) fn first(count: usize) -> __mmask16 {
    if count >= 16 { !0 } else { (1u16 << count) - 1 }
}

/// The first `count` of 32 lanes.
fn first32(count: usize) -> __mmask32 {
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

/// As [`round`] for two times sixteen.
///
/// # Safety
/// Needs `has_bf16`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn round_two(low: __m512, high: __m512) -> __m512i {
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

impl Element for f32 {
    const GROUP: usize = 1;

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
    unsafe fn lanes(from: *const f32, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, from)) }
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
    unsafe fn row_steps(from: *const f32, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { f32::lanes(from, first(count)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps_of(from: *const f32, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { f32::lanes(from, first(count)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn exp2(x: __m512) -> __m512 {
        exp2::<7>(x)
    }

    unsafe fn row_kernel(rows: usize, steps: usize, a: *const f32, lda: usize, b: *const u8, c: Tile) {
        // SAFETY: by the caller.
        unsafe { micro::single::row(rows, steps, a.cast(), lda * size_of::<f32>(), b, c) }
    }

    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: *const u8, c: Tile) {
        // SAFETY: by the caller.
        unsafe { micro::single::column(rows, steps, a, b, c) }
    }
}

impl Element for bf16 {
    const GROUP: usize = 2;

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn load(from: *const bf16, mask: __mmask16) -> __m512 {
        // SAFETY: by the caller.
        let lanes = unsafe { bf16::lanes(from, mask) };
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
    unsafe fn lanes(from: *const bf16, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast())) }
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
    unsafe fn row_steps(from: *const bf16, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_maskz_loadu_epi16(first32(count), from.cast()) }
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
    unsafe fn exp2(x: __m512) -> __m512 {
        exp2::<4>(x)
    }

    unsafe fn row_kernel(rows: usize, steps: usize, a: *const bf16, lda: usize, b: *const u8, c: Tile) {
        // SAFETY: by the caller.
        unsafe { micro::pairs::row(rows, steps, a.cast(), lda * size_of::<bf16>(), b, c) }
    }

    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: *const u8, c: Tile) {
        // SAFETY: by the caller.
        unsafe { micro::pairs::column(rows, steps, a, b, c) }
    }
}
