//! JSON lines, version 1: one object per diagnostic, then a summary. Offsets are bytes, lines and
//! columns are 1-based, columns count characters.

use serde_json::{Map, Value, json};

use super::{Places, count, level_word};
use crate::diag::{Applicability, Diagnostic, Edit, Label};
use crate::source::{Files, Span};

/// The version of this format.
const VERSION: u32 = 1;

pub(super) fn render(diagnostics: &[Diagnostic], files: &dyn Files) -> String {
    let mut places = Places::new(files);
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&object(diagnostic, &mut places).to_string());
        out.push('\n');
    }
    let (errors, warnings) = count(diagnostics);
    let last = json!({ "v": VERSION, "summary": { "errors": errors, "warnings": warnings } });
    out.push_str(&last.to_string());
    out.push('\n');
    out
}

fn object(diagnostic: &Diagnostic, places: &mut Places<'_>) -> Value {
    let mut map = Map::new();
    map.insert("v".into(), json!(VERSION));
    map.insert("code".into(), json!(diagnostic.code.to_string()));
    map.insert("level".into(), json!(level_word(diagnostic.level)));
    if let Some(lint) = diagnostic.lint {
        map.insert("lint".into(), json!(lint));
    }
    map.insert("message".into(), json!(diagnostic.message));
    map.insert("file".into(), json!(places.name(diagnostic.primary.span)));
    map.insert("span".into(), span(diagnostic.primary.span, places));
    let labels: Vec<Value> = std::iter::once((true, &diagnostic.primary))
        .chain(diagnostic.labels.iter().map(|l| (false, l)))
        .map(|(primary, l)| label(l, primary, places))
        .collect();
    map.insert("labels".into(), json!(labels));
    map.insert("notes".into(), json!(diagnostic.notes));
    map.insert("help".into(), json!(diagnostic.help));
    let fixes: Vec<Value> = diagnostic
        .fixes
        .iter()
        .map(|fix| {
            let edits: Vec<Value> =
                fix.edits.iter().map(|e| edit(e, diagnostic.primary.span, places)).collect();
            json!({ "title": fix.title, "applicability": applicability(fix.applicability), "edits": edits })
        })
        .collect();
    map.insert("fixes".into(), json!(fixes));
    Value::Object(map)
}

fn span(span: Span, places: &mut Places<'_>) -> Value {
    let (start, end) = (places.start(span), places.end(span));
    json!({
        "byte": [span.start, span.end],
        "start": { "line": start.line, "col": start.col },
        "end": { "line": end.line, "col": end.col },
    })
}

fn label(label: &Label, primary: bool, places: &mut Places<'_>) -> Value {
    json!({
        "file": places.name(label.span),
        "span": span(label.span, places),
        "text": label.text,
        "primary": primary,
    })
}

/// An edit names its file only where it is another than the diagnostic's.
fn edit(edit: &Edit, primary: Span, places: &Places<'_>) -> Value {
    let mut value = json!({ "byte": [edit.span.start, edit.span.end], "text": edit.text });
    if edit.span.file != primary.file
        && let Some(map) = value.as_object_mut()
    {
        map.insert("file".into(), json!(places.name(edit.span)));
    }
    value
}

fn applicability(applicability: Applicability) -> &'static str {
    match applicability {
        Applicability::MachineApplicable => "machine-applicable",
        Applicability::MaybeIncorrect => "maybe-incorrect",
        Applicability::HasPlaceholders => "has-placeholders",
    }
}
