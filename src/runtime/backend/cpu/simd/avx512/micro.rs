//! The micro-kernel: a register tile of C, once with f32 steps and once with pairs of bf16.

use std::arch::x86_64::*;

use super::super::PANEL;
use super::super::tile::{COLUMNS, Panel, ROWS, Tile, Write};
use super::lanes::{first, round_by_arithmetic};

/// The tile of so many rows, `$next` bytes from one step of A to the next.
macro_rules! tiles_of {
    ($rows:expr, $next:literal, $operands:tt, $most:ident, $($r:literal)*) => {
        match $rows {
            $($r => tile::<$r, $next> $operands,)*
            _ => tile::<$most, $next> $operands,
        }
    };
}

macro_rules! up_to_fourteen {
    ($rows:expr, $next:literal, $($operand:expr),*) => {
        tiles_of!($rows, $next, ($($operand),*), ROWS, 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
}

macro_rules! kernels {
    ($name:ident, $features:literal, $fma:path, $store:path) => {
        pub(super) mod $name {
            use super::*;

            /// `c (+)= a · b` for up to 14 rows of A in rows, `lda` bytes apart, each of `steps` steps.
            ///
            /// # Safety
            /// Needs the features; `a` holds the rows, `b` one panel of `steps` steps, `c` its tile.
            pub(in super::super) unsafe fn row(
                rows: usize,
                steps: usize,
                a: *const u8,
                lda: usize,
                b: Panel,
                c: Tile,
            ) {
                // SAFETY: by the caller.
                unsafe { up_to_fourteen!(rows, 4, steps, a, lda, b, c) }
            }

            /// `c (+)= aᵀ · b` for up to 14 columns of A packed as a slice.
            ///
            /// # Safety
            /// As for `row`; `a` is a slice of `steps` steps.
            pub(in super::super) unsafe fn slice(
                rows: usize,
                steps: usize,
                a: *const u8,
                b: Panel,
                c: Tile,
            ) {
                // SAFETY: by the caller.
                unsafe { up_to_fourteen!(rows, 56, steps, a, 4, b, c) }
            }

            /// `c (+)= aᵀ · b` for up to 8 columns of a packed panel of A, from the one `a` points to.
            ///
            /// # Safety
            /// As for `row`; `a` points into the first step of a panel of `steps` steps.
            pub(in super::super) unsafe fn column(
                rows: usize,
                steps: usize,
                a: *const u8,
                b: Panel,
                c: Tile,
            ) {
                // SAFETY: by the caller.
                unsafe { tiles_of!(rows, 128, (steps, a, 4, b, c), COLUMNS, 1 2 3 4 5 6 7) }
            }

            #[target_feature(enable = $features)]
            unsafe fn tile<const R: usize, const NEXT: usize>(
                steps: usize,
                a: *const u8,
                lda: usize,
                b: Panel,
                c: Tile,
            ) {
                if c.write == Write::Add {
                    // On their way while the sums are made.
                    for i in 0..R {
                        let row = c.to.wrapping_add(i * c.stride * size_of::<f32>());
                        _mm_prefetch::<_MM_HINT_T0>(row.cast());
                        _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(64).cast());
                    }
                }
                let mut sum = [[_mm512_setzero_ps(); 2]; R];
                // Without another, a line that is there already.
                let (mut next, stride) = if b.next.is_null() { (b.from, 0) } else { (b.next, 128) };
                let (mut a, mut b) = (a, b.from);
                for _ in 0..steps {
                    _mm_prefetch::<_MM_HINT_T1>(next.cast());
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(64).cast());
                    next = next.wrapping_add(stride);
                    // SAFETY: the caller vouches for `steps` steps of A and of B.
                    unsafe {
                        let low = _mm512_load_si512(b.cast());
                        let high = _mm512_load_si512(b.add(64).cast());
                        for (i, sum) in sum.iter_mut().enumerate() {
                            let x = _mm512_set1_epi32(a.add(i * lda).cast::<i32>().read_unaligned());
                            sum[0] = $fma(sum[0], x, low);
                            sum[1] = $fma(sum[1], x, high);
                        }
                        a = a.add(NEXT);
                        b = b.add(128);
                    }
                }
                // SAFETY: the caller vouches for the tile.
                unsafe {
                    if c.columns == PANEL {
                        write(sum, c, [!0; 2]);
                    } else {
                        let second = c.columns.saturating_sub(16);
                        write(sum, c, [first(c.columns), first(second)]);
                    }
                }
            }

            /// Write the lanes of `masks` of a tile.
            #[inline(always)]
            unsafe fn write<const R: usize>(sum: [[__m512; 2]; R], c: Tile, masks: [__mmask16; 2]) {
                for (i, sum) in sum.iter().enumerate() {
                    for (half, value) in sum.iter().enumerate() {
                        let at = i * c.stride + 16 * half;
                        // SAFETY: the caller vouches for the tile; masked lanes are not touched, and
                        // `wrapping_add` may point past it when all lanes are masked.
                        unsafe {
                            match c.write {
                                Write::Set => {
                                    let to = c.to.cast::<f32>().wrapping_add(at);
                                    _mm512_mask_storeu_ps(to, masks[half], *value);
                                }
                                Write::Add => {
                                    let to = c.to.cast::<f32>().wrapping_add(at);
                                    let old = _mm512_maskz_loadu_ps(masks[half], to);
                                    _mm512_mask_storeu_ps(to, masks[half], _mm512_add_ps(old, *value));
                                }
                                Write::Rounded => {
                                    let to = c.to.cast::<u16>().wrapping_add(at);
                                    $store(to, *value, masks[half]);
                                }
                            }
                        }
                    }
                }
            }
        }
    };
}

kernels!(single, "avx512f,avx512bw,avx512vl,avx512dq", fma_single, store_rounded_by_arithmetic);
kernels!(pairs, "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16", fma_pairs, store_rounded);
// So that tests of what surrounds the instruction run where it is missing.
#[cfg(test)]
kernels!(modelled, "avx512f,avx512bw,avx512vl,avx512dq", fma_modelled, store_rounded_by_arithmetic);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn fma_single(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn fma_pairs(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both types are 512 bits without invariants.
    let (a, b) =
        unsafe { (std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b)) };
    _mm512_dpbf16_ps(sum, a, b)
}

/// [`fma_pairs`] by two products of f32. The instruction adds the products of the upper halves first, too.
#[cfg(test)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn fma_modelled(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    let upper = |x| _mm512_and_si512(x, _mm512_set1_epi32(0xffff_0000u32.cast_signed()));
    let lower = |x| _mm512_slli_epi32::<16>(x);
    fma_single(fma_single(sum, upper(a), upper(b)), lower(a), lower(b))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn store_rounded_by_arithmetic(to: *mut u16, value: __m512, mask: __mmask16) {
    // SAFETY: the caller vouches for `to`.
    unsafe { _mm256_mask_storeu_epi16(to.cast(), mask, round_by_arithmetic(value)) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
unsafe fn store_rounded(to: *mut u16, value: __m512, mask: __mmask16) {
    // SAFETY: `__m256bh` and `__m256i` are 256 bits without invariants; the caller vouches for `to`.
    unsafe {
        let bits = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(value));
        _mm256_mask_storeu_epi16(to.cast(), mask, bits);
    }
}
