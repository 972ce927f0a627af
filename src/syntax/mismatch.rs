//! What to say about an entry that matches no rule. Works from the text around the place where the
//! match stopped; pest's own list of expected rules is never shown.

use crate::diag::{Applicability, Diagnostic, codes};
use crate::source::{FileId, Span};

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// At the top level.
    Item,
    /// In a block.
    Entry,
    /// Before a `{`.
    Head,
    /// After an `@`.
    Attribute,
}

/// A token of the text around the mismatch.
#[derive(Clone, Copy, Debug)]
struct Token<'t> {
    text: &'t str,
    start: usize,
}

impl Token<'_> {
    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }

    /// Whether something must follow it.
    fn is_open(&self) -> bool {
        matches!(
            self.text,
            "=" | "(" | "[" | "," | ":" | "+" | "-" | "*" | "/" | "<" | "<=" | ">" | ">=" | "==" | "!="
        ) || matches!(self.text, "then" | "and" | "or" | "not" | "of" | "where" | "in" | "as")
    }

    /// Whether a value must be complete before it.
    fn closes_value(&self) -> bool {
        self.is_open() && !matches!(self.text, "(" | "[" | "not") || matches!(self.text, ")" | "]")
    }

    fn begins_value(&self) -> bool {
        self.is_word()
            || self.text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '"' | '(' | '[' | '.'))
    }
}

/// The diagnostic for `text` (at byte `base` of `file`), which stopped matching at byte `at`.
pub(super) fn explain(text: &str, at: usize, file: FileId, base: usize, context: Context) -> Diagnostic {
    let tokens = tokens(text);
    let index = tokens.partition_point(|token| token.end() <= at);
    let next = tokens.get(index).copied();
    let previous = index.checked_sub(1).and_then(|i| tokens.get(i)).copied();
    let place = Place { file, base, context, tokens: &tokens, index };
    if let Some(diagnostic) = place.foreign_sign(next, previous) {
        return diagnostic;
    }
    if let Some(diagnostic) = place.wrong_place() {
        return diagnostic;
    }
    match (previous, next) {
        (Some(previous), _) if previous.is_open() && next.is_none_or(|next| next.closes_value()) => {
            place.missing_value(previous, next)
        }
        (Some(previous), None) => place.cut_short(previous),
        (previous, Some(next)) => place.unexpected(previous, next),
        (None, None) => {
            let span = Span::new(file, base, base + text.len());
            Diagnostic::error(codes::UNEXPECTED, span, "an empty entry", "nothing here")
        }
    }
}

struct Place<'t> {
    file: FileId,
    base: usize,
    context: Context,
    tokens: &'t [Token<'t>],
    index: usize,
}

