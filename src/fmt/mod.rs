//! Syntax tree and comments back to text, in the one style there is. No options. Uses `syntax` and
//! nothing above it.
//!
//! What it does: two blanks per block, one entry per line, `=` aligned within a run of fields, one
//! blank line at most, lines of at most [`WIDTH`] characters where a list, a call, a `then` chain or
//! a chain of `and`/`or` can be broken. A block, list, call or chain written on one line stays on
//! one line while it fits; a broken one stays broken.
//!
//! What it never does: change a number, a string, a comment or the order of anything. What could
//! not be parsed stays as it was written.

mod diff;
mod expr;
mod lines;
mod pieces;

pub use diff::unified_diff;
pub use pieces::{Piece, pieces};

use crate::source::FileId;
use crate::syntax;

/// Longest line that is not broken, in characters.
pub const WIDTH: usize = 100;

/// Format a file. Text that cannot be formatted safely is returned as it is.
pub fn format(text: &str) -> String {
    // Line ends are the author's (or the editor's) choice, not ours.
    if text.contains("\r\n") {
        return format(&text.replace("\r\n", "\n")).replace('\n', "\r\n");
    }
    let (file, before) = syntax::parse(FileId(0), text);
    let out = lines::write(&file, text);
    // Beside what cannot be read, a comma less may join two entries.
    let same = || file.broken.is_empty() || syntax::parse(FileId(0), &out).1.len() == before.len();
    if essence(&out).eq(essence(text)) && same() { out } else { text.to_owned() }
}

/// `after`, an edited `before`, in the one style if `before` was: an edit of a formatted file leaves
/// a formatted file, one of another leaves the author's layout alone.
pub fn follow(before: &str, after: String) -> String {
    if format(before) == before { format(&after) } else { after }
}

/// What formatting must not change: everything but white space and commas.
fn essence(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_whitespace() && !matches!(c, ',' | '\u{feff}'))
}

#[cfg(test)]
mod tests;
