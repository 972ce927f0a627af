//! Conversations as the model's own chat template writes them: the Jinja text that lies with the
//! tokenizer, rendered as `apply_chat_template` of transformers does. The only file that names minijinja.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use chrono::format::{Item, StrftimeItems};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value as Jinja};
use serde_json::{Map, Value, json};

use super::python_json::{self, PythonJson};
use super::python_text;

/// Steps a template may take for one conversation: enough for thousands of turns, and an end for a
/// template that has none.
const FUEL: u64 = 10_000_000;

/// A compiled template and the special tokens it may name.
#[derive(Clone, Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    /// `bos_token`, `eos_token`, …
    tokens: BTreeMap<String, String>,
    digest: blake3::Hash,
    /// Whether it mentions the functions of a dialogue.
    asks_for_tools: bool,
}

/// A rendered conversation.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Conversation {
    pub(crate) text: String,
    /// Role and bytes of each turn: what the template adds for it after the prompt for it.
    pub(crate) turns: Vec<(String, Range<usize>)>,
}

const NAME: &str = "chat_template";
/// Words that no dialogue says, which differ from what it says in their first or last letter, one or the other.
const WORDS: [&str; 2] = ["Qxsentinelxq", "Zysentinelyz"];
const REWRITTEN: &str =
    "is written by a chat template that rewrites earlier turns, so that `loss_on` cannot tell turns apart";
/// What templates call the clock.
const CLOCK: &str = "strftime_now";

/// What a template may read beside the turns.
#[derive(Clone, Debug)]
pub(crate) struct Beside<'a> {
    /// The functions that a dialogue may use: a list, or null.
    tools: Cow<'a, Value>,
    /// What the template of one model asks for and others do not, such as `enable_thinking`: an object, or null.
    settings: Cow<'a, Value>,
    /// What it sees as today.
    today: Option<NaiveDate>,
}

impl<'a> Beside<'a> {
    /// Where records have these, under the names that data sets for transformers use.
    pub(crate) const FIELDS: [&'static str; 2] = ["tools", "chat_template_kwargs"];

    /// What `record` has.
    ///
    /// # Errors
    /// Settings that are no object.
    pub(crate) fn of(record: &'a Value, today: Option<NaiveDate>) -> Result<Self, String> {
        let [tools, settings] = Self::FIELDS.map(|name| spelled_out(&record[name]));
        if !settings.is_null() && !settings.is_object() {
            return Err("has beside it a `chat_template_kwargs` that is no object of settings".into());
        }
        Ok(Beside { tools, settings, today })
    }
}

/// Many data sets keep what differs from record to record as the text of its JSON.
fn spelled_out(value: &Value) -> Cow<'_, Value> {
    match value.as_str() {
        Some(text) if text.trim().is_empty() => Cow::Owned(Value::Null),
        Some(text) => serde_json::from_str(text).map_or(Cow::Borrowed(value), Cow::Owned),
        None => Cow::Borrowed(value),
    }
}

/// The role that data sets in ShareGPT's form call otherwise.
pub(crate) fn role(name: &str) -> &str {
    match name {
        "human" => "user",
        "gpt" | "model" => "assistant",
        name => name,
    }
}

impl ChatTemplate {
    /// The template in `chat_template.jinja`, else in `tokenizer_config.json` (of several named ones
    /// the one called `default`); `None` where neither has one.
    ///
    /// # Errors
    /// The template is not Jinja.
    pub(crate) fn find(config: &Value, jinja: Option<&str>) -> Result<Option<Self>, String> {
        let inside = match &config[NAME] {
            Value::String(text) => Some(text.as_str()),
            Value::Array(named) => {
                named.iter().find(|t| t["name"] == "default").and_then(|t| t["template"].as_str())
            }
            _ => None,
        };
        let Some(source) = jinja.or(inside) else { return Ok(None) };
        let tokens = ["bos_token", "eos_token", "pad_token", "unk_token"].into_iter().filter_map(|name| {
            let token = &config[name];
            Some((name.to_owned(), token.as_str().or(token["content"].as_str())?.to_owned()))
        });
        Self::new(source, tokens.collect()).map(Some)
    }