impl Place<'_> {
    fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.file, self.base + start, self.base + end)
    }

    fn of(&self, token: Token<'_>) -> Span {
        self.span(token.start, token.end())
    }

    /// Brackets open before the mismatch, innermost last.
    fn bracket(&self) -> Option<&str> {
        let mut open = Vec::new();
        for token in &self.tokens[..self.index.min(self.tokens.len())] {
            match token.text {
                "(" | "[" => open.push(token.text),
                ")" | "]" => {
                    open.pop();
                }
                _ => {}
            }
        }
        open.last().copied()
    }

    /// Signs of other languages, each with the sign of this one.
    fn foreign_sign(&self, next: Option<Token<'_>>, previous: Option<Token<'_>>) -> Option<Diagnostic> {
        let wrong = |token: Token<'_>, message: String, label: &str, title: String, text: &str| {
            Diagnostic::error(codes::WRONG_SIGN, self.of(token), message, label).fix(
                title,
                Applicability::MachineApplicable,
                self.of(token),
                text,
            )
        };
        let next = next?;
        let bracket = self.bracket();
        match next.text {
            ";" => {
                return Some(wrong(
                    next,
                    "`;` after an entry".into(),
                    "a newline or a comma ends an entry",
                    "remove it".into(),
                    "",
                ));
            }
            "&&" | "||" => {
                let word = if next.text == "&&" { "and" } else { "or" };
                return Some(wrong(
                    next,
                    format!("`{}` where `{word}` is meant", next.text),
                    "a sign of another language",
                    format!("write `{word}`"),
                    word,
                ));
            }
            "!" => {
                return Some(wrong(
                    next,
                    "`!` where `not` is meant".into(),
                    "a sign of another language",
                    "write `not`".into(),
                    "not ",
                ));
            }
            ":=" | "+=" if bracket.is_none() => {
                return Some(wrong(
                    next,
                    format!("`{}` where `=` is meant", next.text),
                    "nothing is assigned twice",
                    "write `=`".into(),
                    "=",
                ));
            }
            ":" if bracket.is_none() && self.context == Context::Entry => {
                return Some(wrong(
                    next,
                    "`:` between a key and its value".into(),
                    "a field is `key = value`",
                    "write `=`".into(),
                    " =",
                ));
            }
            "=" if bracket == Some("(") && previous.is_some_and(|p| p.is_word()) => {
                let previous = previous?;
                let span = self.span(previous.end(), next.end());
                return Some(
                    Diagnostic::error(
                        codes::WRONG_SIGN,
                        self.of(next),
                        format!("`=` after the argument name `{}`", previous.text),
                        "an argument is `name: value`",
                    )
                    .fix("write `:`", Applicability::MachineApplicable, span, ":"),
                );
            }
            "=" if self.context == Context::Head => {
                let span = self.span(previous.map_or(next.start, |p| p.end()), next.end());
                return Some(
                    Diagnostic::error(
                        codes::WRONG_SIGN,
                        self.of(next),
                        "`=` before `{`",
                        "a block is `kind name { … }`",
                    )
                    .fix("remove it", Applicability::MachineApplicable, span, ""),
                );
            }
            _ => {}
        }
        let comment = match next.text {
            "//" => Some(next),
            "/" => previous.filter(|p| p.text == "/" && p.end() == next.start),
            _ => None,
        };
        if let Some(start) = comment {
            let span = self.span(start.start, next.end());
            return Some(
                Diagnostic::error(
                    codes::WRONG_SIGN,
                    span,
                    "`//` where `#` is meant",
                    "a comment starts with `#`",
                )
                .fix("write `#`", Applicability::MachineApplicable, span, "#"),
            );
        }
        let quoted = next.text.strip_prefix(['\'', '“', '”', '‘', '’', '`'])?;
        let inner = quoted.trim_end_matches(['\'', '“', '”', '‘', '’', '`']);
        let diagnostic = Diagnostic::error(
            codes::WRONG_SIGN,
            self.of(next),
            "a string in foreign quotes",
            "a string stands in `\"…\"`",
        );
        Some(if inner.is_empty() || inner.len() == quoted.len() {
            diagnostic
        } else {
            diagnostic.fix(
                "write plain double quotes",
                Applicability::MachineApplicable,
                self.of(next),
                format!("\"{inner}\""),
            )
        })
    }

    /// A field at the top level, an item in a block.
    fn wrong_place(&self) -> Option<Diagnostic> {
        let (first, second) = (self.tokens.first()?, self.tokens.get(1)?);
        let all = self.span(first.start, first.end());
        match (self.context, first.text) {
            (Context::Entry, kind @ ("use" | "param" | "let")) if second.text != "=" => Some(
                Diagnostic::error(
                    codes::WRONG_PLACE,
                    all,
                    format!("`{kind}` inside a block"),
                    "stands at the top level of a file",
                )
                .help("move it out of the block"),
            ),
            (Context::Item, key) if first.is_word() && matches!(second.text, "=" | ".") => Some(
                Diagnostic::error(
                    codes::WRONG_PLACE,
                    all,
                    format!("the field `{key}` stands outside a block"),
                    "belongs into a block",
                )
                .help("a name for a value is written `let name = value`"),
            ),
            _ => None,
        }
    }

    fn missing_value(&self, previous: Token<'_>, next: Option<Token<'_>>) -> Diagnostic {
        let what = match previous.text {
            "as" => "a name",
            "in" => "a list",
            ":" if self.context == Context::Item => "a type",
            _ => "a value",
        };
        let message = format!("{what} is missing after `{}`", previous.text);
        let label = match next {
            None => "the entry ends here".to_owned(),
            Some(next) => format!("followed by {}", next.quoted()),
        };
        let diagnostic = Diagnostic::error(codes::MISSING_VALUE, self.of(previous), message, label);
        match (previous.text, next) {
            ("then", None) => diagnostic.help("remove `then`, or say what follows"),
            _ => diagnostic,
        }
    }

    fn cut_short(&self, previous: Token<'_>) -> Diagnostic {
        let span = self.of(previous);
        let first = self.tokens.first().map_or("", |t| t.text);
        let message = match self.context {
            Context::Attribute => "an attribute without a name".to_owned(),
            _ => format!("the entry stops after {}", previous.quoted()),
        };
        let diagnostic = Diagnostic::error(codes::UNEXPECTED, span, message, "stops here");
        match (self.context, first) {
            (Context::Attribute, _) => diagnostic.help("an attribute is `@allow(lint)` or `@cite(\"…\")`"),
            (_, "use") => diagnostic.help("an import is `use \"file.curriculum\" as name`"),
            (_, "param") => diagnostic.help("a parameter is `param name: type = default`"),
            (_, "let") => diagnostic.help("a named value is `let name = value`"),
            (_, "assert") => diagnostic.help("an assertion is `assert condition, \"why\"`"),
            (Context::Item, kind) => {
                diagnostic.help(format!("an item is `{kind} name {{ … }}` or `{kind} name = value`"))
            }
            _ => diagnostic,
        }
    }

    fn unexpected(&self, previous: Option<Token<'_>>, next: Token<'_>) -> Diagnostic {
        let span = self.of(next);
        let found = next.quoted();
        if matches!(next.text, ")" | "]") && self.bracket().is_none() {
            let message = format!("{found} closes nothing");
            return Diagnostic::error(codes::UNBALANCED, span, message, "no bracket is open here").fix(
                "remove it",
                Applicability::MaybeIncorrect,
                span,
                "",
            );
        }
        let message = match previous {
            Some(previous) => format!("unexpected {found} after {}", previous.quoted()),
            None => format!("unexpected {found}"),
        };
        let diagnostic = Diagnostic::error(codes::UNEXPECTED, span, message, "has no place here");
        let Some(previous) = previous else {
            return match self.context {
                Context::Item | Context::Head => diagnostic
                    .help("an item begins with `use`, `param`, `let`, `assert` or the kind of a block"),
                _ => diagnostic,
            };
        };
        match (self.context, self.bracket()) {
            (_, Some(_)) if next.begins_value() => {
                let gap = self.span(previous.end(), next.start);
                diagnostic.help("values in brackets are separated by commas").fix(
                    "insert a comma",
                    Applicability::MaybeIncorrect,
                    gap,
                    ", ",
                )
            }
            (Context::Head, None) => diagnostic.help("a block is `kind name { … }`"),
            (Context::Entry, None) if next.begins_value() => {
                diagnostic.help("entries are separated by a newline or a comma")
            }
            _ => diagnostic,
        }
    }
}

