//! From a raw record to the tokens of a document, or the reason why it is none. Runs on every core;
//! knows neither files nor the cache.

use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};
use serde_json::Value;

use super::decontaminate::Exclusion;
use super::filter::Filter;
use super::fim::Fim;
use super::readers::{Body, View};
use super::record::{Dialogues, Rendered, TextOf, field};
use super::summary::Dropped;
use super::{OnBad, TextTokenizer, python_json};

/// How the records of a source become documents.
#[derive(Debug)]
pub(crate) struct Recipe<'a> {
    pub(crate) tokenizer: &'a TextTokenizer,
    pub(crate) vocab_size: usize,
    pub(crate) text: TextOf,
    pub(crate) filter: Option<Filter>,
    /// Fields that `filter` reads and no record has had yet.
    pub(crate) unseen: Unseen,
    /// Fields and roles that carry loss; empty for all.
    pub(crate) loss_on: Vec<String>,
    /// The day that chat templates see.
    pub(crate) today: Option<NaiveDate>,
    pub(crate) fim: Option<Fim>,
    pub(crate) exclusion: Exclusion,
    /// Field the order is by.
    pub(crate) sort_by: Option<String>,
    pub(crate) on_bad: OnBad,
}

/// Fields of a condition that no record has had so far: most likely none has them.
#[derive(Debug, Default)]
pub(crate) struct Unseen(Vec<(String, AtomicBool)>);

impl Unseen {
    pub(crate) fn of(filter: Option<&Filter>) -> Self {
        let mut fields = Vec::new();
        if let Some(filter) = filter {
            filter.fields(&mut fields);
        }
        fields.sort_unstable();
        fields.dedup();
        Self(fields.into_iter().map(|name| (name, AtomicBool::new(true))).collect())
    }

    fn look(&self, record: &Value) {
        for (name, unseen) in &self.0 {
            if unseen.load(Relaxed) && !field(record, name).is_null() {
                unseen.store(false, Relaxed);
            }
        }
    }

    /// Which they are, to begin again.
    pub(crate) fn take(&self) -> Vec<String> {
        let unseen = |(name, unseen): &(String, AtomicBool)| unseen.swap(true, Relaxed).then(|| name.clone());
        self.0.iter().filter_map(unseen).collect()
    }
}

/// What became of a record.
pub(crate) enum Outcome {
    Document {
        tokens: Vec<u32>,
        /// Which tokens carry loss; empty when all do.
        loss: Vec<bool>,
        /// Of the text.
        hash: u128,
        /// For the order; NaN for none.
        key: f64,
        /// Of text.
        bytes: u64,
    },
    Dropped {
        why: fn(&mut Dropped),
        /// For the report; empty when counting is enough.
        what: String,
        /// Whether it is broken rather than unwanted.
        bad: bool,
    },
    /// The tokenizer failed.
    Failed(String),
}

impl Outcome {
    fn bad(why: fn(&mut Dropped), what: impl Into<String>) -> Self {
        Self::Dropped { why, what: what.into(), bad: true }
    }

    fn unwanted(why: fn(&mut Dropped), what: String) -> Self {
        Self::Dropped { why, what, bad: false }
    }
}

