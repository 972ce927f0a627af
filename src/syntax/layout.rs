//! Where entries begin and end: one pass over the bytes that cuts a file into comments, attributes,
//! entries, block heads and closing braces. Knows brackets, strings, comments and the rules for
//! newlines and commas; knows no expression.
//!
//! Every cut is local, so a mistake spoils the entry it stands in and nothing else: an open bracket
//! ends where the next line plainly begins something new, an open string ends with its line.

use std::ops::Range;

/// Brackets nested deeper than this inside one entry are reported, not parsed.
pub(super) const MAX_BRACKETS: usize = 64;
/// How many bytes after a comma or a wrong bracket are looked at for the one that tells what is
/// missing; a bound, so that the work stays linear.
const LOOK_AHEAD: usize = 512;

/// A stretch of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// `# …` to the end of its line.
    Comment(Range<usize>),
    /// `## …` to the end of its line.
    Doc(Range<usize>),
    /// `@name(…)`.
    Attribute(Chunk),
    /// An item or entry without a block.
    Entry(Chunk),
    /// What stands before a `{`, and where the brace is.
    Open(Chunk, usize),
    /// A `}` at a byte, and the indentation of its line, when it is the first thing there.
    Close(usize, Option<usize>),
    /// A `;` at a byte that ends no entry.
    Semicolon(usize),
}

/// The text of one entry, from its first to its last significant byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Its bytes; may be empty before a `{`.
    pub(super) range: Range<usize>,
    /// What is wrong with its brackets and strings.
    pub(super) faults: Vec<Fault>,
    /// The indentation of its line, when it is the first thing there.
    pub(super) indent: Option<usize>,
    /// The `;` that ends it, as in other languages.
    pub(super) semicolon: Option<usize>,
}

/// A fault of brackets or strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A `(` or `[` at `open` that is not closed by `end`.
    Unclosed { open: usize, end: usize },
    /// `(` closed by `]` or the reverse.
    Mismatched { open: usize, close: usize },
    /// A `)` or `]` at `close` that nothing opened.
    Unopened { close: usize },
    /// A string that runs into the end of its line.
    UnclosedString { open: usize, end: usize },
    /// More than [`MAX_BRACKETS`] open brackets.
    TooDeep { at: usize },
}

/// Cuts a text into pieces, one per call of `next`.
pub(super) struct Layout<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    /// Comments met inside an entry, handed out before the next piece.
    comments: std::collections::VecDeque<Range<usize>>,
    /// The line of the last entry: its start and its indentation.
    line: (usize, usize),
    /// A piece that was read together with its comments and waits for them.
    waiting: Option<Piece>,
}

