//! A model that another program exported, as a checkpoint of the run.

use std::fs;
use std::io;
use std::path::Path;

use super::CheckpointError;
use super::write::{Files, whole_or_not_at_all};

/// Make the files of the directory `from` the checkpoint `dir`, with checksums. Where the file system
/// allows it they are the same files under a second name and take no space.
///
/// # Errors
/// A full disk or another failure of the machine; `dir` is then as it was.
pub fn adopt(from: &Path, dir: &Path) -> Result<(), CheckpointError> {
    let list = || -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let about = fs::metadata(entry.path())?;
            if about.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                files.push((name, about.len()));
            }
        }
        files.sort();
        Ok(files)
    };
    let files = list().map_err(CheckpointError::io("list", from))?;
    whole_or_not_at_all(dir, files.iter().map(|(_, size)| size).sum(), |aside| {
        let mut adopted = Files::begin(aside)?;
        for (name, _) in &files {
            adopted.link(&from.join(name), name)?;
        }
        adopted.finish()
    })
}
