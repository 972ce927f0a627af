//! Source excerpts for people, drawn by ariadne; the only file that names it.

use std::borrow::Cow;
use std::collections::HashMap;

use ariadne::{Cache, CharSet, Color, Config, IndexType, Report, ReportKind, Source};

use super::{fix_advice, level_word};
use crate::diag::{Diagnostic, Label, Level};
use crate::source::{FileId, Files, Span};

/// A span as ariadne wants it.
type Place = (FileId, std::ops::Range<usize>);

pub(super) fn render(diagnostics: &[Diagnostic], files: &dyn Files, color: bool) -> String {
    let mut cache = Sources { files, read: HashMap::new() };
    let mut out = Vec::new();
    for diagnostic in diagnostics {
        let before = out.len();
        if report(diagnostic, files, color).write(&mut cache, &mut out).is_err() {
            // Writing to memory does not fail; should drawing ever do, the message still counts.
            out.truncate(before);
            out.extend_from_slice(super::concise::render(std::slice::from_ref(diagnostic), files).as_bytes());
        }
        out.push(b'\n');
    }
    // Trailing blanks only make the output hard to compare.
    let text = String::from_utf8_lossy(&out);
    let text = if color { text } else { plain(&text).into() };
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The text without escape sequences: ariadne paints the kind of a report whatever its configuration
/// says.
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // Parameters, then the one letter that ends a sequence.
        out.push_str(part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest));
    }
    out
}

fn report<'a>(diagnostic: &Diagnostic, files: &dyn Files, color: bool) -> Report<'a, Place> {
    let (main, second) = match diagnostic.level {
        Level::Deny => (Color::Red, Color::Blue),
        Level::Warn | Level::Allow => (Color::Yellow, Color::Blue),
    };
    let config =
        Config::new().with_color(color).with_index_type(IndexType::Byte).with_char_set(CharSet::Unicode);
    let kind = ReportKind::Custom(level_word(diagnostic.level), main);
    let mut report = Report::build(kind, place(diagnostic.primary.span, files))
        .with_config(config)
        .with_code(diagnostic.code)
        .with_message(&diagnostic.message);
    let first = std::iter::once((&diagnostic.primary, main, 1));
    let mut labels: Vec<_> = first.chain(diagnostic.labels.iter().map(|l| (l, second, 0))).collect();
    // Out of the order of the text, ariadne begins another excerpt of the same file, under the place of the first.
    labels.sort_by_key(|(l, ..)| {
        (l.span.file != diagnostic.primary.span.file, l.span.file, l.span.end, l.span.start)
    });
    for (one, color, priority) in labels {
        report.add_label(label(one, files, color, priority));
    }
    for note in &diagnostic.notes {
        report.add_note(note);
    }
    for help in &diagnostic.help {
        report.add_help(help);
    }
    for fix in &diagnostic.fixes {
        report.add_help(fix_advice(fix));
    }
    if let Some(lint) = diagnostic.lint {
        report.add_note(format!("lint `{lint}`; `midc explain {lint}` says why it matters"));
    }
    report.finish()
}

fn label(label: &Label, files: &dyn Files, color: Color, priority: i32) -> ariadne::Label<Place> {
    let drawn = ariadne::Label::new(place(label.span, files)).with_color(color).with_priority(priority);
    if label.text.is_empty() { drawn } else { drawn.with_message(&label.text) }
}

/// The span, clamped to the text and to whole characters.
fn place(span: Span, files: &dyn Files) -> Place {
    let text = files.text(span.file);
    let clamp = |offset: u32| {
        let mut offset = (offset as usize).min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    };
    let (start, end) = (clamp(span.start), clamp(span.end));
    (span.file, start..end.max(start))
}

struct Sources<'f> {
    files: &'f dyn Files,
    read: HashMap<FileId, Source<Cow<'f, str>>>,
}

/// `text` with its lines where everyone else sees them: ariadne ends one at each of these as well.
/// What stands in their place is as long and as wide, so that places stay what they are.
fn newlines_only(text: &str) -> Cow<'_, str> {
    let odd = ['\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
    let lone_return = |i: usize| text[i..].starts_with('\r') && !text[i..].starts_with("\r\n");
    let returns = text.match_indices('\r').filter(|(i, _)| lone_return(*i)).count();
    // A file that has few newlines beside them is shown by its returns, or it would be one line.
    let returns_end_lines = returns > text.matches('\n').count();
    if !text.contains(odd) && (returns == 0 || returns_end_lines) {
        return Cow::Borrowed(text);
    }
    let plain = |(i, c): (usize, char)| match c {
        '\u{b}' | '\u{c}' => ' ',
        '\r' if lone_return(i) && !returns_end_lines => ' ',
        '\u{85}' => '\u{a0}',
        '\u{2028}' | '\u{2029}' => '\u{2002}',
        c => c,
    };
    Cow::Owned(text.char_indices().map(plain).collect())
}

impl<'f> Cache<FileId> for Sources<'f> {
    type Storage = Cow<'f, str>;

    fn fetch(&mut self, id: &FileId) -> Result<&Source<Cow<'f, str>>, impl std::fmt::Debug> {
        let files = self.files;
        Ok::<_, std::convert::Infallible>(
            self.read.entry(*id).or_insert_with(|| Source::from(newlines_only(files.text(*id)))),
        )
    }

    fn display<'a>(&self, id: &'a FileId) -> Option<impl std::fmt::Display + 'a> {
        Some(self.files.name(*id).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{newlines_only, plain};
    use crate::diag::render::{Format, render};
    use crate::diag::{Diagnostic, codes};
    use crate::source::{MemoryFiles, Span};

    #[test]
    fn plain_text_has_no_escapes() {
        assert_eq!(
            plain("\x1b[31m[E0301] error:\x1b[0m weights [\x1b[38;5;9mx"),
            "[E0301] error: weights [x"
        );
    }

    #[test]
    fn lines_end_where_the_other_formats_end_them() {
        for odd in ["\u{b}", "\u{c}", "\u{85}", "\u{2028}", "\u{2029}", "\r"] {
            let text = format!("# a{odd}b\r\nlet {odd}x = 1\n");
            let mut files = MemoryFiles::new();
            let file = files.add("f", text.clone());
            let at = text.find('x').unwrap();
            let found = [Diagnostic::error(codes::UNEXPECTED, Span::new(file, at, at + 1), "m", "l")];
            for format in [Format::Text, Format::Concise] {
                let out = render(format, &found, &files, false);
                assert!(out.contains("f:2:6"), "{odd:?}: {out}");
            }
            assert_eq!(newlines_only(&text).len(), text.len());
        }
    }
}
