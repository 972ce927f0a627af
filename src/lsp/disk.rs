//! What the server may ask of a disk; in a browser there is none.

use std::path::{Path, PathBuf};

#[cfg(feature = "native")]
use crate::source::hidden_from;

/// Files that no editor has open.
pub trait Disk {
    /// Whether there is one.
    fn present(&self) -> bool;
    /// The text of a file.
    ///
    /// # Errors
    /// Half a sentence on why not.
    fn read(&self, path: &Path) -> Result<String, String>;
    /// The text of a file that need not be there.
    ///
    /// # Errors
    /// Half a sentence on why what is there cannot be read.
    fn beside(&self, path: &Path) -> Result<Option<String>, String> {
        Ok(self.read(path).ok())
    }
    /// Paths that match a glob in a directory, sorted.
    fn glob(&self, directory: &Path, pattern: &str) -> Vec<PathBuf>;
    /// Curriculum files below a directory.
    fn curricula(&self, below: &Path) -> Vec<PathBuf>;
    /// Where pages of explanations may be kept; they are written there.
    fn explain_pages(&self) -> Option<PathBuf>;
}

/// The disk of this machine.
#[cfg(feature = "native")]
#[derive(Clone, Copy, Debug, Default)]
pub struct NativeDisk;

/// No disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDisk;

/// A workspace with more curricula than this is searched in part.
#[cfg(feature = "native")]
const MOST_FILES: usize = 2000;
/// Nor is it searched deeper than this.
#[cfg(feature = "native")]
const DEEPEST: usize = 8;
/// Nor are more entries looked at than this.
#[cfg(feature = "native")]
const MOST_ENTRIES: usize = 50_000;

#[cfg(feature = "native")]
impl Disk for NativeDisk {
    fn present(&self) -> bool {
        true
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        let bytes = std::fs::read(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ if path.is_dir() => "it is a directory".to_owned(),
            _ => error.to_string(),
        })?;
        String::from_utf8(bytes)
            .map_err(|e| format!("it is not UTF-8 text (byte {} is not)", e.utf8_error().valid_up_to()))
    }

    fn glob(&self, directory: &Path, pattern: &str) -> Vec<PathBuf> {
        // The directory itself may hold characters that mean something to a pattern.
        let escaped = glob::Pattern::escape(&directory.display().to_string());
        let whole = Path::new(&escaped).join(pattern);
        let Ok(paths) = glob::glob(&whole.display().to_string()) else { return Vec::new() };
        let shown = |path: &PathBuf| !hidden_from(pattern, directory, path);
        let mut found: Vec<PathBuf> = paths.filter_map(Result::ok).take(MOST_ENTRIES).filter(shown).collect();
        found.sort();
        found
    }

    fn curricula(&self, below: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut looked = 0;
        let mut open = vec![(below.to_owned(), 0)];
        while let Some((directory, depth)) = open.pop() {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.filter_map(Result::ok) {
                looked += 1;
                if looked > MOST_ENTRIES || found.len() >= MOST_FILES {
                    return found;
                }
                let (path, name) = (entry.path(), entry.file_name());
                let hidden = name.to_string_lossy().starts_with('.');
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        let skipped = hidden || name == "target" || name == "node_modules";
                        if !skipped && depth < DEEPEST {
                            open.push((path, depth + 1));
                        }
                    }
                    Ok(_) if path.extension().is_some_and(|e| e == "curriculum") => found.push(path),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    fn explain_pages(&self) -> Option<PathBuf> {
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
            .or_else(|| std::env::var_os("LOCALAPPDATA").map(PathBuf::from))?;
        let directory = cache.join("midc").join(env!("CARGO_PKG_VERSION")).join("explain");
        std::fs::create_dir_all(&directory).ok()?;
        for info in crate::diag::CODES {
            let path = directory.join(format!("{}.md", info.code));
            let page = info.text();
            let current = std::fs::read_to_string(&path).is_ok_and(|text| text == page);
            if !current {
                std::fs::write(&path, page).ok()?;
            }
        }
        Some(directory)
    }
}

impl Disk for NoDisk {
    fn present(&self) -> bool {
        false
    }

    fn read(&self, _path: &Path) -> Result<String, String> {
        Err("no such file".to_owned())
    }

    fn glob(&self, _directory: &Path, _pattern: &str) -> Vec<PathBuf> {
        Vec::new()
    }

    fn curricula(&self, _below: &Path) -> Vec<PathBuf> {
        Vec::new()
    }

    fn explain_pages(&self) -> Option<PathBuf> {
        None
    }
}
