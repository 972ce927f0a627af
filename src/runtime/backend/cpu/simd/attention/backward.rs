//! The backward pass: one task for each row and key head, and parts of it where these are few.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::super::element::{Element, Stored};
use super::super::pack::{panels, steps};
use super::super::tile::{COLUMNS, Panel, Tile, Write};
use super::super::{PANEL, Shared, Step, room};
use super::{KEYS, Panels, Sight, across, along, depth, key_heads, pack_across};
use super::{pack_along, sight, space, tile_times, visible};
use crate::runtime::backend::AttentionShape;
use crate::runtime::backend::cpu::buffer::Pieces;

/// Queries of a block: whole tiles.
const fn queries_at_once<E: Element>() -> usize {
    8 * E::ROWS
}

/// Key heads from which on one task for each keeps any processor busy.
const MANY: usize = 64;
/// Queries that a part of a key head's backward pass goes through at least, and into how many parts those
/// of a query head go at most: sums of the gradients of keys and values exist once for each.
const QUERIES_OF_PART: usize = 512;
const PARTS: usize = 4;

/// Steps that the queries of a key head take in f32, and as elements.
pub(super) fn of_queries<E: Element>(shape: &AttentionShape) -> [usize; 2] {
    let values = shape.heads / shape.kv_heads * shape.context * shape.head_dim;
    [values.div_ceil(PANEL), (values * size_of::<E>()).div_ceil(size_of::<Step>())]
}

/// Scratch of one task.
#[derive(Default)]
struct Scratch {
    /// Scores of a tile of queries over one panel of keys, and the gradients of its weights.
    scores: Vec<Step>,
    weight_grads: Vec<Step>,
    /// Gradients of the scores of a tile over the block, as rows.
    score_grads: Vec<Step>,
    /// Of all queries of the block, as panels over the keys: weights and gradients of scores.
    weight_panels: Vec<Step>,
    score_grad_panels: Vec<Step>,
    /// Of its queries or their output gradients, panels over the head dimension.
    panels: Vec<Step>,
}

/// Gradient of [`forward`]; see
/// [`Backend::attention_backward`](crate::runtime::backend::Backend::attention_backward).
///
/// One task per row and key head goes through its key blocks; the gradient of the keys and values of
/// a block stays in scratch while all queries that see it pass, that of the queries is summed in f32.
/// Where such tasks are few, the queries of a block are shared among tasks of their own.
pub(crate) fn backward<E: Element, S: Stored<E>>(
    mut work: Pieces<'_>,
    shape: &AttentionShape,
    qkv: &[S],
    out: &[S],
    log_sum: &[f32],
    attend_from: &[u32],
    grad_out: &[S],
    grad_qkv: &mut [S],
) {
    let (d, ld) = (shape.head_dim, shape.qkv_width());
    assert!(d.is_multiple_of(E::GROUP), "the head dimension is whole steps");
    assert!(qkv.len() >= shape.tokens() * ld && grad_qkv.len() >= shape.tokens() * ld);
    assert!(attend_from.len() >= shape.tokens());
    assert!(out.len().min(grad_out.len()) >= shape.tokens() * shape.out_width());
    assert!(log_sum.len() >= shape.rows * shape.heads * shape.context);
    let (across, along) = (across::<E>(shape), along::<E>(shape));
    let keys = work.take::<Step>(key_heads(shape) * across);
    let values = work.take::<Step>(key_heads(shape) * across);
    let keys_along = work.take::<Step>(key_heads(shape) * along);
    // f32 sums of the query gradients: [rows, heads, context, head_dim].
    let group = shape.heads / shape.kv_heads;
    let [query_steps, gathered_steps] = of_queries::<E>(shape);
    let query_grads = work.take::<Step>(key_heads(shape) * query_steps);
    let gathered = work.take::<Step>(key_heads(shape) * 2 * gathered_steps);
    let (qkv, out, grad_out) = (Shared::of(qkv), Shared::of(out), Shared::of(grad_out));
    let to = Shared::new(grad_qkv);
    let spare = Spare::default();
    keys.par_chunks_mut(across)
        .zip(values.par_chunks_mut(across))
        .zip(keys_along.par_chunks_mut(along))
        .zip(query_grads.par_chunks_mut(query_steps))
        .zip(gathered.par_chunks_mut(2 * gathered_steps))
        .enumerate()
        .with_max_len(1)
        .for_each(|(i, ((((k, v), k_along), query_grads), gathered))| {
            let (row, kv) = (i / shape.kv_heads, i % shape.kv_heads);
            let token = row * shape.context;
            query_grads.fill(Step([0; PANEL]));
            let (queries, output_grads) = gathered.split_at_mut(gathered_steps);
            // SAFETY: tasks write the columns of different heads or the tokens of different rows;
            // all offsets are within the asserted lengths.
            unsafe {
                let at_k = qkv.at(token * ld + (shape.heads + kv) * d);
                let at_v = qkv.at(token * ld + (shape.heads + shape.kv_heads + kv) * d);
                pack_across::<E, S>(shape, at_k, ld, k);
                pack_across::<E, S>(shape, at_v, ld, v);
                pack_along::<E>(shape.context, d, depth::<E>(shape), k_along, |column, n, panel| {
                    S::pack_rows(at_k.add(column), ld, shape.context, n, panel);
                });
                let mut head = Head::<E, S> {
                    shape,
                    row,
                    kv,
                    out,
                    queries: Shared(queries.as_mut_ptr().cast()),
                    output_grads: Shared(output_grads.as_mut_ptr().cast()),
                    log_sum,
                    attend_from: &attend_from[token..token + shape.context],
                    keys: k,
                    values: v,
                    keys_along: k_along,
                    deltas: vec![0.0; group * shape.context],
                    query_grads: Shared(query_grads.as_mut_ptr().cast()),
                };
                head.gather(qkv, grad_out);
                head.sum_deltas();
                backward_head(&spare, &head, to);
            }
        });
}

