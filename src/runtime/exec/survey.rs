//! What of a plan a run directory already holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::plan::{ModelPlan, Plan, StagePlan};
use crate::runtime::checkpoint;
use crate::runtime::exec::ExecError;
use crate::runtime::run_dir::RunDir;

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

/// Checkpoints of chosen stages that are said to be done and that something chosen, and not done, starts from or
/// averages: the stage, its step and what needs it, the earliest of a stage first.
///
/// # Errors
/// A directory cannot be listed; [`ExecError::BrokenPlan`].
pub(super) fn starts_needed<'a>(
    plan: &'a Plan,
    selected: &BTreeSet<String>,
    progress: &BTreeMap<String, Progress>,
    dir: &RunDir,
) -> Result<Vec<(&'a StagePlan, u64, &'a str)>, ExecError> {
    let mut needed = Vec::new();
    let mut need = |of: &'a StagePlan, step: u64, by: &'a str| {
        // The latest was found sound already.
        if selected.contains(&of.name) && step < progress.get(&of.name).map_or(0, Progress::steps) {
            needed.push((of, step, by));
        }
    };
    let mut soups = Vec::new();
    for soup in plan.soups.iter().filter(|s| selected.contains(&s.name)) {
        if checkpoint::latest_valid(&dir.checkpoints(&soup.name))?.entry.is_none() {
            soups.push(soup);
        }
    }
    for stage in plan.stages.iter().filter(|s| selected.contains(&s.name)) {
        let begun = progress.get(&stage.name).is_some_and(|p| p.checkpoint.is_some());
        match origin(plan, stage)? {
            Origin::Stage(from, steps) if !begun => need(from, steps, &stage.name),
            _ => {}
        }
    }
    for soup in soups {
        for name in &soup.ingredients {
            if let Some((of, steps)) = plan.stage_point(name) {
                need(of, steps, &soup.name);
            }
        }
    }
    needed.sort_by_key(|(_, step, _)| *step);
    Ok(needed)
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