    fn new(source: &str, tokens: BTreeMap<String, String>) -> Result<Self, String> {
        let mut environment = Environment::new();
        // As transformers sets up Jinja.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| describe(&e))?);
        environment.set_unknown_method_callback(method);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", to_json);
        environment.set_formatter(|out, state, value| match written(value) {
            Some(text) => out.write_str(&text).map_err(Error::from),
            None => minijinja::escape_formatter(out, state, value),
        });
        environment.add_test("sequence", |value: &Jinja| {
            matches!(value.kind(), ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map)
        });
        environment.add_filter("string", |value: Jinja| match written(&value) {
            Some(text) => Jinja::from(text),
            None if value.as_str().is_some() => value,
            None => Jinja::from(value.to_string()),
        });
        for name in ["e", "escape"] {
            environment.add_filter(name, |value: Jinja| match value.is_safe() {
                true => value,
                false => Jinja::from_safe_string(python_text::escape(&said(&value))),
            });
        }
        environment.add_filter("indent", indent);
        environment.add_filter("truncate", truncate);
        environment.add_filter("wordcount", |value: Jinja| python_text::words(&said(&value)));
        environment.add_filter("center", |value: Jinja, width: Option<usize>| {
            fill("center", &said(&value), width.unwrap_or(80), " ")
        });
        environment.add_function("raise_exception", |message: String| -> Result<Jinja, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        // `strftime_now` is undefined unless a source says what day it is, as templates expect of old
        // versions: a corpus that changes with the day could not be read twice.
        environment.add_template_owned(NAME, without_generation(source)).map_err(|e| describe(&e))?;
        let mut hasher = blake3::Hasher::new();
        // What is known of how it is written: once, keys were in the order of the alphabet, and the settings of a
        // record were not read.
        hasher.update(b"keys as they stand, settings\n").update(source.as_bytes());
        for (name, token) in &tokens {
            hasher.update(name.as_bytes()).update(b"=").update(token.as_bytes()).update(b"\n");
        }
        let asks_for_tools = source.contains("tools");
        Ok(Self { environment, tokens, digest: hasher.finalize(), asks_for_tools })
    }

    /// Identifies what it writes.
    pub(crate) fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// The conversation `turns`, with the bytes of each turn where `spans` are wanted.
    ///
    /// # Errors
    /// Turns that are none; what the template says of them; turns that cannot be told apart in what it writes.
    pub(crate) fn render(
        &self,
        turns: &[Value],
        beside: &Beside<'_>,
        spans: bool,
    ) -> Result<Conversation, String> {
        let none = beside.tools.as_object().is_some_and(Map::is_empty) || beside.tools.is_null();
        if self.asks_for_tools && !none && !beside.tools.is_array() {
            return Err("has beside it `tools` that are no list".into());
        }
        let messages = turns.iter().enumerate().map(message).collect::<Result<Vec<_>, _>>()?;
        let text = self.write(&messages, beside, false)?;
        let mut found = Vec::new();
        if spans {
            let mut before = 0;
            for (i, turn) in messages.iter().enumerate() {
                let role = turn["role"].as_str().unwrap_or_default();
                let assistant = role == "assistant";
                let mut end = self.prefix(&messages[..=i], beside, false, &text)?;
                // The words that open its turn are given to the model, not said by it.
                let mut start = match assistant {
                    true if i == 0 => None,
                    true => self.prefix(&messages[..i], beside, true, &text)?,
                    false => Some(before),
                };
                if end.is_none() || start.is_none() {
                    let found = self.search(&messages, i, beside, &text, before)?;
                    end = end.or(Some(found.end));
                    start = start.or(Some(found.start));
                }
                let (start, end) = (start.unwrap_or(before), end.unwrap_or(before));
                if end < before || start < before {
                    return Err(REWRITTEN.into());
                }
                found.push((role.to_owned(), start.min(end)..end));
                before = end;
            }
        }
        Ok(Conversation { text, turns: found })
    }

    /// Length of what a shorter conversation is written as, if the whole begins with it.
    fn prefix(
        &self,
        messages: &[Value],
        beside: &Beside<'_>,
        prompt: bool,
        whole: &str,
    ) -> Result<Option<usize>, String> {
        let text = self.write(messages, beside, prompt)?;
        Ok(whole.starts_with(&text).then_some(text.len()))
    }

    /// The bytes of turn `i`, which begin at `before` at the earliest, where the template writes earlier turns in another
    /// way than the last one: told by what changes in the whole when other words are said in that turn.
    fn search(
        &self,
        messages: &[Value],
        i: usize,
        beside: &Beside<'_>,
        whole: &str,
        before: usize,
    ) -> Result<Range<usize>, String> {
        let saying = |messages: &[Value], words: &str| {
            let mut messages = messages.to_vec();
            messages[i]["content"] = json!(words);
            let text = self.write(&messages, beside, false)?;
            let at = text.find(words).ok_or(REWRITTEN)?;
            Ok::<_, String>((text, at..at + words.len()))
        };
        // What the words have in common with others is no longer than these are alike.
        let (mut start, mut after) = (whole.len(), whole.len());
        let (mut before_words, mut after_words) = (0, 0);
        for words in WORDS {
            let (text, said) = saying(messages, words)?;
            let pairs = || text.char_indices().zip(whole.char_indices());
            let alike = pairs()
                .find(|((_, a), (_, b))| a != b)
                .map_or(text.len().min(whole.len()), |((at, _), _)| at);
            let back = text.chars().rev().zip(whole.chars().rev()).take_while(|(a, b)| a == b);
            let back = back.map(|(c, _)| c.len_utf8()).sum::<usize>();
            (start, after) = (start.min(alike), after.min(back));
            (before_words, after_words) = (said.start, text.len() - said.end);
        }
        // Or else something changes that is not of this turn.
        if start > before_words || after > after_words {
            return Err(REWRITTEN.into());
        }
        let content_end = (whole.len() - after).max(start);
        let (text, said) = saying(&messages[..=i], WORDS[0])?;
        let (closing, rest) = (&text[said.end..], &whole[content_end..]);
        let blank = |text: &str| text.len() - text.trim_start().len();
        let assistant = messages[i]["role"] == "assistant";
        let end = if rest.starts_with(closing) {
            content_end + closing.len()
        } else if rest.trim_start().starts_with(closing.trim_start()) {
            content_end + blank(rest) + closing.trim_start().len()
        } else if assistant {
            return Err(REWRITTEN.into());
        } else {
            // Such as a result of a function that is not the last one of its turn.
            let alike = rest.chars().zip(closing.chars()).take_while(|(a, b)| a == b);
            content_end + alike.map(|(c, _)| c.len_utf8()).sum::<usize>()
        };
        if assistant {
            let prompted = self.write(messages, beside, true)?;
            let prompt = prompted.strip_prefix(whole).unwrap_or_default();
            let opening = whole.get(before..start).ok_or(REWRITTEN)?;
            if let Some(at) = opening.rfind(prompt).filter(|_| !prompt.is_empty()) {
                start = before + at + prompt.len();
            }
        }
        Ok(start..end)
    }

    fn write(&self, messages: &[Value], beside: &Beside<'_>, prompt: bool) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|e| describe(&e))?;
        let mut names: BTreeMap<&str, Jinja> =
            self.tokens.iter().map(|(name, token)| (name.as_str(), Jinja::from(token.as_str()))).collect();
        // Columns of a table are there for every record, empty or not; templates ask whether they are.
        let settings =
            beside.settings.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        names.extend(settings.map(|(name, value)| (name.as_str(), Jinja::from(Serde(value)))));
        if beside.tools.is_array() {
            names.insert("tools", Jinja::from(Serde(&*beside.tools)));
        } else if !names.contains_key("tools") {
            names.insert("tools", Jinja::from(()));
        }
        if let Some(today) = beside.today {
            names.insert(CLOCK, Jinja::from_function(move |format: String| strftime(today, &format)));
        }
        names.insert("messages", Jinja::from(Serde(messages)));
        names.insert("add_generation_prompt", Jinja::from(prompt));
        template.render(Jinja::from_pairs(names)).map_err(|e| describe(&e))
    }
}

/// A turn under the keys templates read, whatever it calls them.
fn message((i, turn): (usize, &Value)) -> Result<Value, String> {
    let Some(object) = turn.as_object() else { return Err(format!("turn {} is not an object", i + 1)) };
    let name = turn["role"].as_str().or(turn["from"].as_str());
    let role = role(name.ok_or_else(|| format!("turn {} has no `role`", i + 1))?);
    let mut message: Map<String, Value> = object.clone();
    message.insert("role".into(), json!(role));
    if let Some(value) = message.remove("value").filter(|_| turn["content"].is_null()) {
        message.insert("content".into(), value);
    }
    message.remove("from");
    // Columns of a table are there for every turn, empty or not; templates ask whether they are. What is said is
    // none in a turn that only calls a function.
    message.retain(|key, value| !value.is_null() || key == "content");
    Ok(Value::Object(message))
}

/// What minijinja writes otherwise than Python.
fn written(value: &Jinja) -> Option<String> {
    match value.kind() {
        ValueKind::None => Some("None".to_owned()),
        ValueKind::Number if !value.is_integer() => f64::try_from(value.clone()).ok().map(python_json::float),
        _ => None,
    }
}

fn said(value: &Jinja) -> String {
    written(value).unwrap_or_else(|| value.to_string())
}

/// The longest that a template may have filled up or indented.
const WIDEST: usize = 1 << 12;

fn fill(method: &str, text: &str, width: usize, with: &str) -> Result<Jinja, Error> {
    if width > WIDEST {
        let what = format!("a width of {width} is too much");
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    let (before, after) = python_text::fill(method, text.chars().count(), width);
    Ok(Jinja::from(format!("{}{text}{}", with.repeat(before), with.repeat(after))))
}

fn indent(
    value: Jinja,
    width: Option<Jinja>,
    first: Option<bool>,
    blank: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let width = width.or(options.get("width")?);
    let first = first.or(options.get("first")?).unwrap_or(false);
    let blank = blank.or(options.get("blank")?).unwrap_or(false);
    options.assert_all_used()?;
    let by = match &width {
        None => " ".repeat(4),
        Some(width) => match (width.as_str(), width.as_usize()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(n)) if n <= WIDEST => " ".repeat(n),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, format!("`indent` by {width}"))),
        },
    };
    Ok(python_text::indent(&said(&value), &by, first, blank))
}