impl Token<'_> {
    fn quoted(&self) -> String {
        if self.text.starts_with('"') {
            return "a string".to_owned();
        }
        let shown: String = self.text.chars().take(24).collect();
        let shown = if shown.len() < self.text.len() { format!("{shown}…") } else { shown };
        match self.text.chars().next() {
            Some(c) if c.is_control() => format!("the control character U+{:04X}", u32::from(c)),
            _ => format!("`{shown}`"),
        }
    }
}

/// A rough cut into tokens, of any text.
fn tokens(text: &str) -> Vec<Token<'_>> {
    const PAIRS: [&str; 9] = ["<=", ">=", "==", "!=", "&&", "||", ":=", "+=", "//"];
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = match c {
            _ if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '#' => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            '"' => string_length(rest),
            '\'' | '“' | '‘' => {
                rest[c.len_utf8()..].find(['\'', '”', '’', '\n', ',']).map_or(c.len_utf8(), |i| {
                    let end = c.len_utf8() + i;
                    let close = rest[end..].chars().next().filter(|c| !matches!(c, '\n' | ','));
                    end + close.map_or(0, char::len_utf8)
                })
            }
            _ if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
            }
            _ => PAIRS.iter().find(|p| rest.starts_with(**p)).map_or(c.len_utf8(), |p| p.len()),
        };
        out.push(Token { text: &text[at..at + length], start: at });
        at += length;
    }
    out
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            '\n' => return i,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}
