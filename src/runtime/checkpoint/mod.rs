//! Checkpoints: directories that transformers loads as they are, with the state of training beside.
//!
//! ```text
//! checkpoints/STAGE/step-N/  config.json  model.safetensors  tokenizer.json …  generation_config.json
//!                            state/optimizer.safetensors  state/master.safetensors  state/trainer.json
//!                            checksums.json
//! ```
//!
//! A directory named `step-N` is whole: it is written under another name beside it (`.tmp-…`), synced
//! and renamed. Every file's length and BLAKE3 hash stand in `checksums.json`, and reading checks
//! them, so that a damaged checkpoint is named and never trained from.
//!
//! Knows nothing of what the trainer's state means: it is a JSON value here.

mod adopt;
mod checksums;
mod read;
mod series;
mod sound;
mod write;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::PathBuf;

use miette::Diagnostic;
use serde_json::Value;
use thiserror::Error;

pub use adopt::adopt;
pub(in crate::runtime) use read::{Weights, trainer};
pub use read::{load_whole, read, verify};
pub use series::{Entry, Latest, Purpose, clean, list, prune, remove, set_aside, step_dir};
pub use sound::Sound;
pub use write::write;
pub(in crate::runtime) use write::{clean_beside, copy_bytes, write_each};

use super::engine::{Engine, EngineError, Part};
use super::model::tensor::StateDict;
use super::model::{Dtype, LoadError, ModelConfig, TokenizerSource};

/// Where the tensors of a checkpoint come from: one at a time, so that no copy of all of them need be in memory.
pub trait State {
    /// Names and shapes of a part, as they are to stand in a file; none of a moment where there are none.
    fn shapes(&self, part: Part) -> Vec<(String, Vec<usize>)>;

    /// The numbers of one tensor, f32.
    ///
    /// # Errors
    /// They cannot be had from where they are.
    fn tensor(&self, part: Part, name: &str) -> Result<Option<Cow<'_, [f32]>>, EngineError>;
}

/// Weights alone.
impl State for StateDict {
    fn shapes(&self, part: Part) -> Vec<(String, Vec<usize>)> {
        if part != Part::Weight {
            return Vec::new();
        }
        self.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect()
    }

    fn tensor(&self, part: Part, name: &str) -> Result<Option<Cow<'_, [f32]>>, EngineError> {
        let tensor = self.get(name).filter(|_| part == Part::Weight);
        Ok(tensor.map(|tensor| Cow::Borrowed(tensor.data.as_slice())))
    }
}

/// Weights, and moments where there are some.
#[derive(Clone, Copy, Debug)]
pub struct WithMoments<'a> {
    /// Every tensor of the model.
    pub weights: &'a StateDict,
    /// The optimizer's.
    pub moments: Option<&'a OptimizerState>,
}

impl WithMoments<'_> {
    fn part(&self, part: Part) -> Option<&StateDict> {
        match part {
            Part::Weight => Some(self.weights),
            Part::First => self.moments.map(|moments| &moments.first),
            Part::Second => self.moments.map(|moments| &moments.second),
        }
    }
}

impl State for WithMoments<'_> {
    fn shapes(&self, part: Part) -> Vec<(String, Vec<usize>)> {
        self.part(part).map_or_else(Vec::new, |state| state.shapes(Part::Weight))
    }

    fn tensor(&self, part: Part, name: &str) -> Result<Option<Cow<'_, [f32]>>, EngineError> {
        self.part(part).map_or(Ok(None), |state| state.tensor(Part::Weight, name))
    }
}

/// What an engine holds.
impl State for Box<dyn Engine> {
    fn shapes(&self, part: Part) -> Vec<(String, Vec<usize>)> {
        Engine::shapes(&**self, part)
    }

    fn tensor(&self, part: Part, name: &str) -> Result<Option<Cow<'_, [f32]>>, EngineError> {
        Engine::tensor(&**self, part, name)
    }
}

