//! Pieces to file: keeps the open blocks, hands each entry to the grammar, and decides which block
//! a missing brace belongs to. No recursion, so depth costs nothing.

use std::ops::Range;

use super::ast::{
    Attr, Block, Comment, Each, Entry, EntryKind, Expr, ExprKind, File, Ident, Item, ItemKind, Preface, Str,
};
use super::build::{Builder, Head};
use super::foreign::{IMPORTS, lone_variable, loop_head, table_header};
use super::grammar::{Mismatch, Rule, matching};
use super::layout::{Chunk, Fault, Layout, MAX_BRACKETS, Piece};
use super::literal::SEGMENTS;
use super::mismatch::{Context, explain, unopened};
use crate::diag::{Applicability, Diagnostic, Edit, Level, codes};
use crate::source::{FileId, Span};

/// Blocks nested deeper than this are reported and left out.
const MAX_BLOCKS: usize = 16;
/// Kinds of block that only stand at the top level, so that a missing brace can be told.
const TOP_LEVEL_BLOCKS: [&str; 6] = ["model", "source", "mix", "stage", "budget", "lints"];
/// Words that begin an item and never an entry, when a name or string follows.
const TOP_LEVEL_WORDS: [&str; 7] = ["use", "param", "let", "soup", "source", "mix", "model"];

/// A block whose `}` has not come yet.
struct Open {
    preface: Preface,
    kind: Ident,
    name: Option<Ident>,
    each: Vec<Each>,
    entries: Vec<Entry>,
    start: usize,
    brace: usize,
    indent: Option<usize>,
    incomplete: bool,
    /// Something inside was left out, so the block can only be shown as it was written.
    left_out: bool,
    /// The head could not be read: the block is checked for syntax and then left out.
    headless: bool,
    /// What stands in it is written in another notation and was said to be: how many messages there were before it.
    foreign: Option<usize>,
}

struct Tree<'t> {
    text: &'t str,
    file: FileId,
    items: Vec<Item>,
    comments: Vec<Comment>,
    broken: Vec<Span>,
    diagnostics: Vec<Diagnostic>,
    stack: Vec<Open>,
    /// Blocks open beyond [`MAX_BLOCKS`].
    skipped: usize,
    /// More braces are opened than closed.
    brace_missing: bool,
    preface: Preface,
    /// Behind a header of another notation, whose fields stand below it in no block.
    table: bool,
}

/// Parse a file; see [`super::parse`].
pub(super) fn parse(file: FileId, text: &str) -> (File, Vec<Diagnostic>) {
    let mut tree = Tree {
        text,
        file,
        items: Vec::new(),
        comments: Vec::new(),
        broken: Vec::new(),
        diagnostics: Vec::new(),
        stack: Vec::new(),
        skipped: 0,
        brace_missing: false,
        preface: Preface::default(),
        table: false,
    };
    let bytes = text.as_bytes();
    let mut lone = (0..bytes.len()).filter(|at| bytes[*at] == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
    if let Some(at) = lone.next()
        && lone.count() + 1 > bytes.iter().filter(|b| **b == b'\n').count()
    {
        // One line to everyone else: every message would point at its wrong end.
        let span = Span::new(file, at, at + 1);
        let message = "lines that end in a carriage return alone";
        let d = Diagnostic::error(codes::UNEXPECTED, span, message, "the first of them")
            .help("save the file with newlines (`\\n`), or carriage returns and newlines (`\\r\\n`)");
        let span = Span::new(file, 0, text.len());
        return (File { items: Vec::new(), comments: Vec::new(), broken: vec![span], span }, vec![d]);
    }
    let mut pieces: Vec<Piece> = Layout::new(text).collect();
    open_braceless(text, &mut pieces);
    let opened = pieces.iter().filter(|p| matches!(p, Piece::Open(..))).count();
    let closed = pieces.iter().filter(|p| matches!(p, Piece::Close(..))).count();
    // How lines are indented only says something where a brace is missing for certain.
    tree.brace_missing = opened > closed;
    for piece in pieces {
        tree.piece(piece);
    }
    tree.end();
    tree.diagnostics.sort_by_key(|diagnostic| diagnostic.primary.span.start);
    let span = Span::new(file, 0, text.len());
    (File { items: tree.items, comments: tree.comments, broken: tree.broken, span }, tree.diagnostics)
}

/// Make a block of `kind name` that stands alone on its line with fields below it: only its `{` is
/// missing. The byte after the head stands for the brace, or the `:` that other languages write.
fn open_braceless(text: &str, pieces: &mut [Piece]) {
    let silent = |piece: &Piece| matches!(piece, Piece::Comment(_) | Piece::Doc(_) | Piece::Attribute(_));
    for at in 0..pieces.len() {
        let (piece, rest) = pieces[at..].split_at_mut(1);
        let Piece::Entry(head) = &piece[0] else { continue };
        let below = match rest.iter().find(|piece| !silent(piece)) {
            Some(Piece::Entry(chunk) | Piece::Open(chunk, _)) => chunk,
            _ => continue,
        };
        let deeper = matches!((head.indent, below.indent), (Some(head), Some(below)) if below > head);
        let written = &text[head.range.clone()];
        let (bare, colon) = match written.strip_suffix(':') {
            Some(bare) => (bare.trim_end(), true),
            None => (written, false),
        };
        if deeper && head.faults.is_empty() && head.semicolon.is_none() && is_head(bare) {
            let mut head = head.clone();
            let brace = if colon { head.range.end - 1 } else { head.range.end };
            head.range.end = head.range.start + bare.len();
            piece[0] = Piece::Open(head, brace);
        }
    }
}

/// Whether `text`, an entry that ends with its line, can only be the head of a block.
fn is_head(text: &str) -> bool {
    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| !w.is_empty());
    let (first, second) = (words.next().unwrap_or_default(), words.next());
    let named = second.is_some() && !["use", "param", "let", "assert", "not"].contains(&first);
    (named || TOP_LEVEL_BLOCKS.contains(&first)) && matching(Rule::head, text).is_ok()
}

