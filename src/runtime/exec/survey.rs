//! What of a plan a run directory already holds.

use std::path::PathBuf;

use crate::plan::{FromKind, ModelPlan, Plan, SoupPlan, StagePlan};
use crate::runtime::exec::ExecError;

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

/// What a stage starts from, resolved in the plan.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'a> {
    /// A model.
    Model(&'a ModelPlan),
    /// A stage after so many steps.
    Stage(&'a StagePlan, u64),
    /// A soup.
    Soup(&'a SoupPlan),
}

/// Resolve the name of a stage, or of a stage's named checkpoint, to steps of a stage.
pub(super) fn stage_point<'a>(plan: &'a Plan, name: &str) -> Option<(&'a StagePlan, u64)> {
    if let Some(stage) = plan.stages.iter().find(|s| s.name == name) {
        return Some((stage, stage.steps));
    }
    let (stage, checkpoint) = name.rsplit_once('.')?;
    let stage = plan.stages.iter().find(|s| s.name == stage)?;
    let point = stage.checkpoints.iter().find(|c| c.name == checkpoint)?;
    Some((stage, point.step))
}

/// What `stage` starts from.
///
/// # Errors
/// [`ExecError::BrokenPlan`] when the plan does not hold it.
pub(super) fn origin<'a>(plan: &'a Plan, stage: &StagePlan) -> Result<Origin<'a>, ExecError> {
    let found = match stage.from_kind {
        FromKind::Model => plan.models.iter().find(|m| m.name == stage.from).map(Origin::Model),
        FromKind::Stage | FromKind::Checkpoint => {
            stage_point(plan, &stage.from).map(|(s, steps)| Origin::Stage(s, steps))
        }
        FromKind::Soup => plan.soups.iter().find(|s| s.name == stage.from).map(Origin::Soup),
    };
    found.ok_or_else(|| ExecError::BrokenPlan { stage: stage.name.clone(), from: stage.from.clone() })
}

/// The model at the root of a stage's lineage (of a soup's first ingredient, where it passes one).
///
/// # Errors
/// [`ExecError::BrokenPlan`].
pub(super) fn root<'a>(plan: &'a Plan, stage: &'a StagePlan) -> Result<&'a ModelPlan, ExecError> {
    let broken = |s: &StagePlan| ExecError::BrokenPlan { stage: s.name.clone(), from: s.from.clone() };
    let mut at = stage;
    // A lineage is no longer than the plan; a plan edited by hand could hold a cycle.
    for _ in 0..=plan.stages.len() {
        at = match origin(plan, at)? {
            Origin::Model(model) => return Ok(model),
            Origin::Stage(stage, _) => stage,
            Origin::Soup(soup) => soup
                .ingredients
                .first()
                .and_then(|name| stage_point(plan, name))
                .map(|(stage, _)| stage)
                .ok_or_else(|| broken(at))?,
        };
    }
    Err(broken(stage))
}
