//! Where a stage takes its weights, optimizer moments and data cursors from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::plan::{ModelPlan, StagePlan, State, first_version};
use crate::rope::{Rope, RopeScaling};
use crate::runtime::checkpoint::{self, OptimizerState};
use crate::runtime::data::{SamplerState, TextTokenizer};
use crate::runtime::engine;
use crate::runtime::exec::noise::NoiseScale;
use crate::runtime::exec::not_finite::Count;
use crate::runtime::exec::survey::{self, Origin};
use crate::runtime::exec::{ExecError, Run, lock};
use crate::runtime::model::tensor::StateDict;
use crate::runtime::model::{Loaded, ModelConfig, TokenizerSource};

/// Everything a stage begins or goes on with.
pub(super) struct Start {
    pub config: ModelConfig,
    pub tokenizer: TokenizerSource,
    pub weights: StateDict,
    pub optimizer: Option<OptimizerState>,
    pub trainer: TrainerState,
}

/// `state/trainer.json`: the position of a run, small and readable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TrainerState {
    #[serde(deserialize_with = "first_version")]
    pub v: u32,
    pub plan_hash: String,
    pub stage: String,
    /// Steps of the stage that are done.
    pub step: u64,
    /// Tokens of the stage seen.
    pub tokens: u64,
    /// Updates since the optimizer moments were last zero; AdamW's bias correction counts them.
    pub optimizer_steps: u64,
    /// Data cursors and mixing state.
    pub sampler: SamplerState,
    /// What is due at this step is still to be measured: the stage begins, or a measurement was given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unmeasured: bool,
    /// Steps that were not finite.
    #[serde(default, skip_serializing_if = "Count::is_none")]
    pub not_finite: Count,
    /// Estimates of the gradient noise scale so far.
    #[serde(default)]
    pub noise: NoiseScale,
    /// Every how many steps the noise scale was estimated, 0 for never; absent where the run is older than the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_every: Option<u64>,
    /// Kind of engine that wrote this (`cpu f32`); another continues, though not bit for bit.
    pub engine: String,
}

impl TrainerState {
    /// The state in a checkpoint at `path`, from what its `trainer.json` holds.
    ///
    /// # Errors
    /// [`ExecError::TrainerState`].
    pub(super) fn read(json: Option<serde_json::Value>, path: &Path) -> Result<Self, ExecError> {
        serde_json::from_value(json.unwrap_or_default())
            .map_err(|source| ExecError::TrainerState { path: path.to_path_buf(), source })
    }

    /// That a checkpoint at `path` is that of `stage` after `step` steps. One that was moved or copied there would
    /// otherwise count for what its name says.
    ///
    /// # Errors
    /// [`ExecError::Misplaced`].
    pub(super) fn is_of(&self, stage: &str, step: u64, path: &Path) -> Result<(), ExecError> {
        if self.stage == stage && self.step == step {
            return Ok(());
        }
        Err(ExecError::Misplaced {
            path: path.to_path_buf(),
            stage: stage.to_owned(),
            step,
            found_stage: self.stage.clone(),
            found_step: self.step,
        })
    }
}