/// What to write for a value in braces, by the key at the beginning of `entry`.
fn in_braces(entry: &str) -> &'static str {
    match entry.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next().unwrap_or_default() {
        "mix" | "data" | "mixture" => "a mix is a block and no value: `mix { web = 60%, code = rest }`",
        "rope" | "rope_scaling" => "a value has no braces: `rope = yarn(factor: 4, original: 8Ki)`",
        "optimizer" => "a value has no braces: `optimizer = adamw(betas: [0.9, 0.95], weight_decay: 0.1)`",
        _ => "what stands in `{ … }` gets a name of its own, outside of this block",
    }
}

impl<'t> Tree<'t> {
    fn span(&self, range: Range<usize>) -> Span {
        Span::new(self.file, range.start, range.end)
    }

    fn slice(&self, range: &Range<usize>) -> &'t str {
        &self.text[range.clone()]
    }

    fn piece(&mut self, piece: Piece) {
        match piece {
            Piece::Comment(range) => {
                let text = self.slice(&range).to_owned();
                self.comments.push(Comment { text, span: self.span(range) });
            }
            Piece::Doc(range) => {
                let text = self.slice(&range).trim_start_matches('#');
                let text = text.strip_prefix(' ').unwrap_or(text).to_owned();
                self.preface.docs.push(Str { text, span: self.span(range) });
            }
            Piece::Attribute(chunk) => self.attribute(&chunk),
            Piece::Entry(chunk) => {
                self.close_forgotten(&chunk, false);
                if self.skipped > 0 {
                    self.preface = Preface::default();
                } else if self.stack.is_empty() {
                    self.item(chunk);
                } else {
                    self.entry(chunk);
                }
            }
            Piece::Open(chunk, brace) => {
                self.close_forgotten(&chunk, true);
                self.open(chunk, brace);
            }
            Piece::Close(at, indent) => self.close(at, indent),
            Piece::Semicolon(at) => {
                self.broken.push(self.span(at..at + 1));
                self.semicolon(at);
            }
        }
    }

    /// Report the `;` at `at`, which ends an entry in other languages.
    fn semicolon(&mut self, at: usize) {
        let span = self.span(at..at + 1);
        let message = "`;` after an entry";
        let d = Diagnostic::error(codes::WRONG_SIGN, span, message, "a newline or a comma ends an entry");
        let after = self.text[at + 1..].trim_start_matches([' ', '\t', '\r']);
        self.diagnostics.push(match after.chars().next() {
            None | Some('\n' | '#' | '}' | ',' | ';') => {
                d.fix("remove it", Applicability::MachineApplicable, span, "")
            }
            Some(_) => d.fix("write `,`", Applicability::MachineApplicable, span, ","),
        });
    }

    /// Match a chunk, unless its brackets are at fault; report what is wrong.
    fn build<T>(
        &mut self,
        chunk: &Chunk,
        rule: Rule,
        context: Context,
        make: impl FnOnce(&mut Builder, pest::iterators::Pair<'t, Rule>) -> Option<T>,
    ) -> Option<T> {
        if let Some(fault) = chunk.faults.first() {
            let diagnostic = self.fault(chunk, fault);
            self.diagnostics.push(diagnostic);
            return None;
        }
        let text = self.slice(&chunk.range);
        match matching(rule, text) {
            Ok(pair) => {
                let whole = self.span(chunk.range.clone());
                let mut builder =
                    Builder { file: self.file, base: chunk.range.start, whole, diagnostics: Vec::new() };
                let made = make(&mut builder, pair);
                self.diagnostics.append(&mut builder.diagnostics);
                made
            }
            Err(Mismatch::At(at)) => {
                self.diagnostics.push(explain(text, at, self.file, chunk.range.start, context));
                None
            }
            Err(Mismatch::TooLong) => {
                let span = self.span(chunk.range.clone());
                self.diagnostics.push(Diagnostic::error(
                    codes::TOO_LONG,
                    span,
                    "an entry too long to read",
                    format!("{} bytes in one entry", text.len()),
                ));
                None
            }
        }
    }

    /// Match a chunk for what can be saved of it, reporting nothing.
    fn salvage(&self, chunk: &Chunk, rule: Rule) -> Option<(Builder, Vec<pest::iterators::Pair<'t, Rule>>)> {
        let text = self.slice(&chunk.range);
        let pair = matching(rule, text).ok()?;
        let whole = self.span(chunk.range.clone());
        let builder = Builder { file: self.file, base: chunk.range.start, whole, diagnostics: Vec::new() };
        Some((builder, pair.into_inner().collect()))
    }

    fn fault(&self, chunk: &Chunk, fault: &Fault) -> Diagnostic {
        let at = |start: usize| self.span(start..start + 1);
        match *fault {
            Fault::Unclosed { open, end } => {
                let bracket = &self.text[open..=open];
                let closer = if bracket == "(" { ")" } else { "]" };
                let end = end.max(open + 1);
                let fix_at = self.span(end..end);
                Diagnostic::error(
                    codes::UNBALANCED,
                    at(open),
                    format!("`{bracket}` is never closed"),
                    "opened here",
                )
                .fix(
                    format!("insert `{closer}`"),
                    Applicability::MaybeIncorrect,
                    fix_at,
                    closer,
                )
            }
            Fault::Mismatched { open, close } => {
                let (opener, closer) = (&self.text[open..=open], &self.text[close..=close]);
                let meant = if opener == "(" { ")" } else { "]" };
                Diagnostic::error(
                    codes::UNBALANCED,
                    at(close),
                    format!("`{opener}` is closed by `{closer}`"),
                    format!("`{meant}` would close it"),
                )
                .label(at(open), "opened here")
                .fix(
                    format!("write `{meant}`"),
                    Applicability::MaybeIncorrect,
                    at(close),
                    meant,
                )
            }
            Fault::Unopened { close } => unopened(self.text, self.span(chunk.range.clone()), close),
            Fault::UnclosedString { open, end } => Diagnostic::error(
                codes::UNCLOSED_STRING,
                self.span(open..end),
                "a string is never closed",
                "a string ends on the line it starts on",
            )
            .fix("insert `\"`", Applicability::MaybeIncorrect, self.span(end..end), "\""),
            Fault::TooDeep { at: bracket } => Diagnostic::error(
                codes::TOO_DEEP,
                at(bracket),
                "brackets nested too deeply",
                "one bracket too many",
            )
            .note(format!("at most {MAX_BRACKETS} brackets may be open at once")),
        }
    }

    fn attribute(&mut self, chunk: &Chunk) {
        match self.build(chunk, Rule::attribute, Context::Attribute, Builder::attribute) {
            Some(attr) => self.preface.attrs.push(attr),
            None => self.broken.push(self.span(chunk.range.clone())),
        }
    }

    /// All of an entry; reports the `;` that ends it, if one does.
    fn with_semicolon(&mut self, chunk: &Chunk) -> Span {
        if let Some(at) = chunk.semicolon {
            self.semicolon(at);
        }
        self.span(chunk.range.start..chunk.semicolon.map_or(chunk.range.end, |at| at + 1))
    }

    fn item(&mut self, chunk: Chunk) {
        let span = self.with_semicolon(&chunk);
        let errors = self.diagnostics.len();
        let made = self.build(&chunk, Rule::item, Context::Item, Builder::item);
        if self.diagnostics.len() > errors && made.is_none() || chunk.semicolon.is_some() {
            self.broken.push(span);
        }
        // The fields of a table have no block because of its header, which has its message.
        if self.table && self.diagnostics[errors..].iter().any(|d| d.code == codes::WRONG_PLACE) {
            self.diagnostics.truncate(errors);
        } else {
            self.table = made.is_none() && table_header(self.slice(&chunk.range)).is_some();
        }
        let preface = std::mem::take(&mut self.preface);
        if let Some(kind) = made.or_else(|| self.saved_item(&chunk)) {
            self.items.push(Item { preface, kind, span });
        }
    }

    fn saved_item(&self, chunk: &Chunk) -> Option<ItemKind> {
        if let Some(import) = self.saved_import(chunk) {
            return Some(import);
        }
        let (builder, words) = self.salvage(chunk, Rule::salvage_item)?;
        let bare = words.iter().any(|word| word.as_rule() == Rule::EOI);
        let words = words.into_iter().filter(|word| word.as_rule() == Rule::word);
        let mut words = words.map(|word| builder.ident(&word));
        let (kind, name, ty) = (words.next()?, words.next()?, words.next());
        // Without a value only these two can be nothing else.
        if bare && !matches!(kind.text.as_str(), "param" | "let") {
            return None;
        }
        let value = Expr { kind: ExprKind::Error, span: self.span(chunk.range.clone()) };
        Some(match kind.text.as_str() {
            "param" => ItemKind::Param { name, ty, value },
            "let" => ItemKind::Let { name, value },
            "use" | "assert" => return None,
            _ => ItemKind::Bind { kind, name, value },
        })
    }

    /// An import by a word of another language: what it reads is not missing.
    fn saved_import(&self, chunk: &Chunk) -> Option<ItemKind> {
        let text = self.slice(&chunk.range);
        let word = IMPORTS.into_iter().find(|word| text.starts_with(word))?;
        let rest = &text[word.len()..];
        // Without a name for it nothing could be reached.
        if !rest.trim_start().starts_with('"') || !rest.contains(" as ") {
            return None;
        }
        let written = format!("{:1$}{rest}", "use", word.len());
        let pair = matching(Rule::item, &written).ok()?;
        let whole = self.span(chunk.range.clone());
        let mut builder =
            Builder { file: self.file, base: chunk.range.start, whole, diagnostics: Vec::new() };
        builder.item(pair)
    }

    fn entry(&mut self, chunk: Chunk) {
        let span = self.with_semicolon(&chunk);
        let errors = self.diagnostics.len();
        let made = self.build(&chunk, Rule::entry, Context::Entry, Builder::entry);
        if made.is_none() {
            self.segment_alone(&chunk, errors);
        }
        let whole = made.is_some() && self.diagnostics.len() == errors && chunk.semicolon.is_none();
        if !whole {
            self.broken.push(span);
        }
        let preface = std::mem::take(&mut self.preface);
        let made = made.or_else(|| {
            let (mut builder, parts) = self.salvage(&chunk, Rule::salvage_field)?;
            let key = builder.path(parts.into_iter().next()?);
            let value = Expr { kind: ExprKind::Error, span };
            Some(EntryKind::Field { key, value })
        });
        let Some(block) = self.stack.last_mut() else { return };
        match made {
            Some(kind) => block.entries.push(Entry { preface, kind, span }),
            None => block.incomplete = true,
        }
    }

    /// `lr = inherit, linear(to: 0)`: a segment of a curve behind a comma.
    fn segment_alone(&mut self, chunk: &Chunk, errors: usize) {
        let text = self.slice(&chunk.range);
        let callee = text.split('(').next().unwrap_or_default().trim_end();
        let Some(before) = self.stack.last().and_then(|open| open.entries.last()) else { return };
        let gap = before.span.end as usize..chunk.range.start;
        if !SEGMENTS.contains(&callee) || !text.contains('(') || self.slice(&gap).trim() != "," {
            return;
        }
        let gap = self.span(gap);
        if let Some(d) = self.diagnostics.get_mut(errors) {
            *d = d.clone().help("a curve is one value, whose parts are joined by `then`").fix(
                "write `then`",
                Applicability::MaybeIncorrect,
                gap,
                " then ",
            );
        }
    }

    fn open(&mut self, chunk: Chunk, brace: usize) {
        if self.skipped > 0 || self.stack.len() >= MAX_BLOCKS {
            if self.skipped == 0 {
                let at = self.span(brace..brace + 1);
                if let Some(outermost) = self.stack.first_mut() {
                    outermost.left_out = true;
                }
                self.diagnostics.push(
                    Diagnostic::error(codes::TOO_DEEP, at, "blocks nested too deeply", "one block too many")
                        .note(format!("at most {MAX_BLOCKS} blocks may be open at once")),
                );
            }
            self.skipped += 1;
            self.preface = Preface::default();
            return;
        }
        let mut foreign = None;
        let head = if chunk.range.is_empty() {
            let at = self.span(brace..brace + 1);
            self.diagnostics.push(
                Diagnostic::error(
                    codes::UNEXPECTED,
                    at,
                    "a block without a head",
                    "nothing before it says what it is",
                )
                .help("a block is `kind name { … }`, with the brace on the line of its name"),
            );
            None
        } else {
            let errors = self.diagnostics.len();
            let head = self.build(&chunk, Rule::head, Context::Head, Builder::head);
            // `key = { … }` in a block: without its `=` it is a block in the wrong place.
            if head.is_none() && !self.stack.is_empty() {
                let help = in_braces(self.slice(&chunk.range));
                for d in self.diagnostics[errors..].iter_mut().filter(|d| d.code == codes::WRONG_SIGN) {
                    d.help.push(help.to_owned());
                    d.fixes.clear();
                    foreign = Some(errors + 1);
                }
            }
            head
        };
        let gap = chunk.range.end..brace;
        if self.is_colon(brace) {
            let (head, at) = (self.slice(&chunk.range), self.span(brace..brace + 1));
            let d = Diagnostic::error(
                codes::WRONG_SIGN,
                at,
                format!("`:` after `{head}`"),
                format!("a block is `{head} {{ … }}`"),
            )
            .fix(
                "write it in braces",
                Applicability::MaybeIncorrect,
                self.span(chunk.range.end..brace + 1),
                " {",
            );
            self.diagnostics.push(d);
            self.broken.push(self.span(chunk.range.start..brace + 1));
        } else if self.text.as_bytes().get(brace) != Some(&b'{') {
            let d = Diagnostic::error(
                codes::UNEXPECTED,
                self.span(chunk.range.clone()),
                format!("`{}` opens no block", self.slice(&chunk.range)),
                "`{` is missing after this",
            )
            .fix("insert `{`", Applicability::MaybeIncorrect, self.span(brace..brace), " {");
            self.diagnostics.push(d);
            self.broken.push(self.span(chunk.range.clone()));
        } else if head.is_some() && self.slice(&gap).contains('\n') {
            let at = self.span(brace..brace + 1);
            let mut d = Diagnostic::error(
                codes::UNEXPECTED,
                at,
                "a `{` on a line of its own",
                "stands on the line of what it opens",
            );
            if self.slice(&gap).trim().is_empty() {
                d = d.fix("move it up", Applicability::MachineApplicable, self.span(gap), " ");
            }
            self.diagnostics.push(d);
            self.broken.push(self.span(chunk.range.start..brace + 1));
        }
        let failed = head.is_none();
        if failed {
            self.broken.push(self.span(chunk.range.start..brace + 1));
        }
        let head = head.or_else(|| self.saved_loop(&chunk)).or_else(|| {
            let (builder, words) = self.salvage(&chunk, Rule::salvage_head)?;
            let mut words = words.into_iter().map(|word| builder.ident(&word));
            let each = self.saved_variable(&chunk).into_iter().collect();
            Some(Head { kind: words.next()?, name: words.next(), each })
        });
        // A head that failed before its name would only be reported again for having none.
        let headless = head.as_ref().is_none_or(|head| failed && head.name.is_none());
        let head = head.unwrap_or_else(|| Head {
            kind: Ident { text: String::new(), span: self.span(brace..brace) },
            name: None,
            each: Vec::new(),
        });
        self.stack.push(Open {
            preface: std::mem::take(&mut self.preface),
            kind: head.kind,
            name: head.name,
            each: head.each,
            entries: Vec::new(),
            start: chunk.range.start,
            brace,
            indent: chunk.indent,
            // Without its braces the rest of it may be anywhere.
            incomplete: failed || self.text.as_bytes().get(brace) != Some(&b'{'),
            left_out: false,
            headless,
            foreign,
        });
    }

    /// The head of a fan-out that is written as a loop, so that its variable is known in the block.
    fn saved_loop(&self, chunk: &Chunk) -> Option<Head> {
        let written = loop_head(self.slice(&chunk.range))?;
        let pair = matching(Rule::head, &written).ok()?;
        let whole = self.span(chunk.range.clone());
        let mut builder =
            Builder { file: self.file, base: chunk.range.start, whole, diagnostics: Vec::new() };
        builder.head(pair)
    }

    /// The variable of a fan-out that has no values, so that it is known in the block.
    fn saved_variable(&self, chunk: &Chunk) -> Option<Each> {
        let (at, name) = lone_variable(self.slice(&chunk.range))?;
        let start = chunk.range.start + at;
        let span = self.span(start..start + name.len());
        let values = Expr { kind: ExprKind::Error, span };
        Some(Each { var: Ident { text: name.to_owned(), span }, values })
    }

    fn close(&mut self, at: usize, indent: Option<usize>) {
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        // A brace that stands under the head of an outer block closes that one: the inner block's
        // own brace is the missing one.
        if let Some(indent) = indent
            && self.brace_missing
            && self.stack.last().is_some_and(|top| top.indent.is_some_and(|i| i > indent))
            && let Some(owner) = self.stack.iter().rposition(|open| open.indent == Some(indent))
        {
            while self.stack.len() > owner + 1 {
                let place = self.span(at..at + 1);
                self.forgotten(at, Some((place, "this brace stands under an outer block")));
            }
        }
        match self.stack.pop() {
            Some(open) => self.finish(open, at + 1),
            None => {
                let span = self.span(at..at + 1);
                self.orphans();
                self.broken.push(span);
                self.diagnostics.push(
                    Diagnostic::error(codes::UNBALANCED, span, "`}` closes nothing", "no block is open here")
                        .fix("remove it", Applicability::MaybeIncorrect, span, ""),
                );
            }
        }
    }

    /// Whether a block begins with a `:` at this byte, as in other languages.
    fn is_colon(&self, brace: usize) -> bool {
        self.text.as_bytes().get(brace) == Some(&b':')
    }

    /// Close the blocks that began with a `:` and end where a line at `indent` begins.
    fn close_indented(&mut self, at: usize, indent: usize) {
        let preface = std::mem::take(&mut self.preface);
        while let Some(open) = self.stack.last()
            && self.is_colon(open.brace)
            && open.indent.is_some_and(|i| i >= indent)
        {
            self.forgotten(at, None);
        }
        self.preface = preface;
    }

    /// Before a piece that can only stand at the top level: close the blocks that should have been.
    fn close_forgotten(&mut self, chunk: &Chunk, opens: bool) {
        if let Some(indent) = chunk.indent {
            self.close_indented(chunk.range.start, indent);
        }
        let (Some(indent), true) = (chunk.indent, self.brace_missing && !self.stack.is_empty()) else {
            return;
        };
        let mut words = self.slice(&chunk.range).split([' ', '\t']).filter(|w| !w.is_empty());
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let named = second.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '"'));
        let top_level = match opens {
            // Without a name it is what the stage around it reads.
            true if first == "mix" => named,
            true => TOP_LEVEL_BLOCKS.contains(&first),
            false => TOP_LEVEL_WORDS.contains(&first) && named,
        };
        if !top_level {
            return;
        }
        let here = self.span(chunk.range.start..chunk.range.start + first.len());
        let preface = std::mem::take(&mut self.preface);
        while self.stack.last().is_some_and(|open| open.indent.is_some_and(|i| i >= indent)) {
            self.skipped = 0;
            let start = preface.docs.first().map(|d| d.span.start as usize);
            let start = start.or(preface.attrs.first().map(|a| a.span.start as usize));
            let start = start.unwrap_or(chunk.range.start).min(chunk.range.start);
            self.forgotten(start, Some((here, "begins something that stands outside a block")));
        }
        self.preface = preface;
    }

    /// Close the innermost block at `at` and report that its brace is missing.
    fn forgotten(&mut self, at: usize, sign: Option<(Span, &str)>) {
        let Some(open) = self.stack.pop() else { return };
        let head = self.span(open.start..open.brace + 1);
        let what = match (&open.name, open.kind.text.as_str()) {
            (Some(name), kind) => format!("the block `{kind} {}`", name.text),
            (None, "") => "a block".to_owned(),
            (None, kind) => format!("the block `{kind}`"),
        };
        let end = open.entries.last().map_or(open.brace + 1, |entry| entry.span.end as usize).min(at);
        let closer = format!("\n{}}}", " ".repeat(open.indent.unwrap_or(0)));
        if self.is_colon(open.brace) {
            // It has its message, which the other brace belongs to.
            let sign = self.span(open.brace..open.brace + 1);
            let said = self.diagnostics.iter_mut().find(|d| d.primary.span == sign);
            if let Some(fix) = said.and_then(|d| d.fixes.first_mut()) {
                fix.edits.push(Edit { span: Span::new(self.file, end, end), text: closer });
            }
            self.finish(open, end);
            return;
        }
        let mut diagnostic = Diagnostic::error(
            codes::UNCLOSED_BLOCK,
            head,
            format!("{what} is never closed"),
            "no `}` for this brace",
        )
        .fix("insert `}`", Applicability::MaybeIncorrect, self.span(end..end), closer);
        if let Some((span, text)) = sign {
            diagnostic = diagnostic.label(span, text);
        }
        self.diagnostics.push(diagnostic);
        self.broken.push(self.span(open.start..end));
        self.finish(open, end);
    }

    fn finish(&mut self, open: Open, end: usize) {
        self.orphans();
        let span = self.span(open.start..end.max(open.brace + 1));
        if open.left_out || open.headless {
            self.broken.push(span);
        }
        if let Some(before) = open.foreign {
            self.diagnostics.truncate(before);
        }
        if open.headless {
            if let Some(parent) = self.stack.last_mut() {
                parent.incomplete = true;
            }
            return;
        }
        let block = Block {
            kind: open.kind,
            name: open.name,
            each: open.each,
            entries: open.entries,
            incomplete: open.incomplete,
            brace: self.span(open.brace..open.brace + 1),
            span,
        };
        match self.stack.last_mut() {
            Some(parent) => {
                let kind = EntryKind::Block(block);
                parent.entries.push(Entry { preface: open.preface, kind, span });
            }
            None => {
                self.items.push(Item { preface: open.preface, kind: ItemKind::Block(block), span });
            }
        }
    }

    /// Report docs and attributes that precede nothing.
    fn orphans(&mut self) {
        let preface = std::mem::take(&mut self.preface);
        if let (Some(first), Some(last)) = (preface.docs.first(), preface.docs.last()) {
            let span = first.span.to(last.span);
            self.broken.push(span);
            self.diagnostics.push(
                Diagnostic::lint(
                    codes::ORPHAN_DOC,
                    "orphan_doc",
                    Level::Warn,
                    span,
                    "a doc comment with nothing after it",
                    "documents nothing",
                )
                .fix("make it a plain comment", Applicability::MachineApplicable, span, ""),
            );
            // Every line of it at once.
            if let Some(fix) = self.diagnostics.last_mut().and_then(|d| d.fixes.first_mut()) {
                fix.edits = preface
                    .docs
                    .iter()
                    .map(|doc| Edit {
                        span: Span { end: doc.span.start + 2, ..doc.span },
                        text: "#".to_owned(),
                    })
                    .collect();
            }
        }
        for Attr { name, span, .. } in preface.attrs {
            self.broken.push(span);
            self.diagnostics.push(
                Diagnostic::error(
                    codes::ORPHAN_ATTRIBUTE,
                    span,
                    format!("`@{}` with nothing after it", name.text),
                    "stands before an item or a field",
                )
                .fix("remove it", Applicability::MaybeIncorrect, span, ""),
            );
        }
    }

    fn end(&mut self) {
        self.skipped = 0;
        let end = self.text.len();
        while !self.stack.is_empty() {
            self.forgotten(end, None);
        }
        self.orphans();
    }
}
