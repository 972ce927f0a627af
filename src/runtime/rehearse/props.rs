//! Stand-in text for sources: the held-out part of the example corpus, one file for each kind, and
//! its tokenizer.

use std::path::Path;

use crate::runtime::run_dir::{RunDirError, write_whole};

/// Rows of the toy embedding: the stand-in tokenizer's vocabulary.
pub(super) const VOCAB_SIZE: usize = 4096;
/// File name of the stand-in tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// File name of what stands in for long documents.
const LONG: &str = "long.jsonl";
/// File name of what stands in for sources for validation.
const VALIDATION: &str = "validation.jsonl";
const PROSE: &str = include_str!("../../../examples/data/prose.test.jsonl");

const FILES: [(&str, &str); 7] = [
    ("prose.jsonl", PROSE),
    (VALIDATION, PROSE),
    ("code.jsonl", include_str!("../../../examples/data/code.test.jsonl")),
    ("math.jsonl", include_str!("../../../examples/data/math.test.jsonl")),
    ("qa.jsonl", include_str!("../../../examples/data/qa.test.jsonl")),
    (LONG, include_str!("../../../examples/data/long.test.jsonl")),
    (TOKENIZER, include_str!("../../../examples/data/tokenizer.json")),
];

/// The file that stands in for a source of `kind`, or for one for `validation`: of that nothing may be trained on.
pub(super) fn file_for(kind: &str, validation: bool) -> &'static str {
    match kind {
        _ if validation => VALIDATION,
        "code" => "code.jsonl",
        "math" | "reasoning" => "math.jsonl",
        "instruct" => "qa.jsonl",
        "long" => LONG,
        _ => "prose.jsonl",
    }
}

/// Write the stand-ins into `dir`.
///
/// # Errors
/// The directory cannot be written.
pub fn write_props(dir: &Path) -> Result<(), RunDirError> {
    std::fs::create_dir_all(dir).map_err(RunDirError::io("create", dir))?;
    for (name, text) in FILES {
        let text = match name {
            LONG => in_parts(text),
            VALIDATION => halved(text),
            _ => text.to_owned(),
        };
        write_whole(&dir.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Documents the long stand-in is written as.
const PARTS: usize = 4;

#[derive(serde::Deserialize)]
struct Document {
    text: String,
}

/// The first half of every document: other documents than those.
fn halved(lines: &str) -> String {
    let documents = lines.lines().filter_map(|line| serde_json::from_str::<Document>(line).ok());
    let half = |Document { text }: Document| text.chars().take(text.chars().count() / 2).collect::<String>();
    documents.map(|document| format!("{}\n", serde_json::json!({ "text": half(document) }))).collect()
}

/// The one long document of the example corpus as several, each far longer than a toy row: of a single one
/// nothing can be both held out and trained on.
fn in_parts(line: &str) -> String {
    let Ok(Document { text }) = serde_json::from_str(line) else { return line.to_owned() };
    let paragraphs: Vec<&str> = text.split_inclusive("\n\n").collect();
    let parts = paragraphs.chunks(paragraphs.len().div_ceil(PARTS).max(1));
    parts.map(|part| format!("{}\n", serde_json::json!({ "text": part.concat() }))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::rehearse::shrink::CONTEXT;

    #[test]
    fn every_stand_in_can_be_held_out_of_and_trained_on() {
        let dir = tempfile::tempdir().unwrap();
        write_props(dir.path()).unwrap();
        for (name, _) in FILES.iter().filter(|(name, _)| *name != TOKENIZER) {
            let written = std::fs::read_to_string(dir.path().join(name)).unwrap();
            let documents: std::collections::BTreeSet<&str> = written.lines().collect();
            assert!(documents.len() >= 2, "{name}");
            if *name == VALIDATION {
                assert!(documents.iter().all(|d| !PROSE.contains(*d)));
            }
            if *name == LONG {
                // Bytes; a token of the stand-in tokenizer has about four.
                let row = 8 * *CONTEXT.end() as usize;
                assert!(documents.iter().all(|d| d.len() > row), "{name}");
            }
        }
    }
}