/// Scratch that no task has at the moment. (A task that waits for its parts may do another's meanwhile,
/// so scratch cannot go with the thread.)
#[derive(Default)]
struct Spare(Mutex<Vec<Scratch>>);

impl Spare {
    fn with(&self, f: impl FnOnce(&mut Scratch)) {
        // What a panic left there is overwritten before use.
        let spare = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = spare().pop().unwrap_or_default();
        f(&mut scratch);
        spare().push(scratch);
    }
}

/// What the backward pass of a row's key head reads, and where its query gradients are summed.
struct Head<'a, E, S> {
    shape: &'a AttentionShape,
    row: usize,
    kv: usize,
    out: Shared<S>,
    /// `[group, context, head_dim]`, as the next: every block of keys goes through them.
    queries: Shared<E>,
    output_grads: Shared<E>,
    log_sum: &'a [f32],
    attend_from: &'a [u32],
    keys: &'a [Step],
    values: &'a [Step],
    keys_along: &'a [Step],
    /// `[group, context]` row sums of grad_out ∘ out.
    deltas: Vec<f32>,
    /// `[group, context, head_dim]`.
    query_grads: Shared<f32>,
}

impl<E: Element, S: Stored<E>> Head<'_, E, S> {
    /// Bring together the queries and the gradients of their outputs.
    ///
    /// # Safety
    /// Pointers and lengths as asserted by [`backward`]; the features are there.
    unsafe fn gather(&self, qkv: Shared<S>, grad_out: Shared<S>) {
        let (d, context) = (self.shape.head_dim, self.shape.context);
        let (ld, width) = (self.shape.qkv_width(), self.shape.out_width());
        let group = self.shape.heads / self.shape.kv_heads;
        let token = self.row * context;
        for g in 0..group {
            let (column, at) = ((self.kv * group + g) * d, g * context * d);
            // SAFETY: the head's columns of the row's tokens; there is room for those of the group.
            unsafe {
                S::gather(context, d, qkv.at(token * ld + column), ld, self.queries.at(at));
                S::gather(context, d, grad_out.at(token * width + column), width, self.output_grads.at(at));
            }
        }
    }

    /// After [`Head::gather`].
    ///
    /// # Safety
    /// Pointers and lengths as asserted by [`backward`]; the features are there.
    unsafe fn sum_deltas(&mut self) {
        let (d, context, width) = (self.shape.head_dim, self.shape.context, self.shape.out_width());
        let group = self.shape.heads / self.shape.kv_heads;
        for (i, delta) in self.deltas.iter_mut().enumerate() {
            let (g, t) = (i / context, i % context);
            let offset = (self.row * context + t) * width + (self.kv * group + g) * d;
            // SAFETY: the head's values of the token.
            *delta = unsafe { S::dot(d, self.out.at(offset), self.output_grads.at(i * d)) };
        }
    }
}