impl<'t> Layout<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        // A byte order mark is no part of the language and no mistake either.
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self {
            text,
            bytes: text.as_bytes(),
            at,
            comments: Default::default(),
            line: (0, indent(text, 0)),
            waiting: None,
        }
    }

    /// How far the line of `at` is indented. Asked in ascending order, so each byte is looked at once.
    fn indent(&mut self, at: usize) -> usize {
        let known = self.line.0.min(at);
        if let Some(newline) = self.text[known..at].rfind('\n') {
            self.line = (known + newline + 1, indent(self.text, known + newline + 1));
        }
        self.line.1
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    fn line_end(&self, at: usize) -> usize {
        self.text[at..].find('\n').map_or(self.text.len(), |i| at + i)
    }

    /// The comment that starts at `at`, without trailing blanks or a carriage return.
    fn comment(&self, at: usize) -> Range<usize> {
        let end = self.line_end(at);
        at..at + self.text[at..end].trim_end().len()
    }

    fn skip_blanks(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), Some(b' ' | b'\t' | b'\r')) {
            at += 1;
        }
        at
    }

    /// The word that starts at `at`; empty if none does.
    fn word(&self, at: usize) -> &'t str {
        let rest = &self.bytes[at..];
        let length = rest.iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
        if rest.first().is_some_and(u8::is_ascii_digit) { "" } else { &self.text[at..at + length] }
    }

    /// The indentation of the line of `at`, if nothing but blanks stands before `at`.
    fn first_on_line(&mut self, at: usize) -> Option<usize> {
        let indent = self.indent(at);
        (self.line.0 + indent == at).then_some(indent)
    }

    fn attribute(&mut self) -> Piece {
        let start = self.at;
        let after_sign = self.skip_blanks(start + 1);
        let mut end = after_sign + self.word(after_sign).len();
        let mut faults = Vec::new();
        let open = self.skip_blanks(end);
        if self.byte(open) == Some(b'(') {
            let chunk = self.chunk(open, Stop::Balanced, start);
            end = chunk.range.end.max(end);
            faults = chunk.faults;
        } else {
            end = end.max(start + 1);
            self.at = end;
        }
        let indent = self.first_on_line(start);
        Piece::Attribute(Chunk { range: start..end, faults, indent, semicolon: None })
    }

    /// Scan from `start` to the end of the entry (or of the bracket that opens at `start`). Leaves
    /// `self.at` on whatever ended it.
    fn chunk(&mut self, start: usize, stop: Stop, line_of: usize) -> Chunk {
        let comments = self.comments.len();
        let chunk = self.scan(start, stop, line_of, false);
        if !chunk.faults.iter().any(|fault| matches!(fault, Fault::Unclosed { .. })) {
            return chunk;
        }
        // A bracket is missing for certain, so signs of a new entry that well-formed text could
        // show inside brackets as well now count.
        self.comments.truncate(comments);
        self.scan(start, stop, line_of, true)
    }

    fn scan(&mut self, start: usize, stop: Stop, line_of: usize, strict: bool) -> Chunk {
        let mut open: Vec<(u8, usize)> = Vec::new();
        let mut faults = Vec::new();
        let indent = self.indent(line_of);
        let first_word = self.word(start);
        let (mut at, mut end) = (start, start);
        let mut too_deep = false;
        let mut semicolon = None;
        // Between the arguments of a call whose `(` is missing.
        let mut in_call = false;
        while let Some(byte) = self.byte(at) {
            match byte {
                b' ' | b'\t' | b'\r' => at += 1,
                b'\n' if open.is_empty() && self.brace_below(at, start..end) => {
                    at = self.skip_space(at);
                }
                b'\n'
                    if open.is_empty()
                        && (in_call || self.indent_after(at) > indent)
                        && self.in_call(in_call, at + 1, indent) =>
                {
                    in_call = true;
                    at += 1;
                }
                b'\n' if open.is_empty() => match self.continuation(at, start, end) {
                    Some((next, comments)) => {
                        self.comments.extend(comments);
                        at = next;
                    }
                    None => break,
                },
                b'\n' => {
                    if self.starts_entry(at + 1, indent, strict) {
                        break;
                    }
                    at += 1;
                }
                b'#' => {
                    let comment = self.comment(at);
                    at = self.line_end(at);
                    self.comments.push_back(comment);
                }
                b'"' => match string_end(self.bytes, at) {
                    Ok(after) => {
                        at = after;
                        end = after;
                    }
                    Err(line_end) => {
                        let trimmed = at + self.text[at..line_end].trim_end().len();
                        faults.push(Fault::UnclosedString { open: at, end: trimmed });
                        // The missing quote belonged before the brackets that close on this line.
                        for closer in self.text[at..line_end].bytes().filter(|b| b")]".contains(b)) {
                            if open.last().is_some_and(|(opener, _)| partner(*opener) == closer) {
                                open.pop();
                            }
                        }
                        at = line_end;
                        end = trimmed;
                    }
                },
                b'(' | b'[' => {
                    if open.len() >= MAX_BRACKETS && !too_deep {
                        too_deep = true;
                        faults.push(Fault::TooDeep { at });
                    }
                    open.push((byte, at));
                    at += 1;
                    end = at;
                }
                b')' | b']' => {
                    match open.last().copied() {
                        // The bracket that is open is closed further on: this one's partner is missing.
                        Some((opener, _))
                            if partner(opener) != byte
                                && faults.is_empty()
                                && self.unopened(at + 1, indent) == Some(partner(opener)) =>
                        {
                            faults.push(Fault::Unopened { close: at });
                        }
                        Some((opener, opened)) => {
                            open.pop();
                            if partner(opener) != byte {
                                faults.push(Fault::Mismatched { open: opened, close: at });
                            }
                        }
                        None => {
                            in_call = false;
                            faults.push(Fault::Unopened { close: at });
                        }
                    }
                    at += 1;
                    end = at;
                    if open.is_empty() && stop == Stop::Balanced {
                        break;
                    }
                }
                b'{' | b'}' => break,
                b',' if open.is_empty() && groups_digits(self.bytes, at) => {
                    at += 1;
                    end = at;
                }
                b',' if open.is_empty() && self.in_call(in_call, at + 1, indent) => {
                    in_call = true;
                    at += 1;
                    end = at;
                }
                b',' if open.is_empty() => {
                    let Some(next) = self.comma_continues(first_word, at) else { break };
                    end = at + 1;
                    at = next;
                }
                b';' if open.is_empty() && end > start => {
                    semicolon = Some(at);
                    at += 1;
                    break;
                }
                _ => {
                    at += char_len(byte);
                    end = at;
                }
            }
        }
        // One missing bracket is one mistake, and so is one entry nested too deeply.
        if let Some((_, opened)) = open.last()
            && !too_deep
        {
            faults.push(Fault::Unclosed { open: *opened, end });
        }
        self.at = at;
        let indent = self.first_on_line(start);
        Chunk { range: start..end, faults, indent, semicolon }
    }

    /// The first `)` or `]` after `at` whose partner does not stand there as well, before anything
    /// that begins an entry.
    fn unopened(&self, at: usize, indent: usize) -> Option<u8> {
        let mut open = 0;
        let mut at = at;
        let limit = at + LOOK_AHEAD;
        while let Some(byte) = self.byte(at).filter(|_| at < limit) {
            match byte {
                b'\n' if self.starts_entry(at + 1, indent, true) => return None,
                b',' if open == 0 && self.starts_field(at + 1) => return None,
                b'{' | b'}' | b';' => return None,
                b'"' => at = string_end(self.bytes, at).ok()?,
                b'#' => at = self.line_end(at),
                b'(' | b'[' => open += 1,
                b')' | b']' if open == 0 => return Some(byte),
                b')' | b']' => open -= 1,
                _ => {}
            }
            at += usize::from(!matches!(byte, b'"' | b'#'));
        }
        None
    }

    /// Whether what follows `at` belongs to a call whose `(` is missing: its `)` comes, and `already`
    /// some argument was met or `name: value` is one.
    fn in_call(&self, already: bool, at: usize, indent: usize) -> bool {
        let start = self.skip_space(at);
        let word = if start < self.text.len() { self.word(start) } else { "" };
        let named = !word.is_empty() && self.byte(self.skip_blanks(start + word.len())) == Some(b':');
        (already || named) && self.unopened(at, indent).is_some()
    }

    /// Whether `key =` stands at `at`.
    fn starts_field(&self, at: usize) -> bool {
        let at = self.skip_space(at);
        let word = if at < self.text.len() { self.word(at) } else { "" };
        let sign = self.skip_blanks(at + word.len());
        !word.is_empty() && self.byte(sign) == Some(b'=') && self.byte(sign + 1) != Some(b'=')
    }

    /// How far the line after the newline at `at` is indented.
    fn indent_after(&self, at: usize) -> usize {
        self.skip_blanks(at + 1) - (at + 1)
    }

    /// At a newline outside brackets: where the entry goes on, if it does, and the comments between.
    fn continuation(&self, newline: usize, start: usize, end: usize) -> Option<(usize, Vec<Range<usize>>)> {
        let mut comments = Vec::new();
        let mut at = newline;
        loop {
            match self.byte(at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => at += 1,
                Some(b'#') if self.byte(at + 1) != Some(b'#') => {
                    comments.push(self.comment(at));
                    at = self.line_end(at);
                }
                _ => break,
            }
        }
        let joins = |word: &str| matches!(word, "then" | "and" | "or");
        let last_word = self.text[start..end]
            .rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .next()
            .unwrap_or_default();
        let next_word = if at < self.text.len() { self.word(at) } else { "" };
        // `then = …` would be a (bad) field, not a continuation.
        let next_joins = joins(next_word) && self.byte(self.skip_blanks(at + next_word.len())) != Some(b'=');
        // A trailing `then` reaches over one line end only: what follows must not be an entry.
        let last_joins = joins(last_word)
            && last_word.len() < end - start
            && at < self.text.len()
            && !self.starts_entry(line_start(self.text, at), usize::MAX, false);
        (next_joins || last_joins).then_some((at, comments))
    }

    /// Whether the line that starts at `line` plainly begins an entry or item: not indented deeper
    /// than `indent`, and `key =`, `kind name …`, `kind {`, `@attribute`; `strict` also takes `key:`,
    /// a doc comment, and `key =` however deep.
    fn starts_entry(&self, line: usize, indent: usize, strict: bool) -> bool {
        let at = self.skip_blanks(line);
        let deeper = at - line > indent;
        if deeper && !strict {
            return false;
        }
        if self.byte(at) == Some(b'@') {
            return true;
        }
        if strict && self.byte(at) == Some(b'#') && self.byte(at + 1) == Some(b'#') {
            return true;
        }
        let first = if at < self.text.len() { self.word(at) } else { "" };
        if first.is_empty() || matches!(first, "then" | "and" | "or" | "of" | "where" | "not") {
            return false;
        }
        let mut at = at + first.len();
        while self.byte(at) == Some(b'.') && !self.word(at + 1).is_empty() {
            at += 1 + self.word(at + 1).len();
        }
        at = self.skip_blanks(at);
        match self.byte(at) {
            Some(b'=') => self.byte(at + 1) != Some(b'='),
            _ if deeper => false,
            Some(b'{') => true,
            Some(b':') => strict,
            Some(b'"') => first == "use",
            Some(_) => {
                !self.word(at).is_empty()
                    && !matches!(self.word(at), "then" | "and" | "or" | "of" | "where" | "in")
            }
            None => false,
        }
    }

    fn skip_space(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            at += 1;
        }
        at
    }

    /// Whether the head of a block stands before the newline at `at` and its brace after it: a
    /// mistake, and one that must not cost the block.
    fn brace_below(&self, at: usize, head: Range<usize>) -> bool {
        if self.byte(self.skip_space(at)) != Some(b'{') {
            return false;
        }
        let first = self.word(head.start);
        let mut name = self.skip_blanks(head.start + first.len());
        name += self.word(name).len();
        !first.is_empty() && (name >= head.end || self.byte(name) == Some(b'['))
    }

    /// Where the entry goes on after the comma at `at`, outside brackets, if it does: with the reason
    /// of an `assert` or the pin of a `use`.
    fn comma_continues(&self, first_word: &str, at: usize) -> Option<usize> {
        if !matches!(first_word, "assert" | "use") {
            return None;
        }
        let mut next = at + 1;
        while matches!(self.byte(next), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            next += 1;
        }
        let goes_on = match first_word {
            "assert" => self.byte(next) == Some(b'"'),
            _ => next < self.text.len() && self.word(next) == "sha256",
        };
        goes_on.then_some(next)
    }
}

