//! Whose run a directory holds: whether one of a plan goes on there.

use std::path::Path;

use super::{OWN_ENGINE, Resume, RunDirError, entries, read_if_there, write_plan};
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
    let there = match read_if_there(&path)? {
        Some(text) => Plan::read(&text)
            .map_err(|source| RunDirError::DamagedPlan { path: path.clone(), source: Box::new(source) }),
        None => Err(RunDirError::PlanGone { dir: root.to_path_buf() }),
    };
    let there = match there {
        Ok(there) => there,
        Err(lost) if resume == Resume::No || engine != OWN_ENGINE || !is_of(root, plan, resume)? => {
            return Err(lost);
        }
        Err(lost) => {
            write_plan(&path, plan)?;
            return Ok(Some(format!("{lost}: it is written anew, the checkpoints are of this plan")));
        }
    };
    if resume == Resume::No {
        let curriculum = there.curriculum;
        return Err(RunDirError::Occupied { dir: root.to_path_buf(), curriculum });
    }
    let found = read_if_there(&root.join("engine"))?;
    let found = found.map_or(OWN_ENGINE.into(), |name| String::from_utf8_lossy(&name).trim().to_owned());
    if found != engine {
        let wanted = engine.to_owned();
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

/// The plans that others took the place of, as [`keep`] kept them. One that cannot be understood vouches for nothing.
fn kept(root: &Path) -> Result<Vec<Plan>, RunDirError> {
    let mut plans = Vec::new();
    for path in entries(root)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("was-plan") && name.ends_with(".json") {
            plans.extend(read_if_there(&path)?.and_then(|text| Plan::read(&text).ok()));
        }
    }
    Ok(plans)
}

