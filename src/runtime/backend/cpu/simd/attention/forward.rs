//! The forward pass: one task for each block of queries of a head.

use std::arch::x86_64::*;
use std::ops::Range;

use rayon::prelude::*;

use super::super::element::{Element, Stored, first};
use super::super::micro::{ROWS, Write};
use super::super::pack::steps;
use super::super::{PANEL, Shared, Step};
use super::{KEYS, Panels, Sight, across, along, depth, key_heads, pack_across, pack_along};
use super::{sight, space, tile_times, visible};
use crate::runtime::backend::AttentionShape;
use crate::runtime::backend::cpu::buffer::Pieces;

/// Queries of a block, which go through the keys together: whole tiles.
const QUERIES: usize = 8 * ROWS;

/// By how many powers of two a score may pass the one that its row's weights are relative to. The sums
/// of a row are scaled down only beyond it (FlashAttention-4 does the same), which after a row's first
/// block of keys almost never happens.
const SLACK: f32 = 8.0;

/// Scratch of one task.
#[derive(Default)]
struct Scratch {
    queries: Vec<Step>,
    scores: Vec<Step>,
    weights: Vec<Step>,
    rows: Vec<Step>,
}

/// Attention of every token over the tokens from `attend_from` to itself; see
/// [`Backend::attention`](crate::runtime::backend::Backend::attention). The head dimension must be
/// even where pairs of bf16 are multiplied.
pub(crate) fn forward<E: Element, S: Stored<E>>(
    mut work: Pieces<'_>,
    shape: &AttentionShape,
    qkv: &[S],
    attend_from: &[u32],
    out: &mut [S],
    log_sum: &mut [f32],
) {
    let (d, ld) = (shape.head_dim, shape.qkv_width());
    assert!(d.is_multiple_of(E::GROUP), "the head dimension is whole steps");
    assert!(qkv.len() >= shape.tokens() * ld && attend_from.len() >= shape.tokens());
    assert!(out.len() >= shape.tokens() * shape.out_width());
    assert!(log_sum.len() >= shape.rows * shape.heads * shape.context);
    let (across, along) = (across::<E>(shape), along::<E>(shape));
    let keys = work.take::<Step>(key_heads(shape) * across);
    let values = work.take::<Step>(key_heads(shape) * along);
    let head = |i: usize| {
        let (row, kv) = (i / shape.kv_heads, i % shape.kv_heads);
        let token = row * shape.context * ld;
        (token + (shape.heads + kv) * d, token + (shape.heads + shape.kv_heads + kv) * d)
    };
    keys.par_chunks_mut(across).zip(values.par_chunks_mut(along)).enumerate().for_each(|(i, (k, v))| {
        let (at_k, at_v) = head(i);
        // SAFETY: the head's columns of the row's tokens are within `qkv`.
        unsafe {
            pack_across::<E, S>(shape, qkv.as_ptr().add(at_k), ld, k);
            pack_along::<E, S>(shape.context, d, qkv.as_ptr().add(at_v), ld, depth::<E>(shape), v);
        }
    });
    let (keys, values) = (&*keys, &*values);
    let blocks = shape.context.div_ceil(QUERIES);
    let (out, log_sum) = (Shared::new(out), Shared::new(log_sum));
    // Later blocks see more keys: they go first, so that no long task is left for the end.
    (0..shape.rows * shape.heads * blocks).into_par_iter().with_max_len(1).for_each_init(
        Scratch::default,
        |scratch, task| {
            let (row_head, block) =
                (task % (shape.rows * shape.heads), blocks - 1 - task / (shape.rows * shape.heads));
            let (row, h) = (row_head / shape.heads, row_head % shape.heads);
            let kv = row * shape.kv_heads + h / (shape.heads / shape.kv_heads);
            let queries = block * QUERIES..((block + 1) * QUERIES).min(shape.context);
            let token = row * shape.context + queries.start;
            // SAFETY: tasks write different tokens or heads; all offsets are within the asserted
            // lengths.
            unsafe {
                forward_block::<E, S>(
                    scratch,
                    shape,
                    queries,
                    qkv.as_ptr().add(token * ld + h * d),
                    &keys[kv * across..(kv + 1) * across],
                    &values[kv * along..(kv + 1) * along],
                    &attend_from[row * shape.context..(row + 1) * shape.context],
                    out.at(token * shape.out_width() + h * d),
                    log_sum.at(row_head * shape.context + block * QUERIES),
                );
            }
        },
    );
}

/// What a row of weights is relative to, and their sum.
#[derive(Clone, Copy)]
struct Sum {
    /// In powers of two; −∞ before the first key.
    reference: f32,
    /// The score, before scaling, past which there is to be another reference.
    limit: f32,
    /// The sum, in sixteen parts.
    parts: __m512,
}

