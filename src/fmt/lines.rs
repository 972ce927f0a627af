//! Items, entries, docs, attributes and comments to lines: what goes on which line, how far in,
//! and which `=` stand under one another.

use std::ops::Range;

use crate::source::Span;
use crate::syntax::ast::{
    Assert, Attr, Block, Comment, Each, Entry, EntryKind, Expr, File, Item, ItemKind, Preface,
};

use super::WIDTH;
use super::expr::{Place, STEP, Writer};

/// Something that has lines of its own.
struct Line<'a> {
    range: Range<usize>,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Comment(&'a Comment),
    Doc,
    Attr(&'a Attr),
    Item(&'a Item),
    Entry(&'a Entry),
    /// As it was written: it could not be parsed.
    Verbatim,
}

struct Lines<'a> {
    writer: Writer<'a>,
    text: &'a str,
    broken: Vec<Range<usize>>,
    out: String,
}

/// The whole file.
pub(super) fn write(file: &File, text: &str) -> String {
    let mut broken: Vec<Range<usize>> = file.broken.iter().map(|span| span.range()).collect();
    broken.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    let writer = Writer { text, comments: &file.comments };
    let mut lines = Lines { writer, text, broken, out: String::with_capacity(text.len() + text.len() / 8) };
    let mut level = Vec::new();
    for item in &file.items {
        lines.preface(&item.preface, &mut level);
        level.push(Line { range: item.span.range(), kind: Kind::Item(item) });
    }
    lines.fill_level(&mut level, 0..text.len());
    lines.level(&level, 0);
    lines.out
}

impl<'a> Lines<'a> {
    fn preface(&self, preface: &'a Preface, level: &mut Vec<Line<'a>>) {
        for doc in &preface.docs {
            level.push(Line { range: doc.span.range(), kind: Kind::Doc });
        }
        for attr in &preface.attrs {
            level.push(Line { range: attr.span.range(), kind: Kind::Attr(attr) });
        }
    }

    /// Add what is written inside `range` beside the lines already known: comments and what could
    /// not be parsed. Puts all in order.
    fn fill_level(&self, level: &mut Vec<Line<'a>>, range: Range<usize>) {
        level.sort_by_key(|line| line.range.start);
        let mut found = Vec::new();
        let mut covered = 0;
        let first = self.broken.partition_point(|broken| broken.start < range.start);
        for broken in self.broken[first..].iter().take_while(|broken| broken.start < range.end) {
            let at = level.partition_point(|line| line.range.start <= broken.start);
            let inside = at > 0 && level[at - 1].range.end >= broken.end;
            if broken.start >= covered && !inside {
                covered = broken.end;
                found.push(Line { range: broken.clone(), kind: Kind::Verbatim });
            }
        }
        level.append(&mut found);
        level.sort_by_key(|line| line.range.start);
        // Something broken takes with it what it covers.
        let mut end = 0;
        level.retain(|line| {
            let keep = line.range.start >= end;
            if keep {
                end = line.range.end;
            }
            keep
        });
        let comments = self.writer.comments;
        let first = comments.partition_point(|c| (c.span.start as usize) < range.start);
        for comment in comments[first..].iter().take_while(|c| (c.span.start as usize) < range.end) {
            let at = level.partition_point(|line| line.range.start <= comment.span.start as usize);
            let inside = at > 0 && level[at - 1].range.end > comment.span.start as usize;
            if !inside {
                found.push(Line { range: comment.span.range(), kind: Kind::Comment(comment) });
            }
        }
        level.append(&mut found);
        level.sort_by_key(|line| line.range.start);
    }

    /// Whether the thing at `range`, or a head or bracket of it, could not be parsed.
    fn is_broken(&self, range: &Range<usize>) -> bool {
        let at = self.broken.partition_point(|broken| broken.start < range.start);
        self.broken.get(at).is_some_and(|broken| broken.start == range.start)
    }

    /// What is between two things on one line that could not be parsed, if a comma is: without it, or
    /// on two lines, they may read otherwise.
    fn comma_between(&self, previous: &Line<'a>, line: &Line<'a>) -> Option<&'a str> {
        let gap = self.text.get(previous.range.end..line.range.start)?;
        let comma = gap.contains(',') && !gap.contains('\n');
        (comma && self.is_broken(&previous.range) && self.is_broken(&line.range)).then_some(gap)
    }

    fn newlines(&self, start: usize, end: usize) -> usize {
        self.text.get(start..end).map_or(0, |gap| gap.matches('\n').count())
    }

    fn level(&mut self, level: &[Line<'a>], indent: usize) {
        let keys = self.key_widths(level);
        let mut previous: Option<&Line<'a>> = None;
        for (line, key_width) in level.iter().zip(keys) {
            if let (Kind::Comment(comment), Some(previous)) = (&line.kind, previous) {
                let apart = self.newlines(previous.range.end, line.range.start);
                if apart == 0 && !matches!(previous.kind, Kind::Comment(_) | Kind::Doc) {
                    // Back onto the line it trails.
                    self.out.truncate(self.out.trim_end_matches('\n').len());
                    self.out.push_str("  ");
                    self.out.push_str(&comment.text);
                    self.out.push('\n');
                    continue;
                }
            }
            if let Some(gap) = previous.and_then(|previous| self.comma_between(previous, line)) {
                self.out.truncate(self.out.trim_end_matches('\n').len());
                self.out.push_str(gap);
                self.verbatim(&line.range, 0);
                previous = Some(line);
                continue;
            }
            if let Some(previous) = previous
                && self.newlines(previous_end(previous, line, self.writer.comments), line.range.start) > 1
            {
                self.out.push('\n');
            }
            self.line(line, indent, key_width);
            previous = Some(line);
        }
    }

    /// For each line the width its key is padded to: a run of fields ends at a blank line, at a
    /// comment, doc or attribute, and at anything that is no field.
    fn key_widths(&self, level: &[Line<'a>]) -> Vec<usize> {
        let mut widths = vec![0; level.len()];
        let mut run: Vec<usize> = Vec::new();
        let mut widest = 0;
        let mut end_of_last = 0;
        let mut close = |run: &mut Vec<usize>, widest: &mut usize| {
            for i in run.drain(..) {
                widths[i] = *widest;
            }
            *widest = 0;
        };
        for (i, line) in level.iter().enumerate() {
            let trails = matches!(line.kind, Kind::Comment(_))
                && i > 0
                && self.newlines(end_of_last, line.range.start) == 0;
            if trails {
                end_of_last = line.range.end;
                continue;
            }
            if self.newlines(end_of_last, line.range.start) > 1 {
                close(&mut run, &mut widest);
            }
            end_of_last = line.range.end;
            match &line.kind {
                Kind::Entry(Entry { kind: EntryKind::Field { key, .. }, .. })
                    if !self.is_broken(&line.range) =>
                {
                    widest = widest.max(self.writer.path(key).chars().count());
                    run.push(i);
                }
                _ => close(&mut run, &mut widest),
            }
        }
        close(&mut run, &mut widest);
        widths
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }

    fn line(&mut self, line: &Line<'a>, indent: usize, key_width: usize) {
        if self.is_broken(&line.range) {
            return self.verbatim(&line.range, indent);
        }
        match &line.kind {
            Kind::Comment(comment) => {
                self.pad(indent);
                self.out.push_str(&comment.text);
                self.out.push('\n');
            }
            Kind::Doc => {
                self.pad(indent);
                self.out.push_str(&doc(&self.text[line.range.clone()]));
                self.out.push('\n');
            }
            Kind::Attr(attr) => {
                if !self.writer.comments_in(attr.span.start, attr.span.end).is_empty() {
                    return self.verbatim(&line.range, indent);
                }
                let attr = self.writer.attr(attr);
                self.pad(indent);
                self.out.push_str(&attr);
                self.out.push('\n');
            }
            Kind::Item(item) => self.item(item, indent),
            Kind::Entry(entry) => self.entry(entry, indent, key_width),
            Kind::Verbatim => self.verbatim(&line.range, indent),
        }
    }

    /// The source as it is; only blanks before it and at its line ends go.
    fn verbatim(&mut self, range: &Range<usize>, indent: usize) {
        self.pad(indent);
        for (i, line) in self.text[range.clone()].lines().enumerate() {
            if i > 0 {
                self.out.push('\n');
            }
            // No blank of another alphabet, which is what cannot be read.
            self.out.push_str(line.trim_end_matches([' ', '\t', '\r']));
        }
        self.out.push('\n');
    }

    /// `head`, an expression and `tail`; as written if a comment inside has no room.
    fn with_expr(&mut self, head: &str, expr: &Expr, tail: &str, whole: Span, indent: usize) {
        let outside = self.writer.comments_in(whole.start, whole.end).len()
            - self.writer.comments_in(expr.span.start, expr.span.end).len();
        if outside > 0 || !self.writer.has_room(expr) {
            return self.verbatim(&whole.range(), indent);
        }
        let column = indent + head.chars().count();
        let tail_width = tail.lines().next().unwrap_or_default().chars().count();
        let value = self.writer.write(expr, Place { column, indent, tail: tail_width });
        self.pad(indent);
        self.out.push_str(head);
        self.out.push_str(&value);
        self.out.push_str(tail);
        self.out.push('\n');
    }

    fn item(&mut self, item: &'a Item, indent: usize) {
        match &item.kind {
            ItemKind::Use { path, alias, sha256 } => {
                if !self.writer.comments_in(item.span.start, item.span.end).is_empty() {
                    return self.verbatim(&item.span.range(), indent);
                }
                let mut line = format!("use {}", self.writer.source(path.span));
                if let Some(alias) = alias {
                    line.push_str(&format!(" as {}", alias.text));
                }
                if let Some(pin) = sha256 {
                    line.push_str(&format!(", sha256: {}", self.writer.source(pin.span)));
                }
                self.pad(indent);
                self.out.push_str(&line);
                self.out.push('\n');
            }
            ItemKind::Param { name, ty, value } => {
                let ty = ty.as_ref().map(|ty| format!(": {}", ty.text)).unwrap_or_default();
                self.with_expr(&format!("param {}{ty} = ", name.text), value, "", item.span, indent);
            }
            ItemKind::Let { name, value } => {
                self.with_expr(&format!("let {} = ", name.text), value, "", item.span, indent);
            }
            ItemKind::Bind { kind, name, value } => {
                self.with_expr(&format!("{} {} = ", kind.text, name.text), value, "", item.span, indent);
            }
            ItemKind::Assert(assert) => self.assertion(assert, item.span, indent),
            ItemKind::Block(block) => self.block(block, indent),
        }
    }

    fn entry(&mut self, entry: &'a Entry, indent: usize, key_width: usize) {
        match &entry.kind {
            EntryKind::Field { key, value } => {
                let key = self.writer.path(key);
                let pad = key_width.saturating_sub(key.chars().count());
                let head = format!("{key}{} = ", " ".repeat(pad));
                self.with_expr(&head, value, "", entry.span, indent);
            }
            EntryKind::Constraint(expr) => self.with_expr("", expr, "", entry.span, indent),
            EntryKind::Block(block) => self.block(block, indent),
            EntryKind::Assert(assert) => self.assertion(assert, entry.span, indent),
        }
    }

    fn assertion(&mut self, assert: &Assert, whole: Span, indent: usize) {
        let condition = self.writer.flat(&assert.condition);
        let why = assert.why.as_ref().map(|why| self.writer.source(why.span).to_owned());
        let tail = match why {
            None => String::new(),
            Some(why) => {
                let one_line = indent + "assert , ".len() + condition.chars().count() + why.chars().count();
                if one_line <= WIDTH {
                    format!(", {why}")
                } else {
                    format!(",\n{}{why}", " ".repeat(indent + STEP))
                }
            }
        };
        self.with_expr("assert ", &assert.condition, &tail, whole, indent);
    }

    fn head(&self, block: &Block) -> String {
        let mut head = block.kind.text.clone();
        if let Some(name) = &block.name {
            head.push(' ');
            head.push_str(&name.text);
        }
        if !block.each.is_empty() {
            let each = |Each { var, values }: &Each| format!("{} in {}", var.text, self.writer.flat(values));
            head.push_str(&format!("[{}]", block.each.iter().map(each).collect::<Vec<_>>().join(", ")));
        }
        head
    }

    fn block(&mut self, block: &'a Block, indent: usize) {
        if !self.writer.comments_in(block.span.start, block.brace.start).is_empty() {
            return self.verbatim(&block.span.range(), indent);
        }
        if let Some(line) = self.one_line(block, indent) {
            self.pad(indent);
            self.out.push_str(&line);
            self.out.push('\n');
            return;
        }
        let head = self.head(block);
        self.pad(indent);
        self.out.push_str(&head);
        self.out.push_str(" {\n");
        let mut level = Vec::new();
        for entry in &block.entries {
            self.preface(&entry.preface, &mut level);
            level.push(Line { range: entry.span.range(), kind: Kind::Entry(entry) });
        }
        self.fill_level(&mut level, block.brace.range().end..block.span.range().end);
        // A comment behind the brace stays there.
        let behind = level.first().is_some_and(|line| {
            matches!(line.kind, Kind::Comment(_))
                && self.newlines(block.brace.range().end, line.range.start) == 0
        });
        if behind && let Kind::Comment(comment) = &level.remove(0).kind {
            self.out.truncate(self.out.len() - 1);
            self.out.push_str("  ");
            self.out.push_str(&comment.text);
            self.out.push('\n');
        }
        self.level(&level, indent + STEP);
        self.pad(indent);
        self.out.push_str("}\n");
    }

    /// The block on one line, if it was written so, holds only plain entries and fits.
    fn one_line(&self, block: &Block, indent: usize) -> Option<String> {
        let range = block.span.range();
        let from = self.broken.partition_point(|broken| broken.start < range.start);
        let broken = self.broken.get(from).is_some_and(|broken| broken.start < range.end);
        let commented = !self.writer.comments_in(block.span.start, block.span.end).is_empty();
        if broken || commented || self.newlines(range.start, range.end) > 0 {
            return None;
        }
        let head = self.head(block);
        if block.entries.is_empty() {
            return Some(format!("{head} {{}}"));
        }
        let mut entries = Vec::new();
        for entry in &block.entries {
            if !(entry.preface.docs.is_empty() && entry.preface.attrs.is_empty()) {
                return None;
            }
            entries.push(match &entry.kind {
                EntryKind::Field { key, value } => {
                    format!("{} = {}", self.writer.path(key), self.writer.flat(value))
                }
                EntryKind::Constraint(expr) => self.writer.flat(expr),
                EntryKind::Block(_) | EntryKind::Assert(_) => return None,
            });
        }
        let line = format!("{head} {{ {} }}", entries.join(", "));
        (indent + line.chars().count() <= WIDTH).then_some(line)
    }
}

/// Where the line before `line` ends, counting a comment that trails it.
fn previous_end(previous: &Line<'_>, line: &Line<'_>, comments: &[Comment]) -> usize {
    let before = comments.partition_point(|c| (c.span.start as usize) < line.range.start);
    let last = before.checked_sub(1).map_or(0, |i| comments[i].span.end as usize);
    previous.range.end.max(last)
}

/// `##text` as `## text`.
fn doc(source: &str) -> String {
    let text = source.trim_end();
    match text.strip_prefix("##") {
        Some(rest) if !rest.is_empty() && !rest.starts_with([' ', '#', '\t']) => format!("## {rest}"),
        _ => text.to_owned(),
    }
}
