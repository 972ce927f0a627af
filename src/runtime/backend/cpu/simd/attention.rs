//! Blocked attention, forward and backward (FlashAttention, arXiv:2205.14135 and 2307.08691), with
//! causal and document masks, grouped key heads and no array of context × context.
//!
//! Keys and values of all heads are packed once per call; scores exist a block at a time.

use std::arch::x86_64::*;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::element::{Element, first};
use super::micro::{COLUMNS, ROWS, Tile, Write};
use super::pack::{self, panels, steps};
use super::{PANEL, Shared, Step, Workspace, room};
use crate::runtime::backend::AttentionShape;

/// Queries of a block.
const QUERIES: usize = 64;
/// Keys of a block: four panels.
const KEYS: usize = 128;

/// Scratch of one task: scores in f32 and as elements, accumulators.
struct Scratch<E> {
    scores: Vec<f32>,
    second: Vec<f32>,
    weights: Vec<E>,
    panels: Vec<Step>,
    more_panels: Vec<Step>,
    rows: Vec<f32>,
}

impl<E: Element> Scratch<E> {
    fn new() -> Self {
        Self {
            scores: vec![0.0; QUERIES * KEYS],
            second: vec![0.0; QUERIES * KEYS],
            weights: vec![E::ZERO; QUERIES * KEYS],
            panels: Vec::new(),
            more_panels: Vec::new(),
            rows: Vec::new(),
        }
    }
}

/// One row's tokens and one key head, for packing.
fn key_heads(shape: &AttentionShape) -> usize {
    shape.rows * shape.kv_heads
}

/// Steps of a head's keys as columns: panels over the tokens, steps over the head dimension.
fn across<E: Element>(shape: &AttentionShape) -> usize {
    panels(shape.context) * steps::<E>(shape.head_dim)
}

/// Steps of a head's keys or values as rows: panels over the head dimension, steps over the tokens,
/// with a block's worth of zeros behind them because a block of keys may reach past the end.
fn along<E: Element>(shape: &AttentionShape) -> usize {
    panels(shape.head_dim) * depth::<E>(shape)
}

fn depth<E: Element>(shape: &AttentionShape) -> usize {
    steps::<E>(shape.context.next_multiple_of(KEYS))
}

/// Pack columns `offset..offset + head_dim` of a row's tokens as panels over the tokens.
///
/// # Safety
/// `from` holds `context` rows of `ld` values; the features are there.
unsafe fn pack_across<E: Element>(shape: &AttentionShape, from: *const E, ld: usize, to: &mut [Step]) {
    let per = steps::<E>(shape.head_dim);
    for (p, panel) in to.chunks_mut(per).enumerate() {
        let n = (shape.context - p * PANEL).min(PANEL);
        // SAFETY: the panel's rows are below `context`.
        unsafe { pack::columns::<E, E>(from.add(p * PANEL * ld), ld, shape.head_dim, n, panel) };
    }
}

/// Pack the same as panels over the head dimension.
///
/// # Safety
/// As for `pack_across`.
unsafe fn pack_along<E: Element>(
    tokens: usize,
    head_dim: usize,
    from: *const E,
    ld: usize,
    depth: usize,
    to: &mut [Step],
) {
    for (p, panel) in to.chunks_mut(depth).enumerate().take(panels(head_dim)) {
        let n = (head_dim - p * PANEL).min(PANEL);
        // SAFETY: the panel's columns are within the head.
        unsafe { pack::rows::<E, E>(from.add(p * PANEL), ld, tokens, n, panel) };
        panel[steps::<E>(tokens)..].fill(Step([0; PANEL]));
    }
}

