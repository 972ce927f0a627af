//! What stages read beside their data: seen before the first of them is trained, not when its turn comes.

use std::collections::BTreeSet;
use std::path::Path;

use crate::plan::{Plan, StagePlan};
use crate::runtime::data::TextTokenizer;
use crate::runtime::eval::{MeasureError, choice};
use crate::runtime::exec::measure::Measure;
use crate::runtime::exec::{ExecError, gate, root};
use crate::runtime::model::{TokenizerSource, load_config};

/// That the task files, the checkpoints and the tokenizers of the stages `ahead` can be read.
///
/// # Errors
/// The first that cannot.
pub(super) fn are_there(plan: &Plan, ahead: &[&StagePlan], base_dir: &Path) -> Result<(), ExecError> {
    let (mut tasks, mut models) = (BTreeSet::new(), BTreeSet::new());
    for stage in ahead {
        let of_evals = stage.evals.iter().filter_map(|eval| eval.choice.clone());
        let of_gates = gate::measures(stage)?.into_iter().filter_map(|(_, measure)| match measure {
            Measure::Choice(task) => Some(task),
            _ => None,
        });
        for task in of_evals.chain(of_gates).filter(|task| tasks.insert(task.clone())) {
            choice::read(&base_dir.join(task)).map_err(MeasureError::from)?;
        }
        let model = root(plan, stage)?;
        if !models.insert(&model.name) {
            continue;
        }
        if let Some(checkpoint) = &model.checkpoint {
            load_config(&base_dir.join(checkpoint))?;
        }
        if let Some(tokenizer) = &model.tokenizer {
            let path = base_dir.join(tokenizer);
            TokenizerSource::beside(&path)?;
            TextTokenizer::open(&path)?;
        }
    }
    Ok(())
}
