//! Which files a path or glob names. Directories are walked here and not by the glob crate, which
//! panics on names that are no UTF-8 where hidden files are to be left out.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use super::readers::Format;
use super::{DataError, Progress, Quiet};
use crate::plan::SourcePlan;

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: false,
    require_literal_leading_dot: true,
};

/// What makes a component a pattern.
const MAGIC: [char; 3] = ['*', '?', '['];

/// What to do with files that are data no reader takes, where others beside them are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Leave them out, with a note.
    Note,
    /// Refuse the first: what they hold may be what matters.
    Refuse,
}

/// The files that `patterns` name, each once, in name order per pattern.
pub(super) fn find(
    source: &str,
    patterns: &[String],
    base: &Path,
    unread: Unread,
    progress: &dyn Progress,
) -> Result<Vec<(PathBuf, Format)>, DataError> {
    let mut out = Found::default();
    for pattern in patterns {
        let found = one(pattern, base).map_err(|error| match error {
            Failed::Glob(why) => {
                DataError::Glob { source_name: source.to_owned(), pattern: pattern.clone(), why }
            }
            Failed::Data(error) => error,
        })?;
        if found.read.is_empty() {
            if let Some(what) = no_file(&base.join(pattern)) {
                return Err(DataError::NoFile {
                    source_name: source.to_owned(),
                    pattern: pattern.clone(),
                    what,
                });
            }
            return Err(DataError::Missing {
                source_name: source.to_owned(),
                pattern: pattern.clone(),
                base: if base.as_os_str().is_empty() { PathBuf::from(".") } else { base.to_owned() },
            });
        }
        out.add(found);
    }
    out.settle(&format!("source `{source}`: "), unread, progress)
}

/// What is at `path`, where that is something, and neither a file nor a directory.
fn no_file(path: &Path) -> Option<String> {
    let link = path.symlink_metadata().ok()?.is_symlink();
    match path.metadata() {
        Ok(found) if found.is_file() || found.is_dir() => None,
        Ok(_) => Some("is no regular file".to_owned()),
        Err(error) if link => Some(format!("is a broken link: {error}")),
        Err(error) => Some(format!("cannot be looked at: {error}")),
    }
}

/// The files that `path` names for `midc eval`: a file, a directory or a glob.
///
/// # Errors
/// It names none, or data that no reader takes.
pub fn text_files(path: &Path, progress: &dyn Progress) -> Result<Vec<PathBuf>, DataError> {
    let not_there = || {
        let source = path.metadata().err().unwrap_or_else(|| std::io::ErrorKind::NotFound.into());
        DataError::Io { what: "open", path: path.to_owned(), source }
    };
    if !path.exists() && path.to_str().is_none() {
        return Err(not_there());
    }
    let found = if path.exists() { below(path) } else { one(&path.to_string_lossy(), Path::new("")) };
    match found {
        Ok(found) if found.read.is_empty() => Err(not_there()),
        Ok(found) => {
            let files = found.settle("", Unread::Refuse, progress)?;
            Ok(files.into_iter().map(|(path, _)| path).collect())
        }
        // A name with a bracket that is nowhere is no file rather than a bad pattern.
        Err(Failed::Glob(_)) => Err(not_there()),
        Err(Failed::Data(error)) => Err(error),
    }
}

