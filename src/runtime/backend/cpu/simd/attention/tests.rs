use half::bf16;

use super::super::Avx2;
use super::*;
use crate::runtime::backend::cpu::buffer::{Buffer, Pieces};

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

fn distance<S: Copy>(got: &[S], want: &[f64], wide: fn(S) -> f32) -> f64 {
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

fn check<E: Element, S: Stored<E>>(narrow: fn(f32) -> S, wide: fn(S) -> f32, tolerance: f64) {
    for (context, heads, kv_heads, head_dim, rows) in [
        (1, 1, 1, 32, 2),
        (13, 2, 1, 32, 1),
        (14, 2, 1, 32, 1),
        (15, 2, 2, 32, 2),
        (57, 2, 1, 32, 1),
        (113, 1, 1, 32, 1),
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
            let qkv: Vec<S> = qkv.iter().map(|v| narrow(*v)).collect();
            let grad: Vec<S> = grad.iter().map(|v| narrow(*v)).collect();
            let mut out = vec![narrow(f32::NAN); shape.tokens() * shape.out_width()];
            let mut logs = vec![f32::NAN; shape.rows * heads * context];
            let mut scratch = Buffer::<u32>::new(super::scratch::<E>(&shape, true) / 4).unwrap();
            forward::<E, S>(Pieces::of(&mut scratch), &shape, &qkv, &from, &mut out, &mut logs);
            let name = format!("{shape:?} many {many}");
            let off = distance(&out, &want, wide);
            assert!(off < tolerance, "out {off:e}: {name}");
            for (l, w) in logs.iter().zip(&want_logs) {
                assert!((f64::from(*l) - w).abs() < 1e-4, "log {l} for {w}: {name}");
            }
            let mut grads = vec![narrow(f32::NAN); shape.tokens() * shape.qkv_width()];
            let work = Pieces::of(&mut scratch);
            backward::<E, S>(work, &shape, &qkv, &out, &logs, &from, &grad, &mut grads);
            let off = distance(&grads, &want_grads, wide);
            assert!(off < 2.0 * tolerance, "grads {off:e}: {name}");
        }
    }
}

#[test]
fn equals_the_definition() {
    if super::super::has_f32() {
        check::<f32, f32>(|v| v, |v| v, 1e-5);
        check::<bf16, bf16>(bf16::from_f32, bf16::to_f32, 5e-3);
        check::<f32, bf16>(bf16::from_f32, bf16::to_f32, 5e-3);
    } else {
        eprintln!("skipped: no AVX-512 here");
    }
}

#[test]
fn equals_the_definition_with_avx2() {
    if super::super::has_avx2() {
        check::<Avx2, f32>(|v| v, |v| v, 1e-5);
        check::<Avx2, bf16>(bf16::from_f32, bf16::to_f32, 5e-3);
    } else {
        eprintln!("skipped: no AVX2 here");
    }
}

#[test]
fn a_future_token_leaves_the_past_as_it_was() {
    if !super::super::has_f32() {
        eprintln!("skipped: no AVX-512 here");
        return;
    }
    let shape = AttentionShape { rows: 1, context: 200, heads: 2, kv_heads: 1, head_dim: 32, scale: 0.2 };
    let mut qkv: Vec<bf16> =
        values(shape.tokens() * shape.qkv_width(), 9).into_iter().map(bf16::from_f32).collect();
    let from = vec![0; 200];
    let run = |qkv: &[bf16]| {
        let mut out = vec![bf16::NAN; shape.tokens() * shape.out_width()];
        let mut scratch = Buffer::<u32>::new(scratch::<f32>(&shape, false) / 4).unwrap();
        forward::<f32, bf16>(Pieces::of(&mut scratch), &shape, qkv, &from, &mut out, &mut vec![0.0; 400]);
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
