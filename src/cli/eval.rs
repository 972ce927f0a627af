//! `midc eval`: loss and perplexity of a checkpoint on text files.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::compile;
use crate::cli::device::{DeviceArg, precision};
use crate::cli::lines::output;
use crate::cli::progress::Bar;
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::checkpoint;
use crate::runtime::data::{TextTokenizer, file_windows, text_files};
use crate::runtime::engine::{self, EngineKind, EngineOptions, LengthTables, RowLoss};
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
    /// The day that chat templates see as today's, such as 2025-07-08 [default: none]
    #[arg(long, value_name = "DAY", value_parser = day)]
    today: Option<chrono::NaiveDate>,
    /// Stop after so many predicted tokens
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`
    #[arg(long, default_value = "auto")]
    device: DeviceArg,
    /// Arithmetic [default: f32 on the CPU, bf16 on a GPU]
    #[arg(long, value_parser = ["f32", "bf16"])]
    precision: Option<String>,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = compile::threads)]
    threads: Option<usize>,
    /// Memory to measure in, such as 4GiB: weights and all; fewer windows go at once to stay below
    #[arg(long, value_name = "SIZE", value_parser = compile::bytes)]
    memory: Option<u64>,
    /// `text` or `json`
    #[arg(long, default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// A day of the calendar.
fn day(text: &str) -> Result<chrono::NaiveDate, String> {
    text.parse().map_err(|_| format!("`{text}` is no day; write it as 2025-07-08"))
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
            let (path, eos) = (args.checkpoint.join("tokenizer.json"), config.eos.first().copied());
            TextTokenizer::of_checkpoint(&path, json, &tokenizer.files, eos)?
        }
    };
    let kind = EngineKind::on(device, precision(args.precision.as_deref(), device))?;
    let options = EngineOptions { threads: args.threads, memory: args.memory };
    let mut tables = LengthTables::new(&config.architecture, &config.rope, context as u64);
    let mut engine = engine::engine(kind, &config.architecture, &weights, options)?;
    drop(weights);

    let mut files = Vec::new();
    for path in &args.data {
        files.extend(text_files(path, &Bar::new(true))?);
    }
    let mut sum = Sum::default();
    // Predicted tokens still wanted.
    let mut left = args.max_tokens.unwrap_or(u64::MAX);
    let mut waiting = Waiting::default();
    'files: for path in &files {
        let vocab_size = config.architecture.vocab_size;
        let windows = file_windows(path, args.text.as_deref(), &tokenizer, vocab_size, context, args.today)?;
        let mut seen = None;
        for window in windows {
            if left == 0 {
                break 'files;
            }
            let mut window = window?;
            sum.documents += u64::from(seen != Some(window.document));
            seen = Some(window.document);
            window.tokens.truncate(usize::try_from(left.saturating_add(1)).unwrap_or(usize::MAX));
            left -= (window.tokens.len() as u64).saturating_sub(1);
            let covered = tables.covered(window.tokens.len() as u64);
            if let Some((batch, covered)) = waiting.push(window.tokens, covered) {
                sum.add(engine.losses(&batch, tables.of(covered))?);
                within(args.memory, engine.as_ref())?;
            }
        }
    }
    if let Some((batch, covered)) = waiting.take() {
        sum.add(engine.losses(&batch, tables.of(covered))?);
        within(args.memory, engine.as_ref())?;
    }
    if sum.predicted == 0 {
        return Err(miette::miette!(
            help = "documents of one token have nothing to predict; check `--text` and the files",
            "no token was predicted in {} documents",
            sum.documents
        ));
    }
    let loss = sum.nll / sum.predicted as f64;
    if !loss.is_finite() {
        return Err(miette::miette!(
            help = "a weight is NaN or infinite, or a logit passed what a float holds",
            "the loss is not a number: `{}` cannot be measured",
            args.checkpoint.display()
        ));
    }
    if args.format == "json" {
        let report = serde_json::json!({
            "loss": loss, "perplexity": loss.exp(), "tokens": sum.predicted, "documents": sum.documents,
        });
        output(&format!("{report}\n"))?;
    } else {
        output(&format!(
            "loss        {loss:.5} nats per token\n\
             perplexity  {:.4}\n\
             tokens      {} predicted, in windows of {context}\n\
             documents   {}\n",
            loss.exp(),
            sum.predicted,
            sum.documents
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// That even one window at a time stayed within `--memory`.
fn within(limit: Option<u64>, engine: &dyn engine::Engine) -> miette::Result<()> {
    let held = engine.memory();
    let bytes = held.parameters_bytes + held.activations_bytes;
    match limit {
        Some(limit) if bytes > limit => Err(miette::miette!(
            help = "raise `--memory`, or shorten `--context`",
            "one window at a time takes {bytes} bytes, and `--memory` is {limit}"
        )),
        _ => Ok(()),
    }
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

/// Windows that go to the engine together, in rows as long as the longest of them.
#[derive(Debug, Default)]
struct Waiting {
    windows: Vec<Vec<u32>>,
    longest: usize,
    /// The longest window that goes with them; see [`LengthTables::covered`].
    covered: u64,
}

impl Waiting {
    /// Add a window; the batch that is full before or with it, and what its windows are `covered` by.
    fn push(&mut self, window: Vec<u32>, covered: u64) -> Option<(Batch, u64)> {
        if window.len() < 2 {
            return None;
        }
        // A long one among short ones would fill theirs up.
        let longest = self.longest.max(window.len());
        let full = (self.windows.len() + 1) * longest > TOKENS_AT_ONCE || covered != self.covered;
        let batch = if full { self.take() } else { None };
        self.covered = covered;
        self.longest = self.longest.max(window.len());
        self.windows.push(window);
        batch
    }

    /// What waits, one row per window; what a short one leaves is filled with tokens nobody looks at.
    fn take(&mut self) -> Option<(Batch, u64)> {
        let Self { windows, longest, covered } = std::mem::take(self);
        if windows.is_empty() {
            return None;
        }
        let mut batch = Batch::empty(longest);
        for tokens in windows {
            for position in 0..longest {
                batch.tokens.push(tokens.get(position).copied().unwrap_or(0));
                batch.targets.push(tokens.get(position + 1).copied().unwrap_or(IGNORE));
                batch.attend_from.push(0);
                batch.positions.push(position as u32);
            }
            batch.source.push(0);
        }
        Some((batch, covered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_wait_for_others_of_their_length() {
        let mut waiting = Waiting::default();
        assert!(waiting.push(vec![7], 9).is_none());
        assert!(waiting.take().is_none());
        for _ in 0..TOKENS_AT_ONCE / 2 {
            assert!(waiting.push(vec![1, 2], 9).is_none());
        }
        let (short, _) = waiting.push(vec![3; 100], 9).unwrap();
        assert_eq!((short.rows(), short.context), (TOKENS_AT_ONCE / 2, 2));
        assert!(short.targets.chunks(2).all(|row| row == [2, IGNORE]));
        let (long, _) = waiting.push(vec![4; TOKENS_AT_ONCE + 1], 9).unwrap();
        assert_eq!((long.rows(), long.context), (1, 100));
        let (last, _) = waiting.take().unwrap();
        assert_eq!(last.rows(), 1);
        assert_eq!(last.targets.last(), Some(&IGNORE));
        assert!(waiting.push(vec![5; 3], 9).is_none());
        let (before, covered) = waiting.push(vec![6; 3], 10).unwrap();
        assert_eq!((before.tokens, covered), (vec![5; 3], 9), "read by other frequencies");
    }
}