fn truncate(
    value: Jinja,
    length: Option<usize>,
    killwords: Option<bool>,
    options: Kwargs,
) -> Result<String, Error> {
    let length = length.or(options.get("length")?).unwrap_or(255);
    let killwords = killwords.or(options.get("killwords")?).unwrap_or(false);
    let end = options.get::<Option<String>>("end")?.unwrap_or_else(|| "...".to_owned());
    let leeway = options.get::<Option<usize>>("leeway")?.unwrap_or(5);
    options.assert_all_used()?;
    Ok(python_text::truncate(&said(&value), length, killwords, &end, leeway))
}

/// Methods of Python's strings that others do not know, or not as Python does; the rest is theirs.
fn method(state: &mut State<'_, '_>, value: &Jinja, name: &str, args: &[Jinja]) -> Result<Jinja, Error> {
    let absent =
        |what: &str| Error::new(ErrorKind::InvalidOperation, format!("substring `{what}` not found"));
    let Some(text) = value.as_str() else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    match name {
        "title" => from_args::<()>(args).map(|()| Jinja::from(python_text::title(text))),
        "removeprefix" => {
            let (what,): (&str,) = from_args(args)?;
            Ok(Jinja::from(text.strip_prefix(what).unwrap_or(text)))
        }
        "removesuffix" => {
            let (what,): (&str,) = from_args(args)?;
            Ok(Jinja::from(text.strip_suffix(what).unwrap_or(text)))
        }
        "partition" | "rpartition" => {
            let (at,): (&str,) = from_args(args)?;
            let parts = match name {
                "partition" => text.split_once(at).map_or([text, "", ""], |(a, b)| [a, at, b]),
                _ => text.rsplit_once(at).map_or(["", "", text], |(a, b)| [a, at, b]),
            };
            Ok(parts.into_iter().map(Jinja::from).collect())
        }
        "rsplit" => {
            let (at, most): (Option<&str>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|n| usize::try_from(n).ok());
            if at == Some("") {
                return Err(Error::new(ErrorKind::InvalidOperation, "empty separator"));
            }
            Ok(python_text::rsplit(text, at, most).into_iter().map(Jinja::from).collect())
        }
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let at = if name == "index" { text.find(what) } else { text.rfind(what) };
            Ok(Jinja::from(text[..at.ok_or_else(|| absent(what))?].chars().count()))
        }
        "ljust" | "rjust" | "center" => {
            let (width, with): (usize, Option<&str>) = from_args(args)?;
            fill(name, text, width, with.unwrap_or(" "))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// Python's `json.dumps`, with the arguments and defaults of the filter that transformers defines.
fn to_json(value: Jinja, options: Kwargs) -> Result<String, Error> {
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = options.get("indent")?;
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sort = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let [item, key] = match separators.as_deref() {
        None if indent.is_some() => [",", ": "],
        None => [", ", ": "],
        Some([item, key]) => [item.as_str(), key.as_str()],
        Some(_) => {
            let what = "`separators` of `tojson` are two, as in `(\",\", \":\")`";
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
    };
    let mut json = serde_json::to_value(&value).map_err(failed)?;
    if sort {
        json.sort_all_objects();
    }
    let mut out = Vec::new();
    let style = PythonJson { indent: indent.map(|n| n.min(16)), level: 0, empty: true, ascii, item, key };
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, style);
    serde::Serialize::serialize(&json, &mut serializer).map_err(failed)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// The first moment of `today` as C's `strftime` writes it.
fn strftime(today: NaiveDate, format: &str) -> Result<String, Error> {
    let wrong = || {
        let what = format!("`{CLOCK}` is asked for `{format}`, which a day without a time zone cannot say");
        Error::new(ErrorKind::InvalidOperation, what)
    };
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return Err(wrong());
    }
    let mut out = String::new();
    let moment = NaiveDateTime::new(today, NaiveTime::MIN);
    write!(out, "{}", moment.format_with_items(items.iter())).map_err(|_| wrong())?;
    Ok(out)
}

fn describe(error: &Error) -> String {
    if error.kind() == ErrorKind::UnknownFunction && error.detail().is_some_and(|d| d.contains(CLOCK)) {
        return "is written by a chat template that asks for today's date: say which day it is to see as the \
                source's `today`, as in `today = \"2025-07-08\"`, or with `--today` of `midc eval`"
            .into();
    }
    let line = error.line().map(|l| format!(" (line {l} of the chat template)")).unwrap_or_default();
    match error.detail() {
        Some(detail) => format!("cannot be written by the chat template: {detail}{line}"),
        None => format!("cannot be written by the chat template: {}{line}", error.kind()),
    }
}

/// The template without the tags of transformers around what an assistant says (`generation`, which marks it for
/// masks and writes nothing), as blocks that are always entered.
fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(end) = rest[at..].find("%}").map(|end| at + end) else { break };
        let tag = &rest[at + 2..end];
        let word = tag.trim_matches(|c: char| c.is_whitespace() || "-+".contains(c));
        let instead = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            same => same,
        };
        out.push_str(&rest[..at + 2]);
        out.push_str(&if instead == word { tag.to_owned() } else { tag.replace(word, instead) });
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHATML: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nHelp.<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::find(&json!({"chat_template": source, "eos_token": {"content": "</s>"}}), None)
            .unwrap()
            .unwrap()
    }

    const NOTHING: Beside<'static> =
        Beside { tools: Cow::Owned(Value::Null), settings: Cow::Owned(Value::Null), today: None };

    #[test]
    fn turns_are_found_in_what_the_template_writes() {
        let turns =
            [json!({"from": "human", "value": " hi "}), json!({"role": "assistant", "content": "ho"})];
        let got = template(CHATML).render(&turns, &NOTHING, true).unwrap();
        let text = "<|im_start|>system\nHelp.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n\
                    <|im_start|>assistant\nho<|im_end|>\n";
        assert_eq!(got.text, text);
        let said: Vec<(&str, &str)> = got.turns.iter().map(|(r, s)| (r.as_str(), &text[s.clone()])).collect();
        assert_eq!(said[1], ("assistant", "ho<|im_end|>\n"));
        assert_eq!(said[0].0, "user");
        assert!(said[0].1.ends_with("<|im_start|>user\nhi<|im_end|>\n"));
    }

    /// As those of Qwen 3 do, which leave out what was thought before the last question.
    #[test]
    fn turns_are_found_where_earlier_ones_are_rewritten() {
        let source = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
                      {% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}\
                      {{ m.content }}{% for call in m.calls or [] %}{{ '\n' if m.content }}<call>{{ call }}</call>{% endfor %}\
                      {{ '<|im_end|>\n' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let said = |turns: &[Value]| -> Vec<(String, String)> {
            let got = template(source).render(turns, &NOTHING, true).unwrap();
            got.turns.iter().map(|(role, at)| (role.clone(), got.text[at.clone()].to_owned())).collect()
        };
        let turn = |role: &str, content: &str| json!({"role": role, "content": content});
        let turns = [
            turn("user", "Q"),
            turn("assistant", "Queen"),
            turn("user", "z"),
            json!({"role": "assistant", "content": "", "calls": ["f"]}),
            turn("assistant", "ho ho"),
        ];
        let expect = [
            ("user", "<|im_start|>user\nQ<|im_end|>\n"),
            ("assistant", "Queen<|im_end|>\n"),
            ("user", "<|im_start|>user\nz<|im_end|>\n"),
            ("assistant", "<call>f</call><|im_end|>\n"),
            ("assistant", "<think>\n\n</think>\n\nho ho<|im_end|>\n"),
        ];
        assert_eq!(said(&turns), expect.map(|(role, text)| (role.to_owned(), text.to_owned())));
    }

    #[test]
    fn what_opens_a_dialogue_is_not_said_by_the_assistant() {
        let got = template(CHATML)
            .render(&[json!({"role": "assistant", "content": "ho"})], &NOTHING, true)
            .unwrap();
        assert!(got.text.starts_with("<|im_start|>system"));
        assert_eq!(&got.text[got.turns[0].1.clone()], "ho<|im_end|>\n");
    }

    #[test]
    fn special_tokens_tools_and_json() {
        let source = "{% if tools %}{{ tools | tojson }}{% endif %}{{ messages[0].content }}{{ eos_token }}";
        let turns = [json!({"role": "user", "content": "a < b"})];
        let tools = json!([{"name": "f", "x": [1, 2]}]);
        let record = json!({"tools": tools});
        let got = template(source).render(&turns, &Beside::of(&record, None).unwrap(), false).unwrap();
        assert_eq!(got.text, "[{\"name\": \"f\", \"x\": [1, 2]}]a < b</s>");
    }

    #[test]
    fn json_and_none_are_written_as_python_writes_them() {
        let turns = [
            json!({"role": "user", "content": null, "x": {"b": [1, 2.5, 1e-5, 1e16, 1e22, -0.0001, 3.0], "a": "é\n"}}),
        ];
        let say = |source: &str| template(source).render(&turns, &NOTHING, false).map(|c| c.text);
        for (expression, expect) in [
            ("x | tojson", r#"{"b": [1, 2.5, 1e-05, 1e+16, 1e+22, -0.0001, 3.0], "a": "é\n"}"#),
            (
                "x | tojson(sort_keys=true, ensure_ascii=true)",
                r#"{"a": "\u00e9\n", "b": [1, 2.5, 1e-05, 1e+16, 1e+22, -0.0001, 3.0]}"#,
            ),
            ("x.b[:2] | tojson(separators=(',', ':'))", "[1,2.5]"),
            ("x.b[:2] | tojson(indent=2)", "[\n  1,\n  2.5\n]"),
            ("{} | tojson(indent=2)", "{}"),
            ("content", "None"),
            ("content is none", "True"),
            ("1e20", "1e+20"),
            ("x.b[1] | string", "2.5"),
            ("'text' is sequence and x is sequence and not 1 is sequence", "True"),
            ("'a\\nb\\n' | indent(2)", "a\n  b\n"),
            ("'<\"' | e", "&lt;&#34;"),
            ("\"they're\".title()", "They'Re"),
            ("'a.b.c'.rsplit('.', 1)[0] ~ 'abc'.removeprefix('a') ~ 'a=b'.partition('=')[2]", "a.bbcb"),
            ("'abc'.index('c') ~ 'a'.ljust(2) ~ '|' ~ 'a b' | wordcount", "2a |2"),
            ("'foo bar baz qux' | truncate(9)", "foo..."),
        ] {
            assert_eq!(say(&format!("{{% set x = messages[0].x %}}{{% set content = messages[0].content %}}{{{{ {expression} }}}}")).unwrap(), expect, "{expression}");
        }
        assert!(say("{{ 1 | tojson(indnt=2) }}").is_err());
        assert!(say("{{ 1 | tojson(separators=[',']) }}").is_err());
    }

    /// As they stand in the record, whose text a template may write out.
    #[test]
    fn keys_keep_their_order() {
        let turns: Vec<Value> = serde_json::from_str(
            r#"[{"role": "user", "content": "x", "call": {"z": 1, "a": {"c": 2, "b": 3}}}]"#,
        )
        .unwrap();
        let source =
            "{{ messages[0].call | tojson }}{% for k, v in messages[0].call.items() %} {{ k }}{% endfor %}";
        let got = template(source).render(&turns, &NOTHING, false).unwrap();
        assert_eq!(got.text, r#"{"z": 1, "a": {"c": 2, "b": 3}} z a"#);
    }

    #[test]
    fn a_record_may_set_what_a_template_asks_for() {
        let source = "{{ messages[0].content }}{% if not think | default(true) %}/no_think{% endif %}\
                      {{ (tools or []) | length }}{{ eos_token }}";
        let turns = [json!({"role": "user", "content": "x"})];
        let say = |record: Value| {
            let beside = Beside::of(&record, None).unwrap();
            template(source).render(&turns, &beside, false).unwrap().text
        };
        assert_eq!(say(json!({})), "x0</s>");
        assert_eq!(say(json!({"chat_template_kwargs": {"think": null}})), "x0</s>");
        let set = json!({"think": false, "tools": [1, 2], "messages": [], "eos_token": "!"});
        assert_eq!(say(json!({"chat_template_kwargs": set})), "x/no_think2!");
        assert_eq!(say(json!({"chat_template_kwargs": set, "tools": [1]})), "x/no_think1!");
        let text = json!({"chat_template_kwargs": "{\"think\": false}", "tools": "[{}]"});
        assert_eq!(say(text), "x/no_think1</s>");
        assert_eq!(say(json!({"chat_template_kwargs": "", "tools": " "})), "x0</s>");
        assert_eq!(say(json!({"tools": {}})), "x0</s>");
        let wrong = json!({"chat_template_kwargs": "think"});
        assert!(Beside::of(&wrong, None).unwrap_err().contains("`chat_template_kwargs`"));
        for tools in [json!("[{"), json!("search"), json!({"f": 1})] {
            let record = json!({"tools": tools});
            let beside = Beside::of(&record, None).unwrap();
            assert!(template(source).render(&turns, &beside, false).unwrap_err().contains("`tools`"));
            // Where nobody asks for them it does not matter what they are.
            assert_eq!(template("y").render(&turns, &beside, false).unwrap().text, "y");
        }
    }

    #[test]
    fn today_is_what_the_source_says() {
        let turns = [json!({"role": "user", "content": "x"})];
        let day = NaiveDate::from_ymd_opt(2025, 7, 8);
        let say = |source: &str, today: Option<NaiveDate>| {
            template(source).render(&turns, &Beside { today, ..NOTHING }, false).map(|c| c.text)
        };
        let asks = "{{ strftime_now('%d %B %Y, %d %b %y %H:%M') }}";
        assert_eq!(say(asks, day).unwrap(), "08 July 2025, 08 Jul 25 00:00");
        assert!(say(asks, None).unwrap_err().contains("`today`"));
        let may = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}2024{% endif %}";
        assert_eq!(say(may, None).unwrap(), "2024");
        assert_eq!(say(may, day).unwrap(), "2025");
        for wrong in ["%z", "%Q"] {
            let error = say(&format!("{{{{ strftime_now('{wrong}') }}}}"), day).unwrap_err();
            assert!(error.contains(wrong), "{error}");
        }
    }

    #[test]
    fn what_an_assistant_says_may_be_marked() {
        let marked = "{% for m in messages %}{{ m.role }}: {%- generation %} {{ m.content }} {%endgeneration -%} \n|{% endfor %}";
        let turns = [json!({"role": "user", "content": "x"}), json!({"role": "assistant", "content": "y"})];
        let got = template(marked).render(&turns, &NOTHING, false).unwrap();
        assert_eq!(got.text, "user: x |assistant: y |");
        assert_eq!(
            without_generation("{% if generation %}{{ generation }}{% open"),
            "{% if generation %}{{ generation }}{% open"
        );
    }

    #[test]
    fn what_cannot_be_written_says_why() {
        let turns = [json!({"role": "user", "content": "x"}), json!({"role": "assistant", "content": "y"})];
        let say = |source: &str, turns: &[Value]| template(source).render(turns, &NOTHING, true).unwrap_err();
        let raised = "{{ raise_exception('only one turn') }}";
        assert!(say(raised, &turns).contains("only one turn (line 1"));
        let rewrites = "{% for m in messages | reverse %}{{ m.content }}{% endfor %}";
        assert!(say(rewrites, &turns).contains("rewrites earlier turns"));
        assert!(say("x", &[json!("text")]).contains("turn 1 is not an object"));
        assert!(say("x", &[json!({"content": "x"})]).contains("turn 1 has no `role`"));
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
        assert!(say(endless, &turns).contains("chat template"));
        assert!(ChatTemplate::find(&json!({"chat_template": "{% if"}), None).is_err());
        assert!(ChatTemplate::find(&json!({}), None).unwrap().is_none());
    }

    #[test]
    fn a_named_default_is_found_and_a_file_goes_first() {
        let config = json!({"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]});
        let turns = [json!({"role": "user", "content": "x"})];
        let text =
            |jinja| ChatTemplate::find(&config, jinja).unwrap().unwrap().render(&turns, &NOTHING, false);
        assert_eq!(text(None).unwrap().text, "d");
        assert_eq!(text(Some("f")).unwrap().text, "f");
    }
}
