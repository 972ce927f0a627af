//! `exclude`: documents that share thirteen words in a row with a test set are not trained on, as
//! Brown et al. (arXiv:2005.14165, appendix C) did. Words are runs of letters and digits without
//! regard to case; texts of fewer than thirteen words match nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::readers::{self, Body, Format, Stretch, View};
use super::{DataError, python_json};

/// Words in a row that make a match.
const GRAM: usize = 13;

/// The thirteen-word runs of some files, hashed to 64 bits.
#[derive(Debug, Default)]
pub(crate) struct Exclusion {
    /// Where each run was first seen: file and record.
    grams: HashMap<u64, (u32, u32)>,
    files: Vec<PathBuf>,
    digest: Option<blake3::Hash>,
}

impl Exclusion {
    /// Of every text in `files`: lines of JSON give all their strings, text files their text.
    pub(crate) fn read(files: &[(PathBuf, Format)]) -> Result<Self, DataError> {
        let mut out = Self::default();
        let mut hasher = blake3::Hasher::new();
        // Token files cannot be compared with text; `Body::Tokens` below says so.
        let view = View { vocab_size: usize::MAX, eos: 0, fields: None, needed: Vec::new() };
        for (path, format) in files {
            let file = out.files.len() as u32;
            out.files.push(path.clone());
            hasher.update(&std::fs::read(path).map_err(DataError::io("read", path))?);
            let stretch = Stretch { path: path.clone(), format: *format, range: None, records_before: 0 };
            for item in readers::open(&stretch, &view)? {
                let item = item?;
                let record = item.record;
                let bad = |what: String| DataError::BadText { path: path.clone(), record, what };
                let place = (file, record.min(u64::from(u32::MAX)) as u32);
                match item.body {
                    Body::Tokens(_) => return Err(DataError::Format { path: path.clone() }),
                    Body::Text(bytes) => out.add(&String::from_utf8_lossy(&bytes), place),
                    Body::Row(row) => out.add_strings(&Value::Object(row), place),
                    Body::Json(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => {}
                    Body::Json(bytes) => {
                        let value = python_json::read(&bytes).map_err(|e| bad(e.to_string()))?;
                        out.add_strings(&value, place);
                    }
                }
            }
        }
        if !files.is_empty() {
            out.digest = Some(hasher.finalize());
        }
        Ok(out)
    }

    /// Identifies the texts; `None` when there are none.
    pub(crate) fn digest(&self) -> Option<blake3::Hash> {
        self.digest
    }

    fn add_strings(&mut self, value: &Value, place: (u32, u32)) {
        match value {
            Value::String(text) => self.add(text, place),
            Value::Array(items) => items.iter().for_each(|v| self.add_strings(v, place)),
            Value::Object(fields) => fields.values().for_each(|v| self.add_strings(v, place)),
            _ => {}
        }
    }

    fn add(&mut self, text: &str, place: (u32, u32)) {
        for (gram, _) in grams(text) {
            self.grams.entry(gram).or_insert(place);
        }
    }

    /// Which text `text` shares a run with: a sentence for the report.
    pub(crate) fn find(&self, text: &str) -> Option<String> {
        if self.grams.is_empty() {
            return None;
        }
        let (place, at) = grams(text).find_map(|(gram, at)| Some((self.grams.get(&gram)?, at)))?;
        let words: Vec<&str> = text[at..].split_whitespace().take(GRAM).collect();
        let file = self.files.get(place.0 as usize).map_or(Path::new(""), PathBuf::as_path);
        Some(format!("shares \"{}\" with `{}`, record {}", words.join(" "), file.display(), place.1))
    }
}

/// Hashes of the runs of [`GRAM`] words of `text`, with the byte each starts at.
fn grams(text: &str) -> impl Iterator<Item = (u64, usize)> {
    let mut window = [(0u64, 0usize); GRAM];
    let mut count = 0;
    words(text).filter_map(move |(word, at)| {
        window[count % GRAM] = (word, at);
        count += 1;
        if count < GRAM {
            return None;
        }
        let first = count % GRAM;
        let hash = (0..GRAM).fold(0xCBF2_9CE4_8422_2325_u64, |hash, i| {
            let mixed =
                (hash.rotate_left(23) ^ window[(first + i) % GRAM].0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed ^ mixed >> 29
        });
        Some((hash, window[first].1))
    })
}

/// FNV-1a of each lower-cased word, with the byte it starts at.
fn words(text: &str) -> impl Iterator<Item = (u64, usize)> {
    let mut chars = text.char_indices().peekable();
    std::iter::from_fn(move || {
        let (start, first) = chars.find(|(_, c)| c.is_alphanumeric())?;
        let mut hash = 0xCBF2_9CE4_8422_2325_u64;
        let mut add = |c: char| {
            for lower in c.to_lowercase() {
                hash = (hash ^ u64::from(lower as u32)).wrapping_mul(0x0000_0100_0000_01B3);
            }
        };
        add(first);
        while let Some((_, c)) = chars.next_if(|(_, c)| c.is_alphanumeric()) {
            add(c);
        }
        Some((hash, start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exclusion(text: &str) -> Exclusion {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval.jsonl");
        std::fs::write(&path, format!("\n{}\n", serde_json::json!({"q": {"deep": [text]}, "n": 1}))).unwrap();
        Exclusion::read(&[(path.clone(), Format::of(&path).unwrap())]).unwrap()
    }

    const TEST: &str = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen.";

    #[test]
    fn thirteen_words_in_a_row_match() {
        let e = exclusion(TEST);
        let found = e.find(
            "before. TWO three, four-five six seven eight nine ten eleven twelve thirteen FOURTEEN after",
        );
        let found = found.unwrap();
        assert!(found.contains("TWO three, four-five") && found.contains("eval.jsonl`, record 2"), "{found}");
        assert!(e.find("two three four five six seven eight nine ten eleven twelve thirteen").is_none());
        assert!(
            e.find("two three four five six seven EIGHTY nine ten eleven twelve thirteen fourteen").is_none()
        );
        assert!(e.find("").is_none());
    }

    #[test]
    fn short_texts_match_nothing() {
        assert!(exclusion("a b c").find("a b c").is_none());
        assert!(Exclusion::default().digest().is_none());
    }
}
