//! One renderer per output format. Renderers return text; whoever calls them decides where it goes.

mod concise;
mod github;
mod json;
mod sarif;
mod text;

use std::collections::HashMap;

use super::{Applicability, Diagnostic, Fix, Level};
use crate::source::{FileId, Files, LineIndex, Position, Span};

/// How diagnostics are written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Source excerpts for people.
    #[default]
    Text,
    /// `file:line:col: error[E0201]: message`, one line each.
    Concise,
    /// One JSON object per line, and a summary.
    Json,
    /// SARIF 2.1.0, for code scanning services.
    Sarif,
    /// GitHub workflow commands, shown as annotations.
    Github,
}

impl Format {
    /// All of them with their names on the command line.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Text, "text"),
        (Self::Concise, "concise"),
        (Self::Json, "json"),
        (Self::Sarif, "sarif"),
        (Self::Github, "github"),
    ];
}

/// Write out `diagnostics`, whose places are in `files`. `color` only matters for [`Format::Text`].
pub fn render(format: Format, diagnostics: &[Diagnostic], files: &dyn Files, color: bool) -> String {
    match format {
        Format::Text => text::render(diagnostics, files, color),
        Format::Concise => concise::render(diagnostics, files),
        Format::Json => json::render(diagnostics, files),
        Format::Sarif => sarif::render(diagnostics, files),
        Format::Github => github::render(diagnostics, files),
    }
}

/// How many errors and warnings there are.
pub fn count(diagnostics: &[Diagnostic]) -> (usize, usize) {
    let of = |level| diagnostics.iter().filter(|d| d.level == level).count();
    (of(Level::Deny), of(Level::Warn))
}

/// `2 errors, 1 warning`; `None` if there is neither.
pub fn summary(diagnostics: &[Diagnostic]) -> Option<String> {
    let (errors, warnings) = count(diagnostics);
    let part = |n: usize, word: &str| (n > 0).then(|| format!("{n} {word}{}", if n == 1 { "" } else { "s" }));
    let parts: Vec<String> =
        [part(errors, "error"), part(warnings, "warning")].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// `error` or `warning`.
fn level_word(level: Level) -> &'static str {
    match level {
        Level::Deny => "error",
        Level::Warn => "warning",
        Level::Allow => "note",
    }
}

/// What to tell about a fix in a format that cannot offer it.
fn fix_advice(fix: &Fix) -> String {
    match fix.applicability {
        Applicability::MachineApplicable => format!("{} (`--fix` does it)", fix.title),
        Applicability::MaybeIncorrect | Applicability::HasPlaceholders => fix.title.clone(),
    }
}

/// Lines and columns in a set of files; each file is indexed once.
struct Places<'f> {
    files: &'f dyn Files,
    lines: HashMap<FileId, LineIndex>,
}

impl<'f> Places<'f> {
    fn new(files: &'f dyn Files) -> Self {
        Self { files, lines: HashMap::new() }
    }

    fn position(&mut self, file: FileId, offset: u32) -> Position {
        let text = self.files.text(file);
        self.lines.entry(file).or_insert_with(|| LineIndex::new(text)).position(text, offset)
    }

    fn start(&mut self, span: Span) -> Position {
        self.position(span.file, span.start)
    }

    fn end(&mut self, span: Span) -> Position {
        self.position(span.file, span.end)
    }

    fn name(&self, span: Span) -> &'f str {
        self.files.name(span.file)
    }
}