impl Run<'_> {
    /// Gather what `stage` starts or resumes from.
    pub(super) fn start(&self, stage: &StagePlan) -> Result<Start, ExecError> {
        let saved = lock(&self.progress).get(&stage.name).and_then(|p| p.checkpoint.clone());
        if let Some((step, path)) = saved {
            return self.resumed(&stage.name, step, &path);
        }
        self.beginning(stage)
    }

    /// What `stage` starts from, whatever of it is done.
    pub(super) fn beginning(&self, stage: &StagePlan) -> Result<Start, ExecError> {
        let plan = self.plan;
        match survey::origin(plan, stage)? {
            Origin::Model(model) => self.model(model, stage),
            Origin::Stage(from, steps) => {
                let dir = self.dir.checkpoints(&from.name);
                let path = checkpoint::step_dir(&dir, steps);
                if !path.is_dir() {
                    let (stage, from) = (stage.name.clone(), stage.from.clone());
                    return Err(ExecError::MissingStart { stage, from, dir });
                }
                let mut start = self.resumed(&from.name, steps, &path)?;
                start.trainer = next_stage(start.trainer, stage);
                if stage.state == State::WeightsOnly {
                    start.optimizer = None;
                }
                Ok(start)
            }
            Origin::Soup(soup) => self.soup(soup, stage),
        }
    }

    /// What the checkpoint at `path` holds, which must be that of `stage` after `step` steps.
    pub(super) fn resumed(&self, stage: &str, step: u64, path: &Path) -> Result<Start, ExecError> {
        let start = self.held(path)?;
        start.trainer.is_of(stage, step, path)?;
        Ok(start)
    }

    /// What the checkpoint at `path` holds.
    pub(super) fn held(&self, path: &Path) -> Result<Start, ExecError> {
        let checkpoint = self.sound.read(path)?;
        let trainer = TrainerState::read(checkpoint.trainer, path)?;
        Ok(Start {
            config: checkpoint.config,
            tokenizer: checkpoint.tokenizer,
            weights: checkpoint.weights,
            optimizer: checkpoint.optimizer,
            trainer,
        })
    }

    fn model(&self, plan: &ModelPlan, stage: &StagePlan) -> Result<Start, ExecError> {
        let path = plan.tokenizer.as_ref().map(|t| self.options.base_dir.join(t));
        let given = path.as_deref().map(TokenizerSource::beside).transpose()?;
        let eos = path.as_deref().map(TextTokenizer::open).transpose()?.map(|t| t.eos());
        let trainer = next_stage(TrainerState::default(), stage);
        if let Some(checkpoint) = &plan.checkpoint {
            let Loaded { mut config, weights, tokenizer } =
                checkpoint::load_whole(&self.options.base_dir.join(checkpoint))?;
            if let Some(eos) = eos {
                config.eos = vec![eos];
            }
            let tokenizer = given.unwrap_or(tokenizer);
            return Ok(Start { config, tokenizer, weights, optimizer: None, trainer });
        }
        let tokenizer = given.ok_or_else(|| ExecError::NoTokenizer { model: plan.name.clone() })?;
        let architecture = plan
            .init
            .clone()
            .ok_or_else(|| ExecError::BrokenPlan { stage: stage.name.clone(), from: plan.name.clone() })?;
        let weights = engine::init_weights(&architecture, stage.init_seed)?;
        let (theta, scaling) = match &plan.rope {
            Some(rope) => (rope.theta, rope.scaling.clone()),
            None => (10_000.0, RopeScaling::Default),
        };
        let rope = Rope { theta, scaling, local_theta: None };
        let mut config = ModelConfig::fresh(architecture, rope, plan.context.unwrap_or_default());
        config.eos.extend(eos);
        Ok(Start { config, tokenizer, weights, optimizer: None, trainer })
    }
}

/// The state in which a stage begins: cursors go on, the counters start anew. (The sampler sees by
/// the stage's name that its shares start afresh.)
pub(super) fn next_stage(before: TrainerState, stage: &StagePlan) -> TrainerState {
    TrainerState {
        step: 0,
        tokens: 0,
        unmeasured: true,
        stage: stage.name.clone(),
        not_finite: Count::default(),
        noise: NoiseScale::default(),
        optimizer_steps: if stage.state == State::Keep { before.optimizer_steps } else { 0 },
        ..before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_in_the_place_of_another_is_named_with_both() {
        let path = Path::new("run/checkpoints/stable/step-24");
        let state = TrainerState { stage: "stable".into(), step: 15, ..TrainerState::default() };
        assert!(state.is_of("stable", 15, path).is_ok());
        for (stage, step) in [("stable", 24), ("anneal", 15)] {
            let said = state.is_of(stage, step, path).unwrap_err().to_string();
            for word in [&format!("`{stage}` after step {step}"), "`stable` after step 15", "stable/step-24"]
            {
                assert!(said.contains(word), "no {word} in {said}");
            }
        }
    }

    #[test]
    fn a_trainer_of_another_version_is_refused() {
        let mut json = serde_json::to_value(TrainerState { v: 1, ..TrainerState::default() }).unwrap();
        assert!(serde_json::from_value::<TrainerState>(json.clone()).is_ok());
        json["v"] = 2.into();
        let said = serde_json::from_value::<TrainerState>(json).unwrap_err().to_string();
        assert!(said.contains("version 2"), "{said}");
    }
}
