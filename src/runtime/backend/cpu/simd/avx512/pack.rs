//! Packing of operands into panels and slices.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use half::bf16;

use super::super::pack::{AHEAD, Place, SliceStep, steps};
use super::super::tile::ROWS;
use super::super::{PANEL, Step};
use super::lanes::{Lanes, Register, first, first32};

/// What can be packed as `E`: `E` itself, what stands for it in memory, or a weight.
///
/// # Safety
/// As for the methods of [`Lanes`].
pub(crate) trait PackAs<E: Lanes>: Copy + Send + Sync {
    /// Bits of sixteen values of `from`, the first of which is at `place`, one to a lane; lanes outside `mask`
    /// are 0 and not read.
    unsafe fn lanes(from: *const Self, place: Place, mask: __mmask16) -> __m512i;
    /// Sixteen steps from `count ≤ 16·GROUP` consecutive values of one row, the first at `place`.
    unsafe fn row_steps(from: *const Self, place: Place, count: usize) -> __m512i;
}

impl PackAs<f32> for f32 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes(from: *const f32, _: Place, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_castps_si512(_mm512_maskz_loadu_ps(mask, from)) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps(from: *const f32, place: Place, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { <f32 as PackAs<f32>>::lanes(from, place, first(count)) }
    }
}

impl PackAs<bf16> for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes(from: *const bf16, _: Place, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps(from: *const bf16, _: Place, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { _mm512_maskz_loadu_epi16(first32(count), from.cast()) }
    }
}

impl PackAs<f32> for bf16 {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes(from: *const bf16, _: Place, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        _mm512_castps_si512(unsafe { <bf16 as Register<f32>>::load(from, mask) })
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps(from: *const bf16, place: Place, count: usize) -> __m512i {
        // SAFETY: by the caller.
        unsafe { <bf16 as PackAs<f32>>::lanes(from, place, first(count)) }
    }
}

/// An f32 of a weight, rounded to whatever it is packed as.
///
/// To bf16 not to nearest. A checkpoint's weights are bf16, and a step moves most of them by less than half
/// the distance to the next: to nearest they would all stay, and products would not see what was learned
/// until many steps later. Each is rounded up where its fraction reaches a threshold of its place instead, so
/// that of many weights that have moved by a tenth of the distance a tenth are one further. A fixed
/// threshold, not one drawn anew for each step: the forward and backward passes see the same weights, and a run
/// that is resumed the same bits.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Weight(#[allow(dead_code)] f32);

impl Weight {
    /// How far the threshold moves from row to row and from column to column, of 2³²: 1/ρ and 1/ρ², ρ³ = ρ + 1,
    /// which spread evenly over rows, columns and blocks of both (R₂ in Roberts, "The unreasonable effectiveness
    /// of quasirandom sequences", 2018).
    const STEP: Place = Place { row: 0xc13f_a9a9, column: 0x91e1_0da6 };

    /// Sixteen weights from `place` on as bf16, in the upper half of each lane. NaN stays NaN.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    fn rounded(place: Place, value: __m512) -> __m512i {
        const LANES: [u32; 16] = {
            let mut lanes = [0; 16];
            let mut i = 0;
            while i < 16 {
                lanes[i] = (i as u32).wrapping_mul(Weight::STEP.column as u32);
                i += 1;
            }
            lanes
        };
        // SAFETY: 64 bytes of a constant.
        let lanes = unsafe { _mm512_loadu_si512(LANES.as_ptr().cast()) };
        let first = (place.row as u32)
            .wrapping_mul(Self::STEP.row as u32)
            .wrapping_add((place.column as u32).wrapping_mul(Self::STEP.column as u32));
        let add = _mm512_srli_epi32::<16>(_mm512_add_epi32(_mm512_set1_epi32(first as i32), lanes));
        // A NaN's payload could carry over into the sign.
        let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(value, value);
        _mm512_mask_add_epi32(_mm512_set1_epi32(0x7fc0_0000), number, _mm512_castps_si512(value), add)
    }
}

impl<E: Lanes> PackAs<E> for Weight {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn lanes(from: *const Weight, place: Place, mask: __mmask16) -> __m512i {
        // SAFETY: by the caller.
        let value = unsafe { _mm512_maskz_loadu_ps(mask, from.cast()) };
        if <E as Lanes>::GROUP == 1 {
            return _mm512_castps_si512(value);
        }
        _mm512_srli_epi32::<16>(Weight::rounded(place, value))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn row_steps(from: *const Weight, place: Place, count: usize) -> __m512i {
        let from = from.cast::<f32>();
        // SAFETY: by the caller; a masked load does not touch what the mask leaves out.
        let (low, high) = unsafe {
            (
                _mm512_maskz_loadu_ps(first(count), from),
                _mm512_maskz_loadu_ps(first(count.saturating_sub(16)), from.wrapping_add(16)),
            )
        };
        if <E as Lanes>::GROUP == 1 {
            return _mm512_castps_si512(low);
        }
        upper_halves(Weight::rounded(place, low), Weight::rounded(place.beyond(0, 16), high))
    }
}

/// The upper halves of the lanes of `low`, then those of `high`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn upper_halves(low: __m512i, high: __m512i) -> __m512i {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = 2 * i as u16 + 1;
            i += 1;
        }
        order
    };
    // SAFETY: 64 bytes of a constant.
    _mm512_permutex2var_epi16(low, unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) }, high)
}