impl Iterator for Layout<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if let Some(comment) = self.comments.pop_front() {
            return Some(Piece::Comment(comment));
        }
        if let Some(piece) = self.waiting.take() {
            return Some(piece);
        }
        while matches!(self.byte(self.at), Some(b' ' | b'\t' | b'\r' | b'\n' | b',')) {
            self.at += 1;
        }
        let start = self.at;
        let piece = match self.byte(start)? {
            b'#' => {
                let comment = self.comment(start);
                self.at = self.line_end(start);
                if self.byte(start + 1) == Some(b'#') { Piece::Doc(comment) } else { Piece::Comment(comment) }
            }
            b'@' => self.attribute(),
            b';' => {
                self.at += 1;
                Piece::Semicolon(start)
            }
            b'}' => {
                self.at += 1;
                Piece::Close(start, self.first_on_line(start))
            }
            _ => {
                let chunk = self.chunk(start, Stop::EndOfEntry, start);
                if self.byte(self.at) == Some(b'{') {
                    let brace = self.at;
                    self.at += 1;
                    Piece::Open(chunk, brace)
                } else {
                    Piece::Entry(chunk)
                }
            }
        };
        match self.comments.pop_front() {
            Some(comment) => {
                self.waiting = Some(piece);
                Some(Piece::Comment(comment))
            }
            None => Some(piece),
        }
    }
}