/// Identifies `files` by their names and lengths, which other places and times leave as they are.
pub(super) fn stamp(files: &[(PathBuf, Format)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (path, _) in files {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let length = path.metadata().map_or(0, |meta| meta.len());
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(&length.to_le_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

/// The [`SourceSummary::stamp`](super::SourceSummary::stamp) of the files that `plan` names now; `None` where they are not
/// there.
pub fn stamp_of(plan: &SourcePlan, base: &Path) -> Option<String> {
    find(&plan.name, &plan.path, base, Unread::Note, &Quiet).ok().map(|files| stamp(&files))
}

/// What patterns name.
#[derive(Debug, Default)]
struct Found {
    read: Vec<(PathBuf, Format)>,
    /// Data that no reader takes.
    unread: Vec<PathBuf>,
    /// Texts beside records.
    beside: Vec<PathBuf>,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.read.extend(other.read);
        self.unread.extend(other.unread);
        self.beside.extend(other.beside);
    }

    /// What is read, each file once, and a note on what is not.
    fn settle(
        self,
        whose: &str,
        unread: Unread,
        progress: &dyn Progress,
    ) -> Result<Vec<(PathBuf, Format)>, DataError> {
        if let Some(path) = self.unread.first().filter(|_| unread == Unread::Refuse) {
            return Err(DataError::Format { path: path.clone() });
        }
        // Once, whichever way it is named: by `./`, through a link, from another working directory. A name that says
        // what it holds goes before one that does not, as that of a blob behind links.
        let mut once: Vec<(PathBuf, Format)> = Vec::with_capacity(self.read.len());
        let mut seen: HashMap<PathBuf, usize> = HashMap::new();
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        for (path, format) in self.read {
            match seen.entry(real(&path)) {
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
        let absent = |paths: Vec<PathBuf>| -> Vec<PathBuf> {
            paths.into_iter().filter(|path| !seen.contains_key(&real(path))).collect()
        };
        let unread = self.unread;
        if let Some(first) = unread.first() {
            progress.note(&format!(
                "{whose}no reader takes {} of its files ({}), such as `{}`, which are left out; write them as Parquet or \
                 JSON lines",
                unread.len(),
                kinds(&unread),
                first.display()
            ));
        }
        let beside = absent(self.beside);
        if let Some(first) = beside.first() {
            let (files, are) = match beside.len() {
                1 => ("a file".to_owned(), "is"),
                n => (format!("{n} files"), "are"),
            };
            progress.note(&format!(
                "{whose}{files} beside its records, such as `{}`, {are} passed over; a `path` such as `*.md` names them",
                first.display()
            ));
        }
        Ok(once)
    }
}

/// Why a pattern cannot be resolved.
enum Failed {
    /// It is none.
    Glob(String),
    /// A directory or file on the way.
    Data(DataError),
}

fn one(pattern: &str, base: &Path) -> Result<Found, Failed> {
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
    // `*` names whatever there is, `*.txt` says what is wanted.
    let says = parts.last().is_some_and(|part| part.as_str().contains(char::is_alphanumeric));
    readable(found, says)
}

/// `path` itself, or the files of the tree below it.
fn below(path: &Path) -> Result<Found, Failed> {
    if !path.is_dir() {
        let format = Format::of(path).ok_or_else(|| DataError::Format { path: path.to_owned() });
        let read = vec![(path.to_owned(), format.map_err(Failed::Data)?)];
        return Ok(Found { read, ..Found::default() });
    }
    let any = |pattern: &str| Pattern::new(pattern).map_err(|e| Failed::Glob(e.to_string()));
    let mut found = Vec::new();
    matching(path, &[any("**")?, any("*")?], &mut found).map_err(Failed::Data)?;
    readable(found, false)
}

/// Those of `found` that are read. Where no reader takes any, the first is named: it is there, which "no file" would
/// deny. A tree of records has texts beside them that are about it, which only a pattern that `says` so means.
fn readable(mut found: Vec<PathBuf>, says: bool) -> Result<Found, Failed> {
    // The order of the data hangs on this one.
    found.sort();
    found.dedup();
    let first = found.first().cloned();
    let mut out = Found::default();
    for path in found {
        match Format::of(&path) {
            Some(format) => out.read.push((path, format)),
            None if is_data(&path) => out.unread.push(path),
            None => {}
        }
    }
    let about = |(path, format): &(PathBuf, Format)| is_about(path, *format);
    if !says && out.read.iter().all(about) {
        // A card or a list of checksums is not what a tree of data is for.
        if let Some(path) = out.unread.first() {
            return Err(Failed::Data(DataError::Format { path: path.clone() }));
        }
    }
    if out.read.is_empty() {
        return first.map_or(Ok(out), |path| Err(Failed::Data(DataError::Format { path })));
    }
    if !says && is_of_records(&out.read) {
        let stays = |file: &(PathBuf, Format)| !about(file);
        let (read, beside): (Vec<_>, Vec<_>) = out.read.into_iter().partition(stays);
        (out.read, out.beside) = (read, beside.into_iter().map(|(path, _)| path).collect());
    }
    Ok(out)
}

/// Whether the tree of `files` is one of records rather than one of texts, such as sources among which some lie: they
/// hold the most, or all else is about them.
fn is_of_records(files: &[(PathBuf, Format)]) -> bool {
    let size = |path: &Path| path.metadata().map_or(0, |meta| meta.len());
    let (mut records, mut texts, mut any, mut all_about) = (0, 0, false, true);
    for (path, format) in files {
        if is_about(path, *format) {
            continue;
        }
        if matches!(format, Format::Text(_)) {
            all_about = false;
            texts += size(path);
        } else {
            any = true;
            // Of sources, `.json` may be the most.
            let json = path.extension().is_some_and(|extension| extension == "json");
            records += if json { 0 } else { size(path) };
        }
    }
    any && (all_about || records > 0 && records >= texts)
}

/// Whether `path` is data, though no reader takes it: a table or what is compressed in another way.
fn is_data(path: &Path) -> bool {
    const KINDS: [&str; 26] = [
        "7z", "arrow", "avro", "br", "bz2", "csv", "db", "feather", "h5", "hdf5", "lance", "lz4", "lzma",
        "npz", "orc", "parquet", "npy", "bin", "rar", "sqlite", "tar", "tgz", "tsv", "xlsx", "xz", "zip",
    ];
    KINDS.contains(&kind(path).as_str())
}

/// What the name of a file ends in, but for a compression that is read.
fn kind(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let stem = [".gz", ".zst", ".zstd"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    stem.rsplit_once('.').map_or("", |(_, kind)| kind).to_owned()
}

/// Whether a file is about the data it lies with, by its name: a card, a licence, checksums, what `datasets` keeps.
fn is_about(path: &Path, format: Format) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if !matches!(format, Format::Text(_)) {
        return ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"]
            .contains(&name.as_str());
    }
    let names = [
        "readme",
        "license",
        "licence",
        "copying",
        "notice",
        "citation",
        "changelog",
        "sha256sums",
        "md5sums",
    ];
    let stem = name.split('.').next().unwrap_or_default();
    names.contains(&stem)
        || ["md5", "sha1", "sha256", "sha512", "crc", "crc32"].contains(&kind(path).as_str())
}

/// `2 of .csv and 1 of .xz`.
fn kinds(paths: &[PathBuf]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for path in paths {
        *counts.entry(kind(path)).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(kind, n)| format!("{n} of .{kind}")).collect();
    match counts.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => counts.concat(),
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
    use std::sync::Mutex;

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

    fn find(source: &str, patterns: &[String], base: &Path) -> Result<Vec<(PathBuf, Format)>, DataError> {
        super::find(source, patterns, base, Unread::Note, &Quiet)
    }

    fn text_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
        super::text_files(path, &Quiet)
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
            assert_eq!(found.read.into_iter().map(|(p, _)| p).collect::<Vec<_>>(), wanted, "{pattern}");
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

    /// Hears the notes.
    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Progress for Notes {
        fn begin(&self, _: &str, _: u64) {}
        fn advance(&self, _: u64) {}
        fn end(&self) {}
        fn note(&self, text: &str) {
            self.0.lock().unwrap().push(text.to_owned());
        }
    }

    /// What is read of a tree of `files`, each of its own name's length and `more`, by `pattern`, and the notes.
    fn read(files: &[&str], pattern: &str, unread: Unread) -> (Result<Vec<String>, DataError>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        let notes = Notes::default();
        let found = super::find("s", &[pattern.to_owned()], dir.path(), unread, &notes);
        let names = |found: Vec<(PathBuf, Format)>| {
            let name = |path: PathBuf| path.strip_prefix(dir.path()).unwrap().display().to_string();
            found.into_iter().map(|(path, _)| name(path).trim_start_matches("./").to_owned()).collect()
        };
        (found.map(names), notes.0.into_inner().unwrap())
    }

    #[test]
    fn data_that_no_reader_takes_is_told_of_or_refused() {
        let files = ["a.jsonl", "b.jsonl.xz", "c.csv", "d.csv.gz", "e.png"];
        for pattern in [".", "*"] {
            let (found, notes) = read(&files, pattern, Unread::Note);
            assert_eq!(found.unwrap(), ["a.jsonl"], "{pattern}");
            assert!(notes[0].contains("takes 3 of its files (2 of .csv and 1 of .xz)"), "{notes:?}");
            let error = read(&files, pattern, Unread::Refuse).0.unwrap_err();
            assert!(error.to_string().contains("b.jsonl.xz"), "{error}");
        }
        // The files of `save_to_disk`, and a card beside tables.
        for files in [&["dataset_info.json", "state.json", "data-0.arrow"][..], &["README.md", "a.csv"]] {
            let error = read(files, ".", Unread::Note).0.unwrap_err();
            assert!(matches!(error, DataError::Format { .. }), "{error}");
        }
    }

    #[test]
    fn texts_about_records_are_passed_over_unless_they_are_named() {
        let snapshot =
            ["LICENSE", "README.md", "data/train.json", "data/train.json.sha256", "dataset_infos.json"];
        let (found, notes) = read(&snapshot, ".", Unread::Note);
        assert_eq!(found.unwrap(), ["data/train.json"]);
        assert!(notes.len() == 1 && notes[0].contains("4 files beside its records"), "{notes:?}");
        assert_eq!(read(&snapshot, "*.md", Unread::Note).0.unwrap(), ["README.md"]);
        // Other texts are read, however few: a large fixture does not make a tree of sources one of records.
        let records = ["notes.txt", "some-records-of-a-long-name.jsonl"];
        assert_eq!(read(&records, "*", Unread::Note).0.unwrap(), records);
        // Sources have records among them, and texts may be about nothing but themselves.
        let sources = ["README.md", "package-with-a-long-name.json", "src/the-main-part.rs", "tests/a.jsonl"];
        for texts in [&sources[..], &["LICENSE", "README.md"]] {
            let (found, notes) = read(texts, ".", Unread::Note);
            assert_eq!((found.unwrap(), notes), (texts.iter().map(|s| (*s).to_owned()).collect(), vec![]));
        }
    }

    #[test]
    fn a_base_that_is_the_working_directory_is_named() {
        let error = find("s", &["none".to_owned()], Path::new("")).unwrap_err();
        assert!(error.to_string().ends_with("matches no file under `.`"), "{error}");
    }

    /// What is there is not said to be missing.
    #[cfg(unix)]
    #[test]
    fn pipes_and_broken_links_are_named_for_what_they_are() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe.jsonl");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket.jsonl")).unwrap();
        for (to, name) in
            [("nowhere", "dangling.jsonl"), ("loop.jsonl", "loop.jsonl"), ("pipe.jsonl", "behind")]
        {
            symlink(dir.path().join(to), dir.path().join(name)).unwrap();
        }
        for (pattern, what) in [
            ("pipe.jsonl", "is no regular file"),
            ("socket.jsonl", "is no regular file"),
            ("behind", "is no regular file"),
            ("/dev/null", "is no regular file"),
            ("dangling.jsonl", "is a broken link"),
            ("loop.jsonl", "is a broken link"),
            ("none.jsonl", "matches no file"),
        ] {
            let said = find("s", &[pattern.to_owned()], dir.path()).unwrap_err().to_string();
            assert!(said.contains(&format!("`{pattern}` {what}")), "{said}");
        }
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