/// `c = a · b` for `m` rows of A and panels `b` of `depth` steps from step `from` on.
///
/// # Safety
/// As for the row kernel.
#[allow(clippy::too_many_arguments)]
unsafe fn rows_times<E: Element>(
    m: usize,
    count: usize,
    a: *const E,
    lda: usize,
    b: &[Step],
    depth: usize,
    from: usize,
    n: usize,
    to: *mut f32,
    stride: usize,
    write: Write,
) {
    for p in 0..panels(n) {
        for i in (0..m).step_by(ROWS) {
            // SAFETY: by the caller.
            unsafe {
                let c = Tile {
                    to: to.add(i * stride + p * PANEL).cast(),
                    stride,
                    columns: (n - p * PANEL).min(PANEL),
                    write,
                };
                let b = b[p * depth + from].0.as_ptr().cast();
                E::row_kernel((m - i).min(ROWS), count, a.add(i * lda), lda, b, c);
            }
        }
    }
}

/// `c += aᵀ · b`: A is panels of `m` columns, B panels of `n` columns, both of `count` steps.
///
/// # Safety
/// As for the column kernel.
unsafe fn columns_times<E: Element>(m: usize, n: usize, count: usize, a: &[Step], b: &[Step], to: *mut f32) {
    for pa in 0..panels(m) {
        for pb in 0..panels(n) {
            let columns = (n - pb * PANEL).min(PANEL);
            for i in (0..(m - pa * PANEL).min(PANEL)).step_by(COLUMNS) {
                let rows = (m - pa * PANEL - i).min(COLUMNS);
                // SAFETY: by the caller.
                unsafe {
                    let at = to.add((pa * PANEL + i) * n + pb * PANEL);
                    let c = Tile { to: at.cast(), stride: n, columns, write: Write::Add };
                    let (a, b) = (a[pa * count].0.as_ptr().add(i).cast(), b[pb * count].0.as_ptr().cast());
                    E::column_kernel(rows, count, a, b, c);
                }
            }
        }
    }
}

