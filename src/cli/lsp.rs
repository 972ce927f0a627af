//! `midc lsp`: the language server over standard input and output.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use miette::{IntoDiagnostic, WrapErr};

use crate::cli::files::config_in_gguf;
use crate::lsp::{Disk, NativeDisk};

/// Serve an editor over standard input and output (language server protocol)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Accepted for editors that pass it; there is no other transport
    #[arg(long, hide = true)]
    stdio: bool,
}

pub(crate) fn run(_: Args) -> miette::Result<ExitCode> {
    let code = crate::lsp::serve(std::io::stdin(), std::io::stdout(), Checkpoints)
        .into_diagnostic()
        .wrap_err("the editor's end of the connection is closed")?;
    Ok(ExitCode::from(code))
}

/// The disk of this machine, with the configurations that GGUF files hold.
struct Checkpoints;

impl Disk for Checkpoints {
    fn present(&self) -> bool {
        NativeDisk.present()
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        NativeDisk.read(path)
    }

    fn beside(&self, path: &Path) -> Result<Option<String>, String> {
        match NativeDisk.beside(path)? {
            Some(text) => Ok(Some(text)),
            None => config_in_gguf(path),
        }
    }

    fn glob(&self, directory: &Path, pattern: &str) -> Vec<PathBuf> {
        NativeDisk.glob(directory, pattern)
    }

    fn curricula(&self, below: &Path) -> Vec<PathBuf> {
        NativeDisk.curricula(below)
    }

    fn explain_pages(&self) -> Option<PathBuf> {
        NativeDisk.explain_pages()
    }
}
