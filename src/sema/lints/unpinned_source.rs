//! `unpinned_source`: definitions from outside the project's directory, free to change under it.

use crate::diag::{Diagnostic, Level, codes};
use crate::syntax::ast::{File, ItemKind};

pub(super) fn check(file: &File, found: &mut Vec<Diagnostic>) {
    for item in &file.items {
        let ItemKind::Use { path, sha256: None, .. } = &item.kind else { continue };
        if path.text.starts_with('/') || path.text.starts_with("..") {
            found.push(
                Diagnostic::lint(
                    codes::UNPINNED_SOURCE,
                    "unpinned_source",
                    Level::Warn,
                    path.span,
                    format!("`{}` lies outside this directory and is not pinned", path.text),
                    "may change without a trace here",
                )
                .help("pin its content: `use \"…\" as s, sha256: \"…\"`"),
            );
        }
    }
}
