//! Soups: weights averaged over finished stages, kept like a stage of no steps.

use crate::plan::{SoupPlan, StagePlan};
use crate::runtime::checkpoint::{self, CheckpointContents};
use crate::runtime::exec::start::{Start, TrainerState};
use crate::runtime::exec::survey::stage_point;
use crate::runtime::exec::{Event, ExecError, Run};
use crate::runtime::model::tensor::{StateDict, Tensor};

impl Run<'_> {
    /// What a stage after `soup` starts from: the average, made now if it is not there yet. Moments
    /// are not averaged; cursors are those of the first ingredient.
    pub(super) fn soup(&mut self, soup: &SoupPlan, stage: &StagePlan) -> Result<Start, ExecError> {
        self.cook(soup)?;
        let path = checkpoint::step_dir(&self.dir.checkpoints(&soup.name), 0);
        let mut start = self.resumed(checkpoint::read(&path)?, &path)?;
        start.optimizer = None;
        start.trainer = TrainerState { stage: stage.name.clone(), step: 0, tokens: 0, ..start.trainer };
        Ok(start)
    }

    /// Write the average of `soup`'s ingredients, unless it is there.
    pub(super) fn cook(&mut self, soup: &SoupPlan) -> Result<(), ExecError> {
        let series = self.dir.checkpoints(&soup.name);
        checkpoint::clean(&series)?;
        if checkpoint::latest_valid(&series)?.entry.is_some() {
            return Ok(());
        }
        let broken = || ExecError::BrokenPlan { stage: soup.name.clone(), from: soup.ingredients.join(", ") };
        let mut average = Average::new(&soup.weights);
        let mut first = None;
        for (name, weight) in soup.ingredients.iter().zip(&soup.weights) {
            let (stage, steps) = stage_point(self.plan, name).ok_or_else(broken)?;
            let dir = self.dir.checkpoints(&stage.name);
            let path = checkpoint::step_dir(&dir, steps);
            if !path.is_dir() {
                return Err(ExecError::MissingStart { stage: soup.name.clone(), from: name.clone(), dir });
            }
            let ingredient = checkpoint::read(&path)?;
            average.add(&ingredient.weights, *weight);
            first.get_or_insert(ingredient);
        }
        let first = first.ok_or_else(broken)?;
        let trainer = TrainerState { optimizer_steps: 0, ..self.trainer_state(first.trainer, &series)? };
        let trainer = serde_json::to_value(&trainer)
            .map_err(|source| ExecError::TrainerState { path: series.clone(), source })?;
        let path = checkpoint::step_dir(&series, 0);
        let contents = CheckpointContents {
            config: &first.config,
            weights: &average.finish(),
            dtype: first.dtype,
            tokenizer: &first.tokenizer,
            optimizer: None,
            trainer: Some(&trainer),
        };
        checkpoint::write(&contents, &path)?;
        self.observer.on(Event::Soup(soup));
        Ok(())
    }
}

/// A weighted sum of state dicts in f32. With equal weights it is the plain sum over the count, in
/// the order of the ingredients, bit for bit numpy's mean over stacked arrays.
struct Average {
    sum: StateDict,
    /// The count, when all weights are the same.
    equal: Option<f32>,
}

impl Average {
    fn new(weights: &[f64]) -> Self {
        let same = weights.windows(2).all(|w| (w[0] - w[1]).abs() <= 1e-12);
        Self { sum: StateDict::new(), equal: same.then_some(weights.len() as f32) }
    }

    fn add(&mut self, weights: &StateDict, weight: f64) {
        let factor = if self.equal.is_some() { 1.0 } else { weight as f32 };
        for (name, tensor) in weights {
            let sum = self.sum.entry(name.clone()).or_insert_with(|| Tensor {
                shape: tensor.shape.clone(),
                data: vec![0.0; tensor.data.len()],
            });
            for (s, v) in sum.data.iter_mut().zip(&tensor.data) {
                *s += factor * *v;
            }
        }
    }

    fn finish(mut self) -> StateDict {
        if let Some(count) = self.equal {
            for value in self.sum.values_mut().flat_map(|t| &mut t.data) {
                *value /= count;
            }
        }
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dict(values: &[f32]) -> StateDict {
        StateDict::from([("w".into(), Tensor { shape: vec![values.len()], data: values.to_vec() })])
    }

    fn average(parts: &[&[f32]], weights: &[f64]) -> Vec<f32> {
        let mut average = Average::new(weights);
        for (part, weight) in parts.iter().zip(weights) {
            average.add(&dict(part), *weight);
        }
        average.finish()["w"].data.clone()
    }

    #[test]
    fn equal_weights_are_a_mean() {
        let third = 1.0 / 3.0;
        let got = average(&[&[0.1, 1e8], &[0.2, 1.0], &[0.4, 1.0]], &[third, third, third]);
        // Summed in order in f32: 1e8 + 1 + 1 rounds to 1e8.
        assert_eq!(got, [(0.1f32 + 0.2 + 0.4) / 3.0, 1e8f32 / 3.0]);
    }

    #[test]
    fn other_weights_weigh() {
        assert_eq!(average(&[&[4.0], &[8.0]], &[0.25, 0.75]), [7.0]);
    }
}
