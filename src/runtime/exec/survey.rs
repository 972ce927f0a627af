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

/// Put stages back to before a checkpoint that is damaged or gone and that something chosen, and not done, starts
/// from or averages. Returns a sentence on each.
///
/// # Errors
/// A directory cannot be listed; [`ExecError::BrokenPlan`].
pub(super) fn take_up_again(
    plan: &Plan,
    selected: &BTreeSet<String>,
    progress: &mut BTreeMap<String, Progress>,
    dir: &RunDir,
) -> Result<Vec<String>, ExecError> {
    let mut notes = Vec::new();
    // A stage that is put back to its beginning needs what it starts from, too.
    loop {
        let before = notes.len();
        put_back(plan, selected, progress, dir, &mut notes)?;
        if notes.len() == before {
            return Ok(notes);
        }
    }
}

fn put_back(
    plan: &Plan,
    selected: &BTreeSet<String>,
    progress: &mut BTreeMap<String, Progress>,
    dir: &RunDir,
    notes: &mut Vec<String>,
) -> Result<(), ExecError> {
    for (of, step, by) in starts_needed(plan, selected, progress, dir)? {
        // The latest was found sound already; what lies behind it is made again already.
        if !selected.contains(&of.name) || step >= progress.get(&of.name).map_or(0, Progress::steps) {
            continue;
        }
        let series = dir.checkpoints(&of.name);
        let path = checkpoint::step_dir(&series, step);
        let what = match checkpoint::verify(&path) {
            Ok(()) => continue,
            Err(_) if !path.exists() => "gone".to_owned(),
            Err(damage) => format!("damaged ({damage})"),
        };
        let entries = checkpoint::list(&series)?;
        let sound =
            entries.iter().rev().find(|e| e.step < step && checkpoint::verify(&e.path).is_ok()).cloned();
        let from = sound.as_ref().map_or(0, |e| e.step);
        notes.push(format!(
            "the checkpoint after step {step} of stage `{}`, which `{by}` starts from, is {what}: the stage is taken up \
             again after step {from}, and what it had behind that is kept as `was-step-N`",
            of.name
        ));
        // Under its name the last would be gone on from if this is interrupted, with a gap in the journals.
        for entry in entries.iter().filter(|e| e.step > from) {
            checkpoint::set_aside(entry)?;
        }
        progress.insert(of.name.clone(), Progress { checkpoint: sound.map(|e| (e.step, e.path)) });
    }
    Ok(())
}

/// Checkpoints that something chosen, and not done, starts from or averages: the stage, its step and what needs it,
/// the earliest first.
fn starts_needed<'a>(
    plan: &'a Plan,
    selected: &BTreeSet<String>,
    progress: &BTreeMap<String, Progress>,
    dir: &RunDir,
) -> Result<Vec<(&'a StagePlan, u64, &'a str)>, ExecError> {
    let mut needed = Vec::new();
    for stage in plan.stages.iter().filter(|s| selected.contains(&s.name)) {
        let begun = progress.get(&stage.name).is_some_and(|p| p.checkpoint.is_some());
        match origin(plan, stage)? {
            Origin::Stage(from, steps) if !begun => needed.push((from, steps, stage.name.as_str())),
            _ => {}
        }
    }
    for soup in plan.soups.iter().filter(|s| selected.contains(&s.name)) {
        if checkpoint::latest_valid(&dir.checkpoints(&soup.name))?.entry.is_none() {
            let points = soup.ingredients.iter().filter_map(|name| plan.stage_point(name));
            needed.extend(points.map(|(of, steps)| (of, steps, soup.name.as_str())));
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
