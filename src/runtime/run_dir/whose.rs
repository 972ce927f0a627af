//! Whose run a directory holds: whether one of a plan goes on there.

use std::fs;
use std::io;
use std::path::Path;

use super::{OWN_ENGINE, Resume, RunDirError, write_plan};
use crate::plan::{self, Plan, StepsDone};
use crate::runtime::checkpoint::{self, CheckpointError};

/// Steps of every stage of `plan` at the last checkpoint in the run directory `root`, and 1 for each soup that is made.
///
/// # Errors
/// A directory cannot be listed.
pub fn steps_done(root: &Path, plan: &Plan) -> Result<StepsDone, CheckpointError> {
    let mut done = StepsDone::new();
    let stages = plan.stages.iter().map(|stage| (&stage.name, false));
    for (name, soup) in stages.chain(plan.soups.iter().map(|soup| (&soup.name, true))) {
        if let Some(last) = checkpoint::list(&root.join("checkpoints").join(name))?.pop() {
            done.insert(name.clone(), if soup { 1 } else { last.step });
        }
    }
    Ok(done)
}

/// Take a directory in which something was begun for a run of `plan`; what is to be said of it.
///
/// # Errors
/// [`RunDirError`]; the directory is then as it was.
pub(super) fn goes_on(
    engine: &str,
    root: &Path,
    plan: &Plan,
    resume: Resume,
) -> Result<Option<String>, RunDirError> {
    let path = root.join("plan.json");
    let there = match fs::read(&path) {
        Ok(text) => Plan::read(&text)
            .map_err(|source| RunDirError::DamagedPlan { path: path.clone(), source: Box::new(source) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(RunDirError::PlanGone { dir: root.to_path_buf() })
        }
        Err(error) => return Err(RunDirError::io("read", &path)(error)),
    };
    let there = match there {
        Ok(there) => there,
        Err(lost) if resume == Resume::No || engine != OWN_ENGINE || !is_of(root, plan)? => return Err(lost),
        Err(lost) => {
            write_plan(&path, plan)?;
            return Ok(Some(format!("{lost}: it is written anew, the checkpoints are of this plan")));
        }
    };
    if resume == Resume::No {
        let curriculum = there.curriculum;
        return Err(RunDirError::Occupied { dir: root.to_path_buf(), curriculum });
    }
    let found = fs::read_to_string(root.join("engine")).unwrap_or_else(|_| OWN_ENGINE.to_owned());
    if found.trim() != engine {
        let (found, wanted) = (found.trim().to_owned(), engine.to_owned());
        return Err(RunDirError::OtherEngine { dir: root.to_path_buf(), found, wanted });
    }
    let mut note = None;
    if there.hash != plan.hash {
        edited(engine, root, &there, plan, resume)?;
        let kept = keep(root, &there)?;
        note = Some(format!("goes on with an edited curriculum; the plan before is kept as `{kept}`"));
    }
    // Measurements, gates and what is kept may change while a run is under way; reports look here.
    if there != *plan {
        write_plan(&path, plan)?;
    }
    Ok(note)
}

/// That a run of `there` goes on with `plan`, and is meant to.
fn edited(engine: &str, root: &Path, there: &Plan, plan: &Plan, resume: Resume) -> Result<(), RunDirError> {
    let done = steps_done(root, there).map_err(Box::new)?;
    let why = plan::diff(there, plan, Some(&done)).obstacles(&done);
    let dir = root.to_path_buf();
    if !why.is_empty() {
        return Err(RunDirError::Stale { dir, why });
    }
    if resume == Resume::Edited {
        return Ok(());
    }
    let (found, wanted) = (there.hash.clone(), plan.hash.clone());
    let shown = format!("`midc plan FILE --diff {}/plan.json` shows what changed", root.display());
    let help = if engine == OWN_ENGINE {
        format!(
            "all that is done stays as it is: `--resume --edited` goes on with the edited curriculum; {shown}; or undo it, or \
             start a new run with `--run-dir DIR`"
        )
    } else {
        format!("{shown}; undo it, or start a new run with `--run-dir DIR`")
    };
    Err(RunDirError::OtherPlan { dir, found, wanted, help })
}

/// Keep a plan that another takes the place of; the name it is kept under.
fn keep(root: &Path, plan: &Plan) -> Result<String, RunDirError> {
    let free = (1_u32..).map(|n| format!("was-plan-{n}.json")).find(|name| !root.join(name).exists());
    let name = free.unwrap_or_else(|| "was-plan.json".to_owned());
    write_plan(&root.join(&name), plan)?;
    Ok(name)
}

/// Whether the last checkpoint of every stage was made by `plan`, and there is one.
fn is_of(root: &Path, plan: &Plan) -> Result<bool, RunDirError> {
    let mut any = false;
    let checkpoints = root.join("checkpoints");
    for stage in fs::read_dir(&checkpoints).map_err(RunDirError::io("list", &checkpoints))?.flatten() {
        let Some(last) = checkpoint::list(&stage.path()).map_err(Box::new)?.pop() else { continue };
        let Ok(Some(trainer)) = checkpoint::trainer(&last.path) else {
            // A soup has no trainer.
            if plan.soups.iter().any(|s| stage.file_name() == *s.name) {
                continue;
            }
            return Ok(false);
        };
        let hash = trainer.get("plan_hash").and_then(serde_json::Value::as_str);
        if !hash.is_some_and(|hash| plan.answers_to(hash)) {
            return Ok(false);
        }
        any = true;
    }
    Ok(any)
}