impl Recipe<'_> {
    /// Everything that decides what tokens a record gives, but the tokenizer.
    fn key(&self) -> String {
        let some = |inner: Option<String>| inner.map_or("None".to_owned(), |inner| format!("Some({inner})"));
        let width = if self.vocab_size <= 1 << 16 { 2 } else { 4 };
        [
            self.text.canonical(),
            some(self.filter.as_ref().map(Filter::canonical)),
            format!("{:?}", self.loss_on),
            some(self.fim.as_ref().map(Fim::canonical)),
            some(self.exclusion.digest().map(|digest| format!("Hash({:?})", digest.to_hex().as_str()))),
            format!("{:?}", self.sort_by),
            width.to_string(),
        ]
        .join("\n")
    }

    /// Everything that decides what tokens a record gives.
    pub(crate) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.tokenizer.digest().as_bytes()).update(self.key().as_bytes());
        if !self.loss_on.is_empty() && self.tokenizer.chat().is_none() {
            // Once, `gpt` was no name of the assistant where no template writes dialogues.
            hasher.update(b"\nroles by either name");
        }
        if let Some(today) = self.today {
            hasher.update(format!("\n{today}").as_bytes());
        }
        hasher.finalize()
    }

    /// What the readers need to know.
    pub(crate) fn view(&self) -> View {
        let mut fields = self.text.fields();
        fields.extend(self.sort_by.clone());
        if let Some(filter) = &self.filter {
            filter.fields(&mut fields);
        }
        View {
            vocab_size: self.vocab_size,
            eos: self.tokenizer.eos(),
            fields: Some(fields),
            needed: self.text.needed(),
        }
    }

    /// Make a document of `body`.
    pub(crate) fn document(&self, body: Body) -> Outcome {
        let record = match body {
            Body::Tokens(tokens) => return self.tokens(tokens),
            Body::Text(bytes) => match String::from_utf8(bytes) {
                Ok(text) => return self.text(Rendered { text, ..Rendered::default() }, &Value::Null),
                Err(error) => {
                    let what = format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to());
                    return Outcome::bad(|d| d.invalid_utf8 += 1, what);
                }
            },
            Body::Row(row) => Value::Object(row),
            Body::Json(bytes) => match parse(&bytes) {
                Ok(record) => record,
                Err(outcome) => return outcome,
            },
        };
        self.unseen.look(&record);
        if self.filter.as_ref().and_then(|f| f.passes(&record, None)) == Some(false) {
            return Outcome::unwanted(|d| d.filtered += 1, String::new());
        }
        let dialogues =
            Dialogues { chat: self.tokenizer.chat(), turns: !self.loss_on.is_empty(), today: self.today };
        match self.text.render(&record, dialogues) {
            Ok(rendered) => self.text(rendered, &record),
            Err(what) => Outcome::bad(|d| d.no_text += 1, format!("{what}{}", fields_of(&record))),
        }
    }

    fn text(&self, rendered: Rendered, record: &Value) -> Outcome {
        let text = rendered.text.as_str();
        if text.is_empty() {
            return Outcome::unwanted(|d| d.empty += 1, String::new());
        }
        if let Some(what) = self.exclusion.find(text) {
            return Outcome::unwanted(|d| d.excluded += 1, what);
        }
        let (mut tokens, mut loss) = match self.encode(&rendered) {
            Ok(encoded) => encoded,
            Err(why) => return Outcome::Failed(why),
        };
        let eos = self.tokenizer.eos();
        if tokens.last() != Some(&eos) {
            tokens.push(eos);
            if !self.loss_on.is_empty() {
                // To stop is part of what ends the document.
                let ends = |(name, span): &(String, Range<usize>)| {
                    self.loss_on.contains(name) && span.end == text.len()
                };
                loss.push(rendered.spans.iter().any(ends));
            }
        }
        if self.filter.as_ref().and_then(|f| f.passes(record, Some(tokens.len() as u64))) == Some(false) {
            return Outcome::unwanted(|d| d.filtered += 1, String::new());
        }
        let key = self.sort_by.as_ref().map_or(f64::NAN, |name| match name.as_str() {
            "length" => tokens.len() as f64,
            name => number(field(record, name)),
        });
        Outcome::Document { tokens, loss, hash: content_hash(text.as_bytes()), key, bytes: text.len() as u64 }
    }

    /// Tokens and, where not all carry loss, which do: those that have a byte in a field of
    /// `loss_on`. What opens a text, a chat template writes itself.
    fn encode(&self, rendered: &Rendered) -> Result<(Vec<u32>, Vec<bool>), String> {
        let opened = |tokens| if rendered.templated { tokens } else { self.tokenizer.opened(tokens) };
        let text = rendered.text.as_str();
        if self.loss_on.is_empty() {
            let rearranged = match &self.fim {
                Some(fim) => fim.apply(text, self.tokenizer)?,
                None => None,
            };
            let tokens = rearranged.map_or_else(|| self.tokenizer.encode_document(text), Ok)?;
            return Ok((opened(tokens), Vec::new()));
        }
        let of_loss = rendered.spans.iter().filter(|(name, _)| self.loss_on.contains(name));
        let wanted = apart(of_loss.map(|(_, span)| span.clone()).collect());
        let encoded = self.tokenizer.encode_with_offsets(text)?;
        let has_loss = |at: &Range<usize>| {
            let next = wanted.partition_point(|span| span.end <= at.start);
            wanted.get(next).is_some_and(|span| span.start < at.end)
        };
        let (tokens, mut loss): (Vec<_>, Vec<_>) =
            encoded.into_iter().map(|(id, at)| (id, has_loss(&at))).unzip();
        let tokens = opened(tokens);
        loss.splice(..0, std::iter::repeat_n(false, tokens.len() - loss.len()));
        Ok((tokens, loss))
    }

    fn tokens(&self, mut tokens: Vec<u32>) -> Outcome {
        let eos = self.tokenizer.eos();
        if tokens.is_empty() || tokens == [eos] {
            return Outcome::unwanted(|d| d.empty += 1, String::new());
        }
        if tokens.last() != Some(&eos) {
            tokens.push(eos);
        }
        let length = tokens.len() as u64;
        if self.filter.as_ref().and_then(|f| f.passes(&Value::Null, Some(length))) == Some(false) {
            return Outcome::unwanted(|d| d.filtered += 1, String::new());
        }
        let bytes: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        let key = if self.sort_by.as_deref() == Some("length") { length as f64 } else { f64::NAN };
        Outcome::Document { hash: content_hash(&bytes), tokens, loss: Vec::new(), key, bytes: 0 }
    }
}

