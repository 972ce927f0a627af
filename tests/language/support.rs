//! Shared by the tests of the language.

use std::path::{Path, PathBuf};

use midc::diag::{Diagnostic, LintLevels};
use midc::source::{FileId, Files, MemoryFiles};

/// Diagnostics of a text that stands alone, as `midc check` would show them.
pub(crate) fn check_text(text: &str) -> (Vec<Diagnostic>, MemoryFiles) {
    let mut files = MemoryFiles::new();
    let file = files.add("test.curriculum", text);
    let diagnostics = check(&mut files, file);
    (diagnostics, files)
}

/// Diagnostics of a file, as `midc check` would show them.
pub(crate) fn check(files: &mut dyn Files, file: FileId) -> Vec<Diagnostic> {
    let (_, mut diagnostics) = midc::sema::check(files, file, &midc::sema::Options::default());
    LintLevels::default().apply(&mut diagnostics);
    diagnostics
}

/// The code blocks of a Markdown page that are marked `curriculum KIND`.
pub(crate) fn examples(page: &str, kind: &str) -> Vec<String> {
    let mark = format!("```curriculum {kind}\n");
    page.split(&mark)
        .skip(1)
        .filter_map(|rest| rest.split_once("\n```").map(|(text, _)| format!("{text}\n")))
        .collect()
}

/// The root of the package.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every `.curriculum` file under `directory`, sorted, with its text.
pub(crate) fn curricula(directory: &str) -> Vec<(PathBuf, String)> {
    fn walk(directory: &Path, out: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "curriculum") {
                out.push(path);
            }
        }
    }
    let mut paths = Vec::new();
    walk(&root().join(directory), &mut paths);
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// Compare with a golden file, or write it when `BLESS` is set. Returns what differs.
pub(crate) fn golden(path: &Path, actual: &str) -> Option<String> {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(path, actual).unwrap();
        return None;
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    (expected != actual).then(|| {
        let diff = midc::fmt::unified_diff(&path.display().to_string(), &expected, actual);
        format!("{diff}\n(BLESS=1 rewrites it)")
    })
}
