//! What a glob leaves out.

use std::path::{Component, Path};

/// Whether `pattern` reaches `path` only through what it leaves open: `*.jsonl` does not mean `.old.jsonl`, nor `**` what
/// lies in `.git`. Both are relative to one directory, or absolute.
pub fn hidden_from(pattern: &str, path: &Path) -> bool {
    let dotted = |path: &Path| {
        let name = |part: Component<'_>| part.as_os_str().to_string_lossy().into_owned();
        path.components().filter(|c| matches!(c, Component::Normal(_)) && name(*c).starts_with('.')).count()
    };
    dotted(path) > dotted(Path::new(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_dot_before_are_asked_for_by_one() {
        for (pattern, path, hidden) in [
            ("*.jsonl", "a.jsonl", false),
            ("*.jsonl", ".a.jsonl", true),
            (".*.jsonl", ".a.jsonl", false),
            ("**/*", ".git/config", true),
            ("../.data/*", "../.data/a.jsonl", false),
            ("/x/.data/*", "/x/.data/.a", true),
        ] {
            assert_eq!(hidden_from(pattern, Path::new(path)), hidden, "{pattern} {path}");
        }
    }
}
