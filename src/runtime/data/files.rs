//! Which files a path or glob names. Directories are walked here and not by the glob crate, which
//! panics on names that are no UTF-8 where hidden files are to be left out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::DataError;
use super::readers::Format;

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: true,
};

/// What makes a component a pattern.
const MAGIC: [char; 3] = ['*', '?', '['];

/// The files that `patterns` name, each once, in name order per pattern.
pub(super) fn find(
    source: &str,
    patterns: &[String],
    base: &Path,
) -> Result<Vec<(PathBuf, Format)>, DataError> {
    let mut out = Vec::new();
    for pattern in patterns {
        let found = one(pattern, base).map_err(|error| match error {
            Failed::Glob(why) => {
                DataError::Glob { source_name: source.to_owned(), pattern: pattern.clone(), why }
            }
            Failed::Data(error) => error,
        })?;
        if found.is_empty() {
            return Err(DataError::Missing {
                source_name: source.to_owned(),
                pattern: pattern.clone(),
                base: if base.as_os_str().is_empty() { PathBuf::from(".") } else { base.to_owned() },
            });
        }
        out.extend(found);
    }
    // Once, whichever way it is named: by `./`, through a link, from another working directory. A name that says what
    // it holds goes before one that does not, as that of a blob behind links.
    let mut once: Vec<(PathBuf, Format)> = Vec::with_capacity(out.len());
    let mut seen: HashMap<PathBuf, usize> = HashMap::new();
    for (path, format) in out {
        match seen.entry(path.canonicalize().unwrap_or_else(|_| path.clone())) {
            Entry::Vacant(place) => {
                place.insert(once.len());
                once.push((path, format));
            }
            Entry::Occupied(place) => {
                let known = &mut once[*place.get()];
                if matches!(known.1, Format::Text(_)) && !matches!(format, Format::Text(_)) {
                    *known = (path, format);
                }
            }
        }
    }
    Ok(once)
}

/// The files that `path` names for `midc eval`: a file, a directory or a glob.
///
/// # Errors
/// It names none, or one that no reader takes.
pub fn text_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    let not_there = || {
        let source = path.metadata().err().unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
        DataError::Io { what: "open", path: path.to_owned(), source }
    };
    if !path.exists() && path.to_str().is_none() {
        return Err(not_there());
    }
    let found = if path.exists() { below(path) } else { one(&path.to_string_lossy(), Path::new("")) };
    match found {
        Ok(found) if found.is_empty() => Err(not_there()),
        Ok(found) => Ok(found.into_iter().map(|(path, _)| path).collect()),
        // A name with a bracket that is nowhere is no file rather than a bad pattern.
        Err(Failed::Glob(_)) => Err(not_there()),
        Err(Failed::Data(error)) => Err(error),
    }
}

/// Why a pattern cannot be resolved.
enum Failed {
    /// It is none.
    Glob(String),
    /// A directory or file on the way.
    Data(DataError),
}

fn one(pattern: &str, base: &Path) -> Result<Vec<(PathBuf, Format)>, Failed> {
    let plain = base.join(pattern);
    // Not a pipe: a source is read more than once.
    if plain.is_file() || plain.is_dir() {
        return below(&plain);
    }
    // Whatever the pattern begins with, `join` knows whether it is relative to the base.
    let mut root = base.to_owned();
    let mut parts = Vec::new();
    for part in Path::new(pattern).components() {
        let text = part.as_os_str().to_string_lossy();
        if parts.is_empty() && !text.contains(MAGIC) {
            root.push(part);
        } else {
            parts.push(Pattern::new(&text).map_err(|e| Failed::Glob(e.to_string()))?);
        }
    }
    let mut found = Vec::new();
    if !parts.is_empty() {
        matching(&root, &parts, &mut found).map_err(Failed::Data)?;
    }
    // The order of the data hangs on this one.
    found.sort();
    found.dedup();
    readable(found)
}

