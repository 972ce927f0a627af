//! Byte offset to line and column in characters.

/// A place a person can find: both numbers are 1-based, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// 1-based line.
    pub line: u32,
    /// 1-based column in characters.
    pub col: u32,
}

/// Starts of the lines of one text.
#[derive(Clone, Debug)]
pub struct LineIndex {
    starts: Vec<u32>,
}

impl LineIndex {
    /// Index `text` once; look-ups are then logarithmic.
    pub fn new(text: &str) -> Self {
        let starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i as u32 + 1))
            .collect();
        Self { starts }
    }

    /// The 0-based line that holds byte `offset`.
    pub fn line(&self, offset: u32) -> usize {
        self.starts.partition_point(|s| *s <= offset) - 1
    }

    /// First byte of 0-based `line`.
    pub fn line_start(&self, line: usize) -> u32 {
        self.starts[line.min(self.starts.len() - 1)]
    }

    /// How many lines there are.
    pub fn lines(&self) -> usize {
        self.starts.len()
    }

    /// Line and column of byte `offset`, clamped to the text and to a character boundary.
    pub fn position(&self, text: &str, offset: u32) -> Position {
        let offset = floor_char(text, offset as usize);
        let line = self.line(offset as u32);
        let before = &text[self.starts[line] as usize..offset];
        // A byte order mark is no character of the line to any editor.
        let before = if line == 0 { before.strip_prefix('\u{feff}').unwrap_or(before) } else { before };
        let col = before.chars().count();
        Position { line: line as u32 + 1, col: col as u32 + 1 }
    }
}

fn floor_char(text: &str, mut offset: usize) -> usize {
    offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::{LineIndex, Position};

    #[test]
    fn a_byte_order_mark_is_no_column() {
        let text = "\u{feff}a = 1\nb = 2\n";
        let index = LineIndex::new(text);
        let at = |what: &str| index.position(text, text.find(what).unwrap_or_default() as u32);
        assert_eq!(at("a"), Position { line: 1, col: 1 });
        assert_eq!(at("1"), Position { line: 1, col: 5 });
        assert_eq!(at("b"), Position { line: 2, col: 1 });
    }
}
