//! What a glob leaves out.

use std::path::{Component, Path};

/// Whether `pattern`, which is relative to `directory` unless it is absolute, reaches `path` only through what it leaves
/// open: `*.jsonl` does not mean `.old.jsonl`, nor `**` what lies in `.git`.
pub fn hidden_from(pattern: &str, directory: &Path, path: &Path) -> bool {
    let pattern = Path::new(pattern);
    let below = if pattern.is_absolute() { None } else { path.strip_prefix(directory).ok() };
    let dotted = |path: &Path| {
        let name = |part: Component<'_>| part.as_os_str().to_string_lossy().into_owned();
        path.components().filter(|c| matches!(c, Component::Normal(_)) && name(*c).starts_with('.')).count()
    };
    dotted(below.unwrap_or(path)) > dotted(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_dot_before_are_asked_for_by_one() {
        for (pattern, path, hidden) in [
            ("*.jsonl", ".own/a.jsonl", false),
            ("*.jsonl", ".own/.a.jsonl", true),
            (".*.jsonl", ".own/.a.jsonl", false),
            ("**/*", ".own/.git/config", true),
            ("../.data/*", ".own/../.data/a.jsonl", false),
            ("/x/.own/*", "/x/.own/a", false),
            ("/x/.own/*", "/x/.own/.a", true),
        ] {
            let directory = if pattern.starts_with('/') { "/x/.own" } else { ".own" };
            assert_eq!(
                hidden_from(pattern, Path::new(directory), Path::new(path)),
                hidden,
                "{pattern} {path}"
            );
        }
    }
}
