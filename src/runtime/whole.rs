//! Files that are seen whole or not at all, also after a kill or a power cut. Knows nothing of what is in them.

use std::fs::{self, File};
#[cfg(unix)]
use std::io::ErrorKind;
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
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let beside = beside(&path);
    let written = (|| {
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        if let Ok(metadata) = fs::metadata(&path) {
            file.set_permissions(metadata.permissions())?;
        }
        file.sync_all()?;
        fs::rename(&beside, &path)
    })();
    if written.is_err() {
        // The error to report is the first one.
        let _ = fs::remove_file(&beside);
    }
    written?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Where a file is written before it gets its name; another for each process, so that two do not write into one.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", std::process::id()))
}

/// Whether a file of this name is what a process that was killed left of writing `of`.
pub fn is_left_of(name: &str, of: &str) -> bool {
    let number = || name.strip_prefix('.')?.strip_prefix(of)?.strip_prefix('.')?.strip_suffix(".tmp");
    number().is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
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
            Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
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
