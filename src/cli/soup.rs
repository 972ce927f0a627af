//! `midc soup`: average checkpoints.

use std::path::PathBuf;
use std::process::ExitCode;

use super::lines::tell;
use crate::runtime::model::Dtype;
use crate::runtime::soup::{Recipe, soup};

/// Average checkpoints
///
/// The mean of the weights, or with `--weights` or `--ema` another average, in f32. All checkpoints must be
/// of one model. The result is a Hugging Face directory with the first one's configuration and
/// tokenizer.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Hugging Face directories or checkpoints of a run, oldest first for `--ema`
    #[arg(required = true)]
    checkpoints: Vec<PathBuf>,
    /// The directory to write, which must not be there
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// One weight per checkpoint, relative to their sum
    #[arg(long, value_name = "W,…", value_delimiter = ',', allow_negative_numbers = true)]
    weights: Vec<f32>,
    /// Exponential moving average with this decay
    #[arg(long, value_name = "DECAY", conflicts_with = "weights")]
    ema: Option<f32>,
    /// How to store the result
    #[arg(long, default_value = "f32", value_parser = ["f32", "bf16", "f16"])]
    dtype: String,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let recipe = match args.ema {
        Some(decay) => Recipe::Ema { decay },
        None if args.weights.is_empty() => Recipe::Uniform,
        None => Recipe::Weighted(args.weights),
    };
    let dtype = match args.dtype.as_str() {
        "bf16" => Dtype::Bf16,
        "f16" => Dtype::F16,
        _ => Dtype::F32,
    };
    soup(&args.checkpoints, &recipe, dtype, &args.output)?;
    tell!("{} checkpoints averaged into {}", args.checkpoints.len(), args.output.display());
    Ok(ExitCode::SUCCESS)
}
