//! Files in memory: for tests, and for whoever has text without a disk.

use std::path::PathBuf;

use super::{FileId, Files};

/// A set of named texts. Paths are relative to the directory of the including file; `.` and `..`
/// are resolved.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: Vec<(String, String)>,
}

impl MemoryFiles {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Add a file, or replace its text.
    pub fn add(&mut self, name: &str, text: impl Into<String>) -> FileId {
        let name = normal("", name);
        let at = self.files.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.files.push((name, String::new()));
            self.files.len() - 1
        });
        self.files[at].1 = text.into();
        FileId(at as u32)
    }

    fn find(&self, path: &str, from: Option<FileId>) -> Option<usize> {
        let directory = from.map_or("", |from| {
            let name = self.name(from);
            name.rfind('/').map_or("", |slash| &name[..slash])
        });
        let path = normal(directory, path);
        self.files.iter().position(|(name, _)| *name == path)
    }
}

/// `path` from `directory`, without `.` and `..`.
fn normal(directory: &str, path: &str) -> String {
    let from_root = path.starts_with('/');
    let directory = if from_root { "" } else { directory };
    let mut parts: Vec<&str> = Vec::new();
    for part in directory.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let root = if from_root || directory.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

impl Files for MemoryFiles {
    fn load(&mut self, path: &str, from: Option<FileId>) -> Result<FileId, String> {
        self.find(path, from).map(|at| FileId(at as u32)).ok_or_else(|| "no such file".to_owned())
    }

    fn text(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("", |(_, text)| text)
    }

    fn name(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("", |(name, _)| name)
    }

    fn glob(&self, _pattern: &str, _from: FileId) -> Vec<PathBuf> {
        Vec::new()
    }

    fn read_beside(&self, path: &str, from: FileId) -> Result<Option<String>, String> {
        Ok(self.find(path, Some(from)).map(|at| self.files[at].1.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_relative_to_the_including_file() {
        let mut files = MemoryFiles::new();
        let main = files.add("recipes/main.curriculum", "m");
        let lib = files.add("lib/sources.curriculum", "s");
        assert_eq!(files.load("../lib/./sources.curriculum", Some(main)), Ok(lib));
        assert_eq!(files.load("lib/sources.curriculum", None), Ok(lib));
        assert!(files.load("sources.curriculum", Some(main)).is_err());
        assert_eq!(files.add("recipes/main.curriculum", "n"), main);
        assert_eq!(files.text(main), "n");
        assert_eq!(files.read_beside("main.curriculum", main), Ok(Some("n".to_owned())));
    }
}
