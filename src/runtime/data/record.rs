//! From a record to the text of a document. Knows JSON values, not files.

use std::ops::Range;

use chrono::NaiveDate;
use serde_json::Value;

use super::chat::{self, Beside, ChatTemplate};

/// Fields tried in turn when a source does not say which is its text.
const AUTO: [&str; 3] = ["text", "messages", "conversations"];

/// Which text of a record is the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TextOf {
    /// The field `text`, else `messages` (or `conversations`).
    Auto,
    /// A field; dots reach into objects.
    Field(String),
    /// Literal text and fields in turn.
    Template(Vec<Part>),
}

impl TextOf {
    /// As it stands in the keys of the cache. Changing it makes every shard anew and keeps runs from being gone on with.
    pub(crate) fn canonical(&self) -> String {
        match self {
            Self::Auto => "Auto".to_owned(),
            Self::Field(name) => format!("Field({name:?})"),
            Self::Template(parts) => {
                let parts: Vec<String> = parts.iter().map(Part::canonical).collect();
                format!("Template([{}])", parts.join(", "))
            }
        }
    }
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Literal(String),
    Field(String),
}

impl Part {
    fn canonical(&self) -> String {
        match self {
            Self::Literal(text) => format!("Literal({text:?})"),
            Self::Field(name) => format!("Field({name:?})"),
        }
    }
}

/// The text of a document and which bytes of it came from which field (or role of a dialogue).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// Whether a chat template wrote it, which brings the special tokens a text begins with.
    pub(crate) templated: bool,
    pub(crate) spans: Vec<(String, Range<usize>)>,
}

/// How dialogues are written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dialogues<'a> {
    /// The model's own way; lines `role: content` where it has none.
    pub(crate) chat: Option<&'a ChatTemplate>,
    /// Whether the bytes of each turn are wanted.
    pub(crate) turns: bool,
    /// The day that the template sees.
    pub(crate) today: Option<NaiveDate>,
}

impl TextOf {
    /// Read `SourcePlan::text`: a field name, or a template if it has braces (`{{` and `}}` are
    /// literal ones).
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, String> {
        let Some(text) = text else { return Ok(Self::Auto) };
        if !text.contains(['{', '}']) {
            let name = text.trim();
            return if name.is_empty() { Err("is empty".into()) } else { Ok(Self::Field(name.into())) };
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '{' | '}' if chars.peek() == Some(&c) => {
                    chars.next();
                    literal.push(c);
                }
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            Some('}') => break,
                            Some(c) if c != '{' => name.push(c),
                            _ => return Err("has a `{` that is not closed".into()),
                        }
                    }
                    if name.trim().is_empty() {
                        return Err("has a field without a name".into());
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Field(name.trim().to_owned()));
                }
                '}' => return Err("has a `}` without a `{`; a literal one is `}}`".into()),
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self::Template(parts))
    }

    /// The fields it may read: those of the text, and what a dialogue has beside its turns.
    pub(crate) fn fields(&self) -> Vec<String> {
        let mut fields = self.text_fields();
        if matches!(self, Self::Auto | Self::Field(_)) {
            fields.extend(Beside::FIELDS.map(str::to_owned));
        }
        fields
    }

    /// What a table must have of these: one of each.
    pub(crate) fn needed(&self) -> Vec<Vec<String>> {
        match self {
            Self::Auto => vec![self.text_fields()],
            Self::Field(_) | Self::Template(_) => self.text_fields().into_iter().map(|f| vec![f]).collect(),
        }
    }

    fn text_fields(&self) -> Vec<String> {
        match self {
            Self::Auto => AUTO.map(str::to_owned).to_vec(),
            Self::Field(name) => vec![name.clone()],
            Self::Template(parts) => parts
                .iter()
                .filter_map(|part| match part {
                    Part::Field(name) => Some(name.clone()),
                    Part::Literal(_) => None,
                })
                .collect(),
        }
    }

    /// The document of `record`.
    pub(crate) fn render(&self, record: &Value, dialogues: Dialogues<'_>) -> Result<Rendered, String> {
        let mut out = Rendered::default();
        match self {
            Self::Auto => {
                let name =
                    AUTO.into_iter().find(|name| !record[*name].is_null()).ok_or_else(|| absent(record))?;
                out.found(name, &record[name], record, dialogues)?;
            }
            Self::Field(name) => out.field(name, field(record, name), record, dialogues)?,
            Self::Template(parts) => {
                for part in parts {
                    match part {
                        Part::Literal(text) => out.text.push_str(text),
                        Part::Field(name) => out.field(name, field(record, name), record, dialogues)?,
                    }
                }
            }
        }
        Ok(out)
    }
}

