//! `midc bench`: how fast this machine trains, and checks.

mod check;
mod gradients;
mod kernels;
mod measure;
mod train;

use std::process::ExitCode;

/// Measure this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Check(check::Args),
    Train(train::Args),
    Kernels(kernels::Args),
    Gradients(gradients::Args),
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// One JSON value.
    Json,
}

/// Arithmetic to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Precision {
    /// f32 throughout.
    F32,
    /// bf16 products, f32 sums and weights.
    Bf16,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}

impl From<Precision> for crate::plan::Precision {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::Bf16,
        }
    }
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    match args.what {
        What::Check(args) => check::run(&args),
        What::Train(args) => train::run(&args),
        What::Kernels(args) => kernels::run(&args),
        What::Gradients(args) => gradients::run(&args),
    }
}