/// Whether the last checkpoint of every stage was made by `plan`, or by one before it that `plan` leaves as it was, and
/// there is one. That one is of `plan` itself, unless it is to go on as an edited one.
fn is_of(root: &Path, plan: &Plan, resume: Resume) -> Result<bool, RunDirError> {
    let mut any = false;
    let kept = kept(root)?;
    let mut done_by = vec![StepsDone::new(); kept.len()];
    for stage in entries(&root.join("checkpoints"))? {
        let Some(last) = checkpoint::list(&stage).map_err(Box::new)?.pop() else { continue };
        let name = stage.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let soup = plan.soups.iter().any(|s| s.name == name);
        let Some(trainer) = checkpoint::trainer(&last.path).map_err(Box::new)? else {
            // A soup is told by what is in it.
            if soup {
                continue;
            }
            return Ok(false);
        };
        let hash = trainer.get("plan_hash").and_then(serde_json::Value::as_str).unwrap_or_default();
        if plan.answers_to(hash) {
            any = true;
            continue;
        }
        // After an edit, what was done before it is of the plan before.
        let Some(at) = kept.iter().position(|before| before.answers_to(hash)) else { return Ok(false) };
        done_by[at].insert(name.to_owned(), if soup { 1 } else { last.step });
        any |= resume == Resume::Edited;
    }
    let goes_on = |(before, done)| plan::diff(before, plan, Some(done)).obstacles(done).is_empty();
    Ok(any && kept.iter().zip(&done_by).all(goes_on))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::super::RunDir;
    use super::*;

    /// Two stages, of which the second ends at this learning rate.
    fn plan(end: &str) -> Plan {
        let text = format!(
            "model m {{ init = llama(layers: 1, hidden: 16, heads: 2, ffn: 32, vocab: 512), context = 64 }}\n\
             source web {{ path = \"w\", tokens = 9M }}\n\
             stage a {{ from = m, steps = 9, batch = 4 seqs, mix = web, lr = 0.1 then hold, data_seed = 1 }}\n\
             stage b {{ from = a, steps = 9, lr = 0.1 then hold(over: 6 steps) then linear(to: {end}), data_seed = 2 }}\n"
        );
        let mut files = crate::source::MemoryFiles::new();
        let file = files.add("run.curriculum", text);
        let (curriculum, found) = crate::sema::check(&mut files, file, &crate::sema::Options::default());
        plan::build(&curriculum.unwrap_or_else(|| panic!("{found:#?}")))
    }

    /// A checkpoint after `step` steps of `stage`, as far as it is looked at here.
    fn checkpoint(root: &Path, stage: &str, step: u64, plan: &Plan) -> PathBuf {
        let trainer = root.join(format!("checkpoints/{stage}/step-{step}/state/trainer.json"));
        fs::create_dir_all(trainer.parent().unwrap()).unwrap();
        fs::write(&trainer, serde_json::json!({"plan_hash": plan.hash}).to_string()).unwrap();
        trainer
    }

    fn resumed(root: &Path, plan: &Plan, resume: Resume) -> Result<(), String> {
        RunDir::open(root, plan, resume).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let (root, plan) = (dir.path(), plan("0"));
        resumed(root, &plan, Resume::No).unwrap();
        let trainer = checkpoint(root, "a", 9, &plan);
        // What is a directory cannot be read as a file, by whomever.
        let engine = root.join("engine");
        fs::create_dir(&engine).unwrap();
        let said = resumed(root, &plan, Resume::Same).unwrap_err();
        assert!(said.contains("cannot read") && said.contains("engine"), "{said}");
        fs::remove_dir(&engine).unwrap();
        fs::remove_file(root.join("plan.json")).unwrap();
        fs::remove_file(&trainer).unwrap();
        fs::create_dir(&trainer).unwrap();
        let said = resumed(root, &plan, Resume::Same).unwrap_err();
        assert!(said.contains("cannot read") && said.contains("trainer.json"), "{said}");
        fs::remove_dir(&trainer).unwrap();
        fs::write(&trainer, "{").unwrap();
        let said = resumed(root, &plan, Resume::Same).unwrap_err();
        assert!(said.contains("trainer.json"), "{said}");
    }

    #[test]
    fn a_lost_plan_is_written_anew_after_an_edit_too() {
        let (first, edited, other) = (plan("0"), plan("1e-3"), plan("2e-3"));
        // How far the edited plan came, and whether it goes on without `--edited`.
        for (of_edited, same) in [(Some(8), true), (None, false)] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            resumed(root, &first, Resume::No).unwrap();
            checkpoint(root, "a", 9, &first);
            checkpoint(root, "b", 6, &first);
            resumed(root, &edited, Resume::Edited).unwrap();
            assert!(root.join("was-plan-1.json").exists());
            if let Some(step) = of_edited {
                checkpoint(root, "b", step, &edited);
            }
            let lose = || fs::remove_file(root.join("plan.json")).unwrap();
            lose();
            if of_edited.is_some() {
                for plan in [&first, &other] {
                    let said = resumed(root, plan, Resume::Edited).unwrap_err();
                    assert!(said.contains("`plan.json` is gone"), "{said}");
                }
            }
            assert_eq!(resumed(root, &edited, Resume::Same).is_ok(), same);
            if same {
                lose();
            }
            resumed(root, &edited, Resume::Edited).unwrap();
            // Without the plan that vouches for what was done before.
            lose();
            fs::remove_file(root.join("was-plan-1.json")).unwrap();
            resumed(root, &edited, Resume::Edited).unwrap_err();
        }
    }

    #[test]
    fn a_kept_plan_vouches_only_for_what_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (root, first, edited) = (dir.path(), plan("0"), plan("1e-3"));
        resumed(root, &first, Resume::No).unwrap();
        checkpoint(root, "b", 9, &first);
        fs::rename(root.join("plan.json"), root.join("was-plan-1.json")).unwrap();
        let said = resumed(root, &edited, Resume::Edited).unwrap_err();
        assert!(said.contains("`plan.json` is gone"), "{said}");
    }
}
