//! Text to token ids through a Hugging Face `tokenizer.json`. The only file that names the
//! tokenizers crate.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::DataError;
use super::chat::ChatTemplate;

/// Longer texts are cut at line starts and encoded in parts, in parallel by the caller's threads,
/// where [`TextTokenizer::cuts_at_lines`] holds.
const PART_BYTES: usize = 1 << 20;

/// Names of added tokens that end a document, tried in this order when no configuration says.
const EOS_NAMES: [&str; 8] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|end▁of▁sentence|>",
    "[EOS]",
];

/// A tokenizer with what is known about it.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    path: PathBuf,
    eos: u32,
    largest: u32,
    digest: blake3::Hash,
    cuts_at_lines: bool,
    /// What the post-processor puts before a text.
    opening: Vec<u32>,
    /// Whether a text gets a blank in front that it does not have, as by `Metaspace`.
    begins_blank: bool,
    chat: Option<Arc<ChatTemplate>>,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("path", &self.path)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Load `path`, a `tokenizer.json` or the directory it lies in, that a curriculum or a command names.
    ///
    /// The end-of-sequence token is, in this order: `eos_token` of `tokenizer_config.json` beside
    /// it; `eos_token_id` of `config.json` (the first of a list); `eos_token` of
    /// `special_tokens_map.json`; the first of `<|endoftext|>`, `<|end_of_text|>`, `</s>`,
    /// `<eos>`, `<|eot_id|>`, `<|im_end|>`, `<|end▁of▁sentence|>`, `[EOS]` that is in the vocabulary.
    ///
    /// # Errors
    /// A file of it cannot be read or understood, or no such token is found.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let (path, json, files) = read(path)?;
        let config = json_of(&path, &read_beside(&path, &["config.json"])?, "config.json")?;
        let special = json_of(&path, &files, "special_tokens_map.json")?;
        Self::with_files(&path, &json, &files, |named| {
            [named, eos_id(&config).map(Eos::Id), eos_name(&special)]
        })
    }

    /// The tokenizer of a checkpoint, from the text of its `tokenizer.json`, which `path` names in messages, and the
    /// `files` beside it by name: what a model is trained with, and what is counted and written for its training.
    ///
    /// Documents end with `eos`, the model's own end of sequence, where it is in the vocabulary: it is what the model has
    /// learned to end a text with, where `tokenizer_config.json` may name what ends the turn of a dialogue. Without it,
    /// the tokenizer's own word counts, then that of `special_tokens_map.json`, then the names that
    /// [`TextTokenizer::open`] tries.
    ///
    /// # Errors
    /// A file cannot be understood, or there is no end-of-sequence token.
    pub fn of_checkpoint(
        path: &Path,
        json: &[u8],
        files: &BTreeMap<String, Vec<u8>>,
        eos: Option<u32>,
    ) -> Result<Self, DataError> {
        let special = json_of(path, files, "special_tokens_map.json")?;
        Self::with_files(path, json, files, |named| [eos.map(Eos::Id), named, eos_name(&special)])
    }

    /// [`TextTokenizer::of_checkpoint`] for the checkpoint in the directory `dir`.
    ///
    /// # Errors
    /// As there; a file cannot be read.
    pub fn open_checkpoint(dir: &Path, eos: Option<u32>) -> Result<Self, DataError> {
        let (path, json, files) = read(dir)?;
        Self::of_checkpoint(&path, &json, &files, eos)
    }

    /// Identifies the tokenizer that [`TextTokenizer::open`] loads by what its files hold, without loading it.
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn stamp(path: &Path) -> Result<String, DataError> {
        let (path, json, files) = read(path)?;
        let config = json_of(&path, &read_beside(&path, &["config.json"])?, "config.json")?;
        Ok(stamp(&json, &files, eos_id(&config)))
    }

    /// That of [`TextTokenizer::open_checkpoint`].
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn stamp_of_checkpoint(dir: &Path, eos: Option<u32>) -> Result<String, DataError> {
        let (_, json, files) = read(dir)?;
        Ok(stamp(&json, &files, eos))
    }

    /// With the chat template that `files` beside it have, and the end of sequence that is the first in the vocabulary of
    /// those that `order` gives, among them what `tokenizer_config.json` names.
    fn with_files(
        path: &Path,
        json: &[u8],
        files: &BTreeMap<String, Vec<u8>>,
        order: impl FnOnce(Option<Eos>) -> [Option<Eos>; 3],
    ) -> Result<Self, DataError> {
        let config = json_of(path, files, "tokenizer_config.json")?;
        let jinja = match files.get("chat_template.jinja").map(|text| std::str::from_utf8(text)) {
            None => None,
            Some(Ok(text)) => Some(text),
            Some(Err(_)) => {
                let why = "is not UTF-8 in `chat_template.jinja`".to_owned();
                return Err(DataError::ChatTemplate { path: path.to_owned(), why });
            }
        };
        let words = order(eos_name(&config));
        Self::from_bytes(path, json, |inner| words.iter().flatten().find_map(|word| word.id(inner)))?
            .with_chat_template(&config, jinja)
    }

    /// From the text of a `tokenizer.json` alone that `path` names in messages, with the id of its
    /// end-of-sequence token where known.
    ///
    /// # Errors
    /// The text cannot be understood, or there is no end-of-sequence token.
    pub fn from_json(path: &Path, json: &[u8], eos: Option<u32>) -> Result<Self, DataError> {
        Self::of_checkpoint(path, json, &BTreeMap::new(), eos)
    }

    /// The same, writing dialogues by the template in the text of `chat_template.jinja` or the
    /// content of `tokenizer_config.json`, where either has one.
    ///
    /// # Errors
    /// The template is not Jinja.
    pub fn with_chat_template(mut self, config: &Value, jinja: Option<&str>) -> Result<Self, DataError> {
        let broken = |why| DataError::ChatTemplate { path: self.path.clone(), why };
        self.chat = ChatTemplate::find(config, jinja).map_err(broken)?.map(Arc::new);
        if let Some(chat) = &self.chat {
            let mut hasher = blake3::Hasher::new();
            hasher.update(self.digest.as_bytes()).update(chat.digest().as_bytes());
            self.digest = hasher.finalize();
        }
        Ok(self)
    }

    /// How dialogues are written.
    pub(crate) fn chat(&self) -> Option<&ChatTemplate> {
        self.chat.as_deref()
    }

    fn from_bytes(
        path: &Path,
        bytes: &[u8],
        eos: impl FnOnce(&Tokenizer) -> Option<u32>,
    ) -> Result<Self, DataError> {
        let broken =
            |why: tokenizers::Error| DataError::Tokenizer { path: path.to_owned(), why: why.to_string() };
        // The library takes for granted that its decoders are whole JSON, and panics on some of what it
        // calls precompiled.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|e| broken(e.into()))?;
        let mut inner = std::panic::catch_unwind(|| Tokenizer::from_bytes(bytes))
            .unwrap_or_else(|_| Err("the library gave up on its content".into()))
            .map_err(broken)?;
        // Documents are cut by packing and never padded.
        inner.with_truncation(None).map_err(broken)?;
        inner.with_padding(None);
        let eos = eos(&inner)
            .or_else(|| EOS_NAMES.iter().find_map(|name| inner.token_to_id(name)))
            .ok_or_else(|| DataError::NoEos { path: path.to_owned() })?;
        let largest = inner.get_vocab(true).into_values().max().unwrap_or(0);
        let mut hasher = blake3::Hasher::new();
        hasher.update(bytes).update(&eos.to_le_bytes());
        let mut tokenizer = Self {
            inner,
            path: path.to_owned(),
            eos,
            largest,
            digest: hasher.finalize(),
            cuts_at_lines: false,
            opening: Vec::new(),
            begins_blank: false,
            chat: None,
        };
        tokenizer.begins_blank = tokenizer.probe_blank();
        tokenizer.opening = tokenizer.probe_opening();
        if !tokenizer.opening.is_empty() {
            // Once, documents began without it.
            let mut hasher = blake3::Hasher::new();
            hasher.update(tokenizer.digest.as_bytes()).update(b"\nopened");
            tokenizer.digest = hasher.finalize();
        }
        tokenizer.cuts_at_lines = tokenizer.probe_cuts();
        Ok(tokenizer)
    }

    /// Whether a line start as [`parts`] cuts at is always a token boundary, so that long
    /// texts can be encoded in parts: true of byte-level pre-tokenizers, false of those that put a
    /// space before the text.
    fn probe_cuts(&self) -> bool {
        const PROBES: [(&str, &str); 5] = [
            ("alpha beta\n", "gamma delta"),
            ("1 2 3\n", "4 5 6"),
            ("}\n", "fn main() {}\n"),
            ("\t.\n", "x\ty"),
            ("été!\n", "abc é"),
        ];
        PROBES.iter().all(|(a, b)| {
            let (whole, head, tail) = (self.encode(&format!("{a}{b}")), self.encode(a), self.encode(b));
            matches!((whole, head, tail), (Ok(w), Ok(h), Ok(t)) if w[..] == [&h[..], &t[..]].concat())
        })
    }

    /// Whether what is encoded on its own stands apart from what is before it.
    fn probe_blank(&self) -> bool {
        let both = self.encode("alpha").and_then(|a| Ok([a, self.encode("beta")?].concat()));
        both.and_then(|ids| self.decode(&ids)).is_ok_and(|text| text.contains("alpha beta"))
    }

    /// What stands before the tokens of a text where special tokens are added.
    fn probe_opening(&self) -> Vec<u32> {
        const PROBE: &str = "alpha";
        let (Ok(bare), Ok(whole)) = (self.encode(PROBE), self.encode_as_configured(PROBE)) else {
            return Vec::new();
        };
        let at = whole.windows(bare.len().max(1)).position(|part| part == bare);
        at.map_or_else(Vec::new, |at| whole[..at].to_vec())
    }

    /// `tokens` of a text behind what the tokenizer puts before one, such as the beginning-of-sequence token of Llama 3 and
    /// Gemma, unless they begin with it.
    pub fn opened(&self, mut tokens: Vec<u32>) -> Vec<u32> {
        if !tokens.starts_with(&self.opening) {
            tokens.splice(..0, self.opening.iter().copied());
        }
        tokens
    }

    /// Whether it puts a blank before a text.
    pub(crate) fn begins_blank(&self) -> bool {
        self.begins_blank
    }

    /// Where it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token that ends a document.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The largest id.
    pub fn largest(&self) -> u32 {
        self.largest
    }

    /// Identifies the tokenizer's behaviour.
    pub(crate) fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// The id of a token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// That every id has a row in an embedding of `vocab_size` rows (which may have more).
    ///
    /// # Errors
    /// Names both sizes.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<(), DataError> {
        if self.largest as usize >= vocab_size {
            return Err(DataError::Vocabulary { path: self.path.clone(), largest: self.largest, vocab_size });
        }
        Ok(())
    }

    /// Token ids of `text` without special tokens around it. Special tokens spelled out in the
    /// text become those tokens, as in transformers.
    ///
    /// # Errors
    /// What the library says.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self.inner.encode_fast(text, false).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text` with the special tokens the tokenizer adds, as
    /// `tokenizer(text).input_ids` in transformers.
    ///
    /// # Errors
    /// What the library says.
    pub fn encode_as_configured(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoding = self.inner.encode_fast(text, true).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of `text` and the bytes each covers.
    pub(crate) fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>, String> {
        let encoding = self.inner.encode(text, false).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().iter().zip(encoding.get_offsets()).map(|(id, (a, b))| (*id, *a..*b)).collect())
    }

    /// As [`TextTokenizer::encode`], long texts in parallel parts where that makes no difference.
    pub(crate) fn encode_document(&self, text: &str) -> Result<Vec<u32>, String> {
        if text.len() <= 2 * PART_BYTES || !self.cuts_at_lines {
            return self.encode(text);
        }
        use rayon::prelude::*;
        let parts: Vec<Vec<u32>> =
            parts(text).into_par_iter().map(|part| self.encode(part)).collect::<Result<_, _>>()?;
        Ok(parts.concat())
    }

    /// The same of what goes on from other text, without the blank that some put before a text: encoded behind a sign that is
    /// cut off again, as Code Llama's own tokenizer does.
    pub(crate) fn encode_rest(&self, text: &str) -> Result<Vec<u32>, String> {
        const SIGN: &str = "☺";
        if !self.begins_blank || text.is_empty() {
            return self.encode_document(text);
        }
        let sign = self.encode(SIGN)?;
        let whole = self.encode_document(&format!("{SIGN}{text}"))?;
        match whole.strip_prefix(&sign[..]) {
            Some(rest) if !rest.is_empty() => Ok(rest.to_vec()),
            _ => self.encode_document(text),
        }
    }

    /// The text of `ids`, special tokens included.
    ///
    /// # Errors
    /// What the library says.
    pub fn decode(&self, ids: &[u32]) -> Result<String, String> {
        self.inner.decode(ids, false).map_err(|e| e.to_string())
    }
}

