//! `expected.json`: what an engine's logs must show for the run to be the planned one. Made from the
//! plan, not from the files the engine reads, so that a mistake in those is seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::{CountRows, Engine};
use crate::plan::{Plan, StagePlan, file_name, first_version};
use crate::rope::{self, RopeFrequencies};

/// Values that hold from a step on: `[[step, value], …]`, steps from 0 and ascending.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Runs(pub Vec<(u64, f64)>);

impl Runs {
    /// The value each step uses, the first `steps` of them.
    pub fn of(steps: u64, value: impl Fn(u64) -> f64) -> Self {
        let mut runs: Vec<(u64, f64)> = Vec::new();
        for step in 0..steps {
            let value = value(step);
            if runs.last().is_none_or(|(_, last)| *last != value) {
                runs.push((step, value));
            }
        }
        Self(runs)
    }

    /// The value at `step`; 0 in an empty table.
    pub fn at(&self, step: u64) -> f64 {
        let after = self.0.partition_point(|(from, _)| *from <= step);
        self.0.get(after.saturating_sub(1)).map_or(0.0, |(_, value)| *value)
    }
}

/// The learning rate of every step of a stage.
pub(super) fn learning_rates(stage: &StagePlan) -> Runs {
    Runs::of(stage.steps, |step| stage.lr.curve.value(stage.step_point(step).tokens))
}

/// All of `expected.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// Format version, 1.
    #[serde(deserialize_with = "first_version")]
    pub v: u32,
    /// Hash of the plan.
    pub plan: String,
    /// The engine's name.
    pub engine: String,
    /// In order of the plan.
    #[serde(deserialize_with = "stages")]
    pub stages: Vec<ExpectedStage>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpectedStage {
    /// The stage.
    pub stage: String,
    /// Its name in paths.
    pub name: String,
    /// Steps.
    pub steps: u64,
    /// Learning rate of each step.
    pub lr: Runs,
    /// Spans of steps over which shape and mixture are of one piece.
    pub phases: Vec<ExpectedPhase>,
    /// RoPE in the exported configuration, the stage's or what it goes on with; `null` where the plan knows neither.
    pub rope: Option<ExpectedRope>,
    /// Longest rows, tokens.
    pub context: u64,
    /// Width of a head, where known.
    pub head_dim: Option<usize>,
    /// Gates at its end, which the engine does not judge.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<String>,
}

/// A span of steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpectedPhase {
    /// First step.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Rows per step.
    pub rows_per_step: u64,
    /// Tokens of a row.
    pub context: u64,
    /// Rows per source over the span, where they were counted.
    pub rows: Option<BTreeMap<String, u64>>,
}

/// What a model rotates by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExpectedRope {
    /// Angular frequencies, radians per token; empty while the head dimension is unknown.
    pub inv_freq: Vec<f64>,
    /// Multiplies q and k.
    pub attention_factor: f64,
}

/// Stages whose phases tile their steps, so that whoever compares logs with them finds an end.
fn stages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ExpectedStage>, D::Error> {
    let stages = Vec::<ExpectedStage>::deserialize(deserializer)?;
    for stage in &stages {
        let (mut reached, mut rows) = (0, 0_u64);
        for phase in &stage.phases {
            let steps = phase.to.checked_sub(phase.from).filter(|steps| *steps > 0 && phase.from == reached);
            let of_phase =
                steps.and_then(|steps| steps.checked_mul(phase.rows_per_step)).filter(|rows| *rows > 0);
            let all = of_phase.and_then(|of_phase| rows.checked_add(of_phase));
            rows = all.filter(|rows| usize::try_from(*rows).is_ok()).ok_or_else(|| {
                let ExpectedPhase { from, to, rows_per_step, .. } = phase;
                de::Error::custom(format!(
                    "stage `{}` has steps {from} to {to} of {rows_per_step} rows, after step {reached}",
                    stage.stage
                ))
            })?;
            reached = phase.to;
        }
        if reached != stage.steps {
            let why = format!("stage `{}` has {} steps, and its phases {reached}", stage.stage, stage.steps);
            return Err(de::Error::custom(why));
        }
    }
    Ok(stages)
}

/// What `plan` must look like in the logs of `engine`.
pub(super) fn expected(engine: Engine, plan: &Plan, count: &CountRows<'_>) -> Expected {
    Expected {
        v: 1,
        plan: plan.hash.clone(),
        engine: engine.name().to_owned(),
        stages: plan.stages.iter().map(|s| expected_stage(plan, s, count)).collect(),
    }
}

