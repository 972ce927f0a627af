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
        let Source { path, text, filter, today, fim, dedup, exclude, .. } = source;
        let (text, filter, today) = (text.as_deref(), filter.as_deref(), today.as_deref());
        let now = Counted { path, text, filter, today, fim: *fim, dedup: *dedup, exclude }.settings();
        self.settings.as_ref().is_none_or(|then| *then == now)
    }

    /// What was held out of it, where the file says so.
    pub(super) fn heldout(&self) -> Option<HeldOut> {
        let documents = self.heldout.filter(|_| self.heldout_tokens < self.tokens)?;
        Some(HeldOut { documents, tokens: self.heldout_tokens as f64 / self.tokens as f64 })
    }
}

/// The fields of a source that its count hangs on; the files themselves and the tokenizer are told by stamps beside them.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Paths or globs.
    pub path: &'a [String],
    /// Field name or template.
    pub text: Option<&'a str>,
    /// Predicate.
    pub filter: Option<&'a str>,
    /// The day that chat templates see.
    pub today: Option<&'a str>,
    /// Rate and style of fill in the middle.
    pub fim: Option<(f64, &'a str)>,
    /// Whether duplicates are dropped.
    pub dedup: bool,
    /// Globs of files to decontaminate against.
    pub exclude: &'a [String],
}

impl Counted<'_> {
    /// As `NAME.data.json` has them.
    pub fn settings(&self) -> Value {
        let Self { path, text, filter, today, fim, dedup, exclude } = *self;
        let fim = fim.map(|(rate, style)| json!({"rate": rate, "style": style}));
        json!({
            "path": path, "text": text, "where": filter, "today": today, "fim": fim, "dedup": dedup, "exclude": exclude,
        })
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
