//! The training engine as the run loop sees it: weights in, batches in, losses and weights out.
//!
//! Knows nothing of plans, data or checkpoints; which backend does the arithmetic is chosen once, by
//! [`engine`].

use std::borrow::Cow;

use crate::plan::{Architecture, Precision};
use crate::runtime::backend::cpu::Cpu;
use crate::runtime::backend::cuda::{self, backend::Cuda};
use crate::runtime::backend::reference::Reference;
use crate::runtime::batch::Batch;
use crate::runtime::model::decoder::Decoder;
use crate::runtime::model::memory;
use crate::runtime::model::tensor::StateDict;

pub use crate::runtime::model::init::init_weights;
pub use crate::runtime::model::memory::TrainingMemory;
pub use crate::runtime::model::rope_table::{LengthTables, RopeTable};
pub use crate::runtime::optim::Rule;
pub use crate::runtime::optim::muon::Muon;

/// What one optimizer step is told besides its data.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyper {
    /// Learning rate.
    pub lr: f64,
    /// Decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Whether the embedding decays, too, even where it is the output matrix as well.
    pub decay_embeddings: bool,
    /// Whether the weights of norms decay, too.
    pub decay_norms: bool,
    /// Muon for the matrices of the layers; AdamW for the rest, or for everything without.
    pub muon: Option<Muon>,
    /// Largest global gradient norm.
    pub clip: Option<f64>,
    /// Weight of the mean of log²Z in the objective; not part of the reported loss.
    pub z_loss: Option<f64>,
    /// Counts from 1 since the moments were zero, for the bias correction.
    pub optimizer_step: u64,
    /// Take a [`NoiseSample`]: send the rows through the model in two parts at least.
    pub sample_noise: bool,
}

/// What the language takes where a stage says nothing, at a learning rate of 0 and in the first step.
impl Default for Hyper {
    fn default() -> Self {
        Hyper {
            lr: 0.0,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            decay_embeddings: true,
            decay_norms: false,
            muon: None,
            clip: Some(1.0),
            z_loss: None,
            optimizer_step: 1,
            sample_noise: false,
        }
    }
}

/// Loss of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLoss {
    /// Sum over the predicted positions, in nats.
    pub nll: f64,
    /// How many positions were predicted.
    pub predicted: u32,
}

/// What one optimizer step did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Mean over all predicted positions, in nats; NaN where there are none.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// One for each row of the batch.
    pub rows: Vec<RowLoss>,
    /// Where it was asked for and the batch has two rows.
    pub noise: Option<NoiseSample>,
    /// False when the loss or the gradient was not finite, or nothing was predicted: the weights and moments are then
    /// as before.
    pub finite: bool,
}

/// Gradient norms of a part of a batch and of all of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseSample {
    /// Predicted positions in the part.
    pub part_tokens: u64,
    /// Predicted positions in the batch.
    pub tokens: u64,
    /// Norm of the gradient of the part's mean loss.
    pub part_norm: f64,
    /// Norm of the gradient of the batch's mean loss, before clipping.
    pub norm: f64,
}

/// Loss and gradients of a batch, for comparisons with other implementations.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Mean over all predicted positions, in nats.
    pub loss: f64,
    /// Under the names of the weights.
    pub gradients: StateDict,
}

/// Moments of the optimizer under the names of the weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Running mean of the gradient: AdamW's first moment, Muon's momentum.
    pub first: StateDict,
    /// Running mean of its square, of the weights that AdamW trains.
    pub second: StateDict,
}

/// What the engine holds and how it chose to.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryReport {
    /// Weights, and gradients and moments once training has begun.
    pub parameters_bytes: u64,
    /// Activations and scratch for the largest batch so far.
    pub activations_bytes: u64,
    /// Rows that go through the model at once.
    pub rows_at_once: usize,
    /// Layers whose activations are kept for the backward pass.
    pub layers_kept: usize,
    /// Layers of which the feed-forward block, and no more, is computed again in the backward pass.
    pub feed_forwards_recomputed: usize,
    /// Layers that are computed again in the backward pass.
    pub layers_recomputed: usize,
}

/// A part of what an engine trains, of which there is one tensor for each weight or fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The weights.
    Weight,
    /// The first moments.
    First,
    /// The second moments.
    Second,
}

/// One model in training.
///
/// What is refused because it does not fit the model leaves weights and moments unchanged. Not so a device that fails
/// or has no memory left: then the engine is to be dropped.
pub trait Engine: Send {
    /// One forward and backward pass over `batch` and one update.
    fn train_step(
        &mut self,
        batch: &Batch,
        rope: &RopeTable,
        hyper: &Hyper,
    ) -> Result<StepReport, EngineError>;