/// `spans` in the order of their text, those that overlap as one: of a long dialogue there are thousands, and each token
/// is looked up in them.
fn apart(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_unstable_by_key(|span| (span.start, span.end));
    let mut out: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match out.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => out.push(span),
        }
    }
    out
}

/// The names of the fields of `record` for a message: what the text may be called instead.
fn fields_of(record: &Value) -> String {
    const MOST: usize = 12;
    let Some(fields) = record.as_object().filter(|fields| !fields.is_empty()) else { return String::new() };
    let names: Vec<String> = fields.keys().take(MOST).map(|name| format!("`{name}`")).collect();
    let more = if fields.len() > MOST { ", …" } else { "" };
    format!(" (its fields: {}{more})", names.join(", "))
}

fn parse(line: &[u8]) -> Result<Value, Outcome> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Err(Outcome::bad(|d| d.blank += 1, "a blank line"));
    }
    if let Err(error) = std::str::from_utf8(line) {
        let what = format!("not UTF-8 at byte {}", error.valid_up_to());
        return Err(Outcome::bad(|d| d.invalid_utf8 += 1, what));
    }
    match python_json::read(line) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(Value::Array(_)) => Err(Outcome::bad(
            |d| d.malformed += 1,
            "a JSON array where an object is expected; write one record a line",
        )),
        Ok(_) => Err(Outcome::bad(|d| d.malformed += 1, "not a JSON object")),
        Err(error) => {
            // serde_json counts lines of its own input, which is one.
            let what = format!("malformed JSON: {error}").replace(" at line 1 column", " at column");
            Err(Outcome::bad(|d| d.malformed += 1, what))
        }
    }
}

/// The first half of blake3.
fn content_hash(bytes: &[u8]) -> u128 {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    u128::from_be_bytes(out)
}

fn number(value: &Value) -> f64 {
    match value {
        Value::Number(n) => n.as_f64().unwrap_or(f64::NAN),
        Value::Bool(b) => f64::from(u8::from(*b)),
        Value::String(s) => s.trim().parse().ok().or_else(|| moment(s.trim())).unwrap_or(f64::NAN),
        _ => f64::NAN,
    }
}

