//! `midc bench kernels`: one row per operation and shape.

use std::process::ExitCode;

use comfy_table::Table;
use miette::IntoDiagnostic;
use serde::Serialize;

use super::measure::{self, Clock, fastest, narrow, wide};
use super::{Format, Precision};
use crate::cli::lines;
use crate::runtime::backend::cpu::Cpu;
use crate::runtime::backend::{AdamW, AttentionShape, Backend, Gate, LossShape, NormShape};
use crate::runtime::engine::{self, EngineError};

/// Time the operations of a step
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Arithmetic
    #[arg(long, default_value = "bf16")]
    precision: Precision,
    /// Worker threads; all cores when absent
    #[arg(long, value_parser = crate::cli::compile::threads)]
    threads: Option<usize>,
    /// Seconds per operation
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    seconds: f64,
    /// Only operations whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// What to count seconds by
    #[arg(long, default_value = "wall")]
    clock: Clock,
    /// How to write the result
    #[arg(long, default_value = "text")]
    format: Format,
}

/// More than nothing, and an end.
fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(n) if n > 0.0 && f64::is_finite(n) => Ok(n),
        _ => Err("a number of seconds above 0 is needed".to_owned()),
    }
}

/// One measurement.
#[derive(Debug, Serialize)]
struct Row {
    operation: &'static str,
    shape: String,
    milliseconds: f64,
    /// For operations bound by arithmetic.
    #[serde(skip_serializing_if = "Option::is_none")]
    gflops: Option<f64>,
    /// Share of the best large product.
    #[serde(skip_serializing_if = "Option::is_none")]
    of_peak: Option<f64>,
    /// For operations bound by memory: bytes read and written once each.
    #[serde(skip_serializing_if = "Option::is_none")]
    gigabytes_per_second: Option<f64>,
}

/// Runs operations and collects their rows.
struct Bench<'a, B: Backend> {
    backend: &'a B,
    args: &'a Args,
    peak: f64,
    rows: Vec<Row>,
}

