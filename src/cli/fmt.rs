//! `midc fmt`.

use std::process::ExitCode;

/// Format curriculum files
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> miette::Result<ExitCode> {
    Err(miette::miette!("`midc fmt` is not part of this build"))
}
