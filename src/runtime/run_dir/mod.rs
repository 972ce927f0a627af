//! The run directory: what it holds, who owns it, and how files come to be there whole.
//!
//! ```text
//! RUN_DIR/plan.json  metrics.jsonl  evals.jsonl  tensorboard/  log.txt  lock  checkpoints/STAGE/step-N/
//!         engine     only where another engine than midc's own trains: its name
//! ```

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::plan::Plan;
use crate::runtime::whole;

mod error;
mod whose;

pub use error::RunDirError;
pub use whose::steps_done;

/// Whether to go on with what a run directory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resume {
    /// It is to hold nothing.
    #[default]
    No,
    /// With a run of the same plan.
    Same,
    /// With a run of a plan that was edited since, where all that is done stays as it is.
    Edited,
}

/// A locked run directory. The lock goes with the value, also when the process is killed.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    lock: File,
    /// What is to be said of how it was taken.
    notes: Vec<String>,
    /// The directory itself, where the system opens directories: it stays the same one under any name.
    directory: Option<File>,
}

/// Names this module writes; anything else in a directory without a plan makes it foreign.
const OURS: &[&str] = &[
    "lock",
    "engine",
    "log.txt",
    "checkpoints",
    "metrics.jsonl",
    "evals.jsonl",
    "tensorboard",
    // What an earlier midc left of writing them.
    "plan.json.tmp",
    "engine.tmp",
];

/// What only the holder of the lock writes whole: what a kill left of that is the next one's to remove.
const WRITTEN_WHOLE: &[&str] = &["plan.json", "engine", "metrics.jsonl", "evals.jsonl"];

/// What the engine of midc itself is called beside others.
const OWN_ENGINE: &str = "midc";

impl RunDir {
    /// Take `root` for a run of `plan`: a new or empty directory, or with `resume` one that holds a run of it.
    /// Resuming where nothing was started yet starts. A run that ended before its first measurement, step and
    /// checkpoint, as for want of its data, leaves a directory that is as good as new.
    ///
    /// # Errors
    /// [`RunDirError`]; the directory is then as it was.
    pub fn open(root: &Path, plan: &Plan, resume: Resume) -> Result<Self, RunDirError> {
        Self::open_for(OWN_ENGINE, root, plan, resume)
    }

    /// [`RunDir::open`] for a run that `engine` trains: what one engine began no other goes on with,
    /// because their checkpoints hold different things.
    ///
    /// # Errors
    /// [`RunDirError`]; the directory is then as it was.
    pub fn open_for(engine: &str, root: &Path, plan: &Plan, resume: Resume) -> Result<Self, RunDirError> {
        fs::create_dir_all(root).map_err(RunDirError::io("create the run directory", root))?;
        let plan_path = root.join("plan.json");
        // Reports and whatever else came into a run's directory since do not make it another's.
        let was_a_run = root.join("lock").exists() && has_checkpoints(root)?;
        if !plan_path.exists() && !was_a_run && !is_empty_or_ours(root)? {
            return Err(RunDirError::Foreign { dir: root.to_path_buf() });
        }
        let lock = lock(root)?;
        let mut notes = Vec::new();
        let begun = if plan_path.exists() {
            engine != OWN_ENGINE || !is_unused(root)?
        } else {
            has_checkpoints(root)?
        };
        if begun {
            notes.extend(whose::goes_on(engine, root, plan, resume)?);
        } else {
            let path = root.join("engine");
            if engine != OWN_ENGINE {
                write_whole(&path, format!("{engine}\n").as_bytes())?;
            } else if path.exists() {
                // Of another engine that was stopped before it had begun.
                fs::remove_file(&path).map_err(RunDirError::io("remove", &path))?;
            }
            write_plan(&plan_path, plan)?;
        }
        for path in entries(root)? {
            if path.file_name().is_some_and(is_left) {
                fs::remove_file(&path).map_err(RunDirError::io("remove", &path))?;
            }
        }
        // Written without the lock, by `midc report` too: only what processes that are over left of it goes.
        let report = root.join("report.html");
        whole::clean_beside(&report).map_err(RunDirError::io("clean up beside", &report))?;
        Ok(Self { root: root.to_path_buf(), lock, notes, directory: File::open(root).ok() })
    }

    /// What is to be said of how the directory was taken.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The lock once more, for a child: it is held until the last of both is closed.
    ///
    /// # Errors
    /// [`RunDirError::Io`] when the process has no more files.
    pub fn lock_handle(&self) -> Result<File, RunDirError> {
        self.lock.try_clone().map_err(RunDirError::io("open", &self.root.join("lock")))
    }

    /// That the directory is still the one that was locked, so that nothing is saved to another, or to a new one without
    /// a plan, under its name.
    ///
    /// # Errors
    /// [`RunDirError::Moved`].
    pub fn is_in_place(&self) -> Result<(), RunDirError> {
        let in_place = match &self.directory {
            Some(directory) => is_same(directory, &self.root),
            None => self.root.join("plan.json").exists(),
        };
        if in_place {
            return Ok(());
        }
        let now = match self.directory.as_ref().and_then(name_of) {
            Some(dir) => {
                format!(
                    "what was saved is in `{0}`: go on there with `--resume --run-dir {0}`",
                    dir.display()
                )
            }
            None => "what was saved is where it was moved to: go on there with `--resume --run-dir DIR`"
                .to_owned(),
        };
        Err(RunDirError::Moved { dir: self.root.clone(), now })
    }

