//! What surrounds the cursor, from the text before it alone: the blocks and brackets that are open
//! and the words of the entry so far. Needs no tree, so it answers while a line is half typed.

/// What is known of the place of a cursor.
#[derive(Debug, PartialEq)]
pub(super) struct Context<'t> {
    /// Open blocks, outermost first.
    pub(super) blocks: Vec<OpenBlock<'t>>,
    /// Tokens of the entry before the word the cursor is in.
    pub(super) entry: Vec<Token<'t>>,
    /// Open brackets of the entry, outermost first.
    pub(super) brackets: Vec<Bracket>,
    /// First byte of the word the cursor is in or at the end of.
    pub(super) word: usize,
    /// The first byte inside the string the cursor is in.
    pub(super) string: Option<usize>,
}

/// A block whose brace is open.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpenBlock<'t> {
    pub(super) keyword: &'t str,
    pub(super) name: Option<&'t str>,
    /// The variables of its fan-out.
    pub(super) variables: Vec<&'t str>,
    /// Just after its brace.
    pub(super) start: usize,
}

/// A bracket that is open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bracket {
    /// Its token in the entry.
    pub(super) token: usize,
    pub(super) paren: bool,
}

/// A word, number, string or sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Token<'t> {
    pub(super) kind: TokenKind,
    pub(super) text: &'t str,
    pub(super) start: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    Word,
    Number,
    Text,
    Sign,
}

/// The context of byte `offset`; `None` inside a comment.
pub(super) fn context(text: &str, offset: usize) -> Option<Context<'_>> {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = &text[..offset];
    let mut scan = Scan {
        text: before,
        at: 0,
        blocks: Vec::new(),
        entry: Vec::new(),
        brackets: Vec::new(),
        ended: false,
    };
    let bytes = before.as_bytes();
    while let Some(byte) = bytes.get(scan.at).copied() {
        match byte {
            b'\n' => scan.newline(),
            b' ' | b'\t' | b'\r' => scan.at += 1,
            b'#' => match before[scan.at..].find('\n') {
                Some(end) => scan.at += end,
                None => return None,
            },
            b'"' => {
                let start = scan.at;
                match string_end(before, start) {
                    Some(end) => scan.token(TokenKind::Text, end),
                    None => {
                        scan.separate();
                        return Some(scan.finish(start + 1, Some(start + 1)));
                    }
                }
            }
            b'{' => scan.open_block(),
            b'}' => scan.close_block(),
            b',' if scan.brackets.is_empty() => {
                // `use "…" as s, sha256: …` and `assert …, "why"` go on; other entries end.
                let goes_on = scan.entry.first().is_some_and(|t| matches!(t.text, "use" | "assert"));
                if goes_on {
                    scan.token(TokenKind::Sign, scan.at + 1);
                } else {
                    scan.entry.clear();
                    scan.at += 1;
                }
            }
            b'0'..=b'9' => {
                let rest = &before[scan.at..];
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.'));
                let end = end.map_or(before.len(), |e| scan.at + e);
                if end == before.len() {
                    // The cursor touches a number: that is the word it is in.
                    let word = scan.at;
                    return Some(scan.finish(word, None));
                }
                scan.token(TokenKind::Number, end);
            }
            b if b.is_ascii_alphabetic() || b == b'_' => {
                let word = scan.at;
                match before[word..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                    Some(length) => scan.token(TokenKind::Word, word + length),
                    None => return Some(scan.finish(word, None)),
                }
            }
            _ => {
                let length = before[scan.at..].chars().next().map_or(1, char::len_utf8);
                scan.sign(length);
            }
        }
    }
    scan.at = before.len();
    Some(scan.finish(offset, None))
}

fn string_end(text: &str, start: usize) -> Option<usize> {
    let mut escaped = false;
    for (i, c) in text[start + 1..].char_indices() {
        match c {
            '\n' => return Some(start + 1 + i),
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(start + 2 + i),
            _ => {}
        }
    }
    None
}

struct Scan<'t> {
    text: &'t str,
    at: usize,
    blocks: Vec<OpenBlock<'t>>,
    entry: Vec<Token<'t>>,
    brackets: Vec<Bracket>,
    /// A newline was seen after the entry: it is over unless `then`, `and` or `or` comes.
    ended: bool,
}

impl<'t> Scan<'t> {
    fn newline(&mut self) {
        self.at += 1;
        if !self.brackets.is_empty() {
            // A bracket is forgotten where the next line plainly begins something else.
            let line = self.text[self.at..].split('\n').next().unwrap_or_default().trim_start();
            let word = line.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '_' | '.'));
            let (word, rest) = line.split_at(word.unwrap_or(line.len()));
            let rest = rest.trim_start();
            let field = !word.is_empty() && rest.starts_with('=') && !rest.starts_with("==");
            if field || line.starts_with('}') || (!word.is_empty() && rest.ends_with('{')) {
                self.brackets.clear();
                self.ended = true;
            }
            return;
        }
        self.ended = true;
    }

    fn separate(&mut self) {
        if self.ended {
            self.entry.clear();
            self.brackets.clear();
            self.ended = false;
        }
    }

    fn token(&mut self, kind: TokenKind, end: usize) {
        let text = &self.text[self.at..end];
        if self.ended && matches!(text, "then" | "and" | "or") && !self.entry.is_empty() {
            self.ended = false;
        }
        self.separate();
        self.entry.push(Token { kind, text, start: self.at });
        self.at = end;
    }

    fn sign(&mut self, length: usize) {
        let text = &self.text[self.at..self.at + length];
        let two = self.text.get(self.at..self.at + 2).filter(|t| matches!(*t, "==" | "!=" | "<=" | ">="));
        self.token(TokenKind::Sign, self.at + two.map_or(length, str::len));
        match text {
            "(" | "[" => {
                let token = self.entry.len() - 1;
                self.brackets.push(Bracket { token, paren: text == "(" });
            }
            ")" | "]" => {
                self.brackets.pop();
            }
            _ => {}
        }
    }

    fn open_block(&mut self) {
        self.at += 1;
        let words: Vec<&Token<'t>> = self.entry.iter().filter(|t| t.kind == TokenKind::Word).collect();
        let keyword = words.first().map_or("", |t| t.text);
        let name = words.get(1).map(|t| t.text);
        let variable = |pair: &[&Token<'t>]| (pair[1].text == "in").then_some(pair[0].text);
        let variables = words.get(2..).unwrap_or_default().windows(2).filter_map(variable).collect();
        self.blocks.push(OpenBlock { keyword, name, variables, start: self.at });
        self.entry.clear();
        self.brackets.clear();
        self.ended = false;
    }

    fn close_block(&mut self) {
        self.at += 1;
        self.blocks.pop();
        self.entry.clear();
        self.brackets.clear();
        self.ended = false;
    }

    fn finish(mut self, word: usize, string: Option<usize>) -> Context<'t> {
        self.separate();
        Context { blocks: self.blocks, entry: self.entry, brackets: self.brackets, word, string }
    }
}

