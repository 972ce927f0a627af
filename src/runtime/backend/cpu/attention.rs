//! Blocked attention (FlashAttention-2, arXiv:2307.08691) for narrow values of any format, on any
//! processor: scores exist for one block of queries and one block of keys at a time, blocks that the
//! mask empties are never visited, and keys and values are not repeated for the heads that share them.

use super::disjoint::Disjoint;
use super::element::Element;
use super::exp::exp;
use super::pool::Pool;
use super::product::{View, product};
use super::softmax::{exponentials, largest};
use super::vectorise::{LANES, multiply_add, sum_lanes, vectorised};
use crate::runtime::backend::AttentionShape;

/// Queries of a block.
const QUERIES: usize = 128;
/// Keys of a block.
const KEYS: usize = 256;

vectorised! {
    fn load<E: Element>(from: &[E], factor: f32, to: &mut [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.get() * factor;
        }
    }

    fn store<E: Element>(from: &[f32], factor: f32, to: &mut [E]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = E::of(*from * factor);
        }
    }

    fn multiply(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }

    fn dot<E: Element>(a: &[E], b: &[E]) -> f32 {
        let mut lanes = [0.0; LANES];
        let whole = a.len() / LANES * LANES;
        for at in (0..whole).step_by(LANES) {
            let (a, b) = (&a[at..at + LANES], &b[at..at + LANES]);
            for i in 0..LANES {
                lanes[i] = multiply_add::<FMA>(a[i].get(), b[i].get(), lanes[i]);
            }
        }
        for i in whole..a.len() {
            lanes[i - whole] = multiply_add::<FMA>(a[i].get(), b[i].get(), lanes[i - whole]);
        }
        sum_lanes(lanes)
    }

    /// From scores and the gradient of probabilities to probabilities and the gradient of scores.
    fn gradients(score: &mut [f32], grad: &mut [f32], log_sum: f32, delta: f32) {
        for (s, g) in score.iter_mut().zip(grad) {
            *s = exp::<FMA>(*s - log_sum);
            *g = *s * (*g - delta);
        }
    }
}

/// One head of one row of the batch.
struct Head<'a, E> {
    shape: AttentionShape,
    qkv: &'a [E],
    attend_from: &'a [u32],
    row: usize,
}

impl<'a, E: Element> Head<'a, E> {
    fn new(shape: AttentionShape, qkv: &'a [E], attend_from: &'a [u32], row: usize) -> Self {
        let attend_from = &attend_from[row * shape.context..][..shape.context];
        Head { shape, qkv, attend_from, row }
    }

    /// The values of slot `slot` (a query, key or value head) of position `t`.
    fn at(&self, t: usize, slot: usize) -> &'a [E] {
        let start = (self.row * self.shape.context + t) * self.shape.qkv_width();
        &self.qkv[start + slot * self.shape.head_dim..][..self.shape.head_dim]
    }

    /// Positions `from..from + to.len() / head_dim` of a slot, times `factor`, as f32.
    fn load(&self, from: usize, slot: usize, factor: f32, to: &mut [f32]) {
        for (i, to) in to.chunks_exact_mut(self.shape.head_dim).enumerate() {
            load(self.at(from + i, slot), factor, to);
        }
    }

    /// Which keys of the block `keys` the query at `t` sees, counted from the block's start.
    fn seen(&self, t: usize, keys: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        let from = (self.attend_from[t] as usize).max(keys.start) - keys.start;
        let to = (t + 1).min(keys.end).saturating_sub(keys.start);
        from.min(to)..to
    }

    /// The blocks of keys that some query of `queries` sees.
    fn blocks(
        &self,
        queries: &std::ops::Range<usize>,
    ) -> impl Iterator<Item = std::ops::Range<usize>> + use<E> {
        let end = queries.end;
        let first = self.attend_from[queries.start] as usize / KEYS * KEYS;
        (first..end).step_by(KEYS).map(move |k| k..(k + KEYS).min(end))
    }
}

