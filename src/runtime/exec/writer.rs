//! Checkpoints written while training goes on: a thread of its own gets copies of what to write. Where there is no room
//! for them training waits.
//!
//! At most one of a stage is under way. The stage waits for it before it writes another, where a later stage
//! reads it, and before it ends, so that a checkpoint that could not be written stops the run.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use serde_json::Value;

use crate::plan::StagePlan;
use crate::runtime::checkpoint::{
    self, CheckpointContents, CheckpointError, OptimizerState, Purpose, WithMoments,
};
use crate::runtime::exec::stage::Work;
use crate::runtime::exec::{Event, ExecError, Run, lock};
use crate::runtime::model::tensor::StateDict;
use crate::runtime::model::{Dtype, ModelConfig, TokenizerSource};

/// What a checkpoint is made of, owned: training changes the originals meanwhile.
pub(super) struct Snapshot {
    pub(super) config: ModelConfig,
    pub(super) weights: StateDict,
    pub(super) dtype: Dtype,
    pub(super) tokenizer: TokenizerSource,
    pub(super) optimizer: Option<OptimizerState>,
    pub(super) trainer: Value,
}

impl Snapshot {
    fn write(&self, path: &Path) -> Result<(), CheckpointError> {
        let contents = CheckpointContents {
            config: &self.config,
            state: &WithMoments { weights: &self.weights, moments: self.optimizer.as_ref() },
            dtype: self.dtype,
            tokenizer: &self.tokenizer,
            trainer: Some(&self.trainer),
        };
        checkpoint::write(&contents, path)
    }
}

/// What is known of the checkpoint that was written last or is gone on from, beside which older ones may be surplus. An
/// update can ruin the weights before any loss tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Latest {
    /// There is none, or the older ones are gone.
    Settled,
    /// No step has started from its weights yet.
    Saved,
    /// A step that did was finite: its weights are worth the older ones.
    Proved,
}

impl Latest {
    /// A step was finite.
    pub(super) fn prove(&mut self) {
        if *self == Self::Saved {
            *self = Self::Proved;
        }
    }
}

/// A checkpoint under way.
pub(super) struct Writing {
    stage: String,
    step: u64,
    path: PathBuf,
    thread: JoinHandle<Result<(), CheckpointError>>,
}

impl Run<'_> {
    /// Begin to write `snapshot` as the checkpoint of `stage` after `step` steps, once the one before
    /// is complete.
    pub(super) fn write(
        &self,
        stage: &StagePlan,
        step: u64,
        snapshot: Snapshot,
        under_way: &mut Option<Writing>,
    ) -> Result<(), ExecError> {
        self.settle(under_way)?;
        let series = self.dir.checkpoints(&stage.name);
        let path = checkpoint::step_dir(&series, step);
        let target = path.clone();
        let thread = std::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || snapshot.write(&target))
            .map_err(|source| CheckpointError::Io { action: "start writing", path: path.clone(), source })?;
        *under_way = Some(Writing { stage: stage.name.clone(), step, path, thread });
        Ok(())
    }

    /// The same of what training holds, which waits meanwhile: there is no copy of it.
    pub(super) fn write_now(
        &self,
        stage: &StagePlan,
        step: u64,
        contents: &CheckpointContents<'_>,
        under_way: &mut Option<Writing>,
    ) -> Result<(), ExecError> {
        self.settle(under_way)?;
        let series = self.dir.checkpoints(&stage.name);
        let path = checkpoint::step_dir(&series, step);
        checkpoint::write(contents, &path)?;
        self.written(&stage.name, step, path);
        Ok(())
    }

    /// Wait for the checkpoint under way, if there is one.
    pub(super) fn settle(&self, under_way: &mut Option<Writing>) -> Result<(), ExecError> {
        let Some(Writing { stage, step, path, thread }) = under_way.take() else { return Ok(()) };
        // A panic over there is a defect; it goes on here as one.
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        self.written(&stage, step, path);
        Ok(())
    }

    /// Remove the periodic checkpoints that are more than the stage keeps, once the latest has proved itself and is
    /// complete; where `wait` is not set, not before it is.
    pub(super) fn thin(&self, stage: &StagePlan, work: &mut Work, wait: bool) -> Result<(), ExecError> {
        let Some(keep) = stage.keep.filter(|_| work.latest == Latest::Proved) else { return Ok(()) };
        if !wait && work.writing.as_ref().is_some_and(|writing| !writing.thread.is_finished()) {
            return Ok(());
        }
        self.settle(&mut work.writing)?;
        checkpoint::prune(&self.dir.checkpoints(&stage.name), keep, |step| purpose(stage, step))?;
        work.latest = Latest::Settled;
        Ok(())
    }

    fn written(&self, stage: &str, step: u64, path: PathBuf) {
        if let Some(progress) = lock(&self.progress).get_mut(stage) {
            progress.checkpoint = Some((step, path.clone()));
        }
        self.observer.on(Event::Checkpoint(&path));
    }
}

/// What the checkpoint after `step` steps of a stage is there for.
pub(super) fn purpose(stage: &StagePlan, step: u64) -> Purpose {
    if step == stage.steps || stage.checkpoints.iter().any(|c| c.step == step) {
        Purpose::Lasting
    } else if stage.saves_after(step) {
        Purpose::Periodic
    } else {
        Purpose::Interruption
    }
}
