//! The oracle: every operation as the plainest loop, in f64 or f32, on one thread.
//!
//! Written to be read against the formulas, not to be fast; knows nothing of the other backends.

// Indices as in the formulas.
#![allow(clippy::needless_range_loop, clippy::manual_memcpy)]

use num_traits::Float;

use super::{AdamW, AttentionShape, Backend, Gate, LossShape, Momentum, NormShape};
use crate::runtime::batch::IGNORE;
use crate::runtime::engine::EngineError;

/// Plain loops over values of type `R`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference<R>(std::marker::PhantomData<R>);

/// A number the reference computes with.
pub trait Real: Float + Default + Send + Sync + std::ops::AddAssign + std::iter::Sum + 'static {
    /// For logs.
    const NAME: &'static str;
    /// Rounded to this type.
    fn of(value: f64) -> Self;
    /// As f64.
    fn wide(self) -> f64;
}

impl Real for f64 {
    const NAME: &'static str = "f64";
    fn of(value: f64) -> Self {
        value
    }
    fn wide(self) -> f64 {
        self
    }
}

impl Real for f32 {
    const NAME: &'static str = "f32";
    fn of(value: f64) -> Self {
        value as f32
    }
    fn wide(self) -> f64 {
        f64::from(self)
    }
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    a.iter().zip(b).map(|(x, y)| *x * *y).sum()
}

/// First value of segment `s` of row `t`.
fn segment(shape: NormShape, t: usize, s: usize) -> usize {
    t * shape.stride + shape.offset + s * shape.width
}

fn root_mean_square<R: Real>(x: &[R], eps: f64) -> R {
    let mean = dot(x, x) / R::of(x.len() as f64);
    (mean + R::of(eps)).sqrt().recip()
}

/// Gradient of x from that of y for one segment: `rstd · (g − x̂ · mean(g · x̂))`, `g = dy · (plus + w)`.
/// Adds `dy · x̂` to `grad_w`.
fn norm_segment_backward<R: Real>(
    x: &[R],
    (plus, w): (R, &[R]),
    rstd: R,
    grad_y: &[R],
    grad_w: &mut [R],
) -> Vec<R> {
    let n = R::of(x.len() as f64);
    let mean = (0..x.len()).map(|i| grad_y[i] * (plus + w[i]) * x[i] * rstd).sum::<R>() / n;
    (0..x.len())
        .map(|i| {
            let unit = x[i] * rstd;
            grad_w[i] += grad_y[i] * unit;
            rstd * (grad_y[i] * (plus + w[i]) - unit * mean)
        })
        .collect()
}

/// What a norm multiplies by besides its weight, and the weight.
fn gain<R: Real>(shape: NormShape, w: &[R]) -> (R, &[R]) {
    (R::of(f64::from(shape.plus())), w)
}

/// `σ(u)`, and `u` and its derivative, where the gate `x` becomes `x · σ(u(x))`.
fn gating<R: Real>(gate: Gate, x: R) -> (R, R) {
    let (linear, cubic) = match gate {
        Gate::Silu => (1.0, 0.0),
        Gate::GeluTanh => {
            let twice = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
            (twice, twice * 0.044_715)
        }
    };
    let (linear, cubic) = (R::of(linear), R::of(cubic));
    let sigmoid = (R::one() + (-(x * (linear + cubic * x * x))).exp()).recip();
    (sigmoid, linear + R::of(3.0) * cubic * x * x)
}

impl<R: Real> Backend for Reference<R> {
    type Wide = Vec<R>;
    type Narrow = Vec<R>;
    type Index = Vec<u32>;
    /// Every buffer has its own memory here, so that what lies over what cannot matter.
    type Slab = ();

    const WIDE_BYTES: usize = size_of::<R>();
    const NARROW_BYTES: usize = size_of::<R>();

    fn describe(&self) -> String {
        format!("reference {}", R::NAME)
    }

    fn wide(&self, len: usize) -> Result<Vec<R>, EngineError> {
        Ok(vec![R::zero(); len])
    }