/// The field `path` of `record`: by its whole name, else by its dotted parts. Null when absent.
pub(crate) fn field<'a>(record: &'a Value, path: &str) -> &'a Value {
    let whole = &record[path];
    if !whole.is_null() {
        return whole;
    }
    path.split('.').fold(record, |value, name| match name.parse::<usize>() {
        Ok(i) if value.is_array() => &value[i],
        _ => &value[name],
    })
}

impl Rendered {
    /// A field that nobody named: under the name of a dialogue, text is none.
    fn found(
        &mut self,
        name: &str,
        value: &Value,
        record: &Value,
        dialogues: Dialogues<'_>,
    ) -> Result<(), String> {
        let spelled = spelled(name, value);
        if AUTO[1..].contains(&name) && value.is_string() && spelled.is_none() {
            return Err(format!(
                "its `{name}` is text that is no list of turns; say which is its text with the source's `text`"
            ));
        }
        self.write(name, spelled.as_ref().unwrap_or(value), record, dialogues)
    }

    fn field(
        &mut self,
        name: &str,
        value: &Value,
        record: &Value,
        dialogues: Dialogues<'_>,
    ) -> Result<(), String> {
        self.write(name, spelled(name, value).as_ref().unwrap_or(value), record, dialogues)
    }

    fn write(
        &mut self,
        name: &str,
        value: &Value,
        record: &Value,
        dialogues: Dialogues<'_>,
    ) -> Result<(), String> {
        let start = self.text.len();
        match value {
            Value::String(text) => self.text.push_str(text),
            Value::Number(n) => self.text.push_str(&n.to_string()),
            Value::Bool(b) => self.text.push_str(if *b { "true" } else { "false" }),
            Value::Null if record.get(name).is_some() => return Err(format!("its `{name}` is null")),
            Value::Null => return Err(format!("has no field `{name}`")),
            Value::Array(turns) => match dialogues.chat {
                Some(chat) if turns.iter().any(Value::is_object) => {
                    let written = Beside::of(record, dialogues.today)
                        .and_then(|beside| chat.render(turns, &beside, dialogues.turns))
                        .map_err(|why| format!("`{name}` {why}"))?;
                    self.text.push_str(&written.text);
                    self.templated = true;
                    let turns = written.turns.into_iter();
                    self.spans.extend(turns.map(|(role, at)| (role, start + at.start..start + at.end)));
                }
                _ => self.dialogue(name, turns)?,
            },
            Value::Object(_) => return Err(format!("field `{name}` is an object, not text")),
        }
        self.spans.push((name.to_owned(), start..self.text.len()));
        Ok(())
    }

    /// Turns as lines `role: content`. Strings in the array are turns without a role.
    fn dialogue(&mut self, name: &str, turns: &[Value]) -> Result<(), String> {
        for (i, turn) in turns.iter().enumerate() {
            if i > 0 {
                self.text.push('\n');
            }
            if let Value::String(text) = turn {
                self.text.push_str(text);
                continue;
            }
            let role = turn["role"].as_str().or(turn["from"].as_str());
            let said = role.ok_or_else(|| format!("turn {} of `{name}` has no `role`", i + 1))?;
            self.text.push_str(said);
            self.text.push_str(": ");
            let start = self.text.len();
            let content = if turn["content"].is_null() { &turn["value"] } else { &turn["content"] };
            match content {
                Value::String(text) => self.text.push_str(text),
                // Parts of a multi-modal turn: the text of those that have some.
                Value::Array(parts) => {
                    for part in parts {
                        self.text.push_str(part["text"].as_str().unwrap_or_default());
                    }
                }
                // A turn of nothing but tool calls.
                Value::Null => {}
                _ => return Err(format!("the content of turn {} of `{name}` is not text", i + 1)),
            }
            self.spans.push((chat::role(said).to_owned(), start..self.text.len()));
        }
        Ok(())
    }
}

/// The turns of a dialogue that a record keeps as the text of their JSON; `text` itself is text.
fn spelled(name: &str, value: &Value) -> Option<Value> {
    value.as_str().filter(|_| name != AUTO[0]).and_then(turns_in)
}

