//! `midc bench train`: optimizer steps on random tokens.

use std::process::ExitCode;

use serde_json::json;

use super::measure::{self, Clock, median};
use super::{Format, Precision};
use crate::cli::compile;
use crate::cli::device::DeviceArg;
use crate::cli::lines;
use crate::layers::LayerPattern;
use crate::plan::Architecture;
use crate::rope::{self, RopeScaling};
use crate::runtime::backend::cpu::Cpu;
use crate::runtime::backend::cuda;
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::engine::{self, EngineKind, EngineOptions, Hyper, Muon, RopeTable, init_weights};
use crate::runtime::random::philox;

/// Time optimizer steps
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A: 5.5M parameters, 8 rows of 512; B: 135M, 2 rows of 1024; C: A with one row of 16384;
    /// D: 1.2B, 4 rows of 4096; quickstart: 16 rows of 256
    #[arg(long, default_value = "a", ignore_case = true)]
    geometry: Geometry,
    /// `auto`, `cpu`, `cuda` or `cuda:N`
    #[arg(long, default_value = "auto")]
    device: DeviceArg,
    /// Arithmetic
    #[arg(long, default_value = "bf16")]
    precision: Precision,
    /// Steps to measure
    #[arg(long, default_value_t = 7, value_parser = count)]
    steps: usize,
    /// Steps before
    #[arg(long, default_value_t = 2, value_parser = warmup)]
    warmup: usize,
    /// Tokens per row, in place of the geometry's
    #[arg(long, value_parser = count)]
    context: Option<usize>,
    /// Rows, in place of the geometry's
    #[arg(long, value_parser = count)]
    rows: Option<usize>,
    /// `llama`, `qwen2`, `qwen3`, `olmo2`, `olmo3`, `smollm3` or `gemma3_text`
    #[arg(long, default_value = "llama")]
    model_type: String,
    /// Tokens that three of four layers of `olmo3`, and five of six of `gemma3_text`, look back over
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    window: u64,
    /// An output matrix of its own
    #[arg(long)]
    untied: bool,
    /// What moves the matrices within layers; the rest is AdamW's
    #[arg(long, default_value = "adamw")]
    optimizer: Optimizer,
    /// Worker threads; all cores when absent
    #[arg(long, value_parser = compile::threads)]
    threads: Option<usize>,
    /// Largest memory, such as 4GiB; a number alone counts MiB. Layers are recomputed to stay below
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// What to count seconds by
    #[arg(long, default_value = "wall")]
    clock: Clock,
    /// How to write the result
    #[arg(long, default_value = "text")]
    format: Format,
}

/// Of a step: their numbers alone take 16 bytes each.
const MOST_TOKENS: usize = 1 << 28;

/// A count from 1 to 2²⁴.
fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=1 << 24).contains(&n) => Ok(n),
        _ => Err("a whole number from 1 to 16777216 is needed".to_owned()),
    }
}

/// A count, or none.
fn warmup(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(0) } else { count(text) }
}

