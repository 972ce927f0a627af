//! `midc eval`: loss and perplexity of a checkpoint on text files.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::compile;
use crate::cli::device::{DeviceArg, precision};
use crate::rope;
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::checkpoint;
use crate::runtime::data::{TextTokenizer, file_windows};
use crate::runtime::engine::{self, EngineKind, EngineOptions, RopeTable, RowLoss};
use crate::runtime::model::Loaded;

/// Loss and perplexity of a checkpoint on text
///
/// Each document is cut into windows of `--context` tokens that do not overlap; every token of a
/// window but its first is predicted. The loss is the mean over all predicted tokens, in nats.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A Hugging Face directory, a checkpoint of a run, or a .gguf file
    checkpoint: PathBuf,
    /// Text: .jsonl (.gz, .zst), .txt, a directory, a glob
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// Tokens per window [default: the model's context, 2048 at most]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// A tokenizer.json other than the checkpoint's
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Field or template of the text in JSONL records
    #[arg(long, value_name = "FIELD")]
    text: Option<String>,
    /// Stop after so many predicted tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<u64>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`
    #[arg(long, default_value = "auto")]
    device: DeviceArg,
    /// Arithmetic [default: f32 on the CPU, bf16 on a GPU]
    #[arg(long, value_parser = ["f32", "bf16"])]
    precision: Option<String>,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Memory for activations, such as 4GiB
    #[arg(long, value_name = "SIZE", value_parser = compile::bytes)]
    memory: Option<u64>,
    /// `text` or `json`
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// Tokens handed to the engine at once.
const TOKENS_AT_ONCE: usize = 8192;

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let device = args.device.choose()?;
    let Loaded { config, weights, tokenizer } = checkpoint::load_whole(&args.checkpoint)?;
    let context = args.context.unwrap_or((config.context as usize).min(2048));
    if context < 2 {
        return Err(miette::miette!(
            help = "a window predicts every token but its first, so it needs at least two",
            "`--context {context}` predicts nothing"
        ));
    }
    let tokenizer = match &args.tokenizer {
        Some(path) => TextTokenizer::open(path)?,
        None => {
            let json = tokenizer.tokenizer_json()?;
            let (settings, jinja) = tokenizer.chat_files();
            TextTokenizer::from_json(
                &args.checkpoint.join("tokenizer.json"),
                json,
                config.eos.first().copied(),
            )?
            .with_chat_template(&settings, jinja.as_deref())?
        }
    };
    let kind = EngineKind::on(device, precision(args.precision.as_deref(), device))?;
    let options = EngineOptions { threads: args.threads, memory: args.memory };
    let scaled =
        rope::inv_freq(config.architecture.head_dim, config.rope.theta, &config.rope.scaling, context as u64);
    let table = RopeTable::new(&scaled.inv_freq, scaled.attention_factor, context);
    let mut engine = engine::engine(kind, &config.architecture, &weights, options)?;
    drop(weights);

    let mut sum = Sum::default();
    'files: for path in &args.data {
        let vocab_size = config.architecture.vocab_size;
        let windows = file_windows(path, args.text.as_deref(), &tokenizer, vocab_size, context)?;
        let mut documents = 0;
        let mut waiting = Batch::empty(context);
        for window in windows {
            let window = window?;
            documents = window.document + 1;
            push(&mut waiting, &window.tokens);
            if waiting.tokens.len() >= TOKENS_AT_ONCE {
                sum.add(engine.losses(&waiting, &table)?);
                waiting = Batch::empty(context);
            }
            if args.max_tokens.is_some_and(|most| sum.predicted >= most) {
                sum.documents += documents;
                break 'files;
            }
        }
        if waiting.rows() > 0 {
            sum.add(engine.losses(&waiting, &table)?);
        }
        sum.documents += documents;
    }
    if sum.predicted == 0 {
        return Err(miette::miette!(
            help = "documents of one token have nothing to predict; check `--text` and the files",
            "no token was predicted in {} documents",
            sum.documents
        ));
    }
    let loss = sum.nll / sum.predicted as f64;
    if args.format == "json" {
        let report = serde_json::json!({
            "loss": loss, "perplexity": loss.exp(), "tokens": sum.predicted, "documents": sum.documents,
        });
        println!("{report}");
    } else {
        println!("loss        {loss:.5} nats per token");
        println!("perplexity  {:.4}", loss.exp());
        println!("tokens      {} predicted, in windows of {context}", sum.predicted);
        println!("documents   {}", sum.documents);
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Default)]
struct Sum {
    nll: f64,
    predicted: u64,
    documents: u64,
}

impl Sum {
    fn add(&mut self, rows: Vec<RowLoss>) {
        for row in rows {
            self.nll += row.nll;
            self.predicted += u64::from(row.predicted);
        }
    }
}

/// Add a window as a row; what a short one leaves is filled with tokens nobody looks at.
fn push(batch: &mut Batch, tokens: &[u32]) {
    for position in 0..batch.context {
        batch.tokens.push(tokens.get(position).copied().unwrap_or(0));
        batch.targets.push(tokens.get(position + 1).copied().unwrap_or(IGNORE));
        batch.attend_from.push(0);
        batch.positions.push(position as u32);
    }
    batch.source.push(0);
}
