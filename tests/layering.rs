//! Holds the modules to the drawing in `src/lib.rs`: who may use whom, who may touch the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// For each module, the modules of this crate it may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("source", &[]),
    ("diag", &["source"]),
    ("syntax", &["diag", "source"]),
    ("fmt", &["syntax", "diag", "source"]),
    ("curve", &[]),
    ("rope", &[]),
    ("layers", &[]),
    ("schema", &["rope", "curve", "syntax", "diag", "source"]),
    ("sema", &["schema", "curve", "rope", "layers", "syntax", "diag", "source"]),
    ("plan", &["sema", "schema", "curve", "rope", "layers", "syntax", "diag", "source"]),
    ("ide", &["fmt", "plan", "sema", "schema", "curve", "rope", "layers", "syntax", "diag", "source"]),
    (
        "lsp",
        &[
            "ide", "plot", "fmt", "plan", "sema", "schema", "curve", "rope", "layers", "syntax", "diag",
            "source",
        ],
    ),
    ("runtime", &["plan", "curve", "rope", "layers"]),
    ("emit", &["plan", "curve", "rope", "layers"]),
    ("launch", &["runtime", "emit", "plan"]),
    ("plot", &["plan", "curve", "rope"]),
];

/// Words only the named places may contain, comments aside.
const RESERVED: &[(&str, &[&str])] = &[
    ("ariadne", &["diag/render/text.rs"]),
    ("cudarc", &["runtime/backend/cuda"]),
    ("lsp_server", &["lsp/", "cli/lsp.rs"]),
    ("lsp_types", &["lsp/"]),
    ("std::fs", &["cli/", "launch/", "lsp/", "runtime/"]),
    ("std::env", &["cli/", "launch/", "lsp/", "runtime/"]),
    ("std::time", &["cli/", "launch/", "lsp/", "runtime/"]),
    ("println!", &["lsp/"]),
];

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            rust_files(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// The code of a file without line comments and without its test modules.
fn code(path: &Path) -> String {
    without_tests(&std::fs::read_to_string(path).unwrap())
}

/// `text` without line comments, and cut where a test module begins; one in a file of its own ends nothing.
fn without_tests(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let inline = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if line == "#[cfg(test)]" && lines.peek().is_some_and(inline) {
            break;
        }
        // `//` behind a colon is that of an address.
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        kept.push(comment.map_or(line, |(at, _)| &line[..at]));
    }
    kept.join("\n")
}

/// Modules of this crate that a file names as `crate::module`.
fn used(code: &str) -> Vec<String> {
    let mut modules: Vec<String> = code
        .match_indices("crate::")
        .flat_map(|(at, word)| {
            let rest = &code[at + word.len()..];
            match rest.strip_prefix('{').and_then(|g| g.split('}').next()) {
                Some(group) => group.split(',').map(|n| leading_name(n.trim())).collect(),
                None => vec![leading_name(rest)],
            }
        })
        .filter(|n| !n.is_empty())
        .collect();
    modules.sort();
    modules.dedup();
    modules
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Every source file below a module, with its path relative to `src`.
fn sources() -> Vec<(String, PathBuf)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    files
        .into_iter()
        .map(|f| (f.strip_prefix(&src).unwrap().to_string_lossy().replace('\\', "/"), f))
        .filter(|(relative, _)| relative.contains('/'))
        .collect()
}

#[test]
fn dependencies_point_down() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (relative, file) in sources() {
        let module = relative.split('/').next().unwrap_or_default();
        if module == "cli" {
            continue;
        }
        let Some(may) = allowed.get(module) else {
            wrong.push(format!("{relative}: module `{module}` has no row in ALLOWED"));
            continue;
        };
        for name in used(&code(&file)) {
            if name != module && !may.contains(&name.as_str()) {
                wrong.push(format!("{relative}: `{module}` must not use `{name}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "layering violated:\n{}", wrong.join("\n"));
}

#[test]
fn reserved_words_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (relative, file) in sources().into_iter().filter(|(relative, _)| !relative.ends_with("/tests.rs")) {
        let code = code(&file);
        for (word, rooms) in RESERVED {
            if code.contains(word) && !rooms.iter().any(|r| relative.starts_with(r)) {
                wrong.push(format!("{relative}: `{word}` belongs to {rooms:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "layering violated:\n{}", wrong.join("\n"));
}

#[test]
fn the_test_sees_a_violation() {
    let text = "use crate::syntax::ast;\nlet at = \"https://x\";\n#[cfg(test)]\nmod tests;\nuse crate::{plan, sema};\n\
                #[cfg(test)]\nmod more {\nuse crate::lsp;\n}";
    assert_eq!(used(&without_tests(text)), ["plan", "sema", "syntax"]);
    assert!(without_tests(text).contains("https://x"));
}
