//! The checkpoints of one stage: `checkpoints/STAGE/step-N`. Finding, falling back, pruning.

use std::fs;
use std::path::{Path, PathBuf};

use super::write::{OLD, REPLACED, aside};
use super::{CheckpointError, names};

/// A checkpoint of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Steps done when it was written.
    pub step: u64,
    /// The directory.
    pub path: PathBuf,
}

/// What [`Sound::latest`](super::Sound::latest) found.
#[derive(Debug)]
pub struct Latest {
    /// The last checkpoint whose files all have their checksums.
    pub entry: Option<Entry>,
    /// Later ones that are damaged, latest first, and what is wrong with each.
    pub damaged: Vec<(Entry, CheckpointError)>,
}

/// The directory of the checkpoint after `step` steps.
pub fn step_dir(series: &Path, step: u64) -> PathBuf {
    series.join(format!("step-{step}"))
}

/// The checkpoints of a series, earliest first; none if the directory is not there.
///
/// # Errors
/// The directory or what is in it cannot be looked at.
pub fn list(series: &Path) -> Result<Vec<Entry>, CheckpointError> {
    let mut entries = Vec::new();
    for name in children(series)? {
        if let Some(step) = name.strip_prefix("step-").and_then(|n| n.parse().ok()) {
            let path = series.join(&name);
            // `step-007` is somebody else's.
            if path == step_dir(series, step) && is_dir(&path)? {
                entries.push(Entry { step, path });
            }
        }
    }
    entries.sort_by_key(|e| e.step);
    Ok(entries)
}

/// Remove what a killed process left unfinished, and put back what it had moved aside for that. Call it with the
/// run's lock held. Returns what was removed.
///
/// # Errors
/// The directory cannot be listed or something in it cannot be removed.
pub fn clean(series: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut removed = Vec::new();
    for name in children(series)? {
        if let Some(rest) = name.strip_prefix(names::ASIDE) {
            let path = series.join(&name);
            let replaced = rest.strip_prefix(REPLACED).and_then(|rest| rest.strip_prefix('-'));
            let place = replaced.and_then(|rest| Some(series.join(rest.split_once('-')?.1)));
            if let Some(place) = place.filter(|place| !place.exists()) {
                fs::rename(&path, &place).map_err(CheckpointError::io("rename", &path))?;
                continue;
            }
            fs::remove_dir_all(&path).map_err(CheckpointError::io("remove", &path))?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// What a checkpoint is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Something starts from it: a stage edge, a named checkpoint.
    Lasting,
    /// It was due.
    Periodic,
    /// The run was interrupted there.
    Interruption,
}

/// Once there are `keep` periodic checkpoints, leave only the latest of them, those that last and, where it is the
/// latest of all, that of an interruption. The latest of all stays in any case. Returns what was removed.
///
/// # Errors
/// The directory cannot be listed or something in it cannot be removed.
pub fn prune(
    series: &Path,
    keep: u64,
    purpose: impl Fn(u64) -> Purpose,
) -> Result<Vec<PathBuf>, CheckpointError> {
    let mut entries = list(series)?;
    let periodic = entries.iter().filter(|e| purpose(e.step) == Purpose::Periodic).count();
    let Some(mut surplus) = periodic.checked_sub(usize::try_from(keep).unwrap_or(usize::MAX)) else {
        return Ok(Vec::new());
    };
    entries.pop();
    entries.retain(|e| match purpose(e.step) {
        Purpose::Lasting => false,
        Purpose::Interruption => true,
        Purpose::Periodic => {
            let old = surplus > 0;
            surplus = surplus.saturating_sub(1);
            old
        }
    });
    let mut removed = Vec::new();
    for entry in entries {
        remove(&entry)?;
        removed.push(entry.path);
    }
    Ok(removed)
}

/// Give a checkpoint a name under which no run finds it: `was-step-N`, in place of what had that. Returns its new
/// place.
///
/// # Errors
/// It cannot be renamed.
pub fn set_aside(entry: &Entry) -> Result<PathBuf, CheckpointError> {
    let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
    let was = entry.path.with_file_name(format!("was-{name}"));
    if was.exists() {
        fs::remove_dir_all(&was).map_err(CheckpointError::io("remove", &was))?;
    }
    fs::rename(&entry.path, &was).map_err(CheckpointError::io("rename", &entry.path))?;
    Ok(was)
}

/// Remove a checkpoint.
///
/// # Errors
/// Something of it cannot be removed.
pub fn remove(entry: &Entry) -> Result<(), CheckpointError> {
    // Renamed first, so that a kill in the midst leaves no half checkpoint under its name.
    let going = aside(&entry.path, OLD);
    fs::rename(&entry.path, &going).map_err(CheckpointError::io("remove", &entry.path))?;
    fs::remove_dir_all(&going).map_err(CheckpointError::io("remove", &going))
}

/// Unlike [`Path::is_dir`], does not take for gone what cannot be looked at now.
fn is_dir(path: &Path) -> Result<bool, CheckpointError> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(CheckpointError::Unreadable { path: path.to_owned(), source }),
    }
}

/// Names in a directory, sorted; none if it is not there.
fn children(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    let listing = match fs::read_dir(dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(CheckpointError::Unreadable { path: dir.to_owned(), source }),
    };
    let mut children = Vec::new();
    for entry in listing {
        let entry = entry.map_err(CheckpointError::io("list", dir))?;
        if let Ok(name) = entry.file_name().into_string() {
            children.push(name);
        }
    }
    children.sort();
    Ok(children)
}