/// A size as everywhere, but that a number alone is of MiB: the benchmarks that compare engines say it so.
fn memory(text: &str) -> Result<u64, String> {
    let alone = text.bytes().all(|b| b.is_ascii_digit());
    compile::bytes(&if alone { format!("{text}MiB") } else { text.to_owned() })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Optimizer {
    #[value(name = "adamw")]
    AdamW,
    Muon,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Geometry {
    A,
    B,
    C,
    D,
    /// The model of `examples/quickstart.curriculum` in its first stage.
    Quickstart,
}

/// What a geometry is made of. `benches/peer_torch.py` holds the same table.
struct Shape {
    layers: usize,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
    ffn: usize,
    vocab: usize,
    rows: usize,
    context: usize,
}

impl Geometry {
    fn shape(self) -> Shape {
        let small = Shape {
            layers: 6,
            hidden: 256,
            heads: 8,
            kv_heads: 4,
            ffn: 704,
            vocab: 4096,
            rows: 8,
            context: 512,
        };
        match self {
            Geometry::A => small,
            // SmolLM2-135M.
            Geometry::B => Shape {
                layers: 30,
                hidden: 576,
                heads: 9,
                kv_heads: 3,
                ffn: 1536,
                vocab: 49152,
                rows: 2,
                context: 1024,
            },
            Geometry::C => Shape { rows: 1, context: 16384, ..small },
            // Llama 3.2 1B.
            Geometry::D => Shape {
                layers: 16,
                hidden: 2048,
                heads: 32,
                kv_heads: 8,
                ffn: 8192,
                vocab: 128_256,
                rows: 4,
                context: 4096,
            },
            Geometry::Quickstart => Shape {
                layers: 4,
                hidden: 160,
                heads: 5,
                kv_heads: 5,
                ffn: 448,
                rows: 16,
                context: 256,
                ..small
            },
        }
    }
}

impl Args {
    fn architecture(&self) -> Architecture {
        let shape = self.geometry.shape();
        Architecture {
            model_type: self.model_type.clone(),
            num_hidden_layers: shape.layers,
            hidden_size: shape.hidden,
            num_attention_heads: shape.heads,
            num_key_value_heads: shape.kv_heads,
            head_dim: shape.hidden / shape.heads,
            intermediate_size: shape.ffn,
            vocab_size: shape.vocab,
            tie_word_embeddings: !self.untied,
            rms_norm_eps: 1e-6,
            initializer_range: 0.02,
            pattern: match self.model_type.as_str() {
                "olmo3" => LayerPattern::windows(shape.layers, self.window, 4),
                "gemma3_text" => LayerPattern::windows(shape.layers, self.window, 6),
                "smollm3" => LayerPattern::without_rope(shape.layers, 4),
                _ => LayerPattern::default(),
            },
        }
    }

    /// Rows and tokens per row.
    fn shape(&self) -> (usize, usize) {
        let shape = self.geometry.shape();
        (self.rows.unwrap_or(shape.rows), self.context.unwrap_or(shape.context))
    }
}

/// Random tokens, each predicted from the ones before.
fn batch(rows: usize, context: usize, vocab: usize, step: usize) -> Batch {
    let tokens: Vec<u32> =
        (0..(rows * context) as u32).map(|i| philox(2, [i, step as u32, 0, 0])[0] % vocab as u32).collect();
    let mut targets = Vec::with_capacity(tokens.len());
    for row in tokens.chunks_exact(context) {
        targets.extend_from_slice(&row[1..]);
        targets.push(IGNORE);
    }
    Batch {
        context,
        targets,
        attend_from: vec![0; tokens.len()],
        positions: (0..tokens.len()).map(|i| (i % context) as u32).collect(),
        tokens,
        source: vec![0; rows],
    }
}

pub(super) fn run(args: &Args) -> miette::Result<ExitCode> {
    let architecture = args.architecture();
    let (rows, context) = args.shape();
    if rows * context > MOST_TOKENS {
        return Err(miette::miette!(
            "{rows} rows of {context} tokens are more than {MOST_TOKENS} tokens a step"
        ));
    }
    let threads = engine::threads(args.threads);
    let device = args.device.choose()?;
    let kind = EngineKind::on(device, args.precision.into())?;
    let options = EngineOptions { threads: args.threads, memory: args.memory };
    let weights = init_weights(&architecture, 0)?;
    let mut engine = engine::engine(kind, &architecture, &weights, options)?;
    drop(weights);
    let frequencies = rope::inv_freq(architecture.head_dim, 10_000.0, &RopeScaling::Default, context as u64);
    let table = RopeTable::new(&frequencies.inv_freq, frequencies.attention_factor, context);

    let (mut seconds, mut loss) = (Vec::new(), f64::NAN);
    for step in 0..args.warmup + args.steps {
        if step == args.warmup {
            measure::reset_peak_rss();
        }
        let batch = batch(rows, context, architecture.vocab_size, step);
        let muon = (args.optimizer == Optimizer::Muon).then(Muon::default);
        let hyper = Hyper { lr: 1e-4, muon, optimizer_step: step as u64 + 1, ..Hyper::default() };
        let start = args.clock.now(threads);
        let report = engine.train_step(&batch, &table, &hyper)?;
        if step >= args.warmup {
            seconds.push(args.clock.now(threads) - start);
        }
        loss = report.loss;
    }

    let step = median(&seconds);
    let tokens_per_second = (rows * context) as f64 / step;
    let gflops = architecture.train_flops_per_token(context as u64) * (rows * context) as f64 / step * 1e-9;
    let (rss, memory, description) = (measure::peak_rss_mib(), engine.memory(), engine.describe());
    drop(engine);
    // Only now: what it leaves with the allocator would count as memory of training.
    let peak = match kind {
        EngineKind::Cuda(ordinal) => measure::peak(&cuda::open(ordinal, 2 << 30)?, args.clock, threads)?,
        EngineKind::CpuBf16 => measure::peak(&Cpu::<half::bf16>::new(args.threads)?, args.clock, threads)?,
        EngineKind::CpuF32 | EngineKind::Reference => {
            measure::peak(&Cpu::<f32>::new(args.threads)?, args.clock, threads)?
        }
    };
    if args.format == Format::Json {
        let value = json!({
            "tokens_per_second": tokens_per_second,
            "mfu": gflops / peak,
            "peak_rss_mib": rss,
            "step_seconds": seconds,
            "precision": args.precision.name(),
            "clock": if args.clock == Clock::Wall { "wall" } else { "cpu" },
            "gflops": gflops,
            "peak_gflops": peak,
            "loss": loss,
            "feed_forwards_recomputed": memory.feed_forwards_recomputed,
            "layers_recomputed": memory.layers_recomputed,
            "rows_at_once": memory.rows_at_once,
            "engine": description,
        });
        lines::output(&format!("{value}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!(
        "{} · {rows} × {context} tokens\n\
         {tokens_per_second:.0} tokens/s, {step:.3} s per step (median of {})\n\
         {gflops:.0} GFLOP/s, {:.0}% of the {peak:.0} of a large product\n",
        description,
        seconds.len(),
        100.0 * gflops / peak
    );
    if let Some(rss) = rss {
        text.push_str(&format!("{rss:.0} MiB at most\n"));
    }
    text.push_str(&format!(
        "{} layers kept, {} recomputed, of {} more the feed-forward block; {} rows at once\n",
        memory.layers_kept, memory.layers_recomputed, memory.feed_forwards_recomputed, memory.rows_at_once
    ));
    lines::output(&text)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_a_size_and_steps_are_countable() {
        let read = |text: &str| memory(text).unwrap();
        assert_eq!(["4GiB", "2325", "512MiB"].map(read), [4 << 30, 2325 << 20, 512 << 20]);
        for wrong in ["", "0", "18446744073709551615", "much", "-1"] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
        assert_eq!((warmup("0"), warmup("2")), (Ok(0), Ok(2)));
        assert!(warmup("18446744073709551615").is_err());
    }

    #[test]
    fn useful_work_counts_causal_attention_once() {
        let a = Architecture {
            model_type: "llama".into(),
            num_hidden_layers: 1,
            hidden_size: 4,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 2,
            intermediate_size: 3,
            vocab_size: 5,
            tie_word_embeddings: true,
            rms_norm_eps: 1e-6,
            initializer_range: 0.02,
            pattern: LayerPattern::default(),
        };
        // 4·(4+4+2+2) + 3·4·3 + 5·4 matrix weights, 10·4 for attention over 10 tokens.
        assert_eq!(a.train_flops_per_token(10), 6.0 * (104.0 + 40.0));
    }
}
