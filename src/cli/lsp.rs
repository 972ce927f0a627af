//! `midc lsp`: the language server over standard input and output.

use std::process::ExitCode;

use miette::{IntoDiagnostic, WrapErr};

/// Serve an editor over standard input and output (language server protocol)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Accepted for editors that pass it; there is no other transport
    #[arg(long, hide = true)]
    stdio: bool,
}

pub(crate) fn run(_: Args) -> miette::Result<ExitCode> {
    let code = crate::lsp::serve(std::io::stdin(), std::io::stdout())
        .into_diagnostic()
        .wrap_err("the editor's end of the connection is closed")?;
    Ok(ExitCode::from(code))
}
