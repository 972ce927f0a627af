//! Reading a checkpoint back, with every file checked against its checksum.

use std::path::Path;

use serde_json::Value;

use super::checksums::Checksums;
use super::{Checkpoint, CheckpointError, OptimizerState, names};
use crate::runtime::model::hf::Shards;
use crate::runtime::model::safetensors::Safetensors;
use crate::runtime::model::tensor::{StateDict, Tensor};
use crate::runtime::model::{Dtype, LoadError, Loaded, load};

/// Compare every file of the checkpoint with its checksum.
///
/// # Errors
/// [`CheckpointError::Damaged`] names the first that differs; [`CheckpointError::Unreadable`] and
/// [`CheckpointError::Version`] where that cannot be known.
pub fn verify(dir: &Path) -> Result<(), CheckpointError> {
    Checksums::check(dir).map(drop)
}

/// Read a checkpoint written by [`super::write`].
///
/// # Errors
/// A damaged or unreadable file, by name.
pub fn read(dir: &Path) -> Result<Checkpoint, CheckpointError> {
    unchecked(dir, &Checksums::check(dir)?)
}

/// [`read`] of a checkpoint that has its checksums `sums`.
pub(super) fn unchecked(dir: &Path, sums: &Checksums) -> Result<Checkpoint, CheckpointError> {
    let Loaded { config, mut weights, tokenizer } = load(dir)?;
    let has = |name: &str| sums.files.contains_key(name);
    let open = |name: &str| Safetensors::open(&dir.join(name)).map_err(LoadError::from);

    if has(names::MASTER) {
        let exact = open(names::MASTER)?;
        for (name, tensor) in &mut weights {
            *tensor = matching(dir, names::MASTER, &exact, name, &tensor.shape)?;
        }
    }
    let optimizer = if has(names::OPTIMIZER) {
        let file = open(names::OPTIMIZER)?;
        let moment = |prefix: &str| {
            file.names()
                .filter_map(|name| Some((name, name.strip_prefix(prefix)?)))
                .map(|(name, tensor)| {
                    let shape = weights.get(tensor).map(|t| t.shape.as_slice()).unwrap_or_default();
                    Ok((tensor.to_owned(), matching(dir, names::OPTIMIZER, &file, name, shape)?))
                })
                .collect::<Result<StateDict, CheckpointError>>()
        };
        Some(OptimizerState { first: moment("m.")?, second: moment("v.")? })
    } else {
        None
    };
    let trainer = if has(names::TRAINER) { trainer(dir)? } else { None };
    let dtype = config.dtype.unwrap_or(Dtype::F32);
    Ok(Checkpoint { config, weights, dtype, tokenizer, optimizer, trainer })
}

/// A model to start from or to measure: a Hugging Face directory, a `.gguf` file or a checkpoint, which
/// knows whether it is as it was written.
///
/// # Errors
/// A damaged or unreadable file, by name.
pub fn load_whole(path: &Path) -> Result<Loaded, CheckpointError> {
    if path.join(names::CHECKSUMS).exists() {
        verify(path)?;
    }
    Ok(load(path)?)
}

/// The trainer's state alone, unchecked against its checksum; `None` where there is none.
///
/// # Errors
/// The file is there and cannot be read or is not JSON.
pub(in crate::runtime) fn trainer(dir: &Path) -> Result<Option<Value>, CheckpointError> {
    let path = dir.join(names::TRAINER);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CheckpointError::Unreadable { path, source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| CheckpointError::Damaged {
        dir: dir.to_owned(),
        file: names::TRAINER.into(),
        problem: format!("is not JSON: {error}"),
    })
}

/// A tensor of the state, which must have the shape of the weight it belongs to.
fn matching(
    dir: &Path,
    file: &str,
    from: &Safetensors,
    name: &str,
    shape: &[usize],
) -> Result<Tensor, CheckpointError> {
    let tensor = from.read(name).map_err(LoadError::from)?;
    if tensor.shape == shape {
        return Ok(tensor);
    }
    Err(CheckpointError::Damaged {
        dir: dir.to_owned(),
        file: file.to_owned(),
        problem: format!("has tensor `{name}` of shape {:?}; the weight's is {shape:?}", tensor.shape),
    })
}

/// The exact weights of a checkpoint or any Hugging Face directory, one tensor at a time.
pub(in crate::runtime) struct Weights {
    shards: Shards,
    exact: Option<Safetensors>,
}

impl Weights {
    /// `shards` are those of `dir`.
    ///
    /// # Errors
    /// The file of exact weights is there and damaged.
    pub(in crate::runtime) fn open(dir: &Path, shards: Shards) -> Result<Self, CheckpointError> {
        let file = dir.join(names::MASTER);
        let exact =
            if file.exists() { Some(Safetensors::open(&file).map_err(LoadError::from)?) } else { None };
        Ok(Self { shards, exact })
    }

    /// Read one tensor.
    ///
    /// # Errors
    /// Not there, or in a format midc does not read.
    pub(in crate::runtime) fn tensor(&self, name: &str) -> Result<Tensor, LoadError> {
        match &self.exact {
            Some(exact) => Ok(exact.read(name)?),
            None => self.shards.tensor(name),
        }
    }
}
