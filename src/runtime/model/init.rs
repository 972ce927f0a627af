//! Fresh weights: normal with the architecture's `initializer_range`, norms that multiply by 1, as transformers
//! does.

use rayon::prelude::*;

use crate::plan::Architecture;
use crate::runtime::engine::EngineError;
use crate::runtime::model::parameters::{Family, Role, slots};
use crate::runtime::model::tensor::{StateDict, Tensor};
use crate::runtime::random::{normal_pair, philox};

/// Blocks of four values that one task makes.
const BLOCKS: usize = 1 << 12;

/// Weights of a new model. A value depends on the seed, the name of its tensor and its index only.
///
/// # Errors
/// When the architecture is not one the engine can run.
pub fn init_weights(architecture: &Architecture, seed: u64) -> Result<StateDict, EngineError> {
    let mut state = StateDict::new();
    let norm = if Family::of(architecture)?.zero_centred { 0.0 } else { 1.0 };
    for slot in slots(architecture)?.iter() {
        for piece in &slot.pieces {
            let data = match slot.role {
                Role::Norm => vec![norm; piece.len()],
                Role::Bias => vec![0.0; piece.len()],
                Role::Matrix | Role::Output | Role::Embedding => {
                    normal(seed, &piece.name, piece.len(), architecture.initializer_range)
                }
            };
            state.insert(piece.name.clone(), Tensor { shape: piece.shape.clone(), data });
        }
    }
    Ok(state)
}

fn normal(seed: u64, name: &str, len: usize, deviation: f64) -> Vec<f32> {
    let hash = blake3::hash(name.as_bytes());
    let stream = hash.as_bytes().first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
    let mut data = vec![0.0; len];
    data.par_chunks_mut(4 * BLOCKS).enumerate().for_each(|(i, data)| {
        for (block, values) in ((i * BLOCKS) as u64..).zip(data.chunks_mut(4)) {
            let counter = [block as u32, (block >> 32) as u32, stream as u32, (stream >> 32) as u32];
            let [a, b, c, d] = philox(seed, counter);
            let four = normal_pair(a, b).into_iter().chain(normal_pair(c, d));
            for (value, normal) in values.iter_mut().zip(four) {
                *value = (normal * deviation) as f32;
            }
        }
    });
    data
}
