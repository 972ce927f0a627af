//! Files written whole or not at all, with an error for the terminal.

use std::io;
use std::path::{Path, PathBuf};

use crate::runtime::whole;

/// A file that could not be written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("cannot write `{}`", path.display())]
#[diagnostic(code(midc::write), help("the file is as it was before"))]
pub(crate) struct WriteError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl WriteError {
    pub(crate) fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

/// [`whole::write`] of a text.
///
/// # Errors
/// [`WriteError`]; the file is then as it was.
pub(crate) fn replace(path: &Path, content: &str) -> Result<(), WriteError> {
    whole::write(path, content.as_bytes()).map_err(|source| WriteError::new(path, source))
}
