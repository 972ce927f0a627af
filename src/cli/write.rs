//! Files written whole or not at all.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file that could not be written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("cannot write `{}`", path.display())]
#[diagnostic(code(midc::write), help("the file is as it was before"))]
pub(crate) struct WriteError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Replace the content of `path`: written beside it, synced, renamed over it. Permissions stay.
///
/// # Errors
/// When any of that fails; the file then has its old content and nothing is left beside it.
pub(crate) fn replace(path: &Path, content: &str) -> Result<(), WriteError> {
    // Through a link the file behind it is replaced, not the link.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(content.as_bytes())?;
        if let Ok(metadata) = std::fs::metadata(&path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.sync_all()?;
        std::fs::rename(&beside, &path)
    })();
    written.map_err(|source| {
        // The error to report is the first one.
        let _ = std::fs::remove_file(&beside);
        WriteError { path, source }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_replaced_and_nothing_left_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.curriculum");
        std::fs::write(&path, "old").unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert!(replace(&directory.path().join("no/such"), "x").is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
