//! The kernels with AVX-512: f32, or pairs of bf16 with its product of bf16.

mod exp;
pub(crate) mod glu;
mod lanes;
mod micro;
mod pack;

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use self::exp::exp2;
use self::lanes::{Lanes, Register, first};
use self::pack::Weight;
use super::attention::{KEYS, Scores, Sum};
use super::element::{Element, Stored};
use super::pack::SliceStep;
use super::powers::FULL;
use super::tile::{Panel, ROWS, Tile, Write};
use super::{PANEL, Step};
use crate::runtime::backend::cpu::linear::Part;

impl<E: Lanes> Element for E {
    const GROUP: usize = <E as Lanes>::GROUP;
    const ROWS: usize = ROWS;

    unsafe fn row_kernel(rows: usize, steps: usize, a: *const E, lda: usize, b: Panel, c: Tile) {
        // SAFETY: by the caller, here and below.
        unsafe { <E as Lanes>::row_kernel(rows, steps, a, lda, b, c) }
    }

    unsafe fn slice_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile) {
        // SAFETY: as above.
        unsafe { <E as Lanes>::slice_kernel(rows, steps, a, b, c) }
    }

    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile) {
        // SAFETY: as above.
        unsafe { <E as Lanes>::column_kernel(rows, steps, a, b, c) }
    }

    unsafe fn pack_rows(from: *const E, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        // SAFETY: as above.
        unsafe { pack::rows::<E, E>(from, ld, k, columns, to) }
    }

    unsafe fn pack_weight_rows(from: *const f32, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        // SAFETY: as above.
        unsafe { pack::rows::<E, Weight>(from.cast(), ld, k, columns, to) }
    }

    unsafe fn pack_weight_columns(from: *const f32, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        // SAFETY: as above.
        unsafe { pack::columns::<E, Weight>(from.cast(), ld, k, columns, to) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn weigh<const WHOLE: bool>(
        n: usize,
        log_scale: f32,
        scores: *const f32,
        sums: &mut [Sum],
        seen_by: impl Fn(usize) -> u128,
        d: usize,
        rows: *mut f32,
        weights: *mut E,
    ) {
        let n = if WHOLE { KEYS } else { n.next_multiple_of(PANEL) };
        let factor = _mm512_set1_ps(log_scale);
        for (i, sum) in sums.iter_mut().enumerate() {
            // SAFETY: row `i` of the tile.
            unsafe {
                let (scores, weights) = (scores.add(i * KEYS), weights.add(i * KEYS));
                let seen = if WHOLE { !0 } else { seen_by(i) };
                let scores_of = |c: usize| _mm512_load_ps(scores.add(c));
                let mask = |c: usize| (seen >> c) as __mmask16;
                let none = _mm512_set1_ps(f32::NEG_INFINITY);
                let (mut low, mut high) = (none, none);
                for c in (0..n).step_by(PANEL) {
                    low = _mm512_mask_max_ps(low, mask(c), low, scores_of(c));
                    high = _mm512_mask_max_ps(high, mask(c + 16), high, scores_of(c + 16));
                }
                let top = _mm512_max_ps(low, high);
                if _mm512_cmp_ps_mask::<_CMP_GT_OQ>(top, _mm512_set1_ps(sum.limit)) != 0 {
                    sum.refer(
                        _mm512_reduce_max_ps(top),
                        log_scale,
                        std::slice::from_raw_parts_mut(rows.add(i * d), d),
                    );
                }
                let minus = _mm512_set1_ps(sum.reference());
                let mut parts = _mm512_load_ps(sum.parts.as_ptr());
                for c in (0..n).step_by(PANEL) {
                    let weight = |c: usize| E::exp2(_mm512_fmsub_ps(scores_of(c), factor, minus), mask(c));
                    let (low, high) = (weight(c), weight(c + 16));
                    parts = _mm512_add_ps(parts, _mm512_add_ps(low, high));
                    E::store_two(weights.add(c), low, high);
                }
                _mm512_store_ps(sum.parts.as_mut_ptr(), parts);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn score_gradients<const WHOLE: bool>(
        of: &Scores<'_, impl Fn(usize) -> u128>,
        scores: *const f32,
        weight_grads: *const f32,
        weights: *mut u32,
        score_grads: *mut u32,
        rows: *mut E,
    ) {
        let log_scale = _mm512_set1_ps(of.log_scale);
        let zero = _mm512_setzero_ps();
        for i in (0..of.logs.len()).step_by(2) {
            let both = |i: usize, c: usize| {
                if i == of.logs.len() {
                    // The last of an odd number is beside a row of zeros.
                    return (zero, zero);
                }
                let log = _mm512_set1_ps(of.logs[i] * std::f32::consts::LOG2_E);
                let delta = _mm512_set1_ps(of.deltas[i]);
                let mask = if WHOLE { !0 } else { ((of.seen_by)(i) >> c) as __mmask16 };
                let at = i * PANEL + c;
                // SAFETY: sixteen values of row `i`.
                let (s, dp) =
                    unsafe { (_mm512_load_ps(scores.add(at)), _mm512_load_ps(weight_grads.add(at))) };
                // SAFETY: the features are there.
                let p = unsafe { E::exp2(_mm512_fmsub_ps(s, log_scale, log), mask) };
                // Masked because ∞ · 0 would not be 0.
                (p, _mm512_maskz_mul_ps(mask, p, _mm512_sub_ps(dp, delta)))
            };
            for c in (0..PANEL).step_by(16) {
                let ((p_low, ds_low), (p_high, ds_high)) = (both(i, c), both(i + 1, c));
                // SAFETY: by the caller.
                unsafe {
                    let step = i / <E as Lanes>::GROUP * PANEL + c;
                    E::store_steps(weights.add(step), p_low, p_high);
                    let (steps, rows) = (score_grads.add(step), rows.add(i * KEYS + c));
                    E::store_steps_and_rows(steps, rows, KEYS, ds_low, ds_high);
                }
            }
        }
    }
}

impl<E: Lanes, S: Register<E>> Stored<E> for S {
    const WRITE: Write = <S as Register<E>>::WRITE;

    unsafe fn pack_rows(from: *const S, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        // SAFETY: by the caller, here and below.
        unsafe { pack::rows::<E, S>(from, ld, k, columns, to) }
    }

    unsafe fn pack_columns(from: *const S, ld: usize, k: usize, columns: usize, to: &mut [Step]) {
        // SAFETY: as above.
        unsafe { pack::columns::<E, S>(from, ld, k, columns, to) }
    }

    unsafe fn pack_slices(
        from: *const S,
        ld: usize,
        k: usize,
        columns: usize,
        depth: usize,
        to: &mut [MaybeUninit<SliceStep>],
    ) {
        // SAFETY: as above.
        unsafe { pack::slices::<E, S>(from, ld, k, columns, depth, to) }
    }

    unsafe fn rows(
        from: *const S,
        ld: usize,
        rows: usize,
        values: usize,
        scratch: &mut [Step],
    ) -> (*const E, usize) {
        // SAFETY: as above.
        unsafe { <S as Register<E>>::rows(from, ld, rows, values, scratch) }
    }

    fn room(rows: usize, values: usize) -> usize {
        <S as Register<E>>::room(rows, values)
    }

    unsafe fn gather(count: usize, d: usize, from: *const S, ld: usize, to: *mut E) {
        // SAFETY: as above.
        unsafe { <S as Register<E>>::gather(count, d, from, ld, to) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn round(from: &[f32], factor: f32, to: *mut S) {
        let factor = _mm512_set1_ps(factor);
        for c in (0..from.len()).step_by(16) {
            let mask = first(from.len() - c);
            // SAFETY: by the caller.
            unsafe {
                let value = _mm512_maskz_loadu_ps(mask, from.as_ptr().add(c));
                S::store(to.add(c), _mm512_mul_ps(value, factor), mask);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn dot(d: usize, a: *const S, b: *const E) -> f32 {
        let mut sum = _mm512_setzero_ps();
        for c in (0..d).step_by(16) {
            let mask = first(d - c);
            // SAFETY: by the caller; masked lanes are not read.
            unsafe { sum = _mm512_fmadd_ps(S::load(a.add(c), mask), E::load(b.add(c), mask), sum) };
        }
        _mm512_reduce_add_ps(sum)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn exponentials(logits: &[f32], to: *mut S) -> Part {
        // No closures here and no adapters over them: they are not compiled for these features, and would
        // be called for each vector.
        let mut lanes = _mm512_set1_ps(f32::NEG_INFINITY);
        for at in (0..logits.len()).step_by(16) {
            let mask = first(logits.len() - at);
            // SAFETY: masked lanes are not read.
            let values = unsafe { _mm512_maskz_loadu_ps(mask, logits.as_ptr().add(at)) };
            // The second is taken where one is NaN: the exponentials show it.
            lanes = _mm512_mask_max_ps(lanes, mask, values, lanes);
        }
        let largest = _mm512_reduce_max_ps(lanes);
        let mut sum = _mm512_setzero_ps();
        for at in (0..logits.len()).step_by(16) {
            let mask = first(logits.len() - at);
            // SAFETY: masked lanes are neither read nor written.
            unsafe {
                let values = _mm512_maskz_loadu_ps(mask, logits.as_ptr().add(at));
                let below = _mm512_sub_ps(values, _mm512_set1_ps(largest));
                // In full, whatever the format: the sum is the loss.
                let powers = _mm512_mul_ps(below, _mm512_set1_ps(std::f32::consts::LOG2_E));
                let exponentials = exp2(&FULL, powers, mask);
                sum = _mm512_add_ps(sum, exponentials);
                S::store(to.add(at), exponentials, mask);
            }
        }
        Part { largest, sum: _mm512_reduce_add_ps(sum) }
    }
}
