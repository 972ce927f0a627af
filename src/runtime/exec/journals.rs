//! The journals of a run that begins or goes on, cut back to its checkpoints, and what they lack.

use std::collections::BTreeMap;

use crate::plan::Plan;
use crate::runtime::exec::Progress;
use crate::runtime::journal::{EvalRecord, Journal, Recorded, StepRecord};
use crate::runtime::run_dir::{RunDir, RunDirError};

/// `metrics.jsonl` and `evals.jsonl`, and sentences on lines that are damaged and steps that have no record: a run goes
/// on without them, but its curves have holes.
///
/// # Errors
/// [`RunDirError::Io`].
pub(super) fn open(
    plan: &Plan,
    dir: &RunDir,
    progress: &BTreeMap<String, Progress>,
) -> Result<(Journal, Journal, Vec<String>), RunDirError> {
    let done = |stage: &str, steps: u64| {
        progress.get(stage).is_some_and(|p| p.checkpoint.is_some() && steps <= p.steps())
    };
    let mut recorded = Recorded::default();
    let metrics = Journal::open::<StepRecord>(&dir.metrics(), |stage, steps| {
        let keep = done(stage, steps);
        if keep {
            recorded.see(stage, steps.saturating_sub(1));
        }
        keep
    })?;
    let evals = Journal::open::<EvalRecord>(&dir.evals(), done)?;
    let mut notes = Vec::new();
    for (journal, path) in [(&metrics, dir.metrics()), (&evals, dir.evals())] {
        if journal.damaged() > 0 {
            notes.push(format!("damaged lines left out of `{}`: {}", path.display(), journal.damaged()));
        }
    }
    for stage in &plan.stages {
        let steps = progress.get(&stage.name).map_or(0, Progress::steps);
        let missing = recorded.missing(&stage.name, steps);
        if missing > 0 {
            notes.push(format!(
                "`{}` has no record of {missing} of the {steps} steps of stage `{}` that are done: the run goes on, its \
                 curves lack them",
                dir.metrics().display(),
                stage.name
            ));
        }
    }
    Ok((metrics, evals, notes))
}
