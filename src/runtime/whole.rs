//! Files that are seen whole or not at all, also after a kill or a power cut. Knows nothing of what is in them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Make `bytes` the content of `path`: written beside it, synced, renamed over it. Permissions stay, and where
/// `path` is a link the file behind it is replaced, not the link. A device or a pipe is written to: there is nothing
/// to replace, and `/dev/stdout` must stay what it is.
///
/// # Errors
/// When any of that fails; the file then has its old content, or is not there, and nothing is left beside it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return File::options().write(true).open(path)?.write_all(bytes);
    }
    Pending::new(path, bytes)?.put()
}

/// A file that lies written beside its place. Without [`Pending::put`] it goes, and the place is as it was: several can
/// be written before the first takes its place.
#[derive(Debug)]
pub struct Pending {
    beside: PathBuf,
    path: PathBuf,
}

impl Pending {
    /// Write `bytes` beside `path`, and force them to the disk. Permissions are those of what is at `path`.
    ///
    /// # Errors
    /// When any of that fails; nothing is left beside it then.
    pub fn new(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let mut file = File::create(beside(&path))?;
        let pending = Self { beside: beside(&path), path };
        file.write_all(bytes)?;
        if let Ok(metadata) = fs::metadata(&pending.path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.sync_all()?;
        Ok(pending)
    }

    /// Let anybody run it as a program, where files have such permissions.
    ///
    /// # Errors
    /// They cannot be set.
    pub fn make_program(&self) -> io::Result<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&self.beside, fs::Permissions::from_mode(0o755))?;
            sync_file(&self.beside)?;
        }
        Ok(())
    }

    /// Take the place.
    ///
    /// # Errors
    /// It cannot be renamed or its directory not be synced.
    pub fn put(self) -> io::Result<()> {
        fs::rename(&self.beside, &self.path)?;
        self.path.parent().map_or(Ok(()), sync_dir)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Gone where it has taken its place; elsewhere there is an error to report already.
        let _ = fs::remove_file(&self.beside);
    }
}

/// Where a file is written before it gets its name; another for each process, so that two do not write into one.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Whether a file of this name is what a process that was killed left of writing `of`.
pub fn is_left_of(name: &str, of: &str) -> bool {
    writer(name, of).is_some()
}

/// The process that writes, or wrote, `of` under this name.
fn writer(name: &str, of: &str) -> Option<u32> {
    name.strip_prefix('.')?.strip_prefix(of)?.strip_prefix('.')?.strip_suffix(".tmp").and_then(number)
}

/// A number as names have it, without a sign.
pub(in crate::runtime) fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Remove what processes that are over left of writing `path`. For files that any process may write, without a lock.
///
/// # Errors
/// The directory cannot be listed, or what was found there not be removed.
pub fn clean_beside(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    remove_beside(path, |other| writer(other, &name), |left| fs::remove_file(left))
}

/// Remove, of the directory of `path`, each name in which `writer` finds a process that is over.
pub(in crate::runtime) fn remove_beside(
    path: &Path,
    writer: impl Fn(&str) -> Option<u32>,
    remove: impl Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().and_then(&writer).is_some_and(is_over) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether a process is known to be over; where the system does not show its processes as files, none is.
fn is_over(process: u32) -> bool {
    let processes = Path::new("/proc");
    processes.join("self").exists() && !processes.join(process.to_string()).exists()
}

/// Force the names in a directory to the disk, so that they survive a power cut as well as what they name. Only Unix
/// can, and not on every file system: elsewhere the names are the file system's to keep.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        match File::open(dir)?.sync_all() {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
            {
                Ok(())
            }
            synced => synced,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        Ok(())
    }
}

/// Force a file that another program wrote to the disk.
///
/// # Errors
/// The file cannot be opened or synced.
pub fn sync_file(file: &Path) -> io::Result<()> {
    // Elsewhere only who may write may sync; on Unix who may read can.
    File::options().read(true).write(!cfg!(unix)).open(file)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_replaced_and_nothing_left_beside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.curriculum");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(write(&directory.path().join("no/such"), b"x").is_err());
        // A directory of that name cannot be replaced by a file.
        let taken = directory.path().join("taken");
        fs::create_dir_all(taken.join("full")).unwrap();
        assert!(write(&taken, b"x").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_and_links_stay() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("report.html"), directory.path().join("link"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&path, &link).unwrap();
        write(&link, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn pipes_stay_pipes() {
        use std::os::unix::fs::FileTypeExt as _;
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || fs::read_to_string(pipe).unwrap())
        };
        write(&pipe, b"through").unwrap();
        assert_eq!(reader.join().unwrap(), "through");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    }

    #[test]
    fn several_are_written_before_the_first_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        fs::write(&one, "old").unwrap();
        let pending = Pending::new(&one, b"new").unwrap();
        assert!(Pending::new(&directory.path().join("no/such"), b"x").is_err());
        assert_eq!(fs::read(&one).unwrap(), b"old");
        drop(pending);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        for pending in [Pending::new(&one, b"new").unwrap(), Pending::new(&two, b"new").unwrap()] {
            pending.put().unwrap();
        }
        assert_eq!((fs::read(&one).unwrap(), fs::read(&two).unwrap()), (b"new".to_vec(), b"new".to_vec()));
    }

    /// What this process writes is under way; a number that no process has was one.
    #[cfg(target_os = "linux")]
    #[test]
    fn only_what_processes_that_are_over_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        let over = directory.path().join(format!(".report.html.{}.tmp", u32::MAX));
        let others = [beside(&path), directory.path().join(format!(".other.html.{}.tmp", u32::MAX))];
        for file in others.iter().chain([&over, &path]) {
            fs::write(file, "x").unwrap();
        }
        clean_beside(&path).unwrap();
        assert!(!over.exists() && path.exists() && others.iter().all(|file| file.exists()));
        clean_beside(&directory.path().join("no/such")).unwrap();
    }

    #[test]
    fn what_a_kill_left_is_known_by_its_name() {
        let name = beside(Path::new("run/plan.json"));
        let name = name.file_name().unwrap().to_str().unwrap();
        assert!(is_left_of(name, "plan.json"), "{name}");
        for (name, of) in [(name, "plan"), (".plan.json.tmp", "plan.json"), ("plan.json.12.tmp", "plan.json")]
        {
            assert!(!is_left_of(name, of), "{name} {of}");
        }
    }
}
