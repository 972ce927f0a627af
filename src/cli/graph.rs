//! `midc graph`.

use std::path::Path;
use std::process::ExitCode;

use clap::ValueEnum;

use super::input::InputArgs;
use super::{FOUND, curriculum, lines, plan_file};
use crate::plot;

/// Print the models, stages and soups of a run as a graph
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A curriculum, or a plan as JSON (`*.json`); `-` reads a curriculum from standard input
    file: String,
    /// Language of the graph
    #[arg(long, value_enum, default_value_t = Format::Mermaid)]
    format: Format,
    #[command(flatten)]
    input: InputArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For Markdown pages
    Mermaid,
    /// For Graphviz
    Dot,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let plan = if plan_file::is_named_so(Path::new(&args.file)) {
        plan_file::in_place_of_curriculum(Path::new(&args.file), &args.input)?
    } else {
        let Some((plan, _)) = curriculum::plan(&args.file, &args.input)? else {
            return Ok(ExitCode::from(FOUND));
        };
        plan
    };
    let text = match args.format {
        Format::Mermaid => plot::mermaid(&plan),
        Format::Dot => plot::dot(&plan),
    };
    lines::output(&text)?;
    Ok(ExitCode::SUCCESS)
}
