//! What `midc data --save` counted, beside the curriculum as `NAME.data.json`.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::curriculum::{HeldOut, Source};
use crate::source::{FileId, Files};

#[derive(Deserialize)]
struct Counts {
    sources: Vec<Count>,
    #[serde(default)]
    heldout: Option<f64>,
}

/// Of one source.
#[derive(Deserialize)]
pub(super) struct Count {
    name: String,
    #[serde(default)]
    pub(super) tokens: u64,
    #[serde(default)]
    heldout_tokens: u64,
    /// Share of documents that were held out of all sources together.
    #[serde(skip)]
    heldout: Option<f64>,
    /// Entry i: tokens in documents of 2^(i−1) to 2^i − 1 tokens.
    #[serde(default)]
    pub(super) tokens_by_length: Vec<u64>,
    /// The fields of the source that it hangs on; absent in files of older versions.
    #[serde(default)]
    settings: Option<Value>,
}

impl Count {
    /// Whether `source` still reads what was counted, as far as its fields say.
    pub(super) fn is_of(&self, source: &Source) -> bool {
        let fim = source.fim.map(|(rate, style)| json!({"rate": rate, "style": style}));
        let now = json!({
            "path": source.path, "text": source.text, "where": source.filter, "today": source.today, "fim": fim,
            "dedup": source.dedup, "exclude": source.exclude,
        });
        self.settings.as_ref().is_none_or(|then| *then == now)
    }

    /// What was held out of it, where the file says so.
    pub(super) fn heldout(&self) -> Option<HeldOut> {
        let documents = self.heldout.filter(|_| self.heldout_tokens < self.tokens)?;
        Some(HeldOut { documents, tokens: self.heldout_tokens as f64 / self.tokens as f64 })
    }
}

/// By the name of the source. A file of another version, or made by hand, counts nothing.
pub(super) fn counts(files: &dyn Files, root: FileId) -> HashMap<String, Count> {
    let name = files.name(root).rsplit('/').next().unwrap_or_default();
    let stem = name.strip_suffix(".curriculum").unwrap_or(name);
    let text = files.read_beside(&format!("{stem}.data.json"), root).ok().flatten();
    let Some(counts) = text.and_then(|text| serde_json::from_str::<Counts>(&text).ok()) else {
        return HashMap::new();
    };
    let Counts { sources, heldout } = counts;
    sources.into_iter().map(|count| (count.name.clone(), Count { heldout, ..count })).collect()
}
