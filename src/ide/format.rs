//! Formatting as edits of the lines that change, so that cursors and folds stay where they are.

use std::ops::Range;

use crate::fmt;

/// Replace the bytes of `range` by `text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextEdit {
    /// Bytes of the old text.
    pub range: Range<usize>,
    /// What comes in their place.
    pub text: String,
}

/// What formatting changes in `text`.
pub fn format(text: &str) -> Vec<TextEdit> {
    let new = fmt::format(text);
    let mut out = Vec::new();
    for (range, new) in fmt::line_edits(text, &new) {
        let old = text.get(range.clone()).unwrap_or_default();
        let lines = |t: &str| t.split_inclusive('\n').count();
        if lines(old) != lines(&new) {
            out.push(TextEdit { range, text: new });
            continue;
        }
        // Line for line, so that a part of the file can be formatted by itself.
        let mut at = range.start;
        for (old, new) in old.split_inclusive('\n').zip(new.split_inclusive('\n')) {
            if old != new {
                out.push(TextEdit { range: at..at + old.len(), text: new.to_owned() });
            }
            at += old.len();
        }
    }
    out
}

/// What formatting changes in the lines that touch `range`.
pub fn format_range(text: &str, range: Range<usize>) -> Vec<TextEdit> {
    let mut edits = format(text);
    let end = text.get(range.end..).and_then(|t| t.find('\n')).map_or(text.len(), |e| range.end + e);
    let start = text.get(..range.start).and_then(|t| t.rfind('\n')).map_or(0, |s| s + 1);
    edits.retain(|e| {
        e.range.start <= end && (e.range.end > start || e.range.is_empty() && e.range.start >= start)
    });
    edits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str, edits: &[TextEdit]) -> String {
        let mut out = text.to_owned();
        for edit in edits.iter().rev() {
            out.replace_range(edit.range.clone(), &edit.text);
        }
        out
    }

    #[test]
    fn edits_make_the_formatted_text() {
        for text in [
            "stage a {\n tokens=1B\n  lr = 1\n}\n",
            "let   a = 1\n\n\n\nlet b =2",
            "",
            "let a = 1\r\nlet  b = 2\r\n",
        ] {
            assert_eq!(applied(text, &format(text)), fmt::format(text), "{text:?}");
        }
    }

    #[test]
    fn a_range_changes_its_lines_only() {
        let text = "let  a = 1\nlet  b = 2\nlet  c = 3\n";
        let at = text.find('b').unwrap();
        assert_eq!(applied(text, &format_range(text, at..at)), "let  a = 1\nlet b = 2\nlet  c = 3\n");
    }
}
