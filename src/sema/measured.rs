//! What `midc data --save` counted, beside the curriculum as `NAME.data.json`.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::source::{FileId, Files};

use super::curriculum::HeldOut;

#[derive(Deserialize)]
struct Counts {
    sources: Vec<Count>,
    #[serde(default)]
    heldout: Option<f64>,
}

#[derive(Deserialize)]
struct Count {
    name: String,
    #[serde(default)]
    tokens: u64,
    #[serde(default)]
    heldout_tokens: u64,
    /// Entry i: tokens in documents of 2^(i−1) to 2^i − 1 tokens.
    #[serde(default)]
    tokens_by_length: Vec<u64>,
}

/// A file of another version, or made by hand, counts nothing.
fn counts(files: &dyn Files, root: FileId) -> Counts {
    let name = files.name(root).rsplit('/').next().unwrap_or_default();
    let stem = name.strip_suffix(".curriculum").unwrap_or(name);
    let text = files.read_beside(&format!("{stem}.data.json"), root);
    let none = || Counts { sources: Vec::new(), heldout: None };
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_else(none)
}

/// The size of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Its tokens, more than 0.
    pub(crate) tokens: u64,
    /// What was held out of it, where the file says so.
    pub(crate) heldout: Option<HeldOut>,
}

/// Sizes of the sources that were counted.
pub(super) fn sizes(files: &dyn Files, root: FileId) -> HashMap<String, Size> {
    let Counts { sources, heldout } = counts(files, root);
    let size = |c: &Count| Size {
        tokens: c.tokens,
        heldout: heldout
            .filter(|_| c.heldout_tokens < c.tokens)
            .map(|documents| HeldOut { documents, tokens: c.heldout_tokens as f64 / c.tokens as f64 }),
    };
    sources.into_iter().filter(|c| c.tokens > 0).map(|c| (c.name.clone(), size(&c))).collect()
}

/// Tokens by length of document of the sources that were counted.
pub(super) fn lengths(files: &dyn Files, root: FileId) -> BTreeMap<String, Vec<u64>> {
    let all = counts(files, root).sources.into_iter().map(|c| (c.name, c.tokens_by_length));
    all.filter(|(_, lengths)| !lengths.is_empty()).collect()
}
