//! Weights by name on the host, as read from and written to checkpoints.

use std::collections::BTreeMap;

/// A dense f32 array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Extent of each axis, outermost first.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub data: Vec<f32>,
}

/// Tensors under their Hugging Face names (`model.layers.0.self_attn.q_proj.weight`), shapes as in
/// PyTorch (`[out, in]`).
pub type StateDict = BTreeMap<String, Tensor>;