    fn narrow(&self, len: usize) -> Result<Vec<R>, EngineError> {
        Ok(vec![R::zero(); len])
    }

    fn index(&self, len: usize) -> Result<Vec<u32>, EngineError> {
        Ok(vec![0; len])
    }

    fn slab(&self, _bytes: usize) -> Result<(), EngineError> {
        Ok(())
    }

    unsafe fn wide_over(&self, (): &(), _at: usize, len: usize) -> Vec<R> {
        // Seen where it is read before it is written.
        vec![R::nan(); len]
    }

    unsafe fn narrow_over(&self, (): &(), _at: usize, len: usize) -> Vec<R> {
        vec![R::nan(); len]
    }

    fn write(&self, values: &[f32], to: &mut Vec<R>, at: usize) {
        for (to, from) in to[at..].iter_mut().zip(values) {
            *to = R::of(f64::from(*from));
        }
    }

    fn read(&self, from: &Vec<R>, at: usize, values: &mut [f32]) {
        for (to, from) in values.iter_mut().zip(&from[at..]) {
            *to = from.wide() as f32;
        }
    }

    fn write_index(&self, values: &[u32], to: &mut Vec<u32>) {
        to[..values.len()].copy_from_slice(values);
    }

    fn zero(&self, len: usize, buffer: &mut Vec<R>) {
        buffer[..len].fill(R::zero());
    }

    fn finish(&self) -> Result<(), EngineError> {
        Ok(())
    }

    fn scratch_bytes(&self) -> u64 {
        0
    }

    fn narrow_copy(&self, len: usize, from: &Vec<R>, to: &mut Vec<R>) {
        to[..len].copy_from_slice(&from[..len]);
    }

    fn add_narrow(&self, len: usize, from: &Vec<R>, to: &mut Vec<R>, copy: &mut Vec<R>) {
        for i in 0..len {
            to[i] += from[i];
            copy[i] = to[i];
        }
    }

    fn embed(
        &self,
        tokens: usize,
        width: usize,
        scale: f32,
        table: &Vec<R>,
        ids: &Vec<u32>,
        out: &mut Vec<R>,
    ) {
        let scale = R::of(f64::from(scale));
        for t in 0..tokens {
            for i in 0..width {
                out[t * width + i] = scale * table[ids[t] as usize * width + i];
            }
        }
    }

    fn embed_backward(
        &self,
        tokens: usize,
        width: usize,
        scale: f32,
        grad: &Vec<R>,
        ids: &Vec<u32>,
        grad_table: &mut Vec<R>,
    ) {
        let scale = R::of(f64::from(scale));
        for t in 0..tokens {
            for i in 0..width {
                grad_table[ids[t] as usize * width + i] += scale * grad[t * width + i];
            }
        }
    }

    fn linear(&self, rows: usize, inputs: usize, outputs: usize, x: &Vec<R>, w: &Vec<R>, y: &mut Vec<R>) {
        for t in 0..rows {
            for o in 0..outputs {
                y[t * outputs + o] = dot(&x[t * inputs..][..inputs], &w[o * inputs..][..inputs]);
            }
        }
    }

    fn linear_residual(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        x: &Vec<R>,
        w: &Vec<R>,
        stream: &mut Vec<R>,
    ) {
        let mut y = vec![R::zero(); rows * outputs];
        self.linear(rows, inputs, outputs, x, w, &mut y);
        for (s, y) in stream.iter_mut().zip(y) {
            *s += y;
        }
    }

    fn linear_input_grad(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        grad_y: &Vec<R>,
        w: &Vec<R>,
        grad_x: &mut Vec<R>,
    ) {
        for t in 0..rows {
            let row = &mut grad_x[t * inputs..][..inputs];
            row.fill(R::zero());
            for o in 0..outputs {
                let g = grad_y[t * outputs + o];
                for (x, w) in row.iter_mut().zip(&w[o * inputs..][..inputs]) {
                    *x += g * *w;
                }
            }
        }
    }