/// A call whose bracket is open.
#[derive(Debug, PartialEq)]
pub(super) struct Call<'t> {
    /// The word before the bracket.
    pub(super) callee: &'t str,
    /// Names of arguments before the one the cursor is in.
    pub(super) named: Vec<&'t str>,
    /// How many commas come before the cursor.
    pub(super) index: usize,
    /// The name of the argument the cursor is in.
    pub(super) argument: Option<&'t str>,
    /// Tokens of the argument so far, without its name.
    pub(super) value: Vec<Token<'t>>,
    /// Tokens of the first argument, once the cursor is in a later one.
    pub(super) first: Vec<Token<'t>>,
}

impl<'t> Context<'t> {
    /// The innermost open call.
    pub(super) fn call(&self) -> Option<Call<'t>> {
        let at = self
            .brackets
            .iter()
            .rposition(|b| b.paren && b.token > 0 && self.entry[b.token - 1].kind == TokenKind::Word)?;
        // Inside `[` of an argument the call is still the one to describe.
        let bracket = self.brackets[at];
        let callee = self.entry[bracket.token - 1].text;
        let mut depth = 0usize;
        let (mut named, mut index, mut first) = (Vec::new(), 0, Vec::new());
        let mut current: Vec<Token<'t>> = Vec::new();
        let name_of = |tokens: &[Token<'t>]| match tokens {
            [name, colon, ..] if name.kind == TokenKind::Word && colon.text == ":" => Some(name.text),
            _ => None,
        };
        for token in &self.entry[bracket.token + 1..] {
            match token.text {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.saturating_sub(1),
                "," if depth == 0 => {
                    named.extend(name_of(&current));
                    let argument = std::mem::take(&mut current);
                    if index == 0 {
                        first = argument;
                    }
                    index += 1;
                    continue;
                }
                _ => {}
            }
            current.push(*token);
        }
        let argument = name_of(&current);
        if argument.is_some() {
            current.drain(..2);
        }
        Some(Call { callee, named, index, argument, value: current, first })
    }

    /// The key of the field whose value is being written, dots included, and the tokens of the
    /// value so far.
    pub(super) fn value(&self) -> Option<(String, &[Token<'t>])> {
        let depth_free = self.entry.iter().position(|t| t.text == "=")?;
        let key = self.entry[..depth_free].iter().map(|t| t.text).collect::<Vec<_>>();
        Some((key.concat(), &self.entry[depth_free + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::cursor;

    fn sketch(marked: &str) -> String {
        let (text, offset) = cursor(marked);
        let Some(c) = context(&text, offset) else { return "comment".to_owned() };
        let blocks: Vec<&str> = c.blocks.iter().map(|b| b.keyword).collect();
        let entry: Vec<&str> = c.entry.iter().map(|t| t.text).collect();
        let call = c.call().map(|call| format!(" in {} #{} {:?}", call.callee, call.index, call.argument));
        let string = if c.string.is_some() { " string" } else { "" };
        format!(
            "{} | {} | {}{}{string}",
            blocks.join(" "),
            entry.join(" "),
            &text[c.word..offset],
            call.unwrap_or_default()
        )
    }

    #[test]
    fn surroundings() {
        for (text, expected) in [
            ("st$0", " |  | st"),
            ("stage a {\n  lr$0", "stage |  | lr"),
            ("stage a {\n  lr = 1 then li$0\n}", "stage | lr = 1 then | li"),
            ("stage a {\n  lr = 1\n    then $0", "stage | lr = 1 then | "),
            ("stage a {\n  lr = 1\n  $0", "stage |  | "),
            ("stage a {\n  eval e {\n    $0\n}", "stage eval |  | "),
            (
                "stage a { lr = 1 then linear(to: 0, ov$0",
                "stage | lr = 1 then linear ( to : 0 , | ov in linear #1 None",
            ),
            (
                "stage a { lr = 1 then linear(to: 1$0",
                "stage | lr = 1 then linear ( to : | 1 in linear #0 Some(\"to\")",
            ),
            ("stage a {\n  rope = yarn(factor: 2\n  lr = $0", "stage | lr = | "),
            ("# no $0", "comment"),
            ("use \"a/$0", " | use | a/ string"),
            ("mix m { a = 5%, b$0", "mix |  | b"),
            ("assert s.x$0", " | assert s . | x"),
            ("stage a {\n  tokens = 50B $0", "stage | tokens = 50B | "),
        ] {
            assert_eq!(sketch(text), expected, "{text}");
        }
    }
}
