//! What to say about an entry that matches no rule. Works from the text around the place where the
//! match stopped; pest's own list of expected rules is never shown.

use super::literal::SEGMENTS;
use crate::diag::suggest::nearest;
use crate::diag::{Applicability, Diagnostic, Edit, codes};
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
pub(super) struct Token<'t> {
    pub(super) text: &'t str,
    pub(super) start: usize,
}

impl Token<'_> {
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(super) fn is_word(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }

    /// Whether something must follow it.
    fn is_open(&self) -> bool {
        matches!(
            self.text,
            "=" | "(" | "[" | "," | ":" | "+" | "-" | "*" | "/" | "<" | "<=" | ">" | ">=" | "==" | "!="
        ) || matches!(self.text, "then" | "and" | "or" | "not" | "of" | "where" | "in" | "as")
    }

    fn is_comparison(&self) -> bool {
        matches!(self.text, "<" | "<=" | ">" | ">=" | "==" | "!=")
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
    let place = Place { text, file, base, context, tokens: &tokens, index };
    if let Some(diagnostic) = place.foreign_item().or_else(|| place.foreign_sign(next, previous)) {
        return diagnostic;
    }
    if let Some(diagnostic) = place.wrong_place().or_else(|| place.unfinished_item()) {
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

/// The diagnostic for the bracket at byte `close` of `text`, which nothing in the entry at `entry`
/// opened.
pub(super) fn unopened(text: &str, entry: Span, close: usize) -> Diagnostic {
    let closer = &text[close..=close];
    let opener = if closer == ")" { "(" } else { "[" };
    let span = Span::new(entry.file, close, close + 1);
    let message = format!("`{closer}` closes nothing");
    let diagnostic =
        Diagnostic::error(codes::UNBALANCED, span, message, format!("no `{opener}` is open here"));
    // `linear to: 0)`: the name of an argument right behind a word tells where the call begins.
    let before = tokens(&text[entry.start as usize..close]);
    let call = before.windows(3).find(|t| t[0].is_word() && t[1].is_word() && t[2].text == ":");
    match call.filter(|t| opener == "(" && !t[0].is_open()) {
        Some(call) => {
            let at = |offset: usize| entry.start as usize + offset;
            let gap = Span::new(entry.file, at(call[0].end()), at(call[1].start));
            let gap = if text[gap.range()].contains('\n') { Span { end: gap.start, ..gap } } else { gap };
            diagnostic.fix("insert `(`", Applicability::MaybeIncorrect, gap, "(")
        }
        None => diagnostic.fix("remove it", Applicability::MaybeIncorrect, span, ""),
    }
}

/// The place where the match stopped.
pub(super) struct Place<'t> {
    pub(super) text: &'t str,
    file: FileId,
    base: usize,
    pub(super) context: Context,
    pub(super) tokens: &'t [Token<'t>],
    pub(super) index: usize,
}

