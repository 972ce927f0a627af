//! What an editor asks about a curriculum, as pure functions on the compiler's own results: plain
//! byte offsets in, plain data out. Knows neither the protocol nor the disk.
//!
//! ```text
//! analysis    a file, everything it uses, what the checker made of it
//! marks       every name, word and number in a file and what it stands for
//! context     what surrounds the cursor, from the text alone, so also while a line is half typed
//! hover, inlay, tokens, navigation, rename, links, lenses    read marks
//! completion, signature                              read the context
//! symbols, folding, selection                        read the tree
//! format, fixes                                      edits
//! ```

mod analysis;
mod completion;
mod context;
mod fixes;
mod folding;
mod format;
mod hover;
mod inlay;
mod lenses;
mod links;
mod marks;
mod navigation;
mod numbers;
mod paths;
mod rename;
mod selection;
mod signature;
mod symbols;
#[cfg(test)]
mod testing;
mod tokens;

pub use analysis::{Analysis, Names};
pub use completion::{Completion, CompletionKind, complete};
pub use fixes::{Action, ActionKind, actions, fix_all};
pub use folding::{Fold, FoldKind, folds};
pub use format::{TextEdit, format, format_range};
pub use hover::{Hover, hover};
pub use inlay::{Hint, HintKind, HintOptions, hints};
pub use lenses::{Lens, LensKind, lenses};
pub use links::{Link, links};
#[cfg(feature = "native")]
pub(crate) use marks::{ITEM_WORDS, MORE_WORDS};
pub use navigation::{
    Occurrence, Symbol, definition, everywhere, highlights, occurrences, renamable, symbol_at,
};
pub use rename::{RenameError, rename};
pub use selection::selection_ranges;
#[cfg(feature = "native")]
pub(crate) use signature::label;
pub use signature::{Signature, signature};
pub use symbols::{Outline, OutlineKind, outline};
pub use tokens::{TOKEN_MODIFIERS, TOKEN_TYPES, Token, tokens};