/// Attention of every token over the tokens from `attend_from` to itself; see
/// [`Backend::attention`](crate::runtime::backend::Backend::attention). The head dimension must be
/// even for bf16.
pub(crate) fn forward<E: Element>(
    work: &mut Workspace,
    shape: &AttentionShape,
    qkv: &[E],
    attend_from: &[u32],
    out: &mut [E],
    log_sum: &mut [f32],
) {
    let (d, ld) = (shape.head_dim, shape.qkv_width());
    assert!(d.is_multiple_of(E::GROUP), "the head dimension is whole steps");
    assert!(qkv.len() >= shape.tokens() * ld && attend_from.len() >= shape.tokens());
    assert!(out.len() >= shape.tokens() * shape.out_width());
    assert!(log_sum.len() >= shape.rows * shape.heads * shape.context);
    let (across, along) = (across::<E>(shape), along::<E>(shape));
    let keys = room(&mut work.a, key_heads(shape) * across);
    let values = room(&mut work.b, key_heads(shape) * along);
    let head = |i: usize| {
        let (row, kv) = (i / shape.kv_heads, i % shape.kv_heads);
        let token = row * shape.context * ld;
        (token + (shape.heads + kv) * d, token + (shape.heads + shape.kv_heads + kv) * d)
    };
    keys.par_chunks_mut(across).zip(values.par_chunks_mut(along)).enumerate().for_each(|(i, (k, v))| {
        let (at_k, at_v) = head(i);
        // SAFETY: the head's columns of the row's tokens are within `qkv`.
        unsafe {
            pack_across(shape, qkv.as_ptr().add(at_k), ld, k);
            pack_along(shape.context, d, qkv.as_ptr().add(at_v), ld, depth::<E>(shape), v);
        }
    });
    let (keys, values) = (&*keys, &*values);
    let blocks = shape.context.div_ceil(QUERIES);
    let (out, log_sum) = (Shared::new(out), Shared::new(log_sum));
    // Later blocks see more keys: they go first, so that no long task is left for the end.
    (0..shape.rows * shape.heads * blocks).into_par_iter().with_max_len(1).for_each_init(
        Scratch::<E>::new,
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
                forward_block::<E>(
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

/// One block of queries of one head.
///
/// # Safety
/// Pointers are to the block's first query; the features are there.
#[allow(clippy::too_many_arguments)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn forward_block<E: Element>(
    scratch: &mut Scratch<E>,
    shape: &AttentionShape,
    queries: std::ops::Range<usize>,
    q: *const E,
    keys: &[Step],
    values: &[Step],
    attend_from: &[u32],
    out: *mut E,
    log_sum: *mut f32,
) {
    let (d, ld, m) = (shape.head_dim, shape.qkv_width(), queries.len());
    let key_steps = steps::<E>(d);
    let log_scale = (shape.scale * std::f64::consts::LOG2_E) as f32;
    scratch.rows.clear();
    scratch.rows.resize(QUERIES * d, 0.0);
    let mut largest = [f32::NEG_INFINITY; QUERIES];
    let mut sums = [0.0f32; QUERIES];
    let begin = attend_from[queries.start] as usize / KEYS * KEYS;
    for start in (begin..queries.end).step_by(KEYS) {
        let n = (queries.end - start).min(KEYS);
        let (scores, weights) = (scratch.scores.as_mut_ptr(), scratch.weights.as_mut_ptr());
        // SAFETY: the block of scores is QUERIES × KEYS; panels from `start` on are packed.
        unsafe {
            let b = &keys[start / PANEL * key_steps..];
            rows_times::<E>(m, key_steps, q, ld, b, key_steps, 0, n, scores, KEYS, Write::Set);
        }
        for i in 0..m {
            let query = queries.start + i;
            let valid = span(attend_from[query] as usize, query + 1, start, n);
            // SAFETY: row `i` of the block.
            let row = unsafe { scores.add(i * KEYS) };
            let mut top = _mm512_set1_ps(f32::NEG_INFINITY);
            for c in (0..n).step_by(16) {
                // SAFETY: sixteen scores of the row.
                let s = unsafe { _mm512_loadu_ps(row.add(c)) };
                top = _mm512_mask_max_ps(top, lanes(&valid, c), top, s);
            }
            // Scores count in powers of two; the scale is positive.
            let top = (_mm512_reduce_max_ps(top) * log_scale).max(largest[i]);
            // A query whose keys of this block are all masked: nothing is added.
            let shift = if top == f32::NEG_INFINITY { 0.0 } else { top };
            let rescale = if largest[i] == f32::NEG_INFINITY { 0.0 } else { (largest[i] - shift).exp2() };
            let mut sum = _mm512_setzero_ps();
            let (factor, minus) = (_mm512_set1_ps(log_scale), _mm512_set1_ps(shift));
            for c in (0..n.next_multiple_of(PANEL)).step_by(16) {
                let mask = lanes(&valid, c);
                // SAFETY: sixteen scores and weights of the row.
                unsafe {
                    let s = _mm512_fmsub_ps(_mm512_loadu_ps(row.add(c)), factor, minus);
                    let p = _mm512_maskz_mov_ps(mask, E::exp2(s));
                    sum = _mm512_add_ps(sum, p);
                    E::store(weights.add(i * KEYS + c), p, !0);
                }
            }
            sums[i] = sums[i] * rescale + _mm512_reduce_add_ps(sum);
            largest[i] = top;
            if rescale != 1.0 {
                for value in &mut scratch.rows[i * d..(i + 1) * d] {
                    *value *= rescale;
                }
            }
        }
        // SAFETY: weights are `m` rows of `n` rounded up to a panel, zero beyond `n`.
        unsafe {
            let count = steps::<E>(n.next_multiple_of(PANEL));
            let from = start / E::GROUP;
            let to = scratch.rows.as_mut_ptr();
            rows_times::<E>(m, count, weights, KEYS, values, depth::<E>(shape), from, d, to, d, Write::Add);
        }
    }
    for i in 0..m {
        let inverse = _mm512_set1_ps(1.0 / sums[i]);
        for c in (0..d).step_by(16) {
            let mask = first(d - c);
            // SAFETY: the row's values of the head.
            unsafe {
                let value = _mm512_maskz_loadu_ps(mask, scratch.rows.as_ptr().add(i * d + c));
                E::store(out.add(i * shape.out_width() + c), _mm512_mul_ps(value, inverse), mask);
            }
        }
        // SAFETY: one value for each query of the block.
        unsafe { *log_sum.add(i) = (largest[i] + sums[i].log2()) * std::f32::consts::LN_2 };
    }
}

/// The part of keys `from..to` that lies in the block of `len` keys from `start` on, relative to it.
fn span(from: usize, to: usize, start: usize, len: usize) -> std::ops::Range<usize> {
    from.saturating_sub(start).min(len)..to.saturating_sub(start).min(len)
}

/// Which of the sixteen lanes from `at` on lie in `valid`.
#[inline]
fn lanes(valid: &std::ops::Range<usize>, at: usize) -> __mmask16 {
    if valid.start <= at && at + 16 <= valid.end {
        return !0;
    }
    let below_end = first(valid.end.saturating_sub(at));
    let below_start = first(valid.start.saturating_sub(at));
    below_end & !below_start
}

/// Key heads from which on one task for each keeps any processor busy.
const MANY: usize = 64;
/// Queries that a part of a key head's backward pass goes through at least, and into how many parts those
/// of a query head go at most: sums of the gradients of keys and values exist once for each.
const QUERIES_OF_PART: usize = 512;
const PARTS: usize = 4;

/// Gradient of [`forward`]; see
/// [`Backend::attention_backward`](crate::runtime::backend::Backend::attention_backward).
///
/// One task per row and key head goes through its key blocks; the gradient of the keys and values of
/// a block stays in scratch while all queries that see it pass, that of the queries is summed in f32.
/// Where such tasks are few, the queries of a block are shared among tasks of their own.
#[allow(clippy::too_many_arguments)]
pub(crate) fn backward<E: Element>(
    work: &mut Workspace,
    shape: &AttentionShape,
    qkv: &[E],
    out: &[E],
    log_sum: &[f32],
    attend_from: &[u32],
    grad_out: &[E],
    grad_qkv: &mut [E],
) {
    let (d, ld) = (shape.head_dim, shape.qkv_width());
    assert!(d.is_multiple_of(E::GROUP), "the head dimension is whole steps");
    assert!(qkv.len() >= shape.tokens() * ld && grad_qkv.len() >= shape.tokens() * ld);
    assert!(attend_from.len() >= shape.tokens());
    assert!(out.len().min(grad_out.len()) >= shape.tokens() * shape.out_width());
    assert!(log_sum.len() >= shape.rows * shape.heads * shape.context);
    let (across, along) = (across::<E>(shape), along::<E>(shape));
    let keys = room(&mut work.a, key_heads(shape) * across);
    let values = room(&mut work.b, key_heads(shape) * across);
    let keys_along = room(&mut work.c, key_heads(shape) * along);
    // f32 sums of the query gradients: [rows, heads, context, head_dim].
    let group = shape.heads / shape.kv_heads;
    let query_values = group * shape.context * d;
    let query_steps = query_values.div_ceil(PANEL);
    let query_grads = room(&mut work.d, key_heads(shape) * query_steps);
    let (qkv, out, grad_out) = (Shared::of(qkv), Shared::of(out), Shared::of(grad_out));
    let to = Shared::new(grad_qkv);
    let spare = Spare::default();
    keys.par_chunks_mut(across)
        .zip(values.par_chunks_mut(across))
        .zip(keys_along.par_chunks_mut(along))
        .zip(query_grads.par_chunks_mut(query_steps))
        .enumerate()
        .with_max_len(1)
        .for_each(|(i, (((k, v), k_along), query_grads))| {
            let (row, kv) = (i / shape.kv_heads, i % shape.kv_heads);
            let token = row * shape.context;
            query_grads.fill(Step([0; PANEL]));
            // SAFETY: tasks write the columns of different heads or the tokens of different rows;
            // all offsets are within the asserted lengths.
            unsafe {
                let at_k = qkv.at(token * ld + (shape.heads + kv) * d);
                let at_v = qkv.at(token * ld + (shape.heads + shape.kv_heads + kv) * d);
                pack_across(shape, at_k, ld, k);
                pack_across(shape, at_v, ld, v);
                pack_along(shape.context, d, at_k, ld, depth::<E>(shape), k_along);
                let mut head = Head {
                    shape,
                    row,
                    kv,
                    qkv,
                    out,
                    grad_out,
                    log_sum,
                    attend_from: &attend_from[token..token + shape.context],
                    keys: k,
                    values: v,
                    keys_along: k_along,
                    deltas: vec![0.0; group * shape.context],
                    query_grads: Shared(query_grads.as_mut_ptr().cast()),
                };
                head.sum_deltas();
                backward_head::<E>(&spare, &head, to);
            }
        });
}

/// Scratch that no task has at the moment. (A task that waits for its parts may do another's meanwhile,
/// so scratch cannot go with the thread.)
struct Spare<E>(Mutex<Vec<Scratch<E>>>);

impl<E> Default for Spare<E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<E: Element> Spare<E> {
    fn with(&self, f: impl FnOnce(&mut Scratch<E>)) {
        // What a panic left there is overwritten before use.
        let spare = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = spare().pop();
        let mut scratch = scratch.unwrap_or_else(Scratch::new);
        f(&mut scratch);
        spare().push(scratch);
    }
}

/// What the backward pass of a row's key head reads, and where its query gradients are summed.
struct Head<'a, E> {
    shape: &'a AttentionShape,
    row: usize,
    kv: usize,
    qkv: Shared<E>,
    out: Shared<E>,
    grad_out: Shared<E>,
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

impl<E: Element> Head<'_, E> {
    /// # Safety
    /// Pointers and lengths as asserted by [`backward`]; the features are there.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    unsafe fn sum_deltas(&mut self) {
        let (d, context, width) = (self.shape.head_dim, self.shape.context, self.shape.out_width());
        let group = self.shape.heads / self.shape.kv_heads;
        for (at, delta) in self.deltas.iter_mut().enumerate() {
            let (g, t) = (at / context, at % context);
            let offset = (self.row * context + t) * width + (self.kv * group + g) * d;
            let mut sum = _mm512_setzero_ps();
            for c in (0..d).step_by(16) {
                let mask = first(d - c);
                // SAFETY: the head's values of the token.
                unsafe {
                    let o = E::load(self.out.at(offset + c), mask);
                    sum = _mm512_fmadd_ps(o, E::load(self.grad_out.at(offset + c), mask), sum);
                }
            }
            *delta = _mm512_reduce_add_ps(sum);
        }
    }
}