/// Cut `len` values off the front.
fn take<'a>(rest: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    let (front, back) = std::mem::take(rest).split_at_mut(len);
    *rest = back;
    front
}

/// Output and log-sums of all heads.
pub(super) fn forward<E: Element>(
    pool: &Pool,
    shape: AttentionShape,
    qkv: &[E],
    attend_from: &[u32],
    out: &mut [E],
    log_sum: &mut [f32],
) {
    let AttentionShape { rows, context, heads, kv_heads, head_dim: d, scale } = shape;
    let blocks = context.div_ceil(QUERIES);
    let out = Disjoint::new(&mut out[..shape.tokens() * shape.out_width()]);
    let log_sums = Disjoint::new(&mut log_sum[..rows * heads * context]);
    let scratch = 2 * QUERIES * d + 2 * KEYS * d + QUERIES * KEYS + 2 * QUERIES;
    pool.tasks(rows * heads * blocks, scratch, |task, mut rest| {
        // The last blocks of a row see most keys: begin with them.
        let (block, row_head) = (blocks - 1 - task / (rows * heads), task % (rows * heads));
        let (row, h) = (row_head / heads, row_head % heads);
        let kv = h / (heads / kv_heads);
        let head = Head::new(shape, qkv, attend_from, row);
        let queries = block * QUERIES..((block + 1) * QUERIES).min(context);
        let n = queries.len();
        let q = take(&mut rest, n * d);
        let sum_out = take(&mut rest, n * d);
        let (max, sum) = (take(&mut rest, n), take(&mut rest, n));
        head.load(queries.start, h, scale as f32, q);
        sum_out.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        let (k_all, v_all) = (take(&mut rest, KEYS * d), take(&mut rest, KEYS * d));
        for keys in head.blocks(&queries) {
            let m = keys.len();
            let (k, v) = (&mut k_all[..m * d], &mut v_all[..m * d]);
            head.load(keys.start, heads + kv, 1.0, k);
            head.load(keys.start, heads + kv_heads + kv, 1.0, v);
            let scores = &mut rest[..n * m];
            product(n, m, d, View::rows(q, d), View::transposed(k, d), false, scores, m, false);
            for (i, scores) in scores.chunks_exact_mut(m).enumerate() {
                let seen = head.seen(queries.start + i, &keys);
                scores[..seen.start].fill(0.0);
                scores[seen.end..].fill(0.0);
                let scores = &mut scores[seen];
                let new = largest(scores).max(max[i]);
                if scores.is_empty() {
                    continue;
                }
                let shrink = if max[i] == new { 1.0 } else { (max[i] - new).exp() };
                sum[i] = sum[i] * shrink + exponentials(scores, new);
                max[i] = new;
                if shrink != 1.0 {
                    multiply(&mut sum_out[i * d..(i + 1) * d], shrink);
                }
            }
            product(n, d, m, View::rows(scores, m), View::rows(v, d), true, sum_out, d, false);
        }
        for i in 0..n {
            let token = row * context + queries.start + i;
            // SAFETY: no other task has this row, head and block of queries.
            let out = unsafe { out.part(token * shape.out_width() + h * d, d) };
            store(&sum_out[i * d..(i + 1) * d], 1.0 / sum[i], out);
        }
        // SAFETY: as above.
        let log_sum = unsafe { log_sums.part((row * heads + h) * context + queries.start, n) };
        for (log_sum, (max, sum)) in log_sum.iter_mut().zip(max.iter().zip(sum.iter())) {
            *log_sum = *max + sum.ln();
        }
    });
}

