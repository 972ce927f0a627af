//! Stand-in text for sources: the held-out part of the example corpus, one file for each kind, and
//! its tokenizer.

use std::path::Path;

use crate::runtime::run_dir::{RunDirError, write_whole};

/// Rows of the toy embedding: the stand-in tokenizer's vocabulary.
pub(super) const VOCAB_SIZE: usize = 4096;
/// File name of the stand-in tokenizer.
pub(super) const TOKENIZER: &str = "tokenizer.json";

const FILES: [(&str, &str); 6] = [
    ("prose.jsonl", include_str!("../../../examples/data/prose.test.jsonl")),
    ("code.jsonl", include_str!("../../../examples/data/code.test.jsonl")),
    ("math.jsonl", include_str!("../../../examples/data/math.test.jsonl")),
    ("qa.jsonl", include_str!("../../../examples/data/qa.test.jsonl")),
    ("long.jsonl", include_str!("../../../examples/data/long.test.jsonl")),
    (TOKENIZER, include_str!("../../../examples/data/tokenizer.json")),
];

/// The file that stands in for a source of `kind`.
pub(super) fn file_for(kind: &str) -> &'static str {
    match kind {
        "code" => "code.jsonl",
        "math" | "reasoning" => "math.jsonl",
        "instruct" => "qa.jsonl",
        "long" => "long.jsonl",
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
        write_whole(&dir.join(name), text.as_bytes())?;
    }
    Ok(())
}