/// One block of queries of one head.
///
/// # Safety
/// Pointers are to the block's first query; the features are there.
#[allow(clippy::too_many_arguments)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn forward_block<E: Element, S: Stored<E>>(
    scratch: &mut Scratch,
    shape: &AttentionShape,
    queries: Range<usize>,
    q: *const S,
    keys: &[Step],
    values: &[Step],
    attend_from: &[u32],
    out: *mut S,
    log_sum: *mut f32,
) {
    let (d, m) = (shape.head_dim, queries.len());
    let key_steps = steps::<E>(d);
    let log_scale = (shape.scale * std::f64::consts::LOG2_E) as f32;
    let gathered = space::<E>(&mut scratch.queries, QUERIES * d);
    let scores = space::<f32>(&mut scratch.scores, ROWS * KEYS);
    let weights = space::<E>(&mut scratch.weights, ROWS * KEYS);
    let rows = space::<f32>(&mut scratch.rows, QUERIES * d);
    // SAFETY: `m` queries lie at `q`; there is room for QUERIES in both.
    unsafe {
        S::gather(m, d, q, shape.qkv_width(), gathered);
        rows.write_bytes(0, m * d);
    }
    let nothing = Sum { reference: f32::NEG_INFINITY, limit: f32::NEG_INFINITY, parts: _mm512_setzero_ps() };
    let mut sums = [nothing; QUERIES];
    let begin = attend_from[queries.start] as usize / KEYS * KEYS;
    for start in (begin..queries.end).step_by(KEYS) {
        for tile in (0..m).step_by(ROWS) {
            let count = (m - tile).min(ROWS);
            let these = queries.start + tile..queries.start + tile + count;
            let n = these.end.saturating_sub(start).min(KEYS);
            let seen = sight(attend_from, &these, start, n);
            if seen == Sight::None {
                continue;
            }
            let seen_by = |i: usize| {
                let query = these.start + i;
                visible(attend_from[query] as usize, query + 1, start, n)
            };
            let sums = &mut sums[tile..tile + count];
            // SAFETY: the tile lies within the block, a tile of scores and weights is ROWS × KEYS,
            // panels from `start` on are packed; weights are zero from `n` to the end of a panel.
            unsafe {
                let rows = rows.add(tile * d);
                let b = Panels {
                    steps: &keys[start / PANEL * key_steps..],
                    depth: key_steps,
                    from: 0,
                    count: key_steps,
                };
                tile_times::<E>(count, gathered.add(tile * d), d, b, n, scores, KEYS, Write::Set);
                // Whole vectors and no masks where all is seen.
                if seen == Sight::All && n == KEYS {
                    weigh::<E, true>(n, log_scale, scores, sums, seen_by, d, rows, weights);
                } else {
                    weigh::<E, false>(n, log_scale, scores, sums, seen_by, d, rows, weights);
                }
                let count_steps = steps::<E>(n.next_multiple_of(PANEL));
                let b = Panels {
                    steps: values,
                    depth: depth::<E>(shape),
                    from: start / E::GROUP,
                    count: count_steps,
                };
                tile_times::<E>(count, weights, KEYS, b, d, rows, d, Write::Add);
            }
        }
    }
    for (i, sum) in sums.iter().enumerate().take(m) {
        let total = _mm512_reduce_add_ps(sum.parts);
        // SAFETY: the row's values of the head; one sum for each query of the block.
        unsafe {
            super::narrow::<E, S>(
                std::slice::from_raw_parts(rows.add(i * d), d),
                1.0 / total,
                out.add(i * shape.out_width()),
            );
            *log_sum.add(i) = (sum.reference + total.log2()) * std::f32::consts::LN_2;
        }
    }
}

/// Weights of a tile's scores over `n` keys, added to its `sums`; one row of `rows` values `d` for each.
///
/// # Safety
/// Scores and weights hold `sums.len()` rows of KEYS; the features are there.
#[allow(clippy::too_many_arguments)]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn weigh<E: Element, const WHOLE: bool>(
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
                refer(sum, _mm512_reduce_max_ps(top) * log_scale, log_scale, d, rows.add(i * d));
            }
            // A query whose keys so far are all masked: nothing is added.
            let reference = if sum.reference == f32::NEG_INFINITY { 0.0 } else { sum.reference };
            let minus = _mm512_set1_ps(reference);
            for c in (0..n).step_by(PANEL) {
                let weight = |c: usize| E::exp2(_mm512_fmsub_ps(scores_of(c), factor, minus), mask(c));
                let (low, high) = (weight(c), weight(c + 16));
                sum.parts = _mm512_add_ps(sum.parts, _mm512_add_ps(low, high));
                E::store_two(weights.add(c), low, high);
            }
        }
    }
}

/// Let a row's sums be relative to `top`.
///
/// # Safety
/// `row` holds `d` values; the features are there.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn refer(sum: &mut Sum, top: f32, log_scale: f32, d: usize, row: *mut f32) {
    let rescale = if sum.reference == f32::NEG_INFINITY { 0.0 } else { (sum.reference - top).exp2() };
    let factor = _mm512_set1_ps(rescale);
    sum.parts = _mm512_mul_ps(sum.parts, factor);
    for c in (0..d).step_by(16) {
        let mask = first(d - c);
        // SAFETY: by the caller; masked lanes are not touched.
        unsafe {
            let old = _mm512_maskz_loadu_ps(mask, row.add(c));
            _mm512_mask_storeu_ps(row.add(c), mask, _mm512_mul_ps(old, factor));
        }
    }
    sum.reference = top;
    sum.limit = (top + SLACK) / log_scale;
}
