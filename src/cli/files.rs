//! Curriculum files on disk. Paths are relative to the including file; a file reached by two
//! paths is one file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::source::{FileId, Files, hidden_from};

/// The `Files` of the command line.
#[derive(Debug, Default)]
pub(crate) struct DiskFiles {
    files: Vec<Loaded>,
    ids: HashMap<PathBuf, FileId>,
}

#[derive(Debug)]
struct Loaded {
    /// Where it really is.
    path: PathBuf,
    /// As shown to people: relative to the working directory where the caller's path was.
    name: String,
    text: String,
}

impl DiskFiles {
    /// Nothing loaded yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Load standard input, shown as `<stdin>`; its imports are relative to the working directory.
    pub(crate) fn load_stdin(&mut self) -> Result<FileId, String> {
        let path = PathBuf::from("<stdin>");
        if let Some(id) = self.ids.get(&path) {
            return Ok(*id);
        }
        let text = std::io::read_to_string(std::io::stdin()).map_err(|error| sentence(&error))?;
        let id = FileId(self.files.len() as u32);
        self.files.push(Loaded { path: path.clone(), name: "<stdin>".to_owned(), text });
        self.ids.insert(path, id);
        Ok(id)
    }

    /// Add a text that is in no file; the same name again is another text.
    pub(crate) fn add(&mut self, name: &str, text: String) -> FileId {
        let id = FileId(self.files.len() as u32);
        self.files.push(Loaded { path: PathBuf::from(name), name: name.to_owned(), text });
        id
    }

    /// Where a loaded file really is.
    pub(crate) fn path(&self, file: FileId) -> Option<&Path> {
        self.files.get(file.0 as usize).map(|loaded| loaded.path.as_path())
    }

    /// Whether `file` came through a pipe, into which nothing can be written back.
    pub(crate) fn is_piped(&self, file: FileId) -> bool {
        self.path(file).is_none_or(|path| !path.is_file())
    }

    /// `path` as seen from the directory of the shown name of `from`.
    fn shown(&self, path: &str, from: Option<FileId>) -> PathBuf {
        let directory = from.and_then(|from| Path::new(self.name(from)).parent());
        lexically_normal(&directory.unwrap_or(Path::new("")).join(path))
    }
}

/// `path` without `.`, and without `dir/..` pairs where that is safe to see.
fn lexically_normal(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

impl Files for DiskFiles {
    fn load(&mut self, path: &str, from: Option<FileId>) -> Result<FileId, String> {
        let directory = from.and_then(|from| self.path(from)).and_then(Path::parent);
        let wanted = directory.unwrap_or(Path::new("")).join(path);
        let real = match wanted.canonicalize() {
            Ok(real) => real,
            // What a shell makes of `<(…)` leads nowhere that has a name, and can be read.
            Err(_) if wanted.metadata().is_ok() => wanted.clone(),
            Err(error) => return Err(sentence(&error)),
        };
        if let Some(id) = self.ids.get(&real) {
            return Ok(*id);
        }
        if real.is_dir() {
            return Err(match from {
                None => format!("it is a directory; name the files in it, as `{path}/*.curriculum` does"),
                Some(_) => "it is a directory".to_owned(),
            });
        }
        let bytes = std::fs::read(&real).map_err(|error| sentence(&error))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            format!("it is not UTF-8 text (byte {} is not)", error.utf8_error().valid_up_to())
        })?;
        let id = FileId(self.files.len() as u32);
        let name = self.shown(path, from).display().to_string();
        self.files.push(Loaded { path: real.clone(), name, text });
        self.ids.insert(real, id);
        Ok(id)
    }

    fn text(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("", |loaded| &loaded.text)
    }

    fn name(&self, file: FileId) -> &str {
        self.files.get(file.0 as usize).map_or("", |loaded| &loaded.name)
    }

    fn glob(&self, pattern: &str, from: FileId) -> Vec<PathBuf> {
        let directory = self.path(from).and_then(Path::parent).unwrap_or(Path::new(""));
        // The directory itself may hold characters that mean something to a pattern.
        let escaped = glob::Pattern::escape(&directory.display().to_string());
        let whole = Path::new(&escaped).join(pattern);
        let Ok(paths) = glob::glob(&whole.display().to_string()) else { return Vec::new() };
        // Unreadable directories match nothing.
        let shown = |path: &PathBuf| !hidden_from(pattern, directory, path);
        let mut found: Vec<PathBuf> = paths.filter_map(Result::ok).filter(shown).collect();
        found.sort();
        found
    }

    fn read_beside(&self, path: &str, from: FileId) -> Result<Option<String>, String> {
        let Some(directory) = self.path(from).and_then(Path::parent) else { return Ok(None) };
        let path = directory.join(path);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if is_absent(&error) => config_in_gguf(&path),
            Err(error) => Err(sentence(&error)),
        }
    }
}

/// Whether there is nothing of the name: no such file, or a file where a directory would have to be.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// `MODEL.gguf/config.json`: what the `config.json` of the same model in a Hugging Face directory would say.
///
/// # Errors
/// Why the file cannot be read.
pub(crate) fn config_in_gguf(path: &Path) -> Result<Option<String>, String> {
    let Some(model) = path.parent().filter(|_| path.ends_with("config.json")) else { return Ok(None) };
    if model.extension().is_none_or(|extension| extension != "gguf") || !model.is_file() {
        return Ok(None);
    }
    let config = crate::runtime::model::load_config(model).map_err(|error| error.to_string())?;
    serde_json::to_string(&config.to_keys()).map(Some).map_err(|error| error.to_string())
}

/// An IO error as half a sentence.
fn sentence(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_has_one_id_however_it_is_reached() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        std::fs::create_dir(at("lib")).unwrap();
        std::fs::write(at("main.curriculum"), "m").unwrap();
        std::fs::write(at("lib/s.curriculum"), "s").unwrap();
        let mut files = DiskFiles::new();
        let main = files.load(&at("main.curriculum"), None).unwrap();
        let lib = files.load("lib/s.curriculum", Some(main)).unwrap();
        assert_eq!(files.load("../lib/./s.curriculum", Some(lib)), Ok(lib));
        assert_eq!(files.text(lib), "s");
        assert_eq!(files.name(lib), at("lib/s.curriculum"));
        assert_eq!(files.load("s.curriculum", Some(main)), Err("no such file".to_owned()));
        assert_eq!(files.load("lib", Some(main)), Err("it is a directory".to_owned()));
        assert_eq!(files.glob("lib/*.curriculum", main).len(), 1);
        assert_eq!(files.read_beside("s.curriculum", lib), Ok(Some("s".to_owned())));
        assert_eq!(files.read_beside("nobody.json", lib), Ok(None));
        std::fs::write(at("bad.curriculum"), b"a\xff").unwrap();
        assert!(files.load("bad.curriculum", Some(main)).unwrap_err().contains("UTF-8"));
    }
}
