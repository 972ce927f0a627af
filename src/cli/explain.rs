//! `midc explain`.

use std::process::ExitCode;

/// Explain a diagnostic code or lint
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> miette::Result<ExitCode> {
    Err(miette::miette!("`midc explain` is not part of this build"))
}
