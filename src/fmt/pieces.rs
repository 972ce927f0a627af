//! A text beside its formatted form, cut where both may be cut: each piece can be replaced by its
//! counterpart and the rest left as it is.

use std::cmp::Ordering;
use std::ops::Range;

use super::essence;

/// A stretch of lines of the old text and the lines they become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the old text; empty where lines are put in.
    pub old: Range<usize>,
    /// Bytes of the new one.
    pub new: Range<usize>,
}

/// What of `old` becomes what of `new`, in order and without gaps. The two say the same, so a cut is
/// where as much was said on either side; what a plain difference of lines keeps may be a line that
/// is needed elsewhere.
pub fn pieces(old: &str, new: &str) -> Vec<Piece> {
    let whole = Piece { old: 0..old.len(), new: 0..new.len() };
    if !essence(old).eq(essence(new)) {
        return vec![whole];
    }
    let (mut old, mut new) = (Side::new(old), Side::new(new));
    let mut out = Vec::new();
    while !old.done() || !new.done() {
        let start = (old.at, new.at);
        // Blank lines say nothing, so they stand apart from what they separate.
        old.blank_lines();
        new.blank_lines();
        if (old.at, new.at) == start {
            old.line();
            new.line();
            loop {
                let behind = match old.said.cmp(&new.said) {
                    Ordering::Less => &mut old,
                    Ordering::Greater => &mut new,
                    Ordering::Equal if old.comma_follows() => &mut old,
                    Ordering::Equal if new.comma_follows() => &mut new,
                    Ordering::Equal => break,
                };
                if behind.done() {
                    break;
                }
                behind.line();
            }
        }
        out.push(Piece { old: start.0..old.at, new: start.1..new.at });
    }
    out
}

/// How far one of the two texts is read.
struct Side<'t> {
    text: &'t str,
    at: usize,
    /// Characters read that formatting keeps.
    said: usize,
}

impl<'t> Side<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, at: 0, said: 0 }
    }

    fn done(&self) -> bool {
        self.at == self.text.len()
    }

    fn next_line(&self) -> &'t str {
        self.text[self.at..].split_inclusive('\n').next().unwrap_or_default()
    }

    fn line(&mut self) {
        let line = self.next_line();
        self.said += essence(line).count();
        self.at += line.len();
    }

    fn blank_lines(&mut self) {
        while !self.done() && self.next_line().trim().is_empty() {
            self.at += self.next_line().len();
        }
    }

    /// Whether the next line begins with a comma, which the line before it takes over.
    fn comma_follows(&self) -> bool {
        self.text[self.at..].trim_start().starts_with(',')
    }
}

#[cfg(test)]
mod tests {
    use super::super::format;
    use super::pieces;

    /// Each line of old text becomes so many lines.
    fn cuts(text: &str) -> Vec<(usize, usize)> {
        let new = format(text);
        let lines = |t: &str| t.split_inclusive('\n').count();
        let pieces = pieces(text, &new);
        pieces.iter().map(|p| (lines(&text[p.old.clone()]), lines(&new[p.new.clone()]))).collect()
    }

    #[test]
    fn a_cut_is_where_both_said_as_much() {
        assert_eq!(
            cuts("mix m {\n\n    a = 50%\n    b = rest\n}\n"),
            [(1, 1), (1, 0), (1, 1), (1, 1), (1, 1)]
        );
        assert_eq!(cuts("mix m { a = 50%\n b = rest }\n"), [(1, 2), (1, 2)]);
        // A list is cut between its lines, unless a comma would be written twice.
        assert_eq!(cuts("let v = f(\na,\nb)\n"), [(1, 1), (1, 1), (1, 2)]);
        assert_eq!(cuts("let v = f(\na\n, b)\n"), [(1, 1), (2, 3)]);
        assert_eq!(cuts("let v = [1,\n2]\n"), [(2, 1)]);
        // What is too odd to be written anew keeps its comma where it is.
        assert_eq!(cuts("let  v = ([0\n,\n0]  #\nand 0)\n"), [(2, 2), (1, 1), (1, 1)]);
        assert_eq!(cuts("\n\n"), [(2, 0)]);
        assert_eq!(cuts(""), []);
    }
}
