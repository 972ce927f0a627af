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

    /// Whether a checkpoint that is there is as it was written.
    ///
    /// # Errors
    /// That cannot be known: it cannot be read now, or another version of midc wrote it.
    pub fn is_sound(&self, dir: &Path) -> Result<bool, CheckpointError> {
        match self.verify(dir) {
            Ok(()) => Ok(true),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The last checkpoint of a series that is not damaged, and those passed over. Of the last of all only the lengths
    /// are compared where that is `enough`.
    ///
    /// # Errors
    /// The directory cannot be listed, or one of those that come before an answer cannot be read now: it may be the
    /// one to go on from.
    pub fn latest(&self, series: &Path, enough: impl Fn(&Entry) -> bool) -> Result<Latest, CheckpointError> {
        let mut damaged = Vec::new();
        for entry in list(series)?.into_iter().rev() {
            let quick = damaged.is_empty() && enough(&entry);
            let checked =
                if quick { Checksums::lengths(&entry.path).map(drop) } else { self.verify(&entry.path) };
            match checked {
                Ok(()) => return Ok(Latest { entry: Some(entry), damaged }),
                Err(error) if error.is_damage() => damaged.push((entry, error)),
                Err(error) => return Err(error),
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
