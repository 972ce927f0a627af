//! Why a run stops before its end.

use std::path::PathBuf;

use miette::Diagnostic;
use thiserror::Error;

use crate::runtime::checkpoint::CheckpointError;
use crate::runtime::data::DataError;
use crate::runtime::engine::EngineError;
use crate::runtime::eval::MeasureError;
use crate::runtime::model::LoadError;
use crate::runtime::run_dir::RunDirError;
use crate::runtime::soup::SoupError;

/// Why a run cannot go on. What was finished stays; `--resume` continues from the last checkpoint.
#[derive(Debug, Error, Diagnostic)]
pub enum ExecError {
    /// The run directory.
    #[error(transparent)]
    #[diagnostic(transparent)]
    RunDir(#[from] RunDirError),
    /// The data.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Data(#[from] DataError),
    /// The starting weights.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Load(#[from] LoadError),
    /// A checkpoint of this run.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Engine(#[from] EngineError),
    /// The memory of the device, or what else keeps a stage from being trained there.
    #[error(
        "stage `{stage}` cannot be trained on this device{}",
        if *parts > 1 { format!(", of whose memory it has one of {parts} parts") } else { String::new() }
    )]
    #[diagnostic(
        code(midc::exec::too_large),
        help(
            "{}`midc plan FILE --device DEVICE` shows what each stage holds",
            if *parts > 1 { "with fewer `--jobs` a stage has more of it; " } else { "" }
        )
    )]
    TooLarge {
        /// The stage.
        stage: String,
        /// Parts into which the memory is cut for stages that train at the same time.
        parts: usize,
        /// Why.
        #[source]
        #[diagnostic_source]
        source: EngineError,
    },
    /// Several stages at once on one GPU.
    #[error("`cuda:{ordinal}` trains one stage at a time, {jobs} jobs were asked for")]
    #[diagnostic(
        code(midc::exec::jobs_on_gpu),
        help("leave `--jobs` out, or train side by side on the processor with `--device cpu`")
    )]
    JobsOnGpu {
        /// As asked.
        jobs: usize,
        /// Number of the GPU.
        ordinal: usize,
    },
    /// The trainer's part of a checkpoint.
    #[error("`{}/state/trainer.json` is not the state of a trainer", path.display())]
    #[diagnostic(
        code(midc::exec::trainer_state),
        help("the checkpoint was written by another version of midc; start a new run with `--run-dir DIR`")
    )]
    TrainerState {
        /// The checkpoint.
        path: PathBuf,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// A checkpoint under the name of another.
    #[error(
        "`{}` should be the checkpoint of stage `{stage}` after step {step}, and holds that of stage `{found_stage}` \
         after step {found_step}",
        path.display()
    )]
    #[diagnostic(
        code(midc::exec::misplaced),
        help(
            "it was renamed, or copied from elsewhere: give it back its own name, or move it out of the run \
             directory; `--resume` then goes on from what is left"
        )
    )]
    Misplaced {
        /// The checkpoint.
        path: PathBuf,
        /// Of which stage its directory is.
        stage: String,
        /// After which step.
        step: u64,
        /// The stage in its `trainer.json`.
        found_stage: String,
        /// The step there.
        found_step: u64,
    },
    /// A fresh model without a tokenizer.
    #[error("model `{model}` names no tokenizer and has no checkpoint that brings one")]
    #[diagnostic(
        code(midc::exec::no_tokenizer),
        help("add `tokenizer = \"path/to/tokenizer.json\"` to the model")
    )]
    NoTokenizer {
        /// The model.
        model: String,
    },
    /// The plan names something that is not in it.
    #[error("the plan's stage `{stage}` starts from `{from}`, which the plan does not hold")]
    #[diagnostic(code(midc::exec::broken_plan), help("make the plan again from its curriculum"))]
    BrokenPlan {
        /// The stage.
        stage: String,
        /// Its `from`.
        from: String,
    },
    /// The plan contradicts itself about a stage's first learning rate.
    #[error(
        "stage `{stage}` is planned to begin at a learning rate of {planned:e}, its curve begins at {curve:e}"
    )]
    #[diagnostic(
        code(midc::exec::first_learning_rate),
        help("the plan was changed by hand or by another program; make it again from its curriculum")
    )]
    FirstLearningRate {
        /// The stage.
        stage: String,
        /// `lr.start`.
        planned: f64,
        /// The value of `lr.curve` at its first step.
        curve: f64,
    },
    /// A name that is no stage.
    #[error("the plan has no stage or soup `{name}`")]
    #[diagnostic(code(midc::exec::unknown_stage), help("it has `{known}`"))]
    UnknownStage {
        /// As asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A stage that should be done has no checkpoint.
    #[error("stage `{stage}` starts from `{from}`, of which `{}` holds no valid checkpoint", dir.display())]
    #[diagnostic(
        code(midc::exec::missing_start),
        help("run the earlier stage first: `midc exec FILE --resume` without `--only` does what is missing")
    )]
    MissingStart {
        /// The stage.
        stage: String,
        /// Its `from`.
        from: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// Frequencies in the plan differ from those of the model.
    #[error(
        "stage `{stage}`: the plan's RoPE frequencies are not those of the model (head dimension {head_dim})"
    )]
    #[diagnostic(
        code(midc::exec::rope),
        help("make the plan again: the checkpoint it was made from has changed")
    )]
    RopeMismatch {
        /// The stage.
        stage: String,
        /// Of the model.
        head_dim: usize,
    },
    /// Training ran away.
    #[error("stage `{stage}`, step {step}: loss or gradient was not finite; given up at occurrence {times}")]
    #[diagnostic(
        code(midc::exec::not_finite),
        help(
            "lower the learning rate or the `clip` of the optimizer, and look at what the step read; checkpoints \
             that were saved before are kept"
        )
    )]
    NotFinite {
        /// The stage.
        stage: String,
        /// Step in the stage.
        step: u64,
        /// How often it happened: in a row, or in the stage where each went back to a checkpoint.
        times: u32,
    },
    /// A soup.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Soup(Box<SoupError>),
    /// A measurement.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Measure(#[from] MeasureError),
    /// A gate of a later version of the plan format.
    #[error("stage `{stage}` has the gate `{gate}`, whose measure this version does not know")]
    #[diagnostic(code(midc::exec::unknown_gate), help("make the plan again from its curriculum"))]
    UnknownGate {
        /// The stage.
        stage: String,
        /// The gate as written.
        gate: String,
    },
    /// A gate on something that is not there.
    #[error("the gate `{gate}` of stage `{stage}` has no measurement: there is nothing to measure it on")]
    #[diagnostic(
        code(midc::exec::gate_unmeasured),
        help(
            "a gate on `loss(SOURCE)` needs held-out documents with tokens that carry loss: hold out more, as in \
             `eval NAME {{ loss = heldout 5% }}`"
        )
    )]
    GateUnmeasured {
        /// The stage.
        stage: String,
        /// The gate as written.
        gate: String,
    },
}

impl From<SoupError> for ExecError {
    fn from(error: SoupError) -> Self {
        Self::Soup(Box::new(error))
    }
}
