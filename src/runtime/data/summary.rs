//! What reading the sources brought to light: counts for `midc data`, the log and the lints.

use serde::{Deserialize, Serialize};

/// Of all sources of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// In the order of the plan.
    pub sources: Vec<SourceSummary>,
    /// Share of the documents that was to be held out, 0 to 1; `null` in files that do not say it.
    #[serde(default)]
    pub heldout: Option<f64>,
    /// The stamp of the tokenizer that it was counted by; empty in files that do not say it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tokenizer: String,
}

/// Of one source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceSummary {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Files read.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Documents kept, held-out ones included.
    pub documents: u64,
    /// Tokens of the documents kept, an end-of-sequence token each included.
    pub tokens: u64,
    /// Those of `tokens` that carry loss; `null` when all do, and when not counted.
    #[serde(default)]
    pub loss_tokens: Option<u64>,
    /// Bytes of UTF-8 text of all documents tokenised; 0 for pre-tokenised files.
    pub bytes: u64,
    /// `bytes` per token; `null` for pre-tokenised files.
    pub bytes_per_token: Option<f64>,
    /// Size declared in the curriculum.
    pub declared_tokens: Option<u64>,
    /// Documents kept out of training.
    pub heldout_documents: u64,
    /// Their tokens.
    pub heldout_tokens: u64,
    /// Documents equal to an earlier one of the source, whether dropped or not; `null` when not counted.
    pub duplicates: Option<u64>,
    /// Records that became no document, by reason.
    pub dropped: Dropped,
    /// The first dropped records that were broken, decontaminated or too odd to render.
    pub examples: Vec<Example>,
    /// Documents by length: entry i counts those of 2^(i−1) to 2^i − 1 tokens.
    pub lengths: Vec<u64>,
    /// Tokens in them, by the same classes.
    #[serde(default)]
    pub tokens_by_length: Vec<u64>,
    /// Length of the shortest document.
    pub shortest: u64,
    /// Length of the middle document, to the accuracy of `lengths`.
    pub median: u64,
    /// Length of the longest document.
    pub longest: u64,
    /// The fields of the source that decide what is counted.
    #[serde(default)]
    pub settings: serde_json::Value,
    /// Identifies its files by their names and lengths.
    #[serde(default)]
    pub stamp: String,
    /// Shards of the cache that had to be made.
    pub shards_made: u64,
    /// Shards of the cache in all.
    pub shards: u64,
}

/// Records that became no document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Blank lines.
    pub blank: u64,
    /// Lines that are no JSON object.
    pub malformed: u64,
    /// Not UTF-8.
    pub invalid_utf8: u64,
    /// Without the text the source asks for.
    pub no_text: u64,
    /// With an empty text.
    pub empty: u64,
    /// Kept out by `where`.
    pub filtered: u64,
    /// Kept out by `dedup`.
    pub duplicates: u64,
    /// Kept out by `exclude`.
    pub excluded: u64,
}

impl Dropped {
    /// Records that are broken rather than unwanted.
    pub fn bad(&self) -> u64 {
        self.blank + self.malformed + self.invalid_utf8 + self.no_text
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.bad() + self.empty + self.filtered + self.duplicates + self.excluded
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.blank += other.blank;
        self.malformed += other.malformed;
        self.invalid_utf8 += other.invalid_utf8;
        self.no_text += other.no_text;
        self.empty += other.empty;
        self.filtered += other.filtered;
        self.duplicates += other.duplicates;
        self.excluded += other.excluded;
    }
}

/// A dropped record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// Its file.
    pub file: String,
    /// Line of a text format, row of a table; from 1.
    pub record: u64,
    /// Why it was dropped.
    pub what: String,
    /// Whether it is broken rather than unwanted.
    #[serde(default)]
    pub bad: bool,
}

/// Relative difference between declared and measured size from which they contradict each other.
const TOLERANCE: f64 = 0.05;

impl SourceSummary {
    /// Measured over declared size, when they differ by more than a twentieth.
    pub fn contradiction(&self) -> Option<f64> {
        let declared = self.declared_tokens.filter(|d| *d > 0)? as f64;
        let ratio = self.tokens as f64 / declared;
        ((ratio - 1.0).abs() > TOLERANCE).then_some(ratio)
    }

    /// Count documents of the given lengths.
    pub(crate) fn count_lengths(&mut self, lengths: impl Iterator<Item = u64>) {
        self.shortest = u64::MAX;
        for n in lengths {
            let bucket = (u64::BITS - n.leading_zeros()) as usize;
            if self.lengths.len() <= bucket {
                self.lengths.resize(bucket + 1, 0);
                self.tokens_by_length.resize(bucket + 1, 0);
            }
            self.lengths[bucket] += 1;
            self.tokens_by_length[bucket] += n;
            self.documents += 1;
            self.tokens += n;
            self.shortest = self.shortest.min(n);
            self.longest = self.longest.max(n);
        }
        if self.documents == 0 {
            self.shortest = 0;
            return;
        }
        let mut before = 0;
        for (bucket, count) in self.lengths.iter().enumerate() {
            if before + count > self.documents / 2 {
                // The middle of the bucket [2^(b-1), 2^b), by where in it the middle document is.
                let low = if bucket == 0 { 0 } else { 1u64 << (bucket - 1) };
                let into = (self.documents / 2 - before) as f64 / *count as f64;
                self.median = (low + (into * low as f64) as u64).clamp(self.shortest, self.longest);
                break;
            }
            before += count;
        }
    }
}