impl<B: Backend> Bench<'_, B> {
    fn wanted(&self, operation: &str) -> bool {
        self.args.only.as_ref().is_none_or(|only| operation.contains(only.as_str()))
    }

    fn arithmetic(&mut self, operation: &'static str, shape: &str, flop: f64, f: impl FnMut()) {
        if self.wanted(operation) {
            let seconds = fastest(self.args.clock, engine::threads(self.args.threads), self.args.seconds, f);
            let gflops = flop / seconds * 1e-9;
            self.rows.push(Row {
                operation,
                shape: shape.into(),
                milliseconds: seconds * 1e3,
                gflops: Some(gflops),
                of_peak: Some(gflops / self.peak),
                gigabytes_per_second: None,
            });
        }
    }

    fn memory(&mut self, operation: &'static str, shape: &str, bytes: usize, f: impl FnMut()) {
        if self.wanted(operation) {
            let seconds = fastest(self.args.clock, engine::threads(self.args.threads), self.args.seconds, f);
            self.rows.push(Row {
                operation,
                shape: shape.into(),
                milliseconds: seconds * 1e3,
                gflops: None,
                of_peak: None,
                gigabytes_per_second: Some(bytes as f64 / seconds * 1e-9),
            });
        }
    }

    fn linear(&mut self, rows: usize, inputs: usize, outputs: usize) -> Result<(), EngineError> {
        let b = self.backend;
        let (x, dy) = (narrow(b, 1, rows * inputs)?, narrow(b, 2, rows * outputs)?);
        let w = wide(b, 3, outputs * inputs)?;
        let (mut y, mut dx) = (b.narrow(rows * outputs)?, b.narrow(rows * inputs)?);
        let mut dw = b.wide(outputs * inputs)?;
        let shape = format!("{rows} × {inputs} → {outputs}");
        let flop = 2.0 * (rows * inputs * outputs) as f64;
        self.arithmetic("linear", &shape, flop, || b.linear(rows, inputs, outputs, &x, &w, &mut y));
        self.arithmetic("linear input grad", &shape, flop, || {
            b.linear_input_grad(rows, inputs, outputs, &dy, &w, &mut dx);
        });
        self.arithmetic("linear weight grad", &shape, flop, || {
            b.linear_weight_grad(rows, inputs, outputs, &dy, &x, false, &mut dw);
        });
        Ok(())
    }

    fn attention(&mut self, s: AttentionShape) -> Result<(), EngineError> {
        let b = self.backend;
        let tokens = s.tokens();
        let qkv = narrow(b, 1, tokens * s.qkv_width())?;
        let grad_out = narrow(b, 2, tokens * s.out_width())?;
        let from = b.index(tokens)?;
        let (mut out, mut log) = (b.narrow(tokens * s.out_width())?, b.wide(tokens * s.heads)?);
        let mut grad = b.narrow(tokens * s.qkv_width())?;
        let AttentionShape { rows, context, heads, kv_heads, head_dim, .. } = s;
        let shape = format!("{rows} × {context}, {heads}/{kv_heads} × {head_dim}");
        // Two products over the causal half; five in the backward pass.
        let flop = 2.0 * (tokens * context * heads * head_dim) as f64;
        let mut scratch = b.narrow(B::attention_scratch(s, true))?;
        b.attention(s, &qkv, &from, &mut out, &mut log, &mut scratch);
        let (o, l) = (&mut out, &mut log);
        self.arithmetic("attention", &shape, flop, || b.attention(s, &qkv, &from, o, l, &mut scratch));
        self.arithmetic("attention backward", &shape, 2.5 * flop, || {
            b.attention_backward(s, &qkv, &out, &log, &from, &grad_out, &mut grad, &mut scratch);
        });
        Ok(())
    }

    fn loss(&mut self, tokens: usize, width: usize, vocab: usize) -> Result<(), EngineError> {
        let b = self.backend;
        let (x, w) = (narrow(b, 1, tokens * width)?, wide(b, 2, vocab * width)?);
        let targets = b.index(tokens)?;
        let (mut nll, mut dx) = (b.wide(tokens)?, b.narrow(tokens * width)?);
        let mut dw = b.wide(vocab * width)?;
        let mut scratch = b.narrow(B::loss_scratch(tokens, vocab))?;
        let s = LossShape { tokens, width, vocab, gradient_scale: 1.0 / tokens as f64, z_loss: 0.0 };
        let shape = format!("{tokens} × {width} → {vocab}");
        let flop = 2.0 * (tokens * width * vocab) as f64;
        self.arithmetic("loss", &shape, flop, || b.loss(s, &x, &w, &targets, &mut nll, &mut scratch));
        self.arithmetic("loss with gradients", &shape, 3.0 * flop, || {
            b.loss_backward(s, &x, &w, &targets, &mut nll, &mut dx, false, &mut dw, &mut scratch);
        });
        Ok(())
    }

    fn pointwise(&mut self, rows: usize, width: usize, ffn: usize) -> Result<(), EngineError> {
        let b = self.backend;
        let len = rows * width;
        let (wide_bytes, narrow_bytes) = (B::WIDE_BYTES, B::NARROW_BYTES);
        let shape = format!("{rows} × {width}");
        let norm = NormShape::whole(rows, width);
        let (stream, w, dy) = (wide(b, 1, len)?, wide(b, 2, width)?, narrow(b, 3, len)?);
        let (mut x, mut y, mut rstd) = (b.narrow(len)?, b.narrow(len)?, b.wide(rows)?);
        let (mut grad, mut grad_w) = (b.wide(len)?, b.wide(width)?);
        self.memory("norm", &shape, len * (wide_bytes + 2 * narrow_bytes), || {
            b.norm(norm, 1e-5, &stream, &w, &mut x, &mut y, &mut rstd);
        });
        b.norm(norm, 1e-5, &stream, &w, &mut x, &mut y, &mut rstd);
        self.memory("norm backward", &shape, len * (2 * wide_bytes + 3 * narrow_bytes), || {
            b.norm_backward(norm, &x, &w, &rstd, &dy, &mut grad, &mut y, &mut grad_w);
        });

        let shape = format!("{rows} × {ffn}");
        let values = rows * ffn;
        let (gate_up, da) = (narrow(b, 4, 2 * values)?, narrow(b, 5, values)?);
        let mut act = b.narrow(values)?;
        self.memory("swiglu", &shape, 3 * values * narrow_bytes, || {
            b.glu(Gate::Silu, rows, ffn, &gate_up, &mut act);
        });
        let mut gate_up = gate_up;
        self.memory("swiglu backward", &shape, 6 * values * narrow_bytes, || {
            b.glu_backward(Gate::Silu, rows, ffn, &da, &mut gate_up, &mut act);
        });

        let n = 1 << 23;
        let constants = AdamW {
            lr: 1e-4,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            corrections: [0.1, 0.05],
            gradient_scale: 1.0,
        };
        let (g, mut p, mut m, mut v) = (wide(b, 6, n)?, b.wide(n)?, b.wide(n)?, b.wide(n)?);
        self.memory("adamw", &n.to_string(), 7 * n * wide_bytes, || {
            b.adamw(n, constants, &g, &mut p, &mut m, &mut v);
        });
        self.memory("squared norm", &n.to_string(), n * wide_bytes, || {
            std::hint::black_box(b.squared_norm(n, &g));
        });
        Ok(())
    }

    fn all(&mut self) -> Result<(), EngineError> {
        let attention = |rows, context, heads, kv_heads, head_dim: usize| AttentionShape {
            rows,
            context,
            heads,
            kv_heads,
            head_dim,
            scale: (head_dim as f64).powf(-0.5),
        };
        for (inputs, outputs) in [(256, 512), (256, 256), (256, 1408), (704, 256)] {
            self.linear(4096, inputs, outputs)?;
        }
        for (inputs, outputs) in [(576, 960), (576, 576), (576, 3072), (1536, 576)] {
            self.linear(2048, inputs, outputs)?;
        }
        self.attention(attention(8, 512, 8, 4, 32))?;
        self.attention(attention(2, 1024, 9, 3, 64))?;
        self.attention(attention(1, 8192, 8, 4, 32))?;
        self.attention(attention(1, 2048, 8, 2, 128))?;
        self.loss(4096, 256, 4096)?;
        self.loss(2048, 576, 49152)?;
        self.pointwise(4096, 256, 704)?;
        self.pointwise(2048, 576, 1536)
    }
}