fn expected_stage(plan: &Plan, stage: &StagePlan, count: &CountRows<'_>) -> ExpectedStage {
    let counted = count(stage);
    let edges = edges(stage);
    let phases = edges
        .windows(2)
        .map(|edge| {
            let point = stage.step_point(edge[0]);
            ExpectedPhase {
                from: edge[0],
                to: edge[1],
                rows_per_step: point.sequences,
                context: point.context,
                rows: counted.as_ref().map(|steps| total(stage, &steps[edge[0] as usize..edge[1] as usize])),
            }
        })
        .collect();
    ExpectedStage {
        stage: stage.name.clone(),
        name: file_name(&stage.name),
        steps: stage.steps,
        lr: learning_rates(stage),
        phases,
        rope: expected_rope(plan, stage),
        context: longest(stage),
        head_dim: super::hf::head_dim(plan, stage),
        gates: stage.gates.iter().map(|gate| gate.text.clone()).collect(),
    }
}

fn longest(stage: &StagePlan) -> u64 {
    stage.phases.iter().map(|p| p.context).max().unwrap_or_default()
}

/// The RoPE that the stage writes, or that of the nearest before it that writes one, as it is at this stage's length.
fn expected_rope(plan: &Plan, stage: &StagePlan) -> Option<ExpectedRope> {
    if let Some(rope) = &stage.rope {
        let (inv_freq, attention_factor) = (rope.inv_freq.clone(), rope.attention_factor);
        return Some(ExpectedRope { inv_freq, attention_factor });
    }
    let rope = super::hf::effective_rope(plan, stage)?;
    let head_dim = super::hf::head_dim(plan, stage)?;
    let RopeFrequencies { inv_freq, attention_factor } =
        rope::inv_freq(head_dim, rope.theta, &rope.scaling, longest(stage));
    Some(ExpectedRope { inv_freq, attention_factor })
}

fn total(stage: &StagePlan, steps: &[Vec<u64>]) -> BTreeMap<String, u64> {
    let sum = |i: usize| steps.iter().map(|counts| counts.get(i).copied().unwrap_or_default()).sum();
    stage.mix.iter().enumerate().map(|(i, m)| (m.source.clone(), sum(i))).collect()
}

/// Steps at which the shape changes or some weight changes its piece, with 0 and the end.
fn edges(stage: &StagePlan) -> Vec<u64> {
    let mut edges: Vec<u64> = stage.phases.iter().map(|p| p.step).collect();
    for knot in stage.mix.iter().flat_map(|m| m.weight.knots(stage.tokens)) {
        // The first step that sees the new piece begins at or after the knot.
        let step = stage.step_containing(knot);
        edges.push(if stage.step_point(step).tokens < knot { step + 1 } else { step });
    }
    edges.extend([0, stage.steps]);
    edges.retain(|step| *step <= stage.steps);
    edges.sort_unstable();
    edges.dedup();
    edges
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn phases_that_do_not_tile_the_steps_are_refused() {
        let phase = |from: u64, to: u64, rows: u64| json!({"from": from, "to": to, "rows_per_step": rows, "context": 8, "rows": null});
        let read = |phases: Value| {
            let stage = json!({"stage": "s", "name": "s", "steps": 9, "lr": [[0, 0.1]], "phases": phases, "rope": null,
                               "context": 8, "head_dim": null});
            let file = json!({"v": 1, "plan": "", "engine": "x", "stages": [stage]});
            serde_json::from_value::<Expected>(file).map_err(|e| e.to_string())
        };
        assert!(read(json!([phase(0, 4, 2), phase(4, 9, 1)])).is_ok());
        for wrong in [
            json!([]),
            json!([phase(0, 4, 2)]),
            json!([phase(0, 9, 0)]),
            json!([phase(0, 0, 2), phase(0, 9, 2)]),
            json!([phase(9, 0, 2)]),
            json!([phase(0, 4, 2), phase(5, 9, 2)]),
            json!([phase(0, 9, u64::MAX)]),
            json!([phase(0, 4, u64::MAX / 8), phase(4, 9, u64::MAX / 8)]),
        ] {
            let said = read(wrong.clone()).unwrap_err();
            assert!(said.contains("stage `s`"), "{wrong}: {said}");
        }
    }
}