/// Gradient of the whole qkv matrix. A task owns one key head of one row, so nothing is added up across
/// tasks.
pub(super) fn backward<E: Element>(
    pool: &Pool,
    shape: AttentionShape,
    qkv: &[E],
    out: &[E],
    log_sum: &[f32],
    attend_from: &[u32],
    grad_out: &[E],
    grad_qkv: &mut [E],
) {
    let AttentionShape { rows, context, heads, kv_heads, head_dim: d, scale } = shape;
    let group = heads / kv_heads;
    let scale = scale as f32;
    let grads = Disjoint::new(&mut grad_qkv[..shape.tokens() * shape.qkv_width()]);
    let store_rows = |row: usize, from: usize, slot: usize, factor: f32, values: &[f32]| {
        for (i, values) in values.chunks_exact(d).enumerate() {
            let token = row * context + from + i;
            // SAFETY: query slots of a group and its key and value slots belong to one task.
            let to = unsafe { grads.part(token * shape.qkv_width() + slot * d, d) };
            store(values, factor, to);
        }
    };
    let scratch = 2 * context * d + 3 * QUERIES * d + 2 * KEYS * d + 2 * QUERIES * KEYS + QUERIES;
    pool.tasks(rows * kv_heads, scratch, |task, mut rest| {
        let (row, kv) = (task / kv_heads, task % kv_heads);
        let head = Head::new(shape, qkv, attend_from, row);
        let (grad_k, grad_v) = (take(&mut rest, context * d), take(&mut rest, context * d));
        grad_k.fill(0.0);
        grad_v.fill(0.0);
        let (q_all, g_all) = (take(&mut rest, QUERIES * d), take(&mut rest, QUERIES * d));
        let dq_all = take(&mut rest, QUERIES * d);
        let (k_all, v_all) = (take(&mut rest, KEYS * d), take(&mut rest, KEYS * d));
        let (s_all, ds_all) = (take(&mut rest, QUERIES * KEYS), take(&mut rest, QUERIES * KEYS));
        let delta = rest;
        for h in kv * group..(kv + 1) * group {
            for start in (0..context).step_by(QUERIES) {
                let queries = start..(start + QUERIES).min(context);
                let n = queries.len();
                let (q, g, dq) = (&mut q_all[..n * d], &mut g_all[..n * d], &mut dq_all[..n * d]);
                head.load(start, h, scale, q);
                for i in 0..n {
                    let at = (row * context + start + i) * shape.out_width() + h * d;
                    load(&grad_out[at..at + d], 1.0, &mut g[i * d..(i + 1) * d]);
                    delta[i] = dot(&grad_out[at..at + d], &out[at..at + d]);
                }
                dq.fill(0.0);
                let log_sum = &log_sum[(row * heads + h) * context + start..][..n];
                for keys in head.blocks(&queries) {
                    let m = keys.len();
                    let (k, v) = (&mut k_all[..m * d], &mut v_all[..m * d]);
                    head.load(keys.start, heads + kv, 1.0, k);
                    head.load(keys.start, heads + kv_heads + kv, 1.0, v);
                    let (s, ds) = (&mut s_all[..n * m], &mut ds_all[..n * m]);
                    product(n, m, d, View::rows(q, d), View::transposed(k, d), false, s, m, false);
                    product(n, m, d, View::rows(g, d), View::transposed(v, d), false, ds, m, false);
                    for i in 0..n {
                        let seen = head.seen(start + i, &keys);
                        for x in [&mut s[i * m..(i + 1) * m], &mut ds[i * m..(i + 1) * m]] {
                            x[..seen.start].fill(0.0);
                            x[seen.end..].fill(0.0);
                        }
                        let part = i * m + seen.start..i * m + seen.end;
                        gradients(&mut s[part.clone()], &mut ds[part], log_sum[i], delta[i]);
                    }
                    let dv = &mut grad_v[keys.start * d..keys.end * d];
                    product(m, d, n, View::transposed(s, m), View::rows(g, d), true, dv, d, false);
                    // q carries the scale already.
                    let dk = &mut grad_k[keys.start * d..keys.end * d];
                    product(m, d, n, View::transposed(ds, m), View::rows(q, d), true, dk, d, false);
                    product(n, d, m, View::rows(ds, m), View::rows(k, d), true, dq, d, false);
                }
                store_rows(row, start, h, scale, dq);
            }
        }
        store_rows(row, 0, heads + kv, 1.0, grad_k);
        store_rows(row, 0, heads + kv_heads + kv, 1.0, grad_v);
    });
}