/// What ends a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// A newline or comma outside brackets, or a brace.
    EndOfEntry,
    /// The partner of the bracket it starts with.
    Balanced,
}

/// Whether the comma at `at` stands between the digits of a number, as in `10,000,000`: no entry
/// begins with three digits.
fn groups_digits(bytes: &[u8], at: usize) -> bool {
    let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
    let group = (1..=3).all(|i| digit(at + i)) && !digit(at + 4);
    group && at > 0 && digit(at - 1)
}

fn partner(opener: u8) -> u8 {
    if opener == b'(' { b')' } else { b']' }
}

fn char_len(first: u8) -> usize {
    match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

/// One past the closing quote of the string at `at`, or the end of the line it runs into.
fn string_end(bytes: &[u8], at: usize) -> Result<usize, usize> {
    let mut at = at + 1;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return Ok(at + 1),
            b'\n' => return Err(at),
            b'\\' if bytes.get(at + 1).is_some_and(|b| *b != b'\n') => {
                at += 1 + char_len(bytes[at + 1]);
            }
            _ => at += 1,
        }
    }
    Err(bytes.len())
}

/// First byte of the line that holds `at`.
fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |i| i + 1)
}

/// How far the line that starts at `line` is indented, in bytes.
fn indent(text: &str, line: usize) -> usize {
    text[line..].len() - text[line..].trim_start_matches([' ', '\t']).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<String> {
        let show = |range: &Range<usize>| text[range.clone()].replace('\n', "⏎");
        Layout::new(text)
            .map(|piece| match piece {
                Piece::Comment(range) => format!("comment {}", show(&range)),
                Piece::Doc(range) => format!("doc {}", show(&range)),
                Piece::Attribute(chunk) => format!("attr {}{}", show(&chunk.range), mark(&chunk)),
                Piece::Entry(chunk) => format!("entry {}{}", show(&chunk.range), mark(&chunk)),
                Piece::Open(chunk, _) => format!("open {}{}", show(&chunk.range), mark(&chunk)),
                Piece::Close(..) => "close".to_owned(),
                Piece::Semicolon(_) => "semicolon".to_owned(),
            })
            .collect()
    }

    fn mark(chunk: &Chunk) -> &'static str {
        if chunk.faults.is_empty() { "" } else { " !" }
    }

    #[test]
    fn newlines_and_commas_end_entries() {
        assert_eq!(cut("a = 1\nb = 2, c = 3,\n"), ["entry a = 1", "entry b = 2", "entry c = 3"]);
        assert_eq!(cut("mix m { a = 1 }"), ["open mix m", "entry a = 1", "close"]);
    }

    #[test]
    fn newlines_are_free_in_brackets_and_around_joining_words() {
        assert_eq!(cut("a = f(\n  x,\n y)\nb = 1"), ["entry a = f(⏎  x,⏎ y)", "entry b = 1"]);
        assert_eq!(cut("a = 1 # why\n  then 2\n"), ["comment # why", "entry a = 1 # why⏎  then 2"]);
        assert_eq!(cut("a = 1 then\n  hold\n"), ["entry a = 1 then⏎  hold"]);
        assert_eq!(cut("a = 1 then\nb = 2\n"), ["entry a = 1 then", "entry b = 2"]);
        assert_eq!(
            cut("assert a,\n \"why\"\nuse \"x\", sha256: \"y\", z"),
            ["entry assert a,⏎ \"why\"", "entry use \"x\", sha256: \"y\"", "entry z"]
        );
    }

    #[test]
    fn an_open_bracket_ends_before_the_next_entry() {
        assert_eq!(cut("  a = f(1\n  b = 2\n"), ["entry a = f(1 !", "entry b = 2"]);
        assert_eq!(cut("  a = f(1\n  b: 2\n"), ["entry a = f(1 !", "entry b: 2"]);
        assert_eq!(cut("  a = f(\n  b: 2)\n"), ["entry a = f(⏎  b: 2)"]);
        assert_eq!(cut("a = [1,\n  x = 2\n]\nb = 2"), ["entry a = [1,⏎  x = 2⏎]", "entry b = 2"]);
        assert_eq!(cut("m { a = f(1 }\nb = 2"), ["open m", "entry a = f(1 !", "close", "entry b = 2"]);
    }

    #[test]
    fn a_bracket_that_was_never_opened_keeps_its_entry_together() {
        assert_eq!(cut("a = f(b: 1, 2], c: 3)\nb = 2"), ["entry a = f(b: 1, 2], c: 3) !", "entry b = 2"]);
        assert_eq!(cut("a = f b: 1, c: 3)\nb = 2"), ["entry a = f b: 1, c: 3) !", "entry b = 2"]);
        assert_eq!(
            cut("a = f\n  b: 1,\n  c: 3,\n)\nb = 2"),
            ["entry a = f⏎  b: 1,⏎  c: 3,⏎) !", "entry b = 2"]
        );
        assert_eq!(cut("a = f(1], b = g(2)"), ["entry a = f(1] !", "entry b = g(2)"]);
        assert_eq!(cut("a = 1, b = g(2))"), ["entry a = 1", "entry b = g(2)) !"]);
        assert_eq!(cut("a = f\nb: 1\nc = g(2))"), ["entry a = f", "entry b: 1", "entry c = g(2)) !"]);
    }

    #[test]
    fn a_semicolon_ends_an_entry() {
        assert_eq!(
            cut("m { a = 1; b = f(1; 2) };"),
            ["open m", "entry a = 1", "entry b = f(1; 2)", "close", "semicolon"]
        );
    }

    #[test]
    fn an_open_string_ends_with_its_line() {
        assert_eq!(cut("a = \"x # y\nb = 2"), ["entry a = \"x # y !", "entry b = 2"]);
        assert_eq!(cut("a = f(\"x)\nb = 2"), ["entry a = f(\"x) !", "entry b = 2"]);
        assert_eq!(cut(r#"a = "x\"", b"#), [r#"entry a = "x\"""#, "entry b"]);
    }

    #[test]
    fn attributes_and_docs_stand_apart() {
        assert_eq!(
            cut("## d\n@cite(\"a\",\n b) @allow x = 1"),
            ["doc ## d", "attr @cite(\"a\",⏎ b)", "attr @allow", "entry x = 1"]
        );
        assert_eq!(cut("@cite(\"a)\nx = 1"), ["attr @cite(\"a) !", "entry x = 1"]);
        assert_eq!(cut("@allow(a) x = 1"), ["attr @allow(a)", "entry x = 1"]);
    }

    #[test]
    fn any_bytes_are_cut_in_order() {
        for text in ["\u{feff}é = \"ü\\é", "}}}{{{", "((((", "@", "@@(", "\"", "#", "a\r\n b"] {
            let mut last = 0;
            for piece in Layout::new(text) {
                if let Piece::Entry(chunk) | Piece::Attribute(chunk) = piece {
                    assert!(last <= chunk.range.start && chunk.range.start < chunk.range.end, "{text}");
                    last = chunk.range.end;
                    assert!(text.get(chunk.range).is_some());
                }
            }
        }
    }
}
