//! `midc plan`.

use std::process::ExitCode;

/// Show the resolved run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> miette::Result<ExitCode> {
    Err(miette::miette!("`midc plan` is not part of this build"))
}
