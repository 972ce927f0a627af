//! Fresh weights: normal with the architecture's `initializer_range`, norms at 1, as transformers does.

use crate::plan::Architecture;
use crate::runtime::engine::EngineError;
use crate::runtime::model::parameters::slots;
use crate::runtime::model::tensor::{StateDict, Tensor};
use crate::runtime::random::{normal_pair, philox};

/// Weights of a new model. A value depends on the seed, the name of its tensor and its index only.
///
/// # Errors
/// When the architecture is not one the engine can run.
pub fn init_weights(architecture: &Architecture, seed: u64) -> Result<StateDict, EngineError> {
    let mut state = StateDict::new();
    for slot in slots(architecture)?.iter() {
        for piece in &slot.pieces {
            let data = if slot.decay {
                normal(seed, &piece.name, piece.len(), architecture.initializer_range)
            } else {
                vec![1.0; piece.len()]
            };
            state.insert(piece.name.clone(), Tensor { shape: piece.shape.clone(), data });
        }
    }
    Ok(state)
}

fn normal(seed: u64, name: &str, len: usize, deviation: f64) -> Vec<f32> {
    let hash = blake3::hash(name.as_bytes());
    let stream = hash.as_bytes().first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    let mut data = Vec::with_capacity(len + 3);
    for block in 0..len.div_ceil(4) as u64 {
        let counter = [block as u32, (block >> 32) as u32, stream as u32, (stream >> 32) as u32];
        let [a, b, c, d] = philox(seed, counter);
        for value in normal_pair(a, b).into_iter().chain(normal_pair(c, d)) {
            data.push((value * deviation) as f32);
        }
    }
    data.truncate(len);
    data
}