/// Seconds from 1970 to a day or moment in the form of ISO 8601 without a time zone, or of UTC; of a time, from midnight.
fn moment(text: &str) -> Option<f64> {
    let day = |text: &str| text.parse::<NaiveDate>().ok().map(|day| day.and_time(NaiveTime::MIN));
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00")).unwrap_or(text);
    let clock = |text: &str| {
        text.parse::<NaiveTime>().ok().map(|time| DateTime::UNIX_EPOCH.date_naive().and_time(time))
    };
    let whole = || text.replacen(' ', "T", 1).parse::<NaiveDateTime>().ok();
    let at = day(text).or_else(whole).or_else(|| clock(text))?;
    Some(at.and_utc().timestamp_micros() as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::FimPlan;
    use crate::runtime::data::Order;
    use crate::runtime::data::readers::{Compression, Format};

    /// Changing this makes every shard of every cache anew, and runs under way refuse to go on.
    const PINNED: &str = r#"Template([Literal("Q: \"\n"), Field("q.text")])
Some(Or(And(Compare(Field("lang"), Ne, Text("en")), Compare(Length, Le, Number(4096.0))), Not(Holds("ok"))))
["answer", "assistant"]
Some(Fim { rate: 0.5, suffix_first: true, prefix: 1, suffix: 2, middle: 3 })
None
Some("level")
2"#;

    #[test]
    fn the_key_of_the_cache_is_pinned() {
        let tokenizer = TextTokenizer::open(Path::new("examples/data")).unwrap();
        let where_ = "lang != \"en\" and length <= 4096 or not ok";
        let fim = Fim::new("code", &FimPlan { rate: 0.5, style: "spm".into() }, &tokenizer).unwrap();
        let pinned = |ids: [u32; 3]| {
            let [prefix, suffix, middle] = ids.map(|id| id.to_string());
            let marks = format!("prefix: {prefix}, suffix: {suffix}, middle: {middle}");
            PINNED.replace("prefix: 1, suffix: 2, middle: 3", &marks)
        };
        let marks = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"].map(|m| tokenizer.id(m).unwrap());
        let mut recipe = Recipe {
            tokenizer: &tokenizer,
            vocab_size: 4096,
            text: TextOf::parse(Some("Q: \"\n{q.text}")).unwrap(),
            filter: Some(Filter::parse(where_).unwrap()),
            unseen: Unseen::default(),
            loss_on: vec!["answer".into(), "assistant".into()],
            today: None,
            fim: Some(fim),
            exclusion: Exclusion::default(),
            sort_by: Some("level".into()),
            on_bad: OnBad::Fail,
        };
        assert_eq!(recipe.key(), pinned(marks));
        recipe = Recipe {
            vocab_size: 1 << 17,
            text: TextOf::Auto,
            filter: Some(Filter::parse("a == yes and b > 1e16 and \"x\" < c and d >= 0.5").unwrap()),
            loss_on: Vec::new(),
            fim: None,
            sort_by: None,
            ..recipe
        };
        let filter = "And(And(And(Compare(Field(\"a\"), Eq, Bool(true)), Compare(Field(\"b\"), Gt, Number(1e16))), \
                      Compare(Text(\"x\"), Lt, Field(\"c\"))), Compare(Field(\"d\"), Ge, Number(0.5)))";
        assert_eq!(recipe.key(), format!("Auto\nSome({filter})\n[]\nNone\nNone\nNone\n4"));
    }

    #[test]
    fn the_hash_of_what_is_excluded_is_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.txt");
        std::fs::write(&path, "words").unwrap();
        let exclusion = Exclusion::read(&[(path, Format::Text(Compression::None))]).unwrap();
        let hash = blake3::hash(b"words").to_hex();
        let tokenizer = TextTokenizer::open(Path::new("examples/data")).unwrap();
        let recipe = Recipe {
            tokenizer: &tokenizer,
            vocab_size: 4096,
            text: TextOf::Field("body".into()),
            filter: None,
            unseen: Unseen::default(),
            loss_on: Vec::new(),
            today: None,
            fim: None,
            exclusion,
            sort_by: None,
            on_bad: OnBad::Fail,
        };
        assert_eq!(recipe.key(), format!("Field(\"body\")\nNone\n[]\nNone\nSome(Hash(\"{hash}\"))\nNone\n2"));
    }

    #[test]
    fn tokens_of_many_spans_carry_loss_as_each_span_says() {
        let tokenizer = TextTokenizer::open(Path::new("examples/data")).unwrap();
        let recipe = Recipe {
            tokenizer: &tokenizer,
            vocab_size: 4096,
            text: TextOf::Auto,
            filter: None,
            unseen: Unseen::default(),
            loss_on: vec!["a".into()],
            today: None,
            fim: None,
            exclusion: Exclusion::default(),
            sort_by: None,
            on_bad: OnBad::Fail,
        };
        let text = "one two three four five six seven eight nine ten";
        let at = |i: u64| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % (text.len() + 1);
        for case in 0..200 {
            let spans: Vec<_> = (0..case % 7)
                .map(|i| {
                    let (x, y) = (at(case * 20 + i), at(case * 20 + i + 10));
                    (["a", "b"][i as usize % 2].to_owned(), x.min(y)..x.max(y))
                })
                .collect();
            let rendered = Rendered { text: text.to_owned(), spans: spans.clone(), templated: true };
            let (tokens, loss) = recipe.encode(&rendered).unwrap();
            let each = tokenizer.encode_with_offsets(text).unwrap();
            let of = |at: &Range<usize>| {
                spans.iter().any(|(name, s)| name == "a" && at.start < s.end && s.start < at.end)
            };
            assert_eq!(tokens.len(), each.len());
            assert_eq!(loss, each.iter().map(|(_, at)| of(at)).collect::<Vec<_>>(), "{spans:?}");
        }
    }

    #[test]
    fn orders_in_fingerprints_are_pinned() {
        let orders = ["shuffled", "as_written", "ascending(length)", "descending(level)"];
        assert_eq!(
            orders.map(|order| Order::parse(order).unwrap().canonical()),
            ["Shuffled", "AsWritten", "Ascending(\"length\")", "Descending(\"level\")"]
        );
    }
}
