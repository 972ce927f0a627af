//! Where a stage takes its weights, optimizer moments and data cursors from.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::plan::{ModelPlan, StagePlan, State, first_version};
use crate::rope::{Rope, RopeScaling};
use crate::runtime::checkpoint::{self, Checkpoint, OptimizerState};
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
    /// Kind of engine that wrote this (`cpu f32`); another continues, though not bit for bit.
    pub engine: String,
}

impl Run<'_> {
    /// Gather what `stage` starts or resumes from.
    pub(super) fn start(&self, stage: &StagePlan) -> Result<Start, ExecError> {
        let saved = lock(&self.progress).get(&stage.name).and_then(|p| p.checkpoint.clone());
        if let Some((_, path)) = saved {
            let checkpoint = checkpoint::read(&path)?;
            return self.resumed(checkpoint, &path);
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
                let checkpoint = checkpoint::read(&path)?;
                let mut start = self.resumed(checkpoint, &path)?;
                start.trainer = next_stage(start.trainer, stage);
                if stage.state == State::WeightsOnly {
                    start.optimizer = None;
                }
                Ok(start)
            }
            Origin::Soup(soup) => self.soup(soup, stage),
        }
    }

    pub(super) fn trainer_state(
        &self,
        json: Option<serde_json::Value>,
        path: &Path,
    ) -> Result<TrainerState, ExecError> {
        serde_json::from_value(json.unwrap_or_default())
            .map_err(|source| ExecError::TrainerState { path: path.to_path_buf(), source })
    }

    pub(super) fn resumed(&self, checkpoint: Checkpoint, path: &Path) -> Result<Start, ExecError> {
        let trainer = self.trainer_state(checkpoint.trainer, path)?;
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
    fn a_trainer_of_another_version_is_refused() {
        let mut json = serde_json::to_value(TrainerState { v: 1, ..TrainerState::default() }).unwrap();
        assert!(serde_json::from_value::<TrainerState>(json.clone()).is_ok());
        json["v"] = 2.into();
        let said = serde_json::from_value::<TrainerState>(json).unwrap_err().to_string();
        assert!(said.contains("version 2"), "{said}");
    }
}