    /// Loss of every row, without an update.
    fn losses(&mut self, batch: &Batch, rope: &RopeTable) -> Result<Vec<RowLoss>, EngineError>;

    /// `[rows, T]` negative log-likelihood of each target in nats; 0 where there is no target.
    fn token_losses(&mut self, batch: &Batch, rope: &RopeTable) -> Result<Vec<f32>, EngineError>;

    /// Loss and gradients of the mean loss, without an update.
    fn gradients(&mut self, batch: &Batch, rope: &RopeTable) -> Result<Gradients, EngineError>;

    /// A copy of the weights under their Hugging Face names.
    ///
    /// # Errors
    /// A device that failed: what was copied from it would be anything.
    fn weights(&self) -> Result<StateDict, EngineError>;

    /// Replace the weights and forget the moments.
    fn load_weights(&mut self, weights: &StateDict) -> Result<(), EngineError>;

    /// A copy of the moments; `None` before the first step.
    ///
    /// # Errors
    /// As [`weights`](Engine::weights).
    fn moments(&self) -> Result<Option<Moments>, EngineError>;

    /// The names and shapes of a part of the state, in the order of checkpoints; none of a moment before the first
    /// step.
    fn shapes(&self, part: Part) -> Vec<(String, Vec<usize>)>;

    /// The numbers of one tensor: a copy only where they are not in the host's memory.
    ///
    /// # Errors
    /// As [`weights`](Engine::weights).
    fn tensor(&self, part: Part, name: &str) -> Result<Option<Cow<'_, [f32]>>, EngineError>;

    /// Replace the moments.
    fn load_moments(&mut self, moments: Moments) -> Result<(), EngineError>;

    /// Set the moments to zero, as for a stage that takes over weights only.
    fn clear_moments(&mut self);

    /// Dimensions of the model.
    fn architecture(&self) -> &Architecture;

    /// What is held, and how activations are kept.
    fn memory(&self) -> MemoryReport;

    /// FLOP/s of the device's best matrix product in this arithmetic, measured now (a quarter of a
    /// second); `None` where that says nothing, as of the oracle.
    fn peak_flops(&self) -> Option<f64>;

    /// `cpu f32`, `cpu bf16 (avx512bf16)`, …: for logs.
    fn describe(&self) -> String;
}

/// Where the arithmetic happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this number.
    Cuda(usize),
}

/// Which arithmetic to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// f32 on all cores.
    CpuF32,
    /// bf16 products with f32 sums and f32 master weights, on all cores.
    CpuBf16,
    /// bf16 products with f32 sums and f32 master weights, on the NVIDIA GPU of this number.
    Cuda(usize),
    /// Plain f64 loops: the oracle of the tests, slow.
    Reference,
}

impl EngineKind {
    /// The engine for an arithmetic on a device.
    ///
    /// # Errors
    /// When the device has no such arithmetic: a GPU computes in bf16 only.
    pub fn on(device: Device, precision: Precision) -> Result<Self, EngineError> {
        match (device, precision) {
            (Device::Cpu, Precision::F32) => Ok(Self::CpuF32),
            (Device::Cpu, Precision::Bf16) => Ok(Self::CpuBf16),
            (Device::Cuda(ordinal), Precision::Bf16) => Ok(Self::Cuda(ordinal)),
            (Device::Cuda(ordinal), Precision::F32) => Err(EngineError::Precision { ordinal }),
        }
    }
}

/// Limits of an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineOptions {
    /// Worker threads; all cores when absent. Results do not depend on it.
    pub threads: Option<usize>,
    /// Bytes the engine may hold; layers are recomputed, then rows split, to stay below.
    pub memory: Option<u64>,
}