/// Backward of one row's key head and the query heads that share it.
///
/// # Safety
/// Pointers and lengths as asserted by [`backward`]; the features are there.
unsafe fn backward_head<E: Element>(spare: &Spare<E>, head: &Head<'_, E>, to: Shared<E>) {
    let shape = head.shape;
    let (d, ld, context) = (shape.head_dim, shape.qkv_width(), shape.context);
    let (token, group) = (head.row * context, shape.heads / shape.kv_heads);
    // By the shape alone, because the parts decide the order in which gradients are summed.
    let (heads_of_part, queries_of_part) = if key_heads(shape) >= MANY {
        (group, context)
    } else {
        (1, context.div_ceil(PARTS).max(QUERIES_OF_PART).next_multiple_of(QUERIES))
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
            first.max(start / QUERIES * QUERIES)..(first + queries_of_part).min(last)
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
                    for first_query in queries(part).step_by(QUERIES) {
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
                narrow::<E>(k, to.at(at));
                narrow::<E>(v, to.at(at + shape.kv_heads * d));
            }
        }
    }
    for g in 0..group {
        for t in 0..context {
            // SAFETY: the query columns of the token; the sums are `group · context · d` values.
            unsafe {
                let sums = std::slice::from_raw_parts(head.query_grads.at((g * context + t) * d), d);
                narrow::<E>(sums, to.at((token + t) * ld + (head.kv * group + g) * d));
            }
        }
    }
}

