//! One step's rows, as the data side hands them to the model side.

/// Target of a position that is not predicted.
pub const IGNORE: u32 = u32::MAX;

/// The rows of one optimizer step.
///
/// A row is `context` consecutive tokens of one source's packed stream; rows do not overlap. Each
/// position predicts the next token of its row, so the last position of a row has no target (as in
/// transformers and OLMo-core, whose rows are the same).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Tokens per row, T.
    pub context: usize,
    /// `[rows, T]` token ids.
    pub tokens: Vec<u32>,
    /// `[rows, T]` next-token ids, [`IGNORE`] where there is no loss.
    pub targets: Vec<u32>,
    /// `[rows, T]` index in the row of the first position this one may attend to: all 0 for
    /// causal attention, the start of the document for document attention.
    pub attend_from: Vec<u32>,
    /// `[rows, T]` position for RoPE: the index in the row, or in the document.
    pub positions: Vec<u32>,
    /// `[rows]` index of the source in the stage's mixture.
    pub source: Vec<u32>,
}

impl Batch {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.source.len()
    }

    /// How many positions have a target.
    pub fn predicted(&self) -> usize {
        self.targets.iter().filter(|t| **t != IGNORE).count()
    }
}