/// `path` itself, or the files of the tree below it.
fn below(path: &Path) -> Result<Vec<(PathBuf, Format)>, Failed> {
    if !path.is_dir() {
        let format = Format::of(path).ok_or_else(|| DataError::Format { path: path.to_owned() });
        return Ok(vec![(path.to_owned(), format.map_err(Failed::Data)?)]);
    }
    let any = |pattern: &str| Pattern::new(pattern).map_err(|e| Failed::Glob(e.to_string()));
    let mut found = Vec::new();
    matching(path, &[any("**")?, any("*")?], &mut found).map_err(Failed::Data)?;
    found.sort();
    found.dedup();
    readable(found)
}

/// Those that a reader takes. Where none does, the first is named: it is there, which "no file" would deny.
fn readable(found: Vec<PathBuf>) -> Result<Vec<(PathBuf, Format)>, Failed> {
    let first = found.first().cloned();
    let readable: Vec<_> =
        found.into_iter().filter_map(|path| Format::of(&path).map(|format| (path, format))).collect();
    match first.filter(|_| readable.is_empty()) {
        Some(path) => Err(Failed::Data(DataError::Format { path })),
        None => Ok(readable),
    }
}

/// Add the files at and below `directory` that `parts`, one pattern per component, match. `**` stands for
/// any number of directories.
fn matching(directory: &Path, parts: &[Pattern], found: &mut Vec<PathBuf>) -> Result<(), DataError> {
    let Some((part, rest)) = parts.split_first() else { return Ok(()) };
    let recursive = part.as_str() == "**";
    if !part.as_str().contains(MAGIC) {
        return take(directory.join(part.as_str()), rest, found);
    }
    if recursive {
        // Any number of directories is none, too.
        take(directory.to_owned(), rest, found)?;
    }
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    if !here.is_dir() {
        return Ok(());
    }
    let io = |source| DataError::Io { what: "read", path: here.to_owned(), source };
    for entry in std::fs::read_dir(here).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        // A name that is no UTF-8 is matched by what it looks like.
        if !part.matches_with(&name.to_string_lossy(), OPTIONS) {
            continue;
        }
        let path = directory.join(&name);
        if !recursive {
            take(path, rest, found)?;
        } else if path.is_dir() && !(path.is_symlink() && leads_up(&path, here)) {
            matching(&path, parts, found)?;
        }
    }
    Ok(())
}

/// What `path` is or, where patterns are left, holds.
fn take(path: PathBuf, rest: &[Pattern], found: &mut Vec<PathBuf>) -> Result<(), DataError> {
    if !rest.is_empty() {
        matching(&path, rest, found)?;
    } else if path.is_file() {
        found.push(path);
    } else if path.is_symlink() && Format::of(&path).is_some() {
        // A file that has gone, which would otherwise be left out without a word.
        path.metadata().map_err(DataError::io("read", &path))?;
    }
    Ok(())
}

