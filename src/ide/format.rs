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

/// What formatting changes in `text`. Each edit can be made without the others.
pub fn format(text: &str) -> Vec<TextEdit> {
    let new = fmt::format(text);
    let edits = fmt::pieces(text, &new)
        .into_iter()
        .map(|piece| TextEdit { range: piece.old, text: new.get(piece.new).unwrap_or_default().to_owned() });
    edits.filter(|edit| text.get(edit.range.clone()) != Some(&edit.text)).collect()
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

    #[test]
    fn a_range_loses_and_repeats_nothing() {
        for text in [
            "mix m {\n\n    web = 50%\n    code = 25%\n\n    math = rest\n}\n",
            "mix m { web = 50%, code = 25%\n math = rest }\nlet  a = 1\n",
            "let v = f(a\n  , b,\n c)\n\n\n\nlet w = [\n1,\n 2]\n",
            "stage s {\n lr = 0\n  then hold # a\n\n  # b\n  x=1,y=2\n}\n",
        ] {
            for (at, _) in text.match_indices('\n') {
                let partly = applied(text, &format_range(text, at..at));
                assert_eq!(fmt::format(&partly), fmt::format(text), "{text:?} at {at}: {partly:?}");
            }
        }
    }
}
