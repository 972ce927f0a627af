//! `file:line:col: error[E0201]: message`, one line each; lints end with their name.

use std::fmt::Write as _;

use super::{Places, level_word};
use crate::diag::Diagnostic;
use crate::source::Files;

pub(super) fn render(diagnostics: &[Diagnostic], files: &dyn Files) -> String {
    let mut places = Places::new(files);
    let mut out = String::new();
    for diagnostic in diagnostics {
        let span = diagnostic.primary.span;
        let at = places.start(span);
        let (name, level) = (places.name(span), level_word(diagnostic.level));
        let lint = diagnostic.lint.map(|lint| format!(" ({lint})")).unwrap_or_default();
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            out,
            "{name}:{}:{}: {level}[{}]: {}{lint}",
            at.line, at.col, diagnostic.code, diagnostic.message
        );
    }
    out
}