/// What goes into a checkpoint.
#[derive(Clone, Copy)]
pub struct CheckpointContents<'a> {
    /// The model; RoPE and context as this checkpoint is to be used.
    pub config: &'a ModelConfig,
    /// Every tensor of the model, and the optimizer's moments unless weights only are to be written.
    pub state: &'a dyn State,
    /// How `model.safetensors` stores them. Below f32 and with an optimizer state, the exact weights
    /// go into `state/master.safetensors` too, so that a run continues bit for bit.
    pub dtype: Dtype,
    /// Files to lay beside the weights.
    pub tokenizer: &'a TokenizerSource,
    /// Whatever the trainer needs to go on: step, tokens, cursors, random counters, hashes.
    pub trainer: Option<&'a Value>,
}

/// AdamW's running moments, one tensor per trained tensor under the same name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptimizerState {
    /// m, the mean of the gradients.
    pub first: StateDict,
    /// v, the mean of their squares.
    pub second: StateDict,
}

/// A checkpoint read back.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The model.
    pub config: ModelConfig,
    /// Its weights: the exact ones where the checkpoint has them.
    pub weights: StateDict,
    /// How `model.safetensors` stores them.
    pub dtype: Dtype,
    /// Files beside the weights.
    pub tokenizer: TokenizerSource,
    /// AdamW's moments, unless weights only were written.
    pub optimizer: Option<OptimizerState>,
    /// The trainer's state, if it was written.
    pub trainer: Option<Value>,
}

/// A checkpoint that could not be written or read.
#[derive(Debug, Error, Diagnostic)]
pub enum CheckpointError {
    /// The disk is full.
    #[error("no space left for checkpoint `{}`: it needs about {needed} bytes", dir.display())]
    #[diagnostic(
        code(midc::checkpoint::full),
        help(
            "make room on the disk, or name another; a run goes on with `--resume`, and `keep` leaves fewer of its \
             checkpoints; nothing was left under that name"
        )
    )]
    Full {
        /// The checkpoint.
        dir: PathBuf,
        /// Its size.
        needed: u64,
        /// What the system said.
        source: std::io::Error,
    },
    /// The machine said no.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(code(midc::checkpoint::io))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file that may be as it was written, and cannot be read now.
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(
        code(midc::checkpoint::unreadable),
        help(
            "that does not mean that the checkpoint is damaged, so nothing is put in its place: see to its \
             permissions, to the disk and to how many files may be open (`ulimit -n`), and run the same again. If it \
             is lost, move its directory away: `--resume` then goes on from the one before"
        )
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Written by a midc that this one does not know.
    #[error("`{}` has version {found}; this midc reads 1", path.display())]
    #[diagnostic(
        code(midc::checkpoint::version),
        help(
            "another version of midc wrote the checkpoint: go on with that one, or start a new run with `--run-dir DIR`"
        )
    )]
    Version {
        /// The list of checksums.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// A file is not as it was written.
    #[error("checkpoint `{}` is damaged: `{file}` {problem}", dir.display())]
    #[diagnostic(
        code(midc::checkpoint::damaged),
        help(
            "an earlier checkpoint of the run can be used instead; `--resume` does so by itself. If the \
             directory was changed on purpose, remove its `checksums.json`"
        )
    )]
    Damaged {
        /// The checkpoint.
        dir: PathBuf,
        /// The file in it.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The model in it.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Load(#[from] LoadError),
}

impl CheckpointError {
    /// Whether a checkpoint is known to be damaged, rather than not known to be whole.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }

    /// An [`CheckpointError::Io`] maker for `map_err`.
    fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Names inside a checkpoint.
mod names {
    pub(super) const CONFIG: &str = "config.json";
    pub(super) const GENERATION: &str = "generation_config.json";
    pub(super) const WEIGHTS: &str = "model.safetensors";
    pub(super) const PARTS: &str = "model.safetensors.index.json";
    pub(super) const OPTIMIZER: &str = "state/optimizer.safetensors";
    pub(super) const MASTER: &str = "state/master.safetensors";
    pub(super) const TRAINER: &str = "state/trainer.json";
    pub(super) const CHECKSUMS: &str = "checksums.json";
    /// Prefix of what is not finished, or about to go.
    pub(super) const ASIDE: &str = ".tmp-";
}