/// Whether the link at `path` leads to a directory that `here` lies in.
fn leads_up(path: &Path, here: &Path) -> bool {
    match (path.canonicalize(), here.canonicalize()) {
        (Ok(target), Ok(here)) => here.starts_with(target),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in
            ["a.txt", "b.jsonl", "x/a.txt", "x/y/b.txt", "x-z/c.txt", ".h/d.txt", "x/.e.txt", "p[1].txt"]
        {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        dir
    }

    fn found(pattern: &str, base: &Path) -> Vec<String> {
        let found = find("s", &[pattern.to_owned()], base).unwrap();
        found.iter().map(|(p, _)| p.strip_prefix(base).unwrap().display().to_string()).collect()
    }

    #[test]
    fn patterns_name_what_the_glob_crate_finds_in_the_same_order() {
        let dir = tree();
        let patterns =
            ["*.txt", "**/*.txt", "x/**/*", "x*/*", "*/*/b.txt", "**", "?.jsonl", "x/./*.txt", "[ab].*"];
        for pattern in patterns {
            let full = dir.path().join(pattern);
            let names = glob::glob_with(full.to_str().unwrap(), OPTIONS).unwrap();
            let wanted: Vec<PathBuf> = names.map(Result::unwrap).filter(|p| p.is_file()).collect();
            let found = one(pattern, dir.path()).unwrap_or_else(|_| panic!("{pattern}"));
            assert_eq!(found.into_iter().map(|(p, _)| p).collect::<Vec<_>>(), wanted, "{pattern}");
        }
    }

    #[test]
    fn a_file_a_tree_and_a_name_with_a_bracket_are_found() {
        let dir = tree();
        assert_eq!(found("p[1].txt", dir.path()), ["p[1].txt"]);
        assert_eq!(found("x", dir.path()), ["x/a.txt", "x/y/b.txt"]);
        assert_eq!(found("x-z", dir.path()), ["x-z/c.txt"]);
        let all = text_files(dir.path()).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!(text_files(&dir.path().join("x/*.txt")).unwrap(), [dir.path().join("x/a.txt")]);
        for nothing in ["none", "none*", "none["] {
            assert!(matches!(text_files(&dir.path().join(nothing)), Err(DataError::Io { .. })), "{nothing}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_read_once_and_a_link_to_nothing_is_an_error() {
        let dir = tree();
        std::os::unix::fs::symlink("x", dir.path().join("again")).unwrap();
        let patterns = ["x", "./x/a.txt", "x/../x", "again"].map(str::to_owned);
        assert_eq!(find("s", &patterns, dir.path()).unwrap().len(), 2);
        std::os::unix::fs::symlink("gone.jsonl", dir.path().join("x/lost.jsonl")).unwrap();
        std::os::unix::fs::symlink("gone.png", dir.path().join("x-z/lost.png")).unwrap();
        for pattern in ["x", "x/*", "**/*.jsonl"] {
            let error = find("s", &[pattern.to_owned()], dir.path()).unwrap_err();
            assert!(error.to_string().contains("lost.jsonl"), "{pattern}: {error}");
        }
        assert_eq!(found("x-z", dir.path()), ["x-z/c.txt"]);
        // As in a cache of snapshots, whose blobs have no names.
        let hub = dir.path().join("hub");
        std::fs::create_dir_all(hub.join("snapshot")).unwrap();
        std::fs::write(hub.join("0123abc"), "{}").unwrap();
        std::os::unix::fs::symlink("../0123abc", hub.join("snapshot/a.jsonl")).unwrap();
        assert_eq!(found("hub", dir.path()), ["hub/snapshot/a.jsonl"]);
    }

    #[test]
    fn files_that_no_reader_takes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.jsonl.bz2"), "text").unwrap();
        for pattern in ["*.bz2", "."] {
            let error = find("s", &[pattern.to_owned()], dir.path()).unwrap_err();
            assert!(matches!(error, DataError::Format { .. }), "{error}");
        }
    }

    #[test]
    fn a_base_that_is_the_working_directory_is_named() {
        let error = find("s", &["none".to_owned()], Path::new("")).unwrap_err();
        assert!(error.to_string().ends_with("matches no file under `.`"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_utf8_are_found_and_links_back_up_end() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
        std::fs::create_dir(&odd).unwrap();
        let file = odd.join(std::ffi::OsStr::from_bytes(b"\xfe.txt"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(dir.path(), odd.join("up")).unwrap();
        for pattern in ["*/*.txt", "**/*.txt", "."] {
            let found = find("s", &[pattern.to_owned()], dir.path()).unwrap();
            let files: Vec<_> = found.into_iter().map(|(p, _)| p.canonicalize().unwrap()).collect();
            assert_eq!(files, [file.canonicalize().unwrap()], "{pattern}");
        }
    }
}