    /// `checkpoints/NAME` of a stage or soup.
    pub fn checkpoints(&self, name: &str) -> PathBuf {
        self.root.join("checkpoints").join(name)
    }

    /// `tensorboard/NAME` of a stage.
    pub fn tensorboard(&self, stage: &str) -> PathBuf {
        self.root.join("tensorboard").join(stage)
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// `evals.jsonl`.
    pub fn evals(&self) -> PathBuf {
        self.root.join("evals.jsonl")
    }

    /// Add a line to `log.txt`; a log that cannot be written is no reason to stop training.
    pub fn log(&self, line: &str) {
        let log = OpenOptions::new().create(true).append(true).open(self.root.join("log.txt"));
        if let Ok(mut log) = log {
            let _ = writeln!(log, "{line}");
        }
    }
}

/// Whether `path` is the open `directory`. What cannot be looked at for another reason than that it is not there is
/// taken for it: who writes there will say why that fails.
fn is_same(directory: &File, path: &Path) -> bool {
    let (open, named) = match (directory.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open, named),
        (_, Err(error)) => return error.kind() != io::ErrorKind::NotFound,
        (Err(_), Ok(_)) => return true,
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        (open.dev(), open.ino()) == (named.dev(), named.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = (open, named);
        true
    }
}

/// The name an open directory has now, where the system tells.
fn name_of(directory: &File) -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd as _;
        let path = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
        (path.exists() && is_same(directory, &path)).then_some(path)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = directory;
        None
    }
}

fn is_empty_or_ours(root: &Path) -> Result<bool, RunDirError> {
    let ours = |name: &OsStr| OURS.iter().any(|n| name == *n) || is_left(name);
    Ok(entries(root)?.iter().filter_map(|path| path.file_name()).all(ours))
}

/// What is in a directory. An entry that cannot be read is an error: what is not seen may be of a run.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, RunDirError> {
    let found = fs::read_dir(dir).and_then(|found| found.map(|entry| Ok(entry?.path())).collect());
    found.map_err(RunDirError::io("list", dir))
}

/// The content of a file that may not be there.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, RunDirError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(RunDirError::io("read", path)(error)),
    }
}

fn is_left(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| WRITTEN_WHOLE.iter().any(|of| whole::is_left_of(name, of)))
}

/// Whether a run of midc itself has begun here and done nothing.
fn is_unused(root: &Path) -> Result<bool, RunDirError> {
    let empty = |name: &str| {
        let path = root.join(name);
        match fs::metadata(&path) {
            Ok(found) => Ok(found.len() == 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(RunDirError::io("read", &path)(error)),
        }
    };
    if root.join("engine").exists() || !empty("metrics.jsonl")? || !empty("evals.jsonl")? {
        return Ok(false);
    }
    Ok(!has_checkpoints(root)?)
}

/// Whether there is something of a stage or soup.
fn has_checkpoints(root: &Path) -> Result<bool, RunDirError> {
    let stages = root.join("checkpoints");
    if !stages.exists() {
        return Ok(false);
    }
    for stage in entries(&stages)? {
        if fs::read_dir(&stage).map_err(RunDirError::io("list", &stage))?.next().is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lock(root: &Path) -> Result<File, RunDirError> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(RunDirError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(RunDirError::Locked { dir: root.to_path_buf() }),
        Err(fs::TryLockError::Error(e)) if has_no_locks(&e) => Ok(file),
        Err(fs::TryLockError::Error(e)) => Err(RunDirError::io("lock", &path)(e)),
    }
}

/// Whether a file system knows no locks, as Lustre where it is mounted without them. Two runs in one
/// directory are not told apart there, but there is one.
pub(in crate::runtime) fn has_no_locks(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

fn write_plan(path: &Path, plan: &Plan) -> Result<(), RunDirError> {
    let io = |e: serde_json::Error| RunDirError::io("write", path)(e.into());
    write_whole(path, &serde_json::to_vec_pretty(plan).map_err(io)?)
}

/// [`whole::write`], with the errors of this module.
///
/// # Errors
/// [`RunDirError::Io`]; the file is then as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RunDirError> {
    whole::write(path, bytes).map_err(RunDirError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_that_was_moved_is_said_with_its_new_place() {
        let dir = tempfile::tempdir().unwrap();
        let (root, moved) = (dir.path().join("run"), dir.path().join("moved"));
        fs::create_dir(&root).unwrap();
        let directory = Some(File::open(&root).unwrap());
        let run = RunDir { root: root.clone(), lock: lock(&root).unwrap(), directory, notes: Vec::new() };
        run.is_in_place().unwrap();
        fs::rename(&root, &moved).unwrap();
        let said = |run: &RunDir| match run.is_in_place().unwrap_err() {
            RunDirError::Moved { dir, now } => (dir, now),
            other => panic!("{other}"),
        };
        let (was, now) = said(&run);
        assert!(was == root && now.contains(moved.to_str().unwrap()), "{now}");
        // Another run under its name is not it.
        fs::create_dir(&root).unwrap();
        assert!(said(&run).1.contains(moved.to_str().unwrap()));
        fs::remove_dir_all(&moved).unwrap();
        assert!(said(&run).1.contains("where it was moved to"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_locks_is_told_from_one_that_refuses() {
        const ENOSYS: i32 = 38;
        const EOPNOTSUPP: i32 = 95;
        const EACCES: i32 = 13;
        for (code, without) in [(ENOSYS, true), (EOPNOTSUPP, true), (EACCES, false)] {
            assert_eq!(has_no_locks(&io::Error::from_raw_os_error(code)), without, "{code}");
        }
    }
}
