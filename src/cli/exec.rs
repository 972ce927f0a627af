//! `midc exec`.

use std::process::ExitCode;

/// Train
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> miette::Result<ExitCode> {
    Err(miette::miette!("`midc exec` is not part of this build"))
}