    fn linear_weight_grad(
        &self,
        rows: usize,
        inputs: usize,
        outputs: usize,
        grad_y: &Vec<R>,
        x: &Vec<R>,
        accumulate: bool,
        grad_w: &mut Vec<R>,
    ) {
        if !accumulate {
            self.zero(outputs * inputs, grad_w);
        }
        for t in 0..rows {
            for o in 0..outputs {
                let g = grad_y[t * outputs + o];
                for (w, x) in grad_w[o * inputs..][..inputs].iter_mut().zip(&x[t * inputs..][..inputs]) {
                    *w += g * *x;
                }
            }
        }
    }

    fn norm(
        &self,
        shape: NormShape,
        eps: f64,
        stream: &Vec<R>,
        w: &Vec<R>,
        x: &mut Vec<R>,
        y: &mut Vec<R>,
        rstd: &mut Vec<R>,
    ) {
        self.narrow_copy(shape.rows * shape.width, stream, x);
        self.norm_segments(shape, eps, x, w, y, rstd);
    }

    fn norm_backward(
        &self,
        shape: NormShape,
        x: &Vec<R>,
        w: &Vec<R>,
        rstd: &Vec<R>,
        grad_y: &Vec<R>,
        grad: &mut Vec<R>,
        copy: &mut Vec<R>,
        grad_w: &mut Vec<R>,
    ) {
        for t in 0..shape.rows {
            let row = t * shape.width..(t + 1) * shape.width;
            let d =
                norm_segment_backward(&x[row.clone()], gain(shape, w), rstd[t], &grad_y[row.clone()], grad_w);
            for (i, d) in row.zip(d) {
                grad[i] += d;
                copy[i] = grad[i];
            }
        }
    }

    fn norm_residual(
        &self,
        shape: NormShape,
        eps: f64,
        x: &Vec<R>,
        w: &Vec<R>,
        stream: &mut Vec<R>,
        rstd: &mut Vec<R>,
    ) {
        let mut y = vec![R::zero(); shape.rows * shape.width];
        self.norm_segments(shape, eps, x, w, &mut y, rstd);
        for (s, y) in stream.iter_mut().zip(y) {
            *s += y;
        }
    }

    fn norm_residual_backward(
        &self,
        shape: NormShape,
        x: &Vec<R>,
        w: &Vec<R>,
        rstd: &Vec<R>,
        grad_y: &Vec<R>,
        grad_x: &mut Vec<R>,
        grad_w: &mut Vec<R>,
    ) {
        for t in 0..shape.rows {
            let row = t * shape.width..(t + 1) * shape.width;
            let d =
                norm_segment_backward(&x[row.clone()], gain(shape, w), rstd[t], &grad_y[row.clone()], grad_w);
            grad_x[row].copy_from_slice(&d);
        }
    }

    fn norm_segments(
        &self,
        shape: NormShape,
        eps: f64,
        x: &Vec<R>,
        w: &Vec<R>,
        y: &mut Vec<R>,
        rstd: &mut Vec<R>,
    ) {
        let (plus, w) = gain(shape, w);
        for t in 0..shape.rows {
            for s in 0..shape.segments {
                let at = segment(shape, t, s);
                let r = root_mean_square(&x[at..at + shape.width], eps);
                rstd[t * shape.segments + s] = r;
                for i in 0..shape.width {
                    y[at + i] = x[at + i] * r * (plus + w[i]);
                }
            }
        }
    }

    fn norm_segments_backward(
        &self,
        shape: NormShape,
        x: &Vec<R>,
        w: &Vec<R>,
        rstd: &Vec<R>,
        grad: &mut Vec<R>,
        grad_w: &mut Vec<R>,
    ) {
        for t in 0..shape.rows {
            for s in 0..shape.segments {
                let at = segment(shape, t, s);
                let r = rstd[t * shape.segments + s];
                let range = at..at + shape.width;
                let d =
                    norm_segment_backward(&x[range.clone()], gain(shape, w), r, &grad[range.clone()], grad_w);
                grad[range].copy_from_slice(&d);
            }
        }
    }

