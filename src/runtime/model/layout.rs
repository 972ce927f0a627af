//! Which tensors a model has: names and shapes as Hugging Face checkpoints spell them.

use super::parameters::slots;
use crate::plan::Architecture;
use crate::runtime::engine::EngineError;

/// Every tensor of the model in a fixed order; shapes as in PyTorch (`[out, in]`). The output layer,
/// `lm_head.weight`, is there only when it is not the embedding.
///
/// # Errors
/// When the architecture is not one the engine can run.
pub fn layout(architecture: &Architecture) -> Result<Vec<(String, Vec<usize>)>, EngineError> {
    let slots = slots(architecture)?;
    let pieces = slots.iter().flat_map(|slot| &slot.pieces);
    Ok(pieces.map(|piece| (piece.name.clone(), piece.shape.clone())).collect())
}