impl Place<'_> {
    pub(super) fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.file, self.base + start, self.base + end)
    }

    pub(super) fn of(&self, token: Token<'_>) -> Span {
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

    /// Whether an `=` stands before the mismatch.
    fn after_sign(&self) -> bool {
        self.tokens[..self.index.min(self.tokens.len())].iter().any(|t| t.text == "=")
    }

    /// Whether nothing but the path of a key stands before the mismatch.
    fn in_key(&self) -> bool {
        let before = &self.tokens[..self.index.min(self.tokens.len())];
        before.windows(2).all(|pair| !(pair[0].is_word() && pair[1].is_word()))
            && before.iter().all(|t| !t.is_open() || t.text == "[")
            && before.first().is_some_and(|t| t.is_word())
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
        let Some(next) = next else { return self.hidden(None, previous) };
        if let Some(diagnostic) = self.pipe(next) {
            return Some(diagnostic);
        }
        let bracket = self.bracket();
        match next.text {
            ";" => {
                return Some(wrong(
                    next,
                    "`;` between values".into(),
                    "a comma separates them",
                    "write `,`".into(),
                    ",",
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
            // Further on it stands in a call without its `(`, and `=` would only hide that.
            ":" if bracket.is_none() && self.context == Context::Entry && self.in_key() => {
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
        if let Some(diagnostic) = self.typography(next, previous) {
            return Some(diagnostic);
        }
        if next.text == "," && bracket.is_none() && self.context != Context::Head {
            return self.grouped_digits(next, previous?);
        }
        if next.text == "+" && previous.is_some_and(|p| p.is_open()) {
            let number = self.tokens.get(self.index + 1)?;
            let span = self.span(next.start, number.start);
            return number.text.starts_with(|c: char| c.is_ascii_digit()).then(|| {
                let message = "`+` before a number";
                Diagnostic::error(codes::WRONG_SIGN, self.of(next), message, "a number has no sign but `-`")
                    .fix("remove it", Applicability::MachineApplicable, span, "")
            });
        }
        let first = self.tokens.first()?.text;
        let before = &self.tokens[..self.index.min(self.tokens.len())];
        if next.text == "=" && bracket.is_none() {
            let condition = first == "assert" || before.iter().any(|t| t.text == "where");
            // `===`, which `====` would not mend.
            if let Some(sign) = previous.filter(|p| condition && p.is_comparison()) {
                let touches = sign.end() == next.start;
                let sure =
                    if touches { Applicability::MachineApplicable } else { Applicability::MaybeIncorrect };
                let message = format!("`=` after `{}`", sign.text);
                let span = self.span(sign.end(), next.end());
                return Some(
                    Diagnostic::error(
                        codes::WRONG_SIGN,
                        self.of(next),
                        message,
                        "two values are compared by one sign",
                    )
                    .fix("remove it", sure, span, ""),
                );
            }
            let compares = previous.is_some_and(|p| !p.is_open()) && (first != "assert" || self.index > 1);
            if condition && compares
                || self.context == Context::Entry && previous.is_some_and(|p| p.text == ")")
            {
                let diagnostic = Diagnostic::error(
                    codes::WRONG_SIGN,
                    self.of(next),
                    "`=` in a condition",
                    "gives a value, where two are compared",
                );
                let value =
                    self.tokens.get(self.index + 1).is_some_and(|t| t.begins_value() || t.text == "-");
                return Some(match condition && value {
                    true => {
                        diagnostic.fix("write `==`", Applicability::MachineApplicable, self.of(next), "==")
                    }
                    false => diagnostic.help("write `>=`, `<=` or `==`"),
                });
            }
        }
        if matches!((next.text, self.tokens.get(self.index + 1).map(|t| t.text)), ("/", Some("*"))) {
            let span = self.span(next.start, next.end() + 1);
            return Some(
                Diagnostic::error(
                    codes::WRONG_SIGN,
                    span,
                    "`/*` where `#` is meant",
                    "a comment starts with `#` and ends with its line",
                )
                .help("put a `#` before each line of it"),
            );
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

    /// A character that shows as a space or not at all, where the entry stopped matching.
    fn hidden(&self, next: Option<Token<'_>>, previous: Option<Token<'_>>) -> Option<Diagnostic> {
        let last = self.tokens.last().map_or(0, |t| t.end());
        let behind = || self.invisible(last, self.text.len());
        let upto = |token: Token<'_>| token.start + token.text.chars().next().map_or(0, char::len_utf8);
        let found = match next {
            // An item that stops at its first word has its fault somewhere before its `=`.
            Some(_) if self.index == 0 && self.context == Context::Item => {
                let starts = std::iter::once(0).chain(self.tokens.iter().map(|t| t.end()));
                let gaps = starts.zip(self.tokens).find_map(|(gap, token)| self.invisible(gap, upto(*token)));
                gaps.or_else(behind)
            }
            Some(next) => self.invisible(previous.map_or(0, |p| p.end()), upto(next)),
            None => behind(),
        };
        let (at, c) = found?;
        let span = self.span(at, at + c.len_utf8());
        // At the end of an entry it separates nothing.
        let text = if c.is_whitespace() && at < last { " " } else { "" };
        Some(
            Diagnostic::error(
                codes::WRONG_SIGN,
                span,
                format!("the invisible character U+{:04X}", u32::from(c)),
                "only plain spaces separate words",
            )
            .fix(
                if text.is_empty() { "remove it" } else { "write a plain space" },
                Applicability::MachineApplicable,
                span,
                text,
            ),
        )
    }

    /// Signs that a word processor or a web page puts in place of those of a keyboard.
    fn typography(&self, next: Token<'_>, previous: Option<Token<'_>>) -> Option<Diagnostic> {
        if let Some(diagnostic) = self.hidden(Some(next), previous) {
            return Some(diagnostic);
        }
        let plain = match next.text.chars().next()? {
            '−' | '–' | '—' | '‐' | '‑' => "-",
            '×' | '∗' => "*",
            '÷' => "/",
            '≤' => "<=",
            '≥' => ">=",
            '≠' => "!=",
            '＝' => "=",
            '：' => ":",
            '，' | '、' => ",",
            _ => return None,
        };
        let c = next.text.chars().next()?;
        let span = self.span(next.start, next.start + c.len_utf8());
        Some(
            Diagnostic::error(
                codes::WRONG_SIGN,
                span,
                format!("`{c}` where `{plain}` is meant"),
                "looks alike and is another character",
            )
            .fix(format!("write `{plain}`"), Applicability::MachineApplicable, span, plain),
        )
    }

    /// The first character of `start..end` that shows as a space or not at all.
    fn invisible(&self, start: usize, end: usize) -> Option<(usize, char)> {
        let text = self.text.get(start..end)?;
        let hidden =
            |c: char| !c.is_ascii() && c.is_whitespace() || matches!(c, '\u{200b}'..='\u{200d}' | '\u{feff}');
        text.char_indices().find(|(_, c)| hidden(*c)).map(|(i, c)| (start + i, c))
    }

    /// `10,000,000`: the layout keeps such digits in one entry.
    fn grouped_digits(&self, comma: Token<'_>, before: Token<'_>) -> Option<Diagnostic> {
        let digits = |t: &Token<'_>| t.text.bytes().all(|b| b.is_ascii_digit());
        if !digits(&before) || before.end() != comma.start {
            return None;
        }
        let mut end = comma.start;
        for pair in self.tokens[self.index..].chunks(2) {
            match pair {
                [comma, group] if comma.text == "," && comma.start == end && group.start == end + 1 => {
                    // The last group may carry a magnitude.
                    if !group.text.starts_with(|c: char| c.is_ascii_digit()) {
                        break;
                    }
                    end = group.end();
                }
                _ => break,
            }
        }
        let written = self.text.get(before.start..end)?;
        let span = self.span(before.start, end);
        Some(
            Diagnostic::error(
                codes::WRONG_SIGN,
                span,
                "commas between the digits of a number",
                "a comma ends an entry",
            )
            .fix(
                "group the digits with `_`",
                Applicability::MachineApplicable,
                span,
                written.replace(',', "_"),
            ),
        )
    }

    /// An item that stopped matching before it began to say anything.
    fn unfinished_item(&self) -> Option<Diagnostic> {
        let (first, name) = (self.tokens.first()?, self.tokens.get(1)?);
        if self.context != Context::Item || self.index > 0 || !first.is_word() || !name.is_word() {
            return None;
        }
        let last = self.tokens.last()?;
        let end = self.span(name.start, last.end());
        if matches!(first.text, "param" | "let") {
            if self.tokens.iter().any(|t| t.text == "=") {
                return None;
            }
            let d = Diagnostic::error(
                codes::MISSING_VALUE,
                end,
                format!("`{} {}` has no value", first.text, name.text),
                "the entry ends here",
            );
            return Some(match first.text {
                "param" => {
                    d.help("a parameter has a default, which `--set` changes: `param name: type = default`")
                }
                _ => d.help("a named value is `let name = value`"),
            });
        }
        match self.tokens.get(2).map(|t| t.text) {
            None => Some(
                Diagnostic::error(
                    codes::UNEXPECTED,
                    self.span(first.start, name.end()),
                    format!("`{} {}` says nothing", first.text, name.text),
                    "`{` or `=` is missing after this",
                )
                .help(format!("an item is `{0} name {{ … }}` or `{0} name = value`", first.text)),
            ),
            Some("[") if self.tokens.iter().any(|t| t.text == "=") => Some(
                Diagnostic::error(
                    codes::UNEXPECTED,
                    end,
                    format!("a fan-out of `{} {}`", first.text, name.text),
                    "what is bound with `=` is one thing",
                )
                .help("only a stage fans out: `stage anneal[order in [1, 2]] { … }`"),
            ),
            _ => None,
        }
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

    /// `betas: (0.9, 0.95)`: a comma in parentheses that are no call's.
    fn list_in_parentheses(&self, comma: Token<'_>) -> Option<Diagnostic> {
        let before = self.tokens.get(..self.index)?;
        let open = before.iter().rposition(|t| matches!(t.text, "(" | ")" | "[" | "]"))?;
        let called =
            open.checked_sub(1).and_then(|i| before.get(i)).is_some_and(|t| t.is_word() && !t.is_open());
        if comma.text != "," || before[open].text != "(" || called {
            return None;
        }
        let diagnostic = Diagnostic::error(
            codes::UNEXPECTED,
            self.of(comma),
            "a list in parentheses",
            "several values stand in `[…]`",
        );
        let close = self.tokens[self.index..].iter().find(|t| matches!(t.text, "(" | ")" | "[" | "]"));
        Some(match close.filter(|t| t.text == ")") {
            Some(close) => {
                let mut diagnostic = diagnostic.fix(
                    "write `[…]`",
                    Applicability::MachineApplicable,
                    self.of(before[open]),
                    "[",
                );
                let edit = Edit { span: self.of(*close), text: "]".to_owned() };
                diagnostic.fixes.iter_mut().for_each(|fix| fix.edits.push(edit.clone()));
                diagnostic
            }
            None => diagnostic,
        })
    }

    fn missing_value(&self, previous: Token<'_>, next: Option<Token<'_>>) -> Diagnostic {
        let what = match previous.text {
            "as" => "a name",
            "in" => "a list",
            ":" if self.context == Context::Item && self.bracket().is_none() && !self.after_sign() => {
                "a type"
            }
            _ => "a value",
        };
        let message = format!("{what} is missing after `{}`", previous.text);
        let label = match next {
            None => "the entry ends here".to_owned(),
            Some(next) => format!("followed by {}", next.quoted()),
        };
        let diagnostic = Diagnostic::error(codes::MISSING_VALUE, self.of(previous), message, label);
        match (previous.text, next) {
            ("-", Some(next)) if next.text == ">" => {
                diagnostic.help("a curve goes on with `then`: `3e-4 then linear(to: 0)`")
            }
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
        // A field may be called `then`, so that the match stops behind it.
        let (previous, next) = match self.tokens {
            [then, ..] if then.text == "then" && self.index == 1 => (None, *then),
            _ => (previous, next),
        };
        let span = self.of(next);
        let found = next.quoted();
        let message = match previous {
            Some(previous) => format!("unexpected {found} after {}", previous.quoted()),
            None => format!("unexpected {found}"),
        };
        let diagnostic = Diagnostic::error(codes::UNEXPECTED, span, message, "has no place here");
        let Some(previous) = previous else {
            return match self.context {
                _ if next.text == "then" => diagnostic
                    .help("a curve is one value: no comma before `then`, and a newline only within brackets or behind it"),
                Context::Item | Context::Head => diagnostic
                    .help("an item begins with `use`, `param`, `let`, `assert` or the kind of a block"),
                _ => diagnostic,
            };
        };
        let key = self.tokens.get(self.index + 1).is_some_and(|t| t.text == "=");
        // After a number any word is read as a unit: `3e-4 than linear(…)`.
        if previous.is_word()
            && previous.text.len() > 2
            && let Some(number) = self.index.checked_sub(2).and_then(|i| self.tokens.get(i))
            && number.text.starts_with(|c: char| c.is_ascii_digit())
            && let Some(near) =
                nearest(previous.text, ["then", "where", "and"]).filter(|n| *n != previous.text)
        {
            let (span, found, after) = (self.of(previous), previous.quoted(), number.quoted());
            let message = format!("unexpected {found} after {after}");
            return Diagnostic::error(codes::UNEXPECTED, span, message, "has no place here")
                .help(format!("did you mean `{near}`?"))
                .fix(format!("replace by `{near}`"), Applicability::MaybeIncorrect, span, near);
        }
        if next.is_word()
            && !key
            && next.text.len() > 2
            && let Some(near) = nearest(next.text, ["then", "where", "and"])
        {
            return diagnostic.help(format!("did you mean `{near}`?")).fix(
                format!("replace by `{near}`"),
                Applicability::MaybeIncorrect,
                span,
                near,
            );
        }
        if self.context == Context::Head
            && self.index == 1
            && let Some(name) = next.text.strip_prefix('"').and_then(|t| t.strip_suffix('"'))
            && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        {
            return diagnostic.help("names stand without quotes").fix(
                "take the quotes away",
                Applicability::MachineApplicable,
                span,
                name,
            );
        }
        if let Some(diagnostic) = self.list_in_parentheses(next).or_else(|| self.foreign_head()) {
            return diagnostic;
        }
        match (self.context, self.bracket()) {
            (Context::Head, _) if previous.text == "]" && next.text == "[" => Diagnostic::error(
                codes::UNEXPECTED,
                span,
                "a second pair of brackets",
                "the variables of a fan-out stand in one",
            )
            .help("write `[seed in [1, 2], share in [10%, 30%]]`: one member for each combination"),
            (Context::Entry | Context::Item, None) if SEGMENTS.contains(&next.text) => {
                let before = self.span(next.start, next.start);
                diagnostic.help("a curve goes on with `then`").fix(
                    "insert `then`",
                    Applicability::MaybeIncorrect,
                    before,
                    "then ",
                )
            }
            (Context::Item | Context::Entry, _) if next.text == "in" => {
                diagnostic.help("compare with one value after the other: `lang == \"en\" or lang == \"de\"`")
            }
            (Context::Head, None) if matches!(next.text, "-" | ".") && self.index == 2 => {
                diagnostic.help("a name is made of letters, digits and `_`")
            }
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
            (Context::Entry, None)
                if next.text == "=" && self.index == 1 && previous.text.starts_with('"') =>
            {
                let key = previous.text.trim_matches('"').to_owned();
                let d = diagnostic.help("a key stands without quotes");
                let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                match key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(word) {
                    true => {
                        let quoted = self.of(previous);
                        d.fix("take the quotes away", Applicability::MachineApplicable, quoted, key)
                    }
                    false => d,
                }
            }
            // `linear(to: 0) over 10B`: what other notations put behind.
            (Context::Entry, None)
                if !key && matches!(next.text, "over" | "until" | "to" | "for" | "after") =>
            {
                diagnostic.help(
                    "what a segment takes stands in its parentheses: `linear(to: 0, over: 10B)`, \
                     `hold(over: 60% of stage)`, `hold(until: lr <= 20% of peak)`",
                )
            }
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
            '0'..='9' => number_length(rest),
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

/// A number with its fraction, exponent and whatever letters touch it.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let mut at = 1;
    while let Some(byte) = bytes.get(at) {
        let signed = matches!(bytes[at - 1], b'e' | b'E') && matches!(byte, b'+' | b'-') && digit(at + 1);
        let goes_on =
            byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'.' && digit(at + 1) || signed;
        if !goes_on {
            break;
        }
        at += 1;
    }
    at
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