    fn add_bias(&self, rows: usize, width: usize, bias: &Vec<R>, x: &mut Vec<R>) {
        for row in x[..rows * width].chunks_exact_mut(width) {
            for (x, b) in row.iter_mut().zip(bias) {
                *x += *b;
            }
        }
    }

    fn bias_grad(&self, rows: usize, width: usize, grad: &Vec<R>, grad_bias: &mut Vec<R>) {
        for row in grad[..rows * width].chunks_exact(width) {
            for (sum, g) in grad_bias.iter_mut().zip(row) {
                *sum += *g;
            }
        }
    }

    fn copy_columns(
        &self,
        rows: usize,
        stride: usize,
        offset: usize,
        width: usize,
        from: &Vec<R>,
        to: &mut Vec<R>,
    ) {
        for t in 0..rows {
            let range = t * stride + offset..t * stride + offset + width;
            to[range.clone()].copy_from_slice(&from[range]);
        }
    }

    fn rope(
        &self,
        shape: AttentionShape,
        positions: &Vec<u32>,
        cos: &Vec<R>,
        sin: &Vec<R>,
        backward: bool,
        qkv: &mut Vec<R>,
    ) {
        let half = shape.head_dim / 2;
        for t in 0..shape.tokens() {
            for h in 0..shape.heads + shape.kv_heads {
                let at = t * shape.qkv_width() + h * shape.head_dim;
                for i in 0..half {
                    let angle = positions[t] as usize * half + i;
                    let (c, s) = (cos[angle], if backward { -sin[angle] } else { sin[angle] });
                    let (a, b) = (qkv[at + i], qkv[at + half + i]);
                    qkv[at + i] = a * c - b * s;
                    qkv[at + half + i] = b * c + a * s;
                }
            }
        }
    }

    fn attention(
        &self,
        shape: AttentionShape,
        qkv: &Vec<R>,
        attend_from: &Vec<u32>,
        out: &mut Vec<R>,
        log_sum: &mut Vec<R>,
        _scratch: &mut Vec<R>,
    ) {
        let view = Heads { shape, qkv };
        for row in 0..shape.rows {
            for h in 0..shape.heads {
                for t in 0..shape.context {
                    let token = row * shape.context + t;
                    let (from, scores) = view.scores(row, h, t, attend_from);
                    let max = scores.iter().fold(R::neg_infinity(), |m, s| m.max(*s));
                    let sum: R = scores.iter().map(|s| (*s - max).exp()).sum();
                    let log = max + sum.ln();
                    log_sum[(row * shape.heads + h) * shape.context + t] = log;
                    let to = token * shape.out_width() + h * shape.head_dim;
                    out[to..to + shape.head_dim].fill(R::zero());
                    for (j, score) in scores.iter().enumerate() {
                        let p = (*score - log).exp();
                        for (i, v) in view.value(row, h, from + j).iter().enumerate() {
                            out[to + i] += p * *v;
                        }
                    }
                }
            }
        }
    }

    fn attention_backward(
        &self,
        shape: AttentionShape,
        qkv: &Vec<R>,
        out: &Vec<R>,
        log_sum: &Vec<R>,
        attend_from: &Vec<u32>,
        grad_out: &Vec<R>,
        grad_qkv: &mut Vec<R>,
        _scratch: &mut Vec<R>,
    ) {
        let view = Heads { shape, qkv };
        grad_qkv[..shape.tokens() * shape.qkv_width()].fill(R::zero());
        for row in 0..shape.rows {
            for h in 0..shape.heads {
                for t in 0..shape.context {
                    let at = (row * shape.context + t) * shape.out_width() + h * shape.head_dim;
                    let d_out = &grad_out[at..at + shape.head_dim];
                    let delta = dot(d_out, &out[at..at + shape.head_dim]);
                    let log = log_sum[(row * shape.heads + h) * shape.context + t];
                    let (from, scores) = view.scores(row, h, t, attend_from);
                    for (j, score) in scores.iter().enumerate() {
                        let p = (*score - log).exp();
                        let d_score =
                            p * (dot(d_out, view.value(row, h, from + j)) - delta) * R::of(shape.scale);
                        let (q, k, v) = view.offsets(row, h, t, from + j);
                        for i in 0..shape.head_dim {
                            grad_qkv[v + i] += p * d_out[i];
                            grad_qkv[q + i] += d_score * qkv[k + i];
                            grad_qkv[k + i] += d_score * qkv[q + i];
                        }
                    }
                }
            }
        }
    }