/// So many worker threads as were asked for, or one for each core.
pub fn threads(asked: Option<usize>) -> usize {
    asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Why the engine refused or failed.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum EngineError {
    /// A dimension the engine cannot run.
    #[error("cannot run this architecture: {reason}")]
    #[diagnostic(code(midc::engine::architecture))]
    Architecture {
        /// What is wrong.
        reason: String,
        /// What would be right.
        #[help]
        help: Option<String>,
    },
    /// A weight is missing.
    #[error("the checkpoint has no tensor `{name}`")]
    #[diagnostic(
        code(midc::engine::weight_missing),
        help("the architecture in `config.json` must be that of the weights")
    )]
    WeightMissing {
        /// Its Hugging Face name.
        name: String,
    },
    /// A weight of another shape.
    #[error("tensor `{name}` has shape {found:?}, the architecture needs {expected:?}")]
    #[diagnostic(
        code(midc::engine::weight_shape),
        help("the architecture in `config.json` must be that of the weights")
    )]
    WeightShape {
        /// Its Hugging Face name.
        name: String,
        /// From the architecture.
        expected: Vec<usize>,
        /// In the checkpoint.
        found: Vec<usize>,
    },
    /// A batch that breaks the rules of [`Batch`].
    #[error("malformed batch: {reason}")]
    #[diagnostic(code(midc::engine::batch))]
    Batch {
        /// What is wrong.
        reason: String,
    },
    /// A token outside the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    #[diagnostic(
        code(midc::engine::token_range),
        help("the tokenizer has more tokens than the model's embedding has rows")
    )]
    TokenRange {
        /// The id.
        id: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The smallest possible step does not fit the budget.
    #[error("one row of {context} tokens needs {needed} bytes, the memory budget is {budget}")]
    #[diagnostic(code(midc::engine::memory), help("raise `--memory` or shorten the context"))]
    Budget {
        /// Tokens of a row.
        context: usize,
        /// Bytes with every layer recomputed and one row at a time.
        needed: u64,
        /// Bytes allowed.
        budget: u64,
    },
    /// An allocation failed.
    #[error("cannot allocate {bytes} bytes on {device}")]
    #[diagnostic(code(midc::engine::allocation), help("set `--memory` below what the machine has free"))]
    Allocation {
        /// Of the failed request.
        bytes: u64,
        /// `the host`, or the device's name.
        device: String,
    },
    /// The worker threads could not be started.
    #[error("cannot start {threads} worker threads")]
    #[diagnostic(code(midc::engine::threads))]
    Threads {
        /// As asked.
        threads: usize,
        /// From the operating system.
        #[source]
        source: rayon::ThreadPoolBuildError,
    },
    /// A step by one rule from moments of another.
    #[error("the moments are those of {held}, the step is one of {asked}")]
    #[diagnostic(
        code(midc::engine::moments),
        help("`state = weights_only` in the stage starts the optimizer anew")
    )]
    Moments {
        /// The optimizer they came from.
        held: &'static str,
        /// The optimizer of the step.
        asked: &'static str,
    },
    /// f32 on a GPU.
    #[error("`cuda:{ordinal}` has no f32 arithmetic: products are made in bf16 with f32 sums")]
    #[diagnostic(
        code(midc::engine::precision),
        help("use bf16, in the stage or by `--precision bf16`, or `--device cpu`")
    )]
    Precision {
        /// Number of the GPU.
        ordinal: usize,
    },
    /// A device failed.
    #[error("{device} failed: {reason}")]
    #[diagnostic(code(midc::engine::device))]
    Device {
        /// Its name.
        device: String,
        /// What it said.
        reason: String,
    },
}

/// What a step of `rows` rows of `context` tokens by a rule will hold, and how it is cut to stay within `budget`.
/// Allocates nothing and needs no GPU.
///
/// # Errors
/// [`EngineError::Budget`] when no cut is small enough; as [`engine`] for the architecture.
pub fn training_memory(
    kind: EngineKind,
    architecture: &Architecture,
    rows: usize,
    context: usize,
    rule: Rule,
    budget: Option<u64>,
) -> Result<TrainingMemory, EngineError> {
    let predict = match kind {
        EngineKind::Reference => memory::predict::<Reference<f64>>,
        EngineKind::Cuda(_) => memory::predict::<Cuda>,
        EngineKind::CpuF32 => memory::predict::<Cpu<f32>>,
        EngineKind::CpuBf16 => memory::predict::<Cpu<half::bf16>>,
    };
    predict(architecture, rows, context, rule, budget)
}

/// An engine with the given weights.
///
/// # Errors
/// When the architecture is none that midc computes, when a weight is missing or of another shape, when memory or
/// threads cannot be had.
pub fn engine(
    kind: EngineKind,
    architecture: &Architecture,
    weights: &StateDict,
    options: EngineOptions,
) -> Result<Box<dyn Engine>, EngineError> {
    Ok(match kind {
        EngineKind::Reference => {
            Box::new(Decoder::new(Reference::<f64>::default(), architecture, weights, options.memory)?)
        }
        EngineKind::Cuda(ordinal) => {
            let budget = match options.memory {
                Some(bytes) => bytes,
                None => cuda::available(ordinal)?,
            };
            Box::new(Decoder::new(cuda::open(ordinal, budget)?, architecture, weights, Some(budget))?)
        }
        EngineKind::CpuF32 => {
            let cpu = Cpu::<f32>::new(options.threads)?;
            Box::new(Decoder::new(cpu, architecture, weights, options.memory)?)
        }
        EngineKind::CpuBf16 => {
            let cpu = Cpu::<half::bf16>::new(options.threads)?;
            Box::new(Decoder::new(cpu, architecture, weights, options.memory)?)
        }
    })
}
