//! `midc check`.

use std::process::ExitCode;

/// Report what is wrong in curriculum files
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> miette::Result<ExitCode> {
    Err(miette::miette!("`midc check` is not part of this build"))
}
