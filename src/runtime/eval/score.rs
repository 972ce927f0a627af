//! Log-likelihood of continuations, in batches of rows of similar length.

use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::engine::{Engine, EngineError, LengthTables};

/// A text whose tail is scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scored {
    /// Prompt and continuation.
    pub tokens: Vec<u32>,
    /// Where the continuation begins: its first token is predicted from what precedes, so that 0 leaves it out.
    pub from: usize,
}

impl Scored {
    /// The same behind the token that ends a text, where there is nothing else before the continuation.
    #[must_use]
    pub fn behind(mut self, end: u32) -> Self {
        if self.from == 0 {
            self.tokens.insert(0, end);
            self.from = 1;
        }
        self
    }
}

/// Tokens handed to the engine at once.
const TOKENS_AT_ONCE: usize = 16_384;

/// Why there are no scores.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It was to be given up.
    #[error("given up when asked to")]
    Stopped,
}

/// Sum of log-probabilities of each continuation, in nats. Of texts of more than `context` tokens and the last, which
/// is only predicted, the head is lost, as in lm-evaluation-harness; `tables` are for `context` tokens.
///
/// # Errors
/// What the engine says; [`ScoreError::Stopped`] soon after `stopping` begins to hold.
pub fn log_likelihoods(
    engine: &mut dyn Engine,
    tables: &mut LengthTables,
    context: usize,
    texts: &[Scored],
    stopping: &dyn Fn() -> bool,
) -> Result<Vec<f64>, ScoreError> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|i| (texts[*i].tokens.len(), *i));
    let mut sums = vec![0.0; texts.len()];
    let mut at = 0;
    while at < order.len() {
        if stopping() {
            return Err(ScoreError::Stopped);
        }
        // Longest of the group last: rows are padded to it.
        let mut group = 1;
        let width = |i: usize| texts[order[i]].tokens.len().min(context);
        let covered = |i: usize| tables.covered(width(i) as u64);
        while at + group < order.len()
            && width(at + group) * (group + 1) <= TOKENS_AT_ONCE
            && covered(at + group) == covered(at)
        {
            group += 1;
        }
        let members = &order[at..at + group];
        let longest = width(at + group - 1);
        let batch = rows(members.iter().map(|i| &texts[*i]), longest.max(2));
        let losses = engine.token_losses(&batch, tables.of(longest.max(2) as u64))?;
        for (row, member) in losses.chunks(batch.context).zip(members) {
            sums[*member] = -row.iter().map(|l| f64::from(*l)).sum::<f64>();
        }
        at += group;
    }
    Ok(sums)
}

/// Pad on the right, where causal attention does not look.
fn rows<'a>(texts: impl Iterator<Item = &'a Scored>, context: usize) -> Batch {
    let mut batch = Batch::empty(context);
    for text in texts {
        let cut = text.tokens.len().saturating_sub(context + 1);
        let tokens = &text.tokens[cut..];
        let from = text.from.saturating_sub(cut).max(1);
        for position in 0..context {
            batch.tokens.push(tokens.get(position).copied().unwrap_or(0));
            let next = position + 1;
            let scored = next >= from && next < tokens.len();
            batch.targets.push(if scored { tokens[next] } else { IGNORE });
            batch.attend_from.push(0);
            batch.positions.push(position as u32);
        }
        batch.source.push(0);
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_continuation_has_targets() {
        let text = Scored { tokens: vec![5, 6, 7, 8], from: 2 };
        let batch = rows([&text].into_iter(), 5);
        assert_eq!(batch.targets, [IGNORE, 7, 8, IGNORE, IGNORE]);
        assert_eq!(batch.tokens, [5, 6, 7, 8, 0]);
    }

    #[test]
    fn a_long_text_loses_its_head_not_its_answer() {
        let text = Scored { tokens: (0..10).collect(), from: 8 };
        let batch = rows([&text].into_iter(), 4);
        assert_eq!(batch.tokens, [5, 6, 7, 8]);
        assert_eq!(batch.targets, [IGNORE, IGNORE, 8, 9]);
    }
}