/// The dialogue that a field has as the text of its JSON, as exports to tables write it.
fn turns_in(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with('[') {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let is_turn = |turn: &Value| turn["role"].is_string() || turn["from"].is_string();
    let turns = value.as_array().is_some_and(|turns| !turns.is_empty() && turns.iter().all(is_turn));
    turns.then_some(value)
}

/// Why a record has no text of its own, for a message.
fn absent(record: &Value) -> String {
    match AUTO.into_iter().find(|name| record.get(name).is_some()) {
        Some(name) => format!("its `{name}` is null"),
        None => "has neither `text` nor `messages`; say which with the source's `text`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(text: Option<&str>, record: Value) -> Result<String, String> {
        TextOf::parse(text)?.render(&record, Dialogues::default()).map(|r| r.text)
    }

    #[test]
    fn fields_templates_and_dialogues() {
        let chat =
            json!({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]});
        for (text, record, expect) in [
            (None, json!({"text": "a", "messages": []}), "a"),
            (None, chat.clone(), "user: hi\nassistant: ho"),
            (None, json!({"conversations": [{"from": "human", "value": "x"}]}), "human: x"),
            (Some("body"), json!({"body": "b"}), "b"),
            (Some("a.b"), json!({"a": {"b": "deep"}}), "deep"),
            (Some("a.b"), json!({"a.b": "flat"}), "flat"),
            (Some("{q}\n{a}"), json!({"q": "1+1", "a": 2}), "1+1\n2"),
            (Some("{{{q}}}"), json!({"q": true}), "{true}"),
            (Some("messages"), chat.clone(), "user: hi\nassistant: ho"),
            (Some("messages"), json!({"messages": "plain text"}), "plain text"),
            (None, json!({"messages": chat["messages"].to_string()}), "user: hi\nassistant: ho"),
            (Some("body"), json!({"body": format!(" {}", chat["messages"])}), "user: hi\nassistant: ho"),
            (Some("body"), json!({"body": "[{\"a\": 1}]"}), "[{\"a\": 1}]"),
            (None, json!({"text": "[{\"role\": \"x\"}]"}), "[{\"role\": \"x\"}]"),
            (
                None,
                json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]}]}),
                "user: p",
            ),
        ] {
            assert_eq!(render(text, record).unwrap(), expect, "{text:?}");
        }
    }

    /// Tables are read by column.
    #[test]
    fn what_a_dialogue_has_beside_its_turns_is_read_where_there_is_any() {
        for (text, fields, needed) in [
            (
                None,
                vec!["text", "messages", "conversations", "tools", "chat_template_kwargs"],
                vec![AUTO.to_vec()],
            ),
            (Some("chat"), vec!["chat", "tools", "chat_template_kwargs"], vec![vec!["chat"]]),
            (Some("{q}{a}"), vec!["q", "a"], vec![vec!["q"], vec!["a"]]),
        ] {
            let of = TextOf::parse(text).unwrap();
            assert_eq!(of.fields(), fields);
            assert_eq!(of.needed(), needed);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, record, expect) in [
            (None, json!({"body": "b"}), "neither `text` nor `messages`"),
            (Some("body"), json!({"text": "b"}), "no field `body`"),
            (Some("body"), json!({"body": null}), "its `body` is null"),
            (Some("{q}"), json!({}), "no field `q`"),
            (Some("{q"), json!({}), "not closed"),
            (Some("q}"), json!({}), "without a `{`"),
            (Some("{}"), json!({}), "without a name"),
            (None, json!({"text": null, "id": 1}), "its `text` is null"),
            (None, json!([1]), "neither"),
            (None, json!(null), "neither"),
            (None, json!({"text": {"a": 1}}), "is an object"),
            (None, json!({"messages": [1]}), "no `role`"),
            (None, json!({"messages": "[{\"role"}), "no list of turns"),
        ] {
            let error = render(text, record).unwrap_err();
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn spans_say_where_fields_lie() {
        let got = TextOf::parse(Some("Q: {q} A: {a}"))
            .unwrap()
            .render(&json!({"q": "x", "a": "yz"}), Dialogues::default())
            .unwrap();
        assert_eq!(got.spans, [("q".into(), 3..4), ("a".into(), 8..10)]);
        assert_eq!(&got.text[8..10], "yz");
    }
}