    fn glu(&self, gate: Gate, rows: usize, width: usize, gate_up: &Vec<R>, y: &mut Vec<R>) {
        for t in 0..rows {
            for i in 0..width {
                let (g, u) = (gate_up[t * 2 * width + i], gate_up[(t * 2 + 1) * width + i]);
                y[t * width + i] = g * gating(gate, g).0 * u;
            }
        }
    }

    fn glu_backward(
        &self,
        gate: Gate,
        rows: usize,
        width: usize,
        grad_y: &Vec<R>,
        gate_up: &mut Vec<R>,
        y: &mut Vec<R>,
    ) {
        for t in 0..rows {
            for i in 0..width {
                let (at_g, at_u) = (t * 2 * width + i, (t * 2 + 1) * width + i);
                let (g, u, d) = (gate_up[at_g], gate_up[at_u], grad_y[t * width + i]);
                let (sigmoid, slope) = gating(gate, g);
                y[t * width + i] = g * sigmoid * u;
                gate_up[at_g] = d * u * sigmoid * (R::one() + g * slope * (R::one() - sigmoid));
                gate_up[at_u] = d * g * sigmoid;
            }
        }
    }

    fn loss(
        &self,
        shape: LossShape,
        x: &Vec<R>,
        w: &Vec<R>,
        targets: &Vec<u32>,
        nll: &mut Vec<R>,
        _scratch: &mut Vec<R>,
    ) {
        for t in 0..shape.tokens {
            nll[t] = R::zero();
            if targets[t] != IGNORE {
                let (logits, log_z) = logits(shape, t, x, w);
                nll[t] = log_z - logits[targets[t] as usize];
            }
        }
    }

    fn loss_backward(
        &self,
        shape: LossShape,
        x: &Vec<R>,
        w: &Vec<R>,
        targets: &Vec<u32>,
        nll: &mut Vec<R>,
        grad_x: &mut Vec<R>,
        accumulate: bool,
        grad_w: &mut Vec<R>,
        scratch: &mut Vec<R>,
    ) {
        let width = shape.width;
        if !accumulate {
            self.zero(shape.vocab * width, grad_w);
        }
        self.loss(shape, x, w, targets, nll, scratch);
        for t in 0..shape.tokens {
            grad_x[t * width..][..width].fill(R::zero());
            if targets[t] == IGNORE {
                continue;
            }
            let (logits, log_z) = logits(shape, t, x, w);
            // d/dl of nll + z·log²Z is softmax · (1 + 2·z·logZ) − onehot.
            let slope = R::one() + R::of(2.0 * shape.z_loss) * log_z;
            for (v, l) in logits.iter().enumerate() {
                let hit = if v == targets[t] as usize { R::one() } else { R::zero() };
                let d = ((*l - log_z).exp() * slope - hit) * R::of(shape.gradient_scale);
                for i in 0..width {
                    grad_x[t * width + i] += d * w[v * width + i];
                    grad_w[v * width + i] += d * x[t * width + i];
                }
            }
        }
    }

    fn squared_norm(&self, len: usize, buffer: &Vec<R>) -> f64 {
        buffer[..len].iter().map(|x| x.wide() * x.wide()).sum()
    }

    fn adamw(
        &self,
        len: usize,
        constants: AdamW,
        grad: &Vec<R>,
        weight: &mut Vec<R>,
        first: &mut Vec<R>,
        second: &mut Vec<R>,
    ) {
        let AdamW { lr, betas, eps, weight_decay, corrections, gradient_scale } = constants;
        for i in 0..len {
            let g = grad[i].wide() * gradient_scale;
            let m = betas[0] * first[i].wide() + (1.0 - betas[0]) * g;
            let v = betas[1] * second[i].wide() + (1.0 - betas[1]) * g * g;
            (first[i], second[i]) = (R::of(m), R::of(v));
            let step = lr * (m / corrections[0]) / ((v / corrections[1]).sqrt() + eps);
            weight[i] = R::of(weight[i].wide() * (1.0 - lr * weight_decay) - step);
        }
    }

