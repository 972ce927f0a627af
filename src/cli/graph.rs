//! `midc graph`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;

use crate::cli::plan_file;
use crate::plot;

/// Print the models, stages and soups of a run as a graph
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A plan as JSON
    file: PathBuf,
    /// Language of the graph
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For Markdown pages
    Mermaid,
    /// For Graphviz
    Dot,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let plan = plan_file::read(&args.file)?;
    let text = match args.format {
        Format::Mermaid => plot::mermaid(&plan),
        Format::Dot => plot::dot(&plan),
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}