/// Pack one panel of B = `from`, a row-major `[k, ld]` matrix whose first value is at `place`, of its
/// `columns ≤ 32` columns from the pointer on.
///
/// # Safety
/// Needs the features of `has_f32`; `from` holds `k` rows `ld` apart with `columns` values each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn rows<E: Lanes, S: PackAs<E>>(
    from: *const S,
    ld: usize,
    place: Place,
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
                let place = place.beyond(p * E::GROUP, 16 * half);
                let low = S::lanes(row, place, mask);
                let odd = E::GROUP == 2 && p * 2 + 1 < k;
                let high = S::lanes(row.wrapping_add(ld), place.beyond(1, 0), if odd { mask } else { 0 });
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
                let low = S::lanes(row, Place::default(), mask);
                let odd = E::GROUP == 2 && p * 2 + 1 < k;
                let high = S::lanes(row.wrapping_add(ld), Place::default(), if odd { mask } else { 0 });
                let to = to[slice * depth + p].as_mut_ptr();
                _mm512_mask_storeu_epi32(to.cast(), all, E::step(low, high));
            }
        }
    }
}

/// Pack one panel of B = `from`ᵀ, `from` being row-major `[columns, ld]` with `k` values to a row, the first at
/// `place`.
///
/// # Safety
/// Needs the features of `has_f32`; `from` holds `columns ≤ 32` rows `ld` apart with `k` values each.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) unsafe fn columns<E: Lanes, S: PackAs<E>>(
    from: *const S,
    ld: usize,
    place: Place,
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
                    *line = unsafe {
                        let place = place.beyond(column, at * E::GROUP);
                        S::row_steps(from.add(column * ld + at * E::GROUP), place, values)
                    };
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

    /// Weights rounded from their place on.
    fn rounded(place: Place, weights: &[f32; 32]) -> [bf16; 32] {
        let mut to = [bf16::ZERO; 32];
        // SAFETY: the caller looked for the features; both hold 32 values.
        unsafe {
            let steps = <Weight as PackAs<bf16>>::row_steps(weights.as_ptr().cast(), place, 32);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), steps);
        }
        to
    }

    /// To nearest all of these would stay where they were.
    #[test]
    fn weights_move_on_average_by_what_they_moved() {
        if !super::super::super::has_f32() {
            eprintln!("skipped: no AVX-512 here");
            return;
        }
        for (sign, moved) in [(1.0f32, 0.1f32), (-1.0, 0.1), (1.0, 0.45), (1.0, 0.0), (-1.0, 0.9)] {
            // Above 1 the values of bf16 are 1/128 apart.
            let weights = [sign * (1.0 + moved / 128.0); 32];
            for start in [Place::default(), Place { row: 48_000, column: 1_536 }] {
                let mut sum = 0.0;
                for row in 0..32 {
                    for value in rounded(start.beyond(row, 0), &weights) {
                        sum += f64::from((value.to_f32() - sign) * sign * 128.0);
                    }
                }
                let mean = sum / 1024.0;
                assert!((mean - f64::from(moved)).abs() < 0.01, "{moved} from {start:?}: {mean}");
            }
        }
    }

    #[test]
    fn weights_without_a_fraction_stay() {
        if !super::super::super::has_f32() {
            eprintln!("skipped: no AVX-512 here");
            return;
        }
        let mut weights = [0.0; 32];
        let all_ones = f32::from_bits(0x7fff_ffff);
        weights[..8].copy_from_slice(&[1.0, -2.5, 0.0, -0.0, f32::INFINITY, f32::NAN, all_ones, -all_ones]);
        for row in 0..100 {
            let values = rounded(Place { row, column: 3 }, &weights);
            for (value, weight) in values.iter().zip(weights) {
                let (value, weight) = (value.to_f32(), weight);
                assert!(value.to_bits() == weight.to_bits() || value.is_nan() && weight.is_nan());
            }
        }
    }

    /// The forward pass packs columns, the backward pass rows of the same weights.
    #[test]
    fn both_passes_round_alike() {
        if !super::super::super::has_f32() {
            eprintln!("skipped: no AVX-512 here");
            return;
        }
        let side = 34;
        let weights: Vec<f32> = (0..side * side).map(|i| (i as f32 * 0.7).sin()).collect();
        let place = Place { row: 1, column: 2 };
        let steps = 16;
        let (mut forward, mut backward) = (vec![Step([0; PANEL]); steps], vec![Step([0; PANEL]); steps]);
        // SAFETY: the features are there; 32 rows and columns lie from the place on.
        unsafe {
            let from = place.of(weights.as_ptr(), side).cast::<Weight>();
            columns::<bf16, Weight>(from, side, place, 32, 32, &mut forward);
            rows::<bf16, Weight>(from, side, place, 32, 32, &mut backward);
        }
        let half = |steps: &[Step], k: usize, column: usize| steps[k / 2].0[column] >> (k % 2 * 16) & 0xffff;
        for row in 0..32 {
            for column in 0..32 {
                let (f, b) = (half(&forward, column, row), half(&backward, row, column));
                assert_eq!(f, b, "row {row}, column {column}");
                let exact = weights[(row + 1) * side + column + 2];
                let rounded = bf16::from_bits(f as u16).to_f32();
                assert!((rounded - exact).abs() <= exact.abs() / 128.0, "{rounded} for {exact}");
            }
        }
    }

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