/// Backward of a block of queries of query head `g` of the group over the block of keys from `start` on:
/// adds to the gradients of its keys and values, and to those of the queries.
///
/// # Safety
/// As for [`backward_head`]; no other task has the queries of this head.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn backward_block<E: Element>(
    scratch: &mut Scratch<E>,
    head: &Head<'_, E>,
    g: usize,
    first_query: usize,
    start: usize,
    key_grad: &mut [f32],
    value_grad: &mut [f32],
) {
    let shape = head.shape;
    let (d, ld, width) = (shape.head_dim, shape.qkv_width(), shape.out_width());
    let (context, group) = (shape.context, shape.heads / shape.kv_heads);
    let token = head.row * context;
    let key_steps = steps::<E>(d);
    let scale = _mm512_set1_ps(shape.scale as f32);
    let log_scale = _mm512_set1_ps((shape.scale * std::f64::consts::LOG2_E) as f32);
    let h = head.kv * group + g;
    let logs = &head.log_sum[(head.row * shape.heads + h) * context..][..context];
    let m = (context - first_query).min(QUERIES);
    let n = (first_query + m - start).min((context - start).min(KEYS));
    let q_at = (token + first_query) * ld + h * d;
    let o_at = (token + first_query) * width + h * d;
    let (scores, second) = (scratch.scores.as_mut_ptr(), scratch.second.as_mut_ptr());
    let panel = start / PANEL * key_steps;
    // SAFETY: the block's queries, keys and values are within the packed panels and the asserted
    // lengths; scores and weights are QUERIES × KEYS.
    unsafe {
        let (q, go) = (head.qkv.at(q_at), head.grad_out.at(o_at));
        let keys = &head.keys[panel..];
        rows_times::<E>(m, key_steps, q, ld, keys, key_steps, 0, n, scores, KEYS, Write::Set);
        let values = &head.values[panel..];
        rows_times::<E>(m, key_steps, go, width, values, key_steps, 0, n, second, KEYS, Write::Set);
        // Weights p in place of the scores, d_score = p (dp − delta) scale beside them.
        let padded = n.next_multiple_of(PANEL);
        let rounded: *mut E = scores.cast();
        let weights = scratch.weights.as_mut_ptr();
        for i in 0..m {
            let query = first_query + i;
            let valid = span(head.attend_from[query] as usize, query + 1, start, n);
            let log = _mm512_set1_ps(logs[query] * std::f32::consts::LOG2_E);
            let delta = _mm512_set1_ps(head.deltas[g * context + query]);
            for c in (0..padded).step_by(16) {
                let mask = lanes(&valid, c);
                let at = i * KEYS + c;
                let s = _mm512_fmsub_ps(_mm512_loadu_ps(scores.add(at)), log_scale, log);
                let p = _mm512_maskz_mov_ps(mask, E::exp2(s));
                let dp = _mm512_loadu_ps(second.add(at));
                let ds = _mm512_mul_ps(_mm512_mul_ps(p, scale), _mm512_sub_ps(dp, delta));
                // Both rounded; p takes the place of the scores before it, which are read already,
                // being no shorter.
                E::store(rounded.add(at), p, !0);
                E::store(weights.add(at), _mm512_maskz_mov_ps(mask, ds), !0);
            }
        }
        let count = steps::<E>(m);
        // grad_v += pᵀ · grad_out
        let a = room(&mut scratch.panels, panels(KEYS) * count);
        let b = room(&mut scratch.more_panels, panels(d) * count);
        pack_along::<E>(m, n, rounded, KEYS, count, a);
        pack_along::<E>(m, d, go, width, count, b);
        columns_times::<E>(n, d, count, a, b, value_grad.as_mut_ptr());
        // grad_k += d_scoreᵀ · q
        pack_along::<E>(m, n, weights, KEYS, count, a);
        pack_along::<E>(m, d, q, ld, count, b);
        columns_times::<E>(n, d, count, a, b, key_grad.as_mut_ptr());
        // grad_q += d_score · k
        let to = head.query_grads.at((g * context + first_query) * d);
        let (from, many, depth) = (start / E::GROUP, steps::<E>(padded), depth::<E>(shape));
        rows_times::<E>(m, many, weights, KEYS, head.keys_along, depth, from, d, to, d, Write::Add);
    }
}

