//! `midc data`.

use std::process::ExitCode;

/// Read, tokenise and count the sources
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> miette::Result<ExitCode> {
    Err(miette::miette!("`midc data` is not part of this build"))
}