fn measure<B: Backend>(backend: &B, args: &Args) -> miette::Result<ExitCode> {
    let peak = measure::peak(backend, args.clock, engine::threads(args.threads))?;
    let mut bench = Bench { backend, args, peak, rows: Vec::new() };
    bench.all()?;
    if args.format == Format::Json {
        lines::output(&format!("{}\n", serde_json::to_string(&bench.rows).into_diagnostic()?))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["operation", "shape", "ms", "GFLOP/s", "of peak", "GB/s"]);
    let number = |x: Option<f64>, digits: usize| x.map_or(String::new(), |x| format!("{x:.digits$}"));
    for row in &bench.rows {
        table.add_row([
            row.operation.to_string(),
            row.shape.clone(),
            format!("{:.3}", row.milliseconds),
            number(row.gflops, 0),
            row.of_peak.map_or(String::new(), |x| format!("{:.0}%", 100.0 * x)),
            number(row.gigabytes_per_second, 1),
        ]);
    }
    lines::output(&format!("{}: {peak:.0} GFLOP/s on large products\n{table}\n", backend.describe()))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run(args: &Args) -> miette::Result<ExitCode> {
    match args.precision {
        Precision::F32 => measure(&Cpu::<f32>::new(args.threads)?, args),
        Precision::Bf16 => measure(&Cpu::<half::bf16>::new(args.threads)?, args),
    }
}