/// Round `from` to elements.
///
/// # Safety
/// `to` has room for them; the features are there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn narrow<E: Element>(from: &[f32], to: *mut E) {
    for c in (0..from.len()).step_by(16) {
        let mask = first(from.len() - c);
        // SAFETY: by the caller.
        unsafe { E::store(to.add(c), _mm512_maskz_loadu_ps(mask, from.as_ptr().add(c)), mask) };
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bf16::from_f32((state >> 8) as f32 / (1 << 23) as f32 - 1.0).to_f32()
            })
            .collect()
    }

    /// Output and gradient in f64 by the definition.
    fn plain(s: &AttentionShape, qkv: &[f32], from: &[u32], grad: &[f32]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (d, ld, width) = (s.head_dim, s.qkv_width(), s.out_width());
        let x = |i: usize| f64::from(qkv[i]);
        let mut out = vec![0.0; s.tokens() * width];
        let mut logs = vec![0.0; s.rows * s.heads * s.context];
        let mut grads = vec![0.0; s.tokens() * ld];
        for row in 0..s.rows {
            for h in 0..s.heads {
                let kv = h / (s.heads / s.kv_heads);
                for t in 0..s.context {
                    let at = row * s.context + t;
                    let (q, o) = (at * ld + h * d, at * width + h * d);
                    let key = |j: usize| (row * s.context + j) * ld + (s.heads + kv) * d;
                    let keys: Vec<usize> = (from[at] as usize..=t).collect();
                    let scores: Vec<f64> = keys
                        .iter()
                        .map(|j| (0..d).map(|i| x(q + i) * x(key(*j) + i)).sum::<f64>() * s.scale)
                        .collect();
                    let log = scores.iter().map(|v| v.exp()).sum::<f64>().ln();
                    logs[(row * s.heads + h) * s.context + t] = log;
                    let p: Vec<f64> = scores.iter().map(|v| (v - log).exp()).collect();
                    for (j, p) in keys.iter().zip(&p) {
                        for i in 0..d {
                            out[o + i] += p * x(key(*j) + s.kv_heads * d + i);
                        }
                    }
                    let delta: f64 = (0..d).map(|i| out[o + i] * f64::from(grad[o + i])).sum();
                    for (j, p) in keys.iter().zip(&p) {
                        let (k, v) = (key(*j), key(*j) + s.kv_heads * d);
                        let dp: f64 = (0..d).map(|i| f64::from(grad[o + i]) * x(v + i)).sum();
                        let ds = p * (dp - delta) * s.scale;
                        for i in 0..d {
                            grads[v + i] += p * f64::from(grad[o + i]);
                            grads[q + i] += ds * x(k + i);
                            grads[k + i] += ds * x(q + i);
                        }
                    }
                }
            }
        }
        (out, logs, grads)
    }

    fn distance<E: Element>(got: &[E], want: &[f64], wide: fn(E) -> f32) -> f64 {
        let (mut off, mut norm) = (0.0, 0.0);
        for (g, w) in got.iter().zip(want) {
            let g = f64::from(wide(*g));
            assert!(g.is_finite());
            off += (g - w) * (g - w);
            norm += w * w;
        }
        (off / norm).sqrt()
    }

    /// Document starts for each token: documents of 1, 2, 3, … tokens, or one.
    fn documents(rows: usize, context: usize, many: bool) -> Vec<u32> {
        let mut from = Vec::new();
        for _ in 0..rows {
            let (mut start, mut len) = (0, 1);
            for t in 0..context {
                if many && t == start + len {
                    start = t;
                    len = len * 2 + 1;
                }
                from.push(if many { start as u32 } else { 0 });
            }
        }
        from
    }

    fn check<E: Element>(narrow: fn(f32) -> E, wide: fn(E) -> f32, tolerance: f64) {
        let mut work = Workspace::default();
        for (context, heads, kv_heads, head_dim, rows) in [
            (1, 1, 1, 32, 2),
            (63, 2, 1, 64, 1),
            (64, 4, 4, 32, 1),
            (65, 3, 1, 64, 2),
            (129, 8, 1, 32, 1),
            (300, 4, 2, 96, 1),
            (520, 2, 2, 16, 1),
            (257, 2, 1, 256, 1),
            (70, 2, 1, 34, 1),
        ] {
            for many in [false, true] {
                let scale = 1.0 / (head_dim as f64).sqrt();
                let shape = AttentionShape { rows, context, heads, kv_heads, head_dim, scale };
                let qkv = values(shape.tokens() * shape.qkv_width(), 5);
                let grad = values(shape.tokens() * shape.out_width(), 6);
                let from = documents(rows, context, many);
                let (want, want_logs, want_grads) = plain(&shape, &qkv, &from, &grad);
                let qkv: Vec<E> = qkv.iter().map(|v| narrow(*v)).collect();
                let grad: Vec<E> = grad.iter().map(|v| narrow(*v)).collect();
                let mut out = vec![narrow(f32::NAN); shape.tokens() * shape.out_width()];
                let mut logs = vec![f32::NAN; shape.rows * heads * context];
                forward(&mut work, &shape, &qkv, &from, &mut out, &mut logs);
                let name = format!("{shape:?} many {many}");
                let off = distance(&out, &want, wide);
                assert!(off < tolerance, "out {off:e}: {name}");
                for (l, w) in logs.iter().zip(&want_logs) {
                    assert!((f64::from(*l) - w).abs() < 1e-4, "log {l} for {w}: {name}");
                }
                let mut grads = vec![narrow(f32::NAN); shape.tokens() * shape.qkv_width()];
                backward(&mut work, &shape, &qkv, &out, &logs, &from, &grad, &mut grads);
                let off = distance(&grads, &want_grads, wide);
                assert!(off < 2.0 * tolerance, "grads {off:e}: {name}");
            }
        }
    }

    #[test]
    fn equals_the_definition_f32() {
        if super::super::has_f32() {
            check::<f32>(|v| v, |v| v, 1e-5);
        } else {
            eprintln!("skipped: no AVX-512 here");
        }
    }

    #[test]
    fn equals_the_definition_bf16() {
        if super::super::has_bf16() {
            check::<bf16>(bf16::from_f32, bf16::to_f32, 5e-3);
        } else {
            eprintln!("skipped: no AVX512-BF16 here");
        }
    }

    #[test]
    fn a_future_token_leaves_the_past_as_it_was() {
        if !super::super::has_bf16() {
            eprintln!("skipped: no AVX512-BF16 here");
            return;
        }
        let shape = AttentionShape { rows: 1, context: 200, heads: 2, kv_heads: 1, head_dim: 32, scale: 0.2 };
        let mut qkv: Vec<bf16> =
            values(shape.tokens() * shape.qkv_width(), 9).into_iter().map(bf16::from_f32).collect();
        let from = vec![0; 200];
        let run = |qkv: &[bf16]| {
            let mut out = vec![bf16::NAN; shape.tokens() * shape.out_width()];
            forward(&mut Workspace::default(), &shape, qkv, &from, &mut out, &mut vec![0.0; 400]);
            out
        };
        let before = run(&qkv);
        let changed = 150;
        qkv[changed * shape.qkv_width()..].fill(bf16::from_f32(3.0));
        let after = run(&qkv);
        let past = changed * shape.out_width();
        assert!(before[..past] == after[..past]);
        assert!(before[past..] != after[past..]);
    }
}
