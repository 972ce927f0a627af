//! Byte offsets to lines and columns in the units the client asked for, and back.

use lsp_types::{Position, PositionEncodingKind, Range};

/// What a column counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Bytes.
    Utf8,
    /// UTF-16 units, the protocol's default.
    Utf16,
    /// Characters.
    Utf32,
}

impl Encoding {
    /// The best of what a client offers: bytes cost nothing.
    pub(super) fn choose(offered: Option<&[PositionEncodingKind]>) -> Self {
        let has = |kind: PositionEncodingKind| offered.is_some_and(|o| o.contains(&kind));
        if has(PositionEncodingKind::UTF8) {
            Encoding::Utf8
        } else if has(PositionEncodingKind::UTF32) && !has(PositionEncodingKind::UTF16) {
            Encoding::Utf32
        } else {
            Encoding::Utf16
        }
    }

    /// How many units `c` counts.
    fn units(self, c: char) -> usize {
        match self {
            Encoding::Utf8 => c.len_utf8(),
            Encoding::Utf16 => c.len_utf16(),
            Encoding::Utf32 => 1,
        }
    }

    /// As the protocol spells it.
    pub(super) fn kind(self) -> PositionEncodingKind {
        match self {
            Encoding::Utf8 => PositionEncodingKind::UTF8,
            Encoding::Utf16 => PositionEncodingKind::UTF16,
            Encoding::Utf32 => PositionEncodingKind::UTF32,
        }
    }
}

/// A text and the starts of its lines. The protocol ends lines at `\n`, `\r\n` and a lone `\r`.
pub(super) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
    encoding: Encoding,
    /// Every [`STRIDE`] bytes or a little more, a byte and the units before it: a place in a long line
    /// need not count from its beginning. Empty where units are bytes.
    counted: Vec<(usize, usize)>,
}

const STRIDE: usize = 256;

impl<'t> Lines<'t> {
    pub(super) fn new(text: &'t str, encoding: Encoding) -> Self {
        let bytes = text.as_bytes();
        let ends = |(i, b): (usize, &u8)| match b {
            b'\n' => Some(i + 1),
            b'\r' if bytes.get(i + 1) != Some(&b'\n') => Some(i + 1),
            _ => None,
        };
        let starts = std::iter::once(0).chain(bytes.iter().enumerate().filter_map(ends)).collect();
        let mut counted = Vec::new();
        if encoding != Encoding::Utf8 {
            let (mut next, mut units) = (0, 0);
            for (at, c) in text.char_indices() {
                if at >= next {
                    counted.push((at, units));
                    next = at + STRIDE;
                }
                units += encoding.units(c);
            }
        }
        Self { text, starts, encoding, counted }
    }

    /// Units before byte `offset` of the text, a boundary.
    fn units(&self, offset: usize) -> usize {
        let near = self.counted.partition_point(|(at, _)| *at <= offset).checked_sub(1);
        match near.map(|near| self.counted[near]) {
            Some((at, units)) => {
                units + self.text[at..offset].chars().map(|c| self.encoding.units(c)).sum::<usize>()
            }
            None => offset,
        }
    }

    /// Line and column of a byte, which is brought inside the text.
    pub(super) fn position(&self, offset: usize) -> Position {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|s| *s <= offset) - 1;
        let column = self.units(offset) - self.units(self.starts[line]);
        Position::new(line as u32, column as u32)
    }

    /// The byte of a position; columns past the end of a line are its end, as the protocol says.
    pub(super) fn offset(&self, position: Position) -> usize {
        let line = position.line as usize;
        let Some(start) = self.starts.get(line).copied() else { return self.text.len() };
        let end = self.starts.get(line + 1).copied().unwrap_or(self.text.len());
        let content = self.text[start..end].trim_end_matches(['\n', '\r']);
        let wanted = position.character as usize;
        let mut units = 0;
        for (at, c) in content.char_indices() {
            if units >= wanted {
                return start + at;
            }
            units += self.encoding.units(c);
            // Inside of a character: its beginning.
            if units > wanted {
                return start + at;
            }
        }
        start + content.len()
    }

    pub(super) fn range(&self, range: std::ops::Range<usize>) -> Range {
        Range::new(self.position(range.start), self.position(range.end))
    }

    /// The bytes of a range; an inverted one is empty.
    pub(super) fn bytes(&self, range: Range) -> std::ops::Range<usize> {
        let (start, end) = (self.offset(range.start), self.offset(range.end));
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_boundary_comes_back() {
        let text = "aß𝄞\r\nx\ry\n\u{feff}é\n";
        for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32] {
            let lines = Lines::new(text, encoding);
            for (offset, _) in text.char_indices() {
                // Between `\r` and `\n` is no place of its own.
                if text[..offset].ends_with('\r') && text[offset..].starts_with('\n') {
                    continue;
                }
                assert_eq!(lines.offset(lines.position(offset)), offset, "{encoding:?} {offset}");
            }
            assert_eq!(lines.offset(Position::new(99, 0)), text.len());
            assert_eq!(lines.position(usize::MAX).line, 4);
        }
        let lines = Lines::new(text, Encoding::Utf16);
        assert_eq!(lines.position(7), Position::new(0, 4));
        assert_eq!(lines.offset(Position::new(0, 3)), 3, "inside of a pair");
        assert_eq!(lines.offset(Position::new(0, 99)), 7, "before the line's end");
    }

    #[test]
    fn columns_of_a_long_line_are_counted_in_strides() {
        let text = format!("{}\r\nx{}", "aß𝄞".repeat(3 * STRIDE), "é".repeat(STRIDE));
        for (encoding, counts) in
            [(Encoding::Utf16, [1, 1, 2]), (Encoding::Utf32, [1, 1, 1]), (Encoding::Utf8, [1, 2, 4])]
        {
            let lines = Lines::new(&text, encoding);
            let columns = text.chars().take(9 * STRIDE).enumerate().map(|(i, _)| counts[i % 3]);
            let mut column = 0;
            for ((at, _), units) in text.char_indices().zip(columns) {
                assert_eq!(lines.position(at), Position::new(0, column), "{encoding:?} {at}");
                column += units;
            }
            // No place is farther from one that is counted than a stride and a character.
            let strides = lines.counted.windows(2).map(|w| w[1].0 - w[0].0);
            assert!(strides.clone().all(|stride| stride < STRIDE + 4), "{encoding:?}");
            assert_eq!(strides.count() > 0, encoding != Encoding::Utf8);
        }
    }

    #[test]
    fn the_client_chooses() {
        use PositionEncodingKind as K;
        assert_eq!(Encoding::choose(None), Encoding::Utf16);
        assert_eq!(Encoding::choose(Some(&[K::UTF16, K::UTF8])), Encoding::Utf8);
        assert_eq!(Encoding::choose(Some(&[K::UTF32])), Encoding::Utf32);
    }
}