    fn momentum(
        &self,
        at: usize,
        len: usize,
        constants: Momentum,
        grad: &Vec<R>,
        momentum: &mut Vec<R>,
        direction: &mut Vec<R>,
    ) {
        let Momentum { momentum: keep, nesterov, gradient_scale } = constants;
        for i in 0..len {
            let g = grad[at + i].wide() * gradient_scale;
            let m = keep * momentum[at + i].wide() + (1.0 - keep) * g;
            momentum[at + i] = R::of(m);
            direction[i] = R::of(if nesterov { keep * m + (1.0 - keep) * g } else { m });
        }
    }

    fn combine(
        &self,
        len: usize,
        scale: f64,
        x: &mut Vec<R>,
        plus: Option<(f64, &Vec<R>)>,
        copy: &mut Vec<R>,
    ) {
        for i in 0..len {
            let y = plus.map_or(0.0, |(factor, y)| factor * y[i].wide());
            x[i] = R::of(scale * x[i].wide() + y);
            copy[i] = x[i];
        }
    }

    fn transpose(&self, rows: usize, columns: usize, from: &Vec<R>, to: &mut Vec<R>) {
        for i in 0..rows {
            for j in 0..columns {
                to[j * rows + i] = from[i * columns + j];
            }
        }
    }

    fn descend(&self, at: usize, len: usize, keep: f64, step: f64, direction: &Vec<R>, weight: &mut Vec<R>) {
        for i in 0..len {
            weight[at + i] = R::of(keep * weight[at + i].wide() - step * direction[i].wide());
        }
    }
}

/// Logits of one token and the log of the sum of their exponentials.
fn logits<R: Real>(shape: LossShape, t: usize, x: &[R], w: &[R]) -> (Vec<R>, R) {
    let x = &x[t * shape.width..][..shape.width];
    let logits: Vec<R> = (0..shape.vocab).map(|v| dot(x, &w[v * shape.width..][..shape.width])).collect();
    let max = logits.iter().fold(R::neg_infinity(), |m, l| m.max(*l));
    let log_z = max + logits.iter().map(|l| (*l - max).exp()).sum::<R>().ln();
    (logits, log_z)
}

/// Queries, keys and values by row, head and position.
struct Heads<'a, R> {
    shape: AttentionShape,
    qkv: &'a [R],
}

impl<'a, R: Real> Heads<'a, R> {
    /// Where the query of `t`, the key and the value of `j` begin, for query head `h`.
    fn offsets(&self, row: usize, h: usize, t: usize, j: usize) -> (usize, usize, usize) {
        let AttentionShape { context, heads, kv_heads, head_dim, .. } = self.shape;
        let kv = h / (heads / kv_heads);
        let at = |t: usize| (row * context + t) * self.shape.qkv_width();
        (at(t) + h * head_dim, at(j) + (heads + kv) * head_dim, at(j) + (heads + kv_heads + kv) * head_dim)
    }

    fn value(&self, row: usize, h: usize, j: usize) -> &'a [R] {
        let (_, _, v) = self.offsets(row, h, 0, j);
        &self.qkv[v..v + self.shape.head_dim]
    }

    /// First position attended to and the scaled scores from there to `t`.
    fn scores(&self, row: usize, h: usize, t: usize, attend_from: &[u32]) -> (usize, Vec<R>) {
        let from = attend_from[row * self.shape.context + t] as usize;
        let d = self.shape.head_dim;
        let scores = (from..=t)
            .map(|j| {
                let (q, k, _) = self.offsets(row, h, t, j);
                dot(&self.qkv[q..q + d], &self.qkv[k..k + d]) * R::of(self.shape.scale)
            })
            .collect();
        (from, scores)
    }
}
