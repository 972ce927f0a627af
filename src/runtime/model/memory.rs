//! How much memory training takes, from the dimensions of a model alone: nothing is allocated.

use crate::plan::Architecture;
use crate::runtime::backend::{Backend, Load};
use crate::runtime::engine::EngineError;
use crate::runtime::model::parameters::{self, Role};
use crate::runtime::model::workspace::{Rows, Scratch, Widths, schedule, training_bytes};
use crate::runtime::optim::Rule;

/// What a training step holds at its fullest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainingMemory {
    /// Weights, gradients and moments, and what the optimizer works in.
    pub parameters_bytes: u64,
    /// Activations, and scratch of the backward pass, without what is part of the gradients.
    pub activations_bytes: u64,
    /// What the backend keeps beside: copies of weights, logits, tables.
    pub backend_bytes: u64,
    /// Rows that go through the model at once.
    pub rows_at_once: usize,
    /// Layers of which the feed-forward block, and no more, is computed again in the backward pass.
    pub feed_forwards_recomputed: usize,
    /// Layers that are computed again in the backward pass.
    pub layers_recomputed: usize,
}

impl TrainingMemory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parameters_bytes + self.activations_bytes + self.backend_bytes
    }
}

/// What the backend `B` keeps beside its buffers while it trains this model on so many tokens at once.
pub(super) fn load(a: &Architecture, tokens: usize, context: usize) -> Result<Load, EngineError> {
    let slots = parameters::slots(a)?;
    // A bias's gradient is summed in the same scratch memory as a norm's.
    let bias = slots.iter().filter(|s| s.role == Role::Bias).map(|s| s.len).max().unwrap_or(0);
    Ok(Load {
        operands: slots.iter().filter(|s| !s.role.is_vector()).map(|s| s.len).sum(),
        tokens,
        positions: context,
        tables: 1 + usize::from(a.has_plain_rope()),
        indices: 4 + usize::from(a.pattern.sliding() > 0),
        heads: a.num_attention_heads,
        head_dim: a.head_dim,
        widest_norm: a.hidden_size.max(a.num_attention_heads * a.head_dim).max(bias),
        widest_input: a.hidden_size.max(a.num_attention_heads * a.head_dim).max(a.intermediate_size),
        vocab: a.vocab_size,
    })
}

/// Training on `rows` rows of `context` tokens a step, within `budget` bytes.
///
/// # Errors
/// [`EngineError::Budget`] when even one row with every layer recomputed needs more, and as for an engine
/// of this architecture.
pub(in crate::runtime) fn predict<B: Backend>(
    a: &Architecture,
    rows: usize,
    context: usize,
    rule: Rule,
    budget: Option<u64>,
) -> Result<TrainingMemory, EngineError> {
    let (widths, slots) = (Widths::of(a)?, parameters::slots(a)?);
    let parameters_bytes = parameters::weight_bytes::<B>(&slots, 2) + rule.bytes::<B>(&slots);
    let base = load(a, 0, context)?;
    let backend = |tokens| B::overhead_bytes(Load { tokens, ..base });
    let held = |tokens| parameters_bytes + backend(tokens);
    let rows = Rows { count: rows, context, at_most: rows };
    let schedule = schedule::<B>(&widths, &slots, rows, true, held, budget)?;
    let (tokens, again) = (schedule.rows * context, schedule.again);
    let scratch = Scratch::of::<B>(&widths, rows, schedule, true);
    Ok(TrainingMemory {
        parameters_bytes,
        activations_bytes: training_bytes::<B>(&widths, &slots, tokens, schedule, scratch),
        backend_bytes: backend(tokens),
        rows_at_once: schedule.rows,
        feed_forwards_recomputed: again.feed_forwards - again.layers,
        layers_recomputed: again.layers,
    })
}
