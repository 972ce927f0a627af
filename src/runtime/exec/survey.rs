//! What of a plan a run directory already holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::plan::{ModelPlan, Plan, StagePlan};
use crate::runtime::checkpoint::{self, CheckpointError, Entry, Sound};
use crate::runtime::exec::start::TrainerState;
use crate::runtime::exec::{ExecError, gate};
use crate::runtime::journal::{self, EvalRecord};
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

/// How far each stage has come, and a sentence on each checkpoint that is damaged and passed over. The last of each
/// stage is read through; but of those that are not chosen, and of a finished one that something made of it stands
/// behind already, only the lengths are compared, so that to go on with a long run is not to read all of it. Damaged
/// ones of chosen stages are set aside once all have been looked at: what is made again must not take their place.
///
/// # Errors
/// A directory cannot be listed or cleaned; a journal or a checkpoint cannot be read now; a checkpoint is not the one
/// that its name says; [`ExecError::BrokenPlan`].
pub(super) fn progress(
    plan: &Plan,
    selected: &BTreeSet<String>,
    dir: &RunDir,
    sound: &Sound,
) -> Result<(BTreeMap<String, Progress>, Vec<String>), ExecError> {
    let mut begun = BTreeSet::new();
    for name in plan.stages.iter().map(|s| &s.name).chain(plan.soups.iter().map(|s| &s.name)) {
        let series = dir.checkpoints(name);
        checkpoint::clean(&series)?;
        if !checkpoint::list(&series)?.is_empty() {
            begun.insert(name.as_str());
        }
    }
    let records = journal::read::<EvalRecord>(&dir.evals())?;
    let (mut progress, mut notes, mut damaged) = (BTreeMap::new(), Vec::new(), Vec::new());
    for stage in &plan.stages {
        let chosen = selected.contains(&stage.name);
        let used = chosen && is_used(plan, stage, &begun)? && gate::lacking(stage, &records)?.is_empty();
        let enough = |entry: &Entry| !chosen || used && entry.step >= stage.steps;
        let latest = sound.latest(&dir.checkpoints(&stage.name), enough)?;
        if let Some(entry) = latest.entry.as_ref().filter(|entry| !enough(entry)) {
            in_place(stage, entry)?;
        }
        for (entry, why) in latest.damaged {
            notes.push(format!("passed over a damaged checkpoint: {why}"));
            damaged.extend(chosen.then_some(entry));
        }
        let checkpoint = latest.entry.map(|e| (e.step, e.path));
        progress.insert(stage.name.clone(), Progress { checkpoint });
    }
    for entry in damaged {
        let aside = checkpoint::set_aside(&entry)?;
        notes.push(format!("`{}` is kept as `{}`", entry.path.display(), aside.display()));
    }
    Ok((progress, notes))
}

/// That a checkpoint of `stage` is the one that its directory says, where its state tells.
fn in_place(stage: &StagePlan, entry: &Entry) -> Result<(), ExecError> {
    match checkpoint::trainer(&entry.path)? {
        Some(json) => {
            TrainerState::read(Some(json), &entry.path)?.is_of(&stage.name, entry.step, &entry.path)
        }
        None => Ok(()),
    }
}

/// Whether something that starts from the end of `stage`, or averages it, is `begun`: the end itself is then behind it.
fn is_used(plan: &Plan, stage: &StagePlan, begun: &BTreeSet<&str>) -> Result<bool, ExecError> {
    for other in plan.stages.iter().filter(|s| begun.contains(s.name.as_str())) {
        if matches!(origin(plan, other)?, Origin::Stage(from, step) if from.name == stage.name && step >= stage.steps)
        {
            return Ok(true);
        }
    }
    let averaged = |name: &String| {
        plan.stage_point(name).is_some_and(|(of, step)| of.name == stage.name && step >= stage.steps)
    };
    Ok(plan.soups.iter().any(|s| begun.contains(s.name.as_str()) && s.ingredients.iter().any(averaged)))
}

/// Put stages back to before a checkpoint that is damaged or gone and that something chosen, and not done, starts
/// from or averages. Returns a sentence on each.
///
/// # Errors
/// A directory cannot be listed; a checkpoint cannot be read now; [`ExecError::BrokenPlan`].
pub(super) fn take_up_again(
    plan: &Plan,
    selected: &BTreeSet<String>,
    progress: &mut BTreeMap<String, Progress>,
    dir: &RunDir,
    sound: &Sound,
) -> Result<Vec<String>, ExecError> {
    let mut notes = Vec::new();
    // A stage that is put back to its beginning needs what it starts from, too.
    loop {
        let before = notes.len();
        put_back(plan, selected, progress, (dir, sound), &mut notes)?;
        if notes.len() == before {
            return Ok(notes);
        }
    }
}

fn put_back(
    plan: &Plan,
    selected: &BTreeSet<String>,
    progress: &mut BTreeMap<String, Progress>,
    (dir, sound): (&RunDir, &Sound),
    notes: &mut Vec<String>,
) -> Result<(), ExecError> {
    for (of, step, by) in starts_needed(plan, selected, progress, dir, sound)? {
        // What lies behind the latest is made again already.
        if !selected.contains(&of.name) || step > progress.get(&of.name).map_or(0, Progress::steps) {
            continue;
        }
        let series = dir.checkpoints(&of.name);
        let path = checkpoint::step_dir(&series, step);
        let what = match sound.verify(&path) {
            Ok(()) => continue,
            Err(error) if !error.is_damage() => return Err(error.into()),
            Err(_) if !path.exists() => "gone".to_owned(),
            Err(damage) => format!("damaged ({damage})"),
        };
        let entries = checkpoint::list(&series)?;
        let whole = last_sound(entries.iter().filter(|e| e.step < step), sound)?.cloned();
        let from = whole.as_ref().map_or(0, |e| e.step);
        notes.push(format!(
            "the checkpoint after step {step} of stage `{}`, which `{by}` starts from, is {what}: the stage is taken up \
             again after step {from}, and what it had behind that is kept as `was-step-N`",
            of.name
        ));
        // Under its name the last would be gone on from if this is interrupted, with a gap in the journals.
        for entry in entries.iter().filter(|e| e.step > from) {
            checkpoint::set_aside(entry)?;
            sound.forget(&entry.path);
        }
        progress.insert(of.name.clone(), Progress { checkpoint: whole.map(|e| (e.step, e.path)) });
    }
    Ok(())
}

/// The last of these checkpoints that is not damaged.
///
/// # Errors
/// One that comes after it cannot be read now.
pub(super) fn last_sound<'a>(
    earliest_first: impl DoubleEndedIterator<Item = &'a Entry>,
    sound: &Sound,
) -> Result<Option<&'a Entry>, CheckpointError> {
    for entry in earliest_first.rev() {
        if sound.is_sound(&entry.path)? {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

/// Checkpoints that something chosen, and not done, starts from or averages: the stage, its step and what needs it,
/// the earliest first.
fn starts_needed<'a>(
    plan: &'a Plan,
    selected: &BTreeSet<String>,
    progress: &BTreeMap<String, Progress>,
    dir: &RunDir,
    sound: &Sound,
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
        if sound.latest(&dir.checkpoints(&soup.name), |_| false)?.entry.is_none() {
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
