//! The parser that pest generates from `grammar/curriculum.pest`, with a limit on its work.
#![allow(missing_docs)]

use std::num::NonZeroUsize;
use std::sync::Once;

use pest::Parser;
use pest::iterators::Pair;

/// Entries longer than this are reported, not parsed.
pub(super) const MAX_ENTRY: usize = 1 << 20;
/// Most rule calls one entry may cost. The grammar is linear (some 30 calls a byte at worst), so
/// only a fault of the grammar itself could reach this; it turns a hang into a message.
const CALL_LIMIT: NonZeroUsize = NonZeroUsize::new(64 * MAX_ENTRY).expect("not zero");

#[derive(pest_derive::Parser)]
#[grammar = "../grammar/curriculum.pest"]
struct Grammar;

/// Why an entry did not match.
pub(super) enum Mismatch {
    /// Nothing fits at this byte.
    At(usize),
    /// The entry is longer than [`MAX_ENTRY`] or cost too many calls.
    TooLong,
}

/// Match all of `text` against one of the entry rules.
pub(super) fn matching(rule: Rule, text: &str) -> Result<Pair<'_, Rule>, Mismatch> {
    static LIMIT: Once = Once::new();
    LIMIT.call_once(|| pest::set_call_limit(Some(CALL_LIMIT)));
    if text.len() > MAX_ENTRY {
        return Err(Mismatch::TooLong);
    }
    match Grammar::parse(rule, text) {
        Ok(mut pairs) => pairs.next().ok_or(Mismatch::At(0)),
        Err(error) => match (error.variant, error.location) {
            (pest::error::ErrorVariant::CustomError { .. }, _) => Err(Mismatch::TooLong),
            (_, pest::error::InputLocation::Pos(at) | pest::error::InputLocation::Span((at, _))) => {
                Err(Mismatch::At(at))
            }
        },
    }
}
