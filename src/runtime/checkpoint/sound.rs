//! Which checkpoints were found sound. To read through one takes minutes, and a run that goes on asks about the same
//! ones more than once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::checksums::Checksums;
use super::read::unchecked;
use super::{Checkpoint, CheckpointError, Entry, Latest, list, verify};

/// Checkpoints that were read through and are as they were written.
#[derive(Debug, Default)]
pub struct Sound(Mutex<BTreeSet<PathBuf>>);

impl Sound {
    fn known(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`verify`], once.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(&self, dir: &Path) -> Result<(), CheckpointError> {
        if !self.known().contains(dir) {
            verify(dir)?;
            self.known().insert(dir.to_owned());
        }
        Ok(())
    }

    /// The last checkpoint of a series that is not damaged, and those passed over. Of the last of all only the lengths
    /// are compared where that is `enough`.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn latest(&self, series: &Path, enough: impl Fn(&Entry) -> bool) -> Result<Latest, CheckpointError> {
        let mut damaged = Vec::new();
        for entry in list(series)?.into_iter().rev() {
            let quick = damaged.is_empty() && enough(&entry);
            let checked =
                if quick { Checksums::lengths(&entry.path).map(drop) } else { self.verify(&entry.path) };
            match checked {
                Ok(()) => return Ok(Latest { entry: Some(entry), damaged }),
                Err(error) => damaged.push(error),
            }
        }
        Ok(Latest { entry: None, damaged })
    }

    /// [`super::read`], without reading through a second time what was found sound and nothing was trained since. The
    /// next time it is read through again.
    ///
    /// # Errors
    /// As [`super::read`].
    pub fn read(&self, dir: &Path) -> Result<Checkpoint, CheckpointError> {
        let known = self.known().remove(dir);
        let sums = if known { Checksums::lengths(dir)? } else { Checksums::check(dir)? };
        unchecked(dir, &sums)
    }

    /// Training begins: what was read through before it may lie there for hours until something starts from it.
    pub fn forget_all(&self) {
        self.known().clear();
    }

    /// Another one is to be written under that name.
    pub fn forget(&self, dir: &Path) {
        self.known().remove(dir);
    }
}
