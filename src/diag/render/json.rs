//! JSON lines, version 1: one object per diagnostic, then a summary. Offsets are bytes, lines and
//! columns are 1-based, columns count characters.

use serde::Serialize;

use super::{Places, count, level_word};
use crate::diag::{Applicability, Diagnostic, Edit, Label};
use crate::source::{Files, Span};

/// The version of this format.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Object<'a> {
    v: u32,
    code: String,
    level: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lint: Option<&'static str>,
    message: &'a str,
    file: &'a str,
    span: Range,
    labels: Vec<Place<'a>>,
    notes: &'a [String],
    help: &'a [String],
    fixes: Vec<Mend<'a>>,
}

#[derive(Serialize)]
struct Range {
    byte: [u32; 2],
    start: Point,
    end: Point,
}

#[derive(Serialize)]
struct Point {
    line: u32,
    col: u32,
}

#[derive(Serialize)]
struct Place<'a> {
    file: &'a str,
    span: Range,
    text: &'a str,
    primary: bool,
}

#[derive(Serialize)]
struct Mend<'a> {
    title: &'a str,
    applicability: &'static str,
    edits: Vec<Change<'a>>,
}

#[derive(Serialize)]
struct Change<'a> {
    byte: [u32; 2],
    text: &'a str,
    /// Only where it is another than the diagnostic's.
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
}

#[derive(Serialize)]
struct Last {
    v: u32,
    summary: Summary,
}

#[derive(Serialize)]
struct Summary {
    errors: usize,
    warnings: usize,
}

pub(super) fn render(diagnostics: &[Diagnostic], files: &dyn Files) -> String {
    let mut places = Places::new(files);
    let mut out = String::new();
    for diagnostic in diagnostics {
        push_line(&mut out, &object(diagnostic, &mut places));
    }
    let (errors, warnings) = count(diagnostics);
    push_line(&mut out, &Last { v: VERSION, summary: Summary { errors, warnings } });
    out
}

fn push_line(out: &mut String, value: &impl Serialize) {
    // Strings, numbers and lists always serialise.
    out.push_str(&serde_json::to_string(value).unwrap_or_default());
    out.push('\n');
}

fn object<'a>(diagnostic: &'a Diagnostic, places: &mut Places<'a>) -> Object<'a> {
    let primary = diagnostic.primary.span;
    let labels = std::iter::once((true, &diagnostic.primary))
        .chain(diagnostic.labels.iter().map(|l| (false, l)))
        .map(|(primary, l)| label(l, primary, places))
        .collect();
    let fixes = diagnostic
        .fixes
        .iter()
        .map(|fix| Mend {
            title: &fix.title,
            applicability: applicability(fix.applicability),
            edits: fix.edits.iter().map(|e| change(e, primary, places)).collect(),
        })
        .collect();
    Object {
        v: VERSION,
        code: diagnostic.code.to_string(),
        level: level_word(diagnostic.level),
        lint: diagnostic.lint,
        message: &diagnostic.message,
        file: places.name(primary),
        span: range(primary, places),
        labels,
        notes: &diagnostic.notes,
        help: &diagnostic.help,
        fixes,
    }
}

fn range(span: Span, places: &mut Places<'_>) -> Range {
    let (start, end) = (places.start(span), places.end(span));
    Range {
        byte: [span.start, span.end],
        start: Point { line: start.line, col: start.col },
        end: Point { line: end.line, col: end.col },
    }
}

fn label<'a>(label: &'a Label, primary: bool, places: &mut Places<'a>) -> Place<'a> {
    Place { file: places.name(label.span), span: range(label.span, places), text: &label.text, primary }
}

fn change<'a>(edit: &'a Edit, primary: Span, places: &Places<'a>) -> Change<'a> {
    let file = (edit.span.file != primary.file).then(|| places.name(edit.span));
    Change { byte: [edit.span.start, edit.span.end], text: &edit.text, file }
}

fn applicability(applicability: Applicability) -> &'static str {
    match applicability {
        Applicability::MachineApplicable => "machine-applicable",
        Applicability::MaybeIncorrect => "maybe-incorrect",
        Applicability::HasPlaceholders => "has-placeholders",
    }
}
