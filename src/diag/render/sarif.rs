//! SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format"): one run, one rule per code
//! that occurs, one result per diagnostic, fixes as artifact changes. Columns count characters.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Places, level_word};
use crate::diag::{CODES, Code, CodeInfo, Diagnostic, Fix, Label};
use crate::source::{FileId, Files, Span};

pub(super) fn render(diagnostics: &[Diagnostic], files: &dyn Files) -> String {
    let mut places = Places::new(files);
    let used: BTreeMap<Code, &CodeInfo> = CODES
        .iter()
        .filter(|info| diagnostics.iter().any(|d| d.code == info.code))
        .map(|info| (info.code, info))
        .collect();
    let rules: Vec<Value> = used.values().map(|info| rule(info)).collect();
    let results: Vec<Value> = diagnostics
        .iter()
        .map(|diagnostic| {
            let index = used.keys().position(|code| *code == diagnostic.code);
            result(diagnostic, index, &mut places)
        })
        .collect();
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "midc",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    });
    format!("{log:#}\n")
}

fn rule(info: &CodeInfo) -> Value {
    json!({
        "id": info.code.to_string(),
        "name": info.lint.map_or_else(|| info.code.to_string(), str::to_owned),
        "shortDescription": { "text": info.title },
        "help": { "text": info.text(), "markdown": info.text() },
        "defaultConfiguration": { "level": level_word(info.level) },
    })
}

fn result(diagnostic: &Diagnostic, rule: Option<usize>, places: &mut Places<'_>) -> Value {
    let mut message = diagnostic.message.clone();
    for line in diagnostic.notes.iter().chain(&diagnostic.help) {
        message.push('\n');
        message.push_str(line);
    }
    let related: Vec<Value> =
        diagnostic.labels.iter().enumerate().map(|(id, label)| location(label, Some(id), places)).collect();
    let fixes: Vec<Value> = diagnostic.fixes.iter().map(|f| fix(f, places)).collect();
    let mut value = json!({
        "ruleId": diagnostic.code.to_string(),
        "level": level_word(diagnostic.level),
        "message": { "text": message },
        "locations": [location(&diagnostic.primary, None, places)],
    });
    if let Some(map) = value.as_object_mut() {
        if let Some(rule) = rule {
            map.insert("ruleIndex".into(), json!(rule));
        }
        if !related.is_empty() {
            map.insert("relatedLocations".into(), json!(related));
        }
        if !fixes.is_empty() {
            map.insert("fixes".into(), json!(fixes));
        }
    }
    value
}

fn location(label: &Label, id: Option<usize>, places: &mut Places<'_>) -> Value {
    let mut value = json!({ "physicalLocation": {
        "artifactLocation": { "uri": uri(places.name(label.span)) },
        "region": region(label.span, places),
    }});
    if let Some(map) = value.as_object_mut() {
        if let Some(id) = id {
            map.insert("id".into(), json!(id));
        }
        if !label.text.is_empty() {
            map.insert("message".into(), json!({ "text": label.text }));
        }
    }
    value
}

fn region(span: Span, places: &mut Places<'_>) -> Value {
    let (start, end) = (places.start(span), places.end(span));
    json!({
        "startLine": start.line,
        "startColumn": start.col,
        "endLine": end.line,
        "endColumn": end.col,
    })
}

fn fix(fix: &Fix, places: &mut Places<'_>) -> Value {
    let mut changes: BTreeMap<FileId, Vec<Value>> = BTreeMap::new();
    for edit in &fix.edits {
        changes.entry(edit.span.file).or_default().push(json!({
            "deletedRegion": region(edit.span, places),
            "insertedContent": { "text": edit.text },
        }));
    }
    let changes: Vec<Value> = changes
        .into_iter()
        .map(|(file, replacements)| {
            json!({
                "artifactLocation": { "uri": uri(places.files.name(file)) },
                "replacements": replacements,
            })
        })
        .collect();
    json!({ "description": { "text": fix.title }, "artifactChanges": changes })
}

/// A path as a relative (or `file:`) reference: RFC 3986 unreserved characters and `/` stay.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            b'\\' if cfg!(windows) => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
