//! Paths to complete inside a string.

use crate::source::{FileId, Files};

/// Names in the directory that `typed` leads to and that begin as it does, directories with a
/// slash behind.
pub(super) fn beside(
    files: &dyn Files,
    file: FileId,
    typed: &str,
    keep: impl Fn(&str) -> bool,
) -> Vec<String> {
    const MOST: usize = 200;
    let (directory, begun) = typed.rsplit_once('/').map_or(("", typed), |(d, b)| (d, b));
    if typed.contains(['*', '?', '[']) {
        return Vec::new();
    }
    let pattern = if directory.is_empty() { "*".to_owned() } else { format!("{directory}/*") };
    let mut names: Vec<String> = files
        .glob(&pattern, file)
        .into_iter()
        .take(MOST)
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let inside = format!("{directory}{}{name}/*", if directory.is_empty() { "" } else { "/" });
            let is_directory = !name.contains('.') && !files.glob(&inside, file).is_empty();
            let name = if is_directory { format!("{name}/") } else { name };
            (name.starts_with(begun) && !name.starts_with('.') && (is_directory || keep(&name)))
                .then_some(name)
        })
        .collect();
    names.sort();
    names
}
