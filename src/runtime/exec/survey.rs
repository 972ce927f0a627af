//! What of a plan a run directory already holds.

use std::path::PathBuf;

use crate::plan::{ModelPlan, Plan, StagePlan};
use crate::runtime::exec::ExecError;

pub(super) use crate::plan::Origin;

/// How far one stage has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Steps done at the last valid checkpoint; `None` before the first.
    pub checkpoint: Option<(u64, PathBuf)>,
}

impl Progress {
    /// Steps that need not be done again.
    pub fn steps(&self) -> u64 {
        self.checkpoint.as_ref().map_or(0, |(steps, _)| *steps)
    }

    /// Whether nothing is left of `stage`.
    pub fn finished(&self, stage: &StagePlan) -> bool {
        self.checkpoint.is_some() && self.steps() >= stage.steps
    }
}

/// Resolve the name of a stage, or of a stage's named checkpoint, to steps of a stage.
pub(super) fn stage_point<'a>(plan: &'a Plan, name: &str) -> Option<(&'a StagePlan, u64)> {
    plan.stage_point(name)
}

/// What `stage` starts from.
///
/// # Errors
/// [`ExecError::BrokenPlan`] when the plan does not hold it.
pub(super) fn origin<'a>(plan: &'a Plan, stage: &StagePlan) -> Result<Origin<'a>, ExecError> {
    plan.origin(stage).ok_or_else(|| broken(stage))
}

/// The model at the root of a stage's lineage (of a soup's first ingredient, where it passes one).
///
/// # Errors
/// [`ExecError::BrokenPlan`].
pub(super) fn root<'a>(plan: &'a Plan, stage: &'a StagePlan) -> Result<&'a ModelPlan, ExecError> {
    plan.lineage(stage).map(|(model, _)| model).ok_or_else(|| broken(stage))
}

fn broken(stage: &StagePlan) -> ExecError {
    ExecError::BrokenPlan { stage: stage.name.clone(), from: stage.from.clone() }
}
