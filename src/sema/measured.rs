//! What `midc data --save` counted, beside the curriculum as `NAME.data.json`.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::source::{FileId, Files};

#[derive(Deserialize)]
struct Counts {
    sources: Vec<Count>,
}

#[derive(Deserialize)]
struct Count {
    name: String,
    #[serde(default)]
    tokens: u64,
    /// Entry i: tokens in documents of 2^(i−1) to 2^i − 1 tokens.
    #[serde(default)]
    tokens_by_length: Vec<u64>,
}

/// A file of another version, or made by hand, counts nothing.
fn counts(files: &dyn Files, root: FileId) -> Vec<Count> {
    let name = files.name(root).rsplit('/').next().unwrap_or_default();
    let stem = name.strip_suffix(".curriculum").unwrap_or(name);
    let text = files.read_beside(&format!("{stem}.data.json"), root);
    text.and_then(|text| serde_json::from_str::<Counts>(&text).ok()).map_or_else(Vec::new, |c| c.sources)
}

/// Tokens of the sources that were counted.
pub(super) fn tokens(files: &dyn Files, root: FileId) -> HashMap<String, u64> {
    counts(files, root).into_iter().map(|c| (c.name, c.tokens)).collect()
}

/// Tokens by length of document of the sources that were counted.
pub(super) fn lengths(files: &dyn Files, root: FileId) -> BTreeMap<String, Vec<u64>> {
    let all = counts(files, root).into_iter().map(|c| (c.name, c.tokens_by_length));
    all.filter(|(_, lengths)| !lengths.is_empty()).collect()
}
