//! `midc doctor`.

use std::process::ExitCode;

/// Say what this machine can run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> miette::Result<ExitCode> {
    Err(miette::miette!("`midc doctor` is not part of this build"))
}
