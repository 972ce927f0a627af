//! A plain file for `midc eval`: its documents in non-overlapping windows, tokenised as
//! transformers would.

use std::path::Path;

use chrono::NaiveDate;

use super::readers::{self, Body, Format, Item, Stretch, View};
use super::record::{Dialogues, Rendered, TextOf};
use super::{DataError, TextTokenizer, python_json};

/// Consecutive tokens of one document; every one but the first is predicted from those before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Which document of the file, from 0.
    pub document: u64,
    /// `context` of them, or what is left at the end of the document.
    pub tokens: Vec<u32>,
}

/// The windows of `context` tokens of every document of `path`. Special tokens are added only if
/// the tokenizer adds them by itself. `text` is a field or template, and `today` what chat templates see, as in a source.
///
/// # Errors
/// The file or, item by item, one of its records cannot be read.
pub fn file_windows<'a>(
    path: &Path,
    text: Option<&str>,
    tokenizer: &'a TextTokenizer,
    vocab_size: usize,
    context: usize,
    today: Option<NaiveDate>,
) -> Result<impl Iterator<Item = Result<Window, DataError>> + use<'a>, DataError> {
    tokenizer.check_vocabulary(vocab_size)?;
    let format = Format::of(path).ok_or_else(|| DataError::Format { path: path.to_owned() })?;
    let text_of = TextOf::parse(text).map_err(|why| DataError::Field {
        source_name: path.display().to_string(),
        field: "text",
        value: text.unwrap_or_default().to_owned(),
        why,
    })?;
    let stretch = Stretch { path: path.to_owned(), format, range: None, records_before: 0 };
    let (fields, needed) = (Some(text_of.fields()), text_of.needed());
    let items = readers::open(&stretch, &View { vocab_size, eos: tokenizer.eos(), fields, needed })?;
    let path = path.to_owned();
    let dialogues = Dialogues { chat: tokenizer.chat(), turns: false, today };
    let blank = |item: &Result<Item, DataError>| matches!(item, Ok(Item { body: Body::Json(line), .. }) if line.trim_ascii().is_empty());
    let documents = items.filter(move |item| !blank(item)).map(move |item| -> Result<Vec<u32>, DataError> {
        let item = item?;
        let record = item.record;
        let bad = |what: String| DataError::BadText { path: path.clone(), record, what };
        let rendered = match item.body {
            Body::Tokens(tokens) => return Ok(tokens),
            Body::Text(bytes) => {
                let text = String::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
                Rendered { text, ..Rendered::default() }
            }
            Body::Row(row) => text_of.render(&serde_json::Value::Object(row), dialogues).map_err(bad)?,
            Body::Json(bytes) => {
                let value = python_json::read(&bytes).map_err(|e| {
                    bad(format!("malformed JSON: {e}").replace(" at line 1 column", " at column"))
                })?;
                text_of.render(&value, dialogues).map_err(bad)?
            }
        };
        let fail = |why| DataError::Tokenize { path: path.clone(), record, why };
        let text = rendered.text.as_str();
        let tokens =
            if rendered.templated { tokenizer.encode(text) } else { tokenizer.encode_as_configured(text) };
        tokens.map_err(fail)
    });
    let context = context.max(1);
    let windows = (0u64..).zip(documents).flat_map(move |(document, tokens)| match tokens {
        Ok(tokens) => {
            let window = |t: &[u32]| Ok(Window { document, tokens: t.to_vec() });
            tokens.chunks(context).map(window).collect::<Vec<_>>()
        }
        Err(error) => vec![Err(error)],
    });
    Ok(windows)
}