/// Backward of one row's key head and the query heads that share it.
///
/// # Safety
/// Pointers and lengths as asserted by [`backward`]; the features are there.
unsafe fn backward_head<E: Element, S: Stored<E>>(spare: &Spare, head: &Head<'_, E, S>, to: Shared<S>) {
    let shape = head.shape;
    let (d, ld, context) = (shape.head_dim, shape.qkv_width(), shape.context);
    let (token, group) = (head.row * context, shape.heads / shape.kv_heads);
    // That of the scores, which their gradients are without.
    let scale = shape.scale as f32;
    let at_once = queries_at_once::<E>();
    // By the shape alone, because the parts decide the order in which gradients are summed.
    let (heads_of_part, queries_of_part) = if key_heads(shape) >= MANY {
        (group, context)
    } else {
        (1, context.div_ceil(PARTS).max(QUERIES_OF_PART).next_multiple_of(at_once))
    };
    let parts_of_head = context.div_ceil(queries_of_part);
    let values = KEYS * d;
    let mut sums = vec![0.0f32; group / heads_of_part * parts_of_head * 2 * values];
    for start in (0..context).step_by(KEYS) {
        let block = (context - start).min(KEYS);
        // `attend_from` never decreases: past the first query that begins behind the block, none sees it.
        let last = head.attend_from.partition_point(|from| (*from as usize) < start + block);
        let queries = |part: usize| {
            let first = part % parts_of_head * queries_of_part;
            first.max(start / at_once * at_once)..(first + queries_of_part).min(last)
        };
        sums.par_chunks_mut(2 * values).enumerate().with_max_len(1).for_each(|(part, sums)| {
            // The first takes the others' sums, whether it has any itself or not.
            if part > 0 && queries(part).is_empty() {
                return;
            }
            sums.fill(0.0);
            let first_head = part / parts_of_head * heads_of_part;
            spare.with(|scratch| {
                let (key_grad, value_grad) = sums.split_at_mut(values);
                for g in first_head..first_head + heads_of_part {
                    for first_query in queries(part).step_by(at_once) {
                        // SAFETY: by the caller; parts have different queries or heads.
                        unsafe {
                            backward_block(scratch, head, g, first_query, start, key_grad, value_grad);
                        }
                    }
                }
            });
        });
        let (all, more) = sums.split_at_mut(2 * values);
        for (part, more) in more.chunks(2 * values).enumerate() {
            if !queries(part + 1).is_empty() {
                all.iter_mut().zip(more).for_each(|(all, more)| *all += more);
            }
        }
        let (key_grad, value_grad) = all.split_at(values);
        for (t, (k, v)) in key_grad.chunks(d).zip(value_grad.chunks(d)).enumerate().take(block) {
            let at = (token + start + t) * ld + (shape.heads + head.kv) * d;
            // SAFETY: the key and value columns of the token.
            unsafe {
                S::round(k, scale, to.at(at));
                S::round(v, 1.0, to.at(at + shape.kv_heads * d));
            }
        }
    }
    for g in 0..group {
        for t in 0..context {
            // SAFETY: the query columns of the token; the sums are `group · context · d` values.
            unsafe {
                let sums = std::slice::from_raw_parts(head.query_grads.at((g * context + t) * d), d);
                S::round(sums, scale, to.at((token + t) * ld + (head.kv * group + g) * d));
            }
        }
    }
}

