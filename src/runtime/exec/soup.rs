//! Soups: weights averaged over finished stages, kept like a stage of no steps.

use std::path::PathBuf;

use crate::plan::{SoupPlan, StagePlan};
use crate::runtime::checkpoint;
use crate::runtime::exec::start::{Start, TrainerState, next_stage};
use crate::runtime::exec::survey::stage_point;
use crate::runtime::exec::{Event, ExecError, Run, lock};
use crate::runtime::model::Dtype;
use crate::runtime::soup::{Recipe, average_into};

impl Run<'_> {
    /// What a stage after `soup` starts from: the average, made now if it is not there yet. Moments
    /// are not averaged.
    pub(super) fn soup(&self, soup: &SoupPlan, stage: &StagePlan) -> Result<Start, ExecError> {
        self.cook(soup)?;
        let path = checkpoint::step_dir(&self.dir.checkpoints(&soup.name), 0);
        // Its state is merged of those of the stages in it: it names one of them.
        let mut start = self.held(&path)?;
        start.optimizer = None;
        start.trainer = next_stage(start.trainer, stage);
        Ok(start)
    }

    /// Write the average of `soup`'s ingredients, unless it is there.
    pub(super) fn cook(&self, soup: &SoupPlan) -> Result<(), ExecError> {
        let _alone = lock(&self.cooking);
        let series = self.dir.checkpoints(&soup.name);
        checkpoint::clean(&series)?;
        let latest = self.sound.latest(&series, |_| false)?;
        for (entry, why) in latest.damaged {
            let aside = checkpoint::set_aside(&entry)?;
            self.note(&format!("a damaged soup is made again and kept as `{}`: {why}", aside.display()));
        }
        if latest.entry.is_some() {
            return Ok(());
        }
        let broken = || ExecError::BrokenPlan { stage: soup.name.clone(), from: soup.ingredients.join(", ") };
        let mut paths: Vec<PathBuf> = Vec::with_capacity(soup.ingredients.len());
        let mut trainer: Option<TrainerState> = None;
        for name in &soup.ingredients {
            let (stage, steps) = stage_point(self.plan, name).ok_or_else(broken)?;
            let dir = self.dir.checkpoints(&stage.name);
            let path = checkpoint::step_dir(&dir, steps);
            if !path.is_dir() {
                return Err(ExecError::MissingStart { stage: soup.name.clone(), from: name.clone(), dir });
            }
            let state = TrainerState::read(checkpoint::trainer(&path)?, &path)?;
            state.is_of(&stage.name, steps, &path)?;
            trainer = Some(match trainer {
                Some(so_far) => merge(so_far, state),
                None => state,
            });
            paths.push(path);
        }
        let trainer = TrainerState { optimizer_steps: 0, ..trainer.ok_or_else(broken)? };
        let trainer = serde_json::to_value(&trainer)
            .map_err(|source| ExecError::TrainerState { path: series.clone(), source })?;
        let equal = soup.weights.windows(2).all(|w| (w[0] - w[1]).abs() <= 1e-12);
        let recipe = if equal {
            Recipe::Uniform
        } else {
            Recipe::Weighted(soup.weights.iter().map(|w| *w as f32).collect())
        };
        self.dir.is_in_place()?;
        // In f32 whatever the stages store: their exact weights go in, and the next stage starts from it.
        average_into(&paths, &recipe, Dtype::F32, Some(&trainer), &checkpoint::step_dir(&series, 0))?;
        self.observer.on(Event::Soup(soup));
        Ok(())
    }
}

/// The state after a soup of two ingredients.
fn merge(one: TrainerState, other: TrainerState) -> TrainerState {
    TrainerState { sampler: one.sampler.merged(other.sampler), ..one }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::data::SourceState;

    #[test]
    fn the_soup_has_read_what_any_ingredient_has() {
        let state = |drawn: &[(&str, u64)]| {
            let mut state = TrainerState::default();
            for (source, drawn) in drawn {
                let read = SourceState { drawn: *drawn, ..SourceState::default() };
                state.sampler.sources.insert(source.to_string(), read);
            }
            state
        };
        let merged = merge(state(&[("web", 5), ("code", 7)]), state(&[("web", 9), ("code", 1), ("math", 2)]));
        assert_eq!(merged, state(&[("web", 9), ("code", 7), ("math", 2)]));
    }
}
