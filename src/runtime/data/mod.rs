//! Data: files of text in, rows of token ids out, in an order that is a function of (files, seed,
//! position) alone. Reads `plan` and writes only under the cache directory; knows nothing of
//! models, devices or terminals.
//!
//! ```text
//! files ─ readers ─▶ records ─ record ─▶ documents ─ tokenizer ─▶ index ─▶ cache (mapped)
//!                                                                            │
//!            plan ─ mixer ─▶ which source ─┐      order ─▶ which document ───┤
//!                                          └─▶ sampler ◀─ packing ◀──────────┘ ─▶ Batch
//! ```

mod cache;
mod chat;
mod corpus;
mod decontaminate;
mod document;
mod error;
mod export;
mod files;
mod filter;
mod fim;
mod heldout;
mod index;
mod mixer;
mod order;
mod packing;
mod permutation;
mod progress;
mod python_json;
mod python_text;
pub mod readers;
mod record;
mod sampler;
mod summary;
mod tokenizer;
mod windows;

pub use corpus::{Corpus, OpenOptions, Source};
pub use error::DataError;
pub use export::{RowSet, export, planned_rows};
pub use files::{stamp_of, text_files};
pub use index::OnBad;
pub use mixer::{Later, Mixer, QUANTUM, quantise};
pub use order::{Cursor, Leg, Order};
pub use packing::{Packer, PackerState, Piece};
pub use permutation::Permutation;
pub use progress::{Progress, Quiet};
pub use sampler::{SamplerState, SourceState, StageSampler};
pub use summary::{Dropped, Example, SourceSummary, Summary};
pub use tokenizer::TextTokenizer;
pub(in crate::runtime) use tokenizer::eos_id;
pub use windows::{Window, file_windows};