/// Backward of a block of queries of query head `g` of the group over the block of keys from `start` on:
/// adds to the gradients of its keys and values, and to those of the queries; those of keys and queries
/// still want the scale of the scores.
///
/// # Safety
/// As for [`backward_head`]; no other task has the queries of this head.
unsafe fn backward_block<E: Element, S>(
    scratch: &mut Scratch,
    head: &Head<'_, E, S>,
    g: usize,
    first_query: usize,
    start: usize,
    key_grad: &mut [f32],
    value_grad: &mut [f32],
) {
    let shape = head.shape;
    let (d, context, group) = (shape.head_dim, shape.context, shape.heads / shape.kv_heads);
    let key_steps = steps::<E>(d);
    let h = head.kv * group + g;
    let m = (context - first_query).min(queries_at_once::<E>());
    let n = (first_query + m - start).min((context - start).min(KEYS));
    let count = steps::<E>(m.next_multiple_of(2));
    let scores = space::<f32>(&mut scratch.scores, E::ROWS * PANEL);
    let weight_grads = space::<f32>(&mut scratch.weight_grads, E::ROWS * PANEL);
    let rows = space::<E>(&mut scratch.score_grads, E::ROWS * KEYS);
    let weight_panels = room(&mut scratch.weight_panels, panels(KEYS) * count);
    let score_grad_panels = room(&mut scratch.score_grad_panels, panels(KEYS) * count);
    // The steps of each panel in which its keys are seen.
    let mut used = [(count, 0); KEYS / PANEL];
    let logs = &head.log_sum[(head.row * shape.heads + h) * context..][..context];
    let deltas = &head.deltas[g * context..][..context];
    let log_scale = (shape.scale * std::f64::consts::LOG2_E) as f32;
    let grads = head.query_grads;
    // SAFETY: the block's queries are among those of the group.
    let (q, go) = unsafe {
        let at = (g * context + first_query) * d;
        (head.queries.at(at), head.output_grads.at(at))
    };
    for tile in (0..m).step_by(E::ROWS) {
        let these = first_query + tile..first_query + (tile + E::ROWS).min(m);
        let seen = panels(these.end.saturating_sub(start).min(n));
        if seen == 0 {
            continue;
        }
        let (at, until) = (tile / E::GROUP, steps::<E>((tile + these.len()).next_multiple_of(2)));
        for p in 0..seen {
            let first_key = start + p * PANEL;
            let keys = (start + n - first_key).min(PANEL);
            let sight = sight(head.attend_from, &these, first_key, keys);
            used[p] = (used[p].0.min(at), until);
            let tile_of = Scores {
                log_scale,
                logs: &logs[these.clone()],
                deltas: &deltas[these.clone()],
                seen_by: |i: usize| {
                    let query = these.start + i;
                    visible(head.attend_from[query] as usize, query + 1, first_key, keys)
                },
            };
            // SAFETY: the tile lies within the block and the panel within the packed ones; a tile of scores
            // is E::ROWS × PANEL, one of rows E::ROWS × KEYS, the panels have `count` steps.
            unsafe {
                let (weights, score_grads) = (
                    weight_panels[p * count + at].0.as_mut_ptr(),
                    score_grad_panels[p * count + at].0.as_mut_ptr(),
                );
                let rows = rows.add(p * PANEL);
                let panel = |of: &'_ [Step]| of[first_key / PANEL * key_steps..].as_ptr();
                let product = |a: *const E, b: *const Step, to: *mut f32| {
                    let c = Tile { to: to.cast(), stride: PANEL, columns: PANEL, write: Write::Set };
                    E::row_kernel(these.len(), key_steps, a.add(tile * d), d, Panel::alone(b), c);
                };
                product(q, panel(head.keys), scores);
                product(go, panel(head.values), weight_grads);
                if sight == Sight::All && keys == PANEL {
                    E::score_gradients::<true>(&tile_of, scores, weight_grads, weights, score_grads, rows);
                } else {
                    E::score_gradients::<false>(&tile_of, scores, weight_grads, weights, score_grads, rows);
                }
            }
        }
        // grad_q += d_score · k
        // SAFETY: as above; the sums are those of these queries.
        unsafe {
            let b = Panels {
                steps: head.keys_along,
                depth: depth::<E>(shape),
                from: start / E::GROUP,
                count: steps::<E>(seen * PANEL),
            };
            let to = grads.at((g * context + these.start) * d);
            tile_times::<E>(these.len(), rows, KEYS, b, d, to, d, Write::Add);
        }
    }
    let panels = room(&mut scratch.panels, panels(d) * count);
    // SAFETY: `m` rows of queries and of gradients; the panels have `count` steps.
    unsafe {
        // grad_v += pᵀ · grad_out
        pack_along::<E>(m, d, count, panels, |column, n, panel| E::pack_rows(go.add(column), d, m, n, panel));
        columns_times::<E>(n, d, count, &used, weight_panels, panels, value_grad.as_mut_ptr());
        // grad_k += d_scoreᵀ · q
        pack_along::<E>(m, d, count, panels, |column, n, panel| E::pack_rows(q.add(column), d, m, n, panel));
        columns_times::<E>(n, d, count, &used, score_grad_panels, panels, key_grad.as_mut_ptr());
    }
}

/// What the gradients of a tile's scores depend on beside them.
pub(crate) struct Scores<'a, V> {
    pub(in super::super) log_scale: f32,
    pub(in super::super) logs: &'a [f32],
    pub(in super::super) deltas: &'a [f32],
    /// The keys of the panel that a row sees, one bit for each.
    pub(in super::super) seen_by: V,
}

/// `c += aᵀ · b` over the steps of each panel of A that are used: A is panels of `m` columns, B panels of
/// `n` columns, both of `count` steps.
///
/// # Safety
/// As for the column kernel.
unsafe fn columns_times<E: Element>(
    m: usize,
    n: usize,
    count: usize,
    used: &[(usize, usize)],
    a: &[Step],
    b: &[Step],
    to: *mut f32,
) {
    for (pa, (from, until)) in
        used.iter().enumerate().take(panels(m)).filter(|(_, (from, until))| from < until)
    {
        for pb in 0..panels(n) {
            let columns = (n - pb * PANEL).min(PANEL);
            for i in (0..(m - pa * PANEL).min(PANEL)).step_by(COLUMNS) {
                let rows = (m - pa * PANEL - i).min(COLUMNS);
                // SAFETY: by the caller.
                unsafe {
                    let at = to.add((pa * PANEL + i) * n + pb * PANEL);
                    let c = Tile { to: at.cast(), stride: n, columns, write: Write::Add };
                    let a = a[pa * count + from].0.as_ptr().add(i).cast();
                    let b = Panel::alone(&b[pb * count + from]);
                    E::column_kernel(rows, until - from, a, b, c);
                }
            }
        }
    }
}