/// A word on which token ends a document.
#[derive(Debug)]
enum Eos {
    Named(String),
    Id(u32),
}

impl Eos {
    /// Its id, if it is in the vocabulary.
    fn id(&self, tokenizer: &Tokenizer) -> Option<u32> {
        match self {
            Self::Named(name) => tokenizer.token_to_id(name),
            Self::Id(id) => Some(*id).filter(|id| tokenizer.id_to_token(*id).is_some()),
        }
    }
}

/// `eos_token` of a `tokenizer_config.json` or a `special_tokens_map.json`.
fn eos_name(config: &Value) -> Option<Eos> {
    let token = &config["eos_token"];
    Some(Eos::Named(token.as_str().or(token["content"].as_str())?.to_owned()))
}

/// `eos_token_id` of a `config.json`, the first of a list.
pub(in crate::runtime) fn eos_id(config: &Value) -> Option<u32> {
    let id = [&config["eos_token_id"], &config["text_config"]["eos_token_id"]];
    id.into_iter().find_map(|v| v.as_u64().or(v[0].as_u64())).and_then(|id| u32::try_from(id).ok())
}

/// The path and the text of the `tokenizer.json` at `path` or in it, and the files beside it that say how it is used.
type Files = (PathBuf, Vec<u8>, BTreeMap<String, Vec<u8>>);

