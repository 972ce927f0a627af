//! The forward pass: one task for each block of queries of a head.

use std::ops::Range;

use rayon::prelude::*;

use super::super::element::{Element, Stored};
use super::super::pack::steps;
use super::super::tile::{ROWS, Write};
use super::super::{PANEL, Shared, Step};
use super::{KEYS, Panels, Sight, across, along, depth, key_heads, pack_across, pack_along};
use super::{sight, space, tile_times, visible};
use crate::runtime::backend::AttentionShape;
use crate::runtime::backend::cpu::buffer::Pieces;
use crate::runtime::backend::cpu::vectorise::sum_lanes;

/// Tiles of queries that go through the keys together.
const TILES: usize = 8;

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
            pack_along::<E>(shape.context, d, depth::<E>(shape), v, |column, n, panel| {
                S::pack_rows(qkv.as_ptr().add(at_v + column), ld, shape.context, n, panel);
            });
        }
    });
    let (keys, values) = (&*keys, &*values);
    let at_once = TILES * E::ROWS;
    let blocks = shape.context.div_ceil(at_once);
    let (out, log_sum) = (Shared::new(out), Shared::new(log_sum));
    // Later blocks see more keys: they go first, so that no long task is left for the end.
    (0..shape.rows * shape.heads * blocks).into_par_iter().with_max_len(1).for_each_init(
        Scratch::default,
        |scratch, task| {
            let (row_head, block) =
                (task % (shape.rows * shape.heads), blocks - 1 - task / (shape.rows * shape.heads));
            let (row, h) = (row_head / shape.heads, row_head % shape.heads);
            let kv = row * shape.kv_heads + h / (shape.heads / shape.kv_heads);
            let queries = block * at_once..((block + 1) * at_once).min(shape.context);
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
                    log_sum.at(row_head * shape.context + block * at_once),
                );
            }
        },
    );
}

/// What a row of weights is relative to, and their sum.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Sum {
    /// The sum, in sixteen parts.
    pub(in super::super) parts: [f32; 16],
    /// The score, before scaling, past which there is to be another reference.
    pub(in super::super) limit: f32,
    /// In powers of two; −∞ before the first key.
    reference: f32,
}

impl Sum {
    /// Of nothing.
    const NONE: Self = Self { parts: [0.0; 16], limit: f32::NEG_INFINITY, reference: f32::NEG_INFINITY };

    /// What weights are to be relative to, in powers of two.
    pub(in super::super) fn reference(&self) -> f32 {
        // A query whose keys so far are all masked: nothing is added.
        if self.reference == f32::NEG_INFINITY { 0.0 } else { self.reference }
    }

    /// Let the sum, and the `row` of values that goes with it, be relative to the score `top`.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn refer(&mut self, top: f32, log_scale: f32, row: &mut [f32]) {
        let reference = top * log_scale;
        if self.reference != f32::NEG_INFINITY {
            let rescale = (self.reference - reference).exp2();
            self.parts.iter_mut().chain(row).for_each(|x| *x *= rescale);
        }
        self.reference = reference;
        self.limit = (reference + SLACK) / log_scale;
    }
}

/// One block of queries of one head.
///
/// # Safety
/// Pointers are to the block's first query; the features are there.
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
    let gathered = space::<E>(&mut scratch.queries, m * d);
    let scores = space::<f32>(&mut scratch.scores, E::ROWS * KEYS);
    let weights = space::<E>(&mut scratch.weights, E::ROWS * KEYS);
    let rows = space::<f32>(&mut scratch.rows, m * d);
    // SAFETY: `m` queries lie at `q`; there is room for them in both.
    unsafe {
        S::gather(m, d, q, shape.qkv_width(), gathered);
        rows.write_bytes(0, m * d);
    }
    let mut sums = [Sum::NONE; TILES * ROWS];
    let begin = attend_from[queries.start] as usize / KEYS * KEYS;
    for start in (begin..queries.end).step_by(KEYS) {
        for tile in (0..m).step_by(E::ROWS) {
            let count = (m - tile).min(E::ROWS);
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
            // SAFETY: the tile lies within the block, a tile of scores and weights is E::ROWS × KEYS,
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
                    E::weigh::<true>(n, log_scale, scores, sums, seen_by, d, rows, weights);
                } else {
                    E::weigh::<false>(n, log_scale, scores, sums, seen_by, d, rows, weights);
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
        let total = sum_lanes(sum.parts);
        // SAFETY: the row's values of the head; one sum for each query of the block.
        unsafe {
            let row = std::slice::from_raw_parts(rows.add(i * d), d);
            S::round(row, 1.0 / total, out.add(i * shape.out_width()));
            *log_sum.add(i) = (sum.reference + total.log2()) * std::f32::consts::LN_2;
        }
    }
}
