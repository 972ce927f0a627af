//! `midc eval`.

use std::process::ExitCode;

/// Loss of a checkpoint on text
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> miette::Result<ExitCode> {
    Err(miette::miette!("`midc eval` is not part of this build"))
}