fn read(path: &Path) -> Result<Files, DataError> {
    let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
    let json = std::fs::read(&path).map_err(DataError::io("read", &path))?;
    let files = read_beside(&path, &USED_BY)?;
    Ok((path, json, files))
}

fn stamp(json: &[u8], files: &BTreeMap<String, Vec<u8>>, eos: Option<u32>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, content) in
        files.iter().map(|(name, content)| (name.as_str(), &content[..])).chain([("", json)])
    {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hasher.update(&(content.len() as u64).to_le_bytes()).update(content);
    }
    hasher.update(format!("{eos:?}").as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

/// What decides, beside `tokenizer.json`, which tokens a text gives.
const USED_BY: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"];

/// Those of `names` that lie beside `path`.
fn read_beside(path: &Path, names: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, DataError> {
    let mut files = BTreeMap::new();
    for name in names {
        let file = path.with_file_name(name);
        match std::fs::read(&file) {
            Ok(content) => drop(files.insert((*name).to_owned(), content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(DataError::io("read", &file)(error)),
        }
    }
    Ok(files)
}

/// The JSON of one of `files` beside `path`; null where it is not there.
fn json_of(path: &Path, files: &BTreeMap<String, Vec<u8>>, name: &str) -> Result<Value, DataError> {
    let Some(content) = files.get(name) else { return Ok(Value::Null) };
    serde_json::from_slice(content).map_err(|error| DataError::Tokenizer {
        path: path.with_file_name(name),
        why: format!("it is not JSON: {error}"),
    })
}

/// Cut `text` after about every [`PART_BYTES`] where a line that starts with an ASCII letter or
/// digit follows one that ends in neither white space nor nothing: longer runs of white space are
/// divided by what follows them.
fn parts(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut parts = Vec::new();
    let mut start = 0;
    while bytes.len() - start > 2 * PART_BYTES {
        let from = start + PART_BYTES;
        let is_cut = |w: &[u8]| w[0].is_ascii_graphic() && w[1] == b'\n' && w[2].is_ascii_alphanumeric();
        let Some(cut) = bytes[from..].windows(3).position(is_cut) else { break };
        parts.push(&text[start..from + cut + 2]);
        start = from + cut + 2;
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> TextTokenizer {
        TextTokenizer::open(Path::new("examples/data")).unwrap()
    }

    /// Ids from `transformers.AutoTokenizer.from_pretrained("examples/data")`.
    #[test]
    fn agrees_with_transformers() {
        let t = example();
        let ids = t.encode("Hello 2024 wörld\n<|endoftext|>").unwrap();
        assert_eq!(ids, [46, 309, 547, 227, 24, 22, 24, 26, 285, 134, 121, 88, 487, 205, 0]);
        assert_eq!((t.eos(), t.largest()), (0, 4095));
        assert_eq!(t.decode(&ids).unwrap(), "Hello 2024 wörld\n<|endoftext|>");
    }

    #[test]
    fn long_texts_in_parts_are_the_same() {
        let t = example();
        assert!(t.cuts_at_lines);
        let line = "Some words, 12 numbers; and a line.\n\n  indented\nnext\n";
        let text = line.repeat(3 * PART_BYTES / line.len());
        assert!(parts(&text).len() > 1);
        assert_eq!(parts(&text).concat(), text);
        assert_eq!(t.encode_document(&text).unwrap(), t.encode(&text).unwrap());
        assert_eq!(parts(&"\n".repeat(4 * PART_BYTES)).len(), 1);
    }

    #[test]
    fn what_makes_the_library_panic_is_an_error() {
        let whole = String::from_utf8(std::fs::read("examples/data/tokenizer.json").unwrap()).unwrap();
        let decoder = whole.find("\"decoder\"").unwrap();
        let inside = decoder + whole[decoder..].find('}').unwrap();
        let precompiled = r#"{"type": "Precompiled", "precompiled_charsmap": "AAAA"}"#;
        let json: Value = serde_json::from_str(&whole).unwrap();
        let mut other = json.clone();
        other["normalizer"] = serde_json::from_str(precompiled).unwrap();
        for text in [whole[..inside].to_owned(), whole[..inside].to_owned() + "]", other.to_string()] {
            let error = TextTokenizer::from_json(Path::new("t.json"), text.as_bytes(), None);
            assert!(matches!(error, Err(DataError::Tokenizer { .. })));
        }
    }

    #[test]
    fn the_end_token_is_found_in_the_documented_order() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::copy("examples/data/tokenizer.json", dir.path().join("tokenizer.json")).unwrap();
        let eos = || TextTokenizer::open(dir.path()).unwrap().eos();
        assert_eq!(eos(), 0);
        write("special_tokens_map.json", r#"{"eos_token": {"content": "<|im_start|>"}}"#);
        assert_eq!(eos(), 1);
        write("config.json", r#"{"eos_token_id": [2, 0]}"#);
        assert_eq!(eos(), 2);
        write("config.json", r#"{"eos_token_id": 99999}"#);
        assert_eq!(eos(), 1);
        write("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#);
        assert_eq!(eos(), 2);
        // What an own tokenizer of a model is read with puts the model's word first.
        let of_model = |eos| TextTokenizer::open_checkpoint(dir.path(), eos).unwrap().eos();
        assert_eq!([None, Some(0), Some(1), Some(99_999)].map(of_model), [2, 0, 1, 2]);
        write("tokenizer_config.json", "{}");
        assert_eq!([None, Some(0)].map(of_model), [1, 0]);
    }

    #[test]
    fn files_that_cannot_be_understood_are_told() {
        for name in ["tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "config.json"]
        {
            let dir = tempfile::tempdir().unwrap();
            std::fs::copy("examples/data/tokenizer.json", dir.path().join("tokenizer.json")).unwrap();
            let said = || {
                let opened = TextTokenizer::open(dir.path());
                let of_model = TextTokenizer::open_checkpoint(dir.path(), Some(0));
                let [a, b] = [opened, of_model].map(|t| t.map(drop).map_err(|e| e.to_string()));
                if name != "config.json" {
                    assert_eq!(a, b);
                }
                a.unwrap_err()
            };
            std::fs::write(dir.path().join(name), b"{ \xff").unwrap();
            assert!(said().contains(name), "{}", said());
            std::fs::remove_file(dir.path().join(name)).unwrap();
            std::fs::create_dir(dir.path().join(name)).unwrap();
            assert!(said().contains("cannot read") && said().contains(name), "{}", said());
        }
    }

    #[test]
    fn a_small_embedding_is_refused() {
        let error = example().check_vocabulary(4095).unwrap_err().to_string();
        assert!(error.contains("4095") && error.contains("vocab_size"), "{error}");
        example().check_vocabulary(4096).unwrap();
    }

    #[test]
    fn hostile_files_are_errors() {
        for bad in ["", "{}", "[1]", "\u{0}", r#"{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}"#] {
            assert!(TextTokenizer::from_json(Path::new("t.json"), bad.as_bytes(), None).is_err(), "{bad}");
        }
    }
}
