//! Launches for `ai2-olmo-core` 3.0.0. The rows midc exported are read in order (no shuffling, one
//! source), so the data order is the plan's; learning rates are a table of one-step segments, with
//! one more in front because OLMo-core counts steps from 1.

use super::{CountRows, Engine, File, stage};
use crate::plan::{Plan, RopePlan};
use crate::rope::RopeScaling;

const RUNNER: &str = include_str!("train.py");

const REQUIREMENTS: &str = "ai2-olmo-core==3.0.0\ntransformers>=5.0\nsafetensors\nnumpy\n";

/// The files of the launch.
pub(super) fn files(plan: &Plan, base: &str, count: &CountRows<'_>) -> Vec<File> {
    stage::launch(Engine::OlmoCore, plan, base, count, RUNNER, REQUIREMENTS)
}

/// The frequencies under OLMo-core's own YaRN (`olmo_core.nn.rope`), which ends the ramp at the last
/// pair of dimensions where transformers ends it at the last dimension; `None` for methods whose
/// formula is the same. The other methods agree with transformers.
pub(super) fn inv_freq(rope: &RopePlan) -> Option<Vec<f64>> {
    let RopeScaling::Yarn { factor, original, beta_fast, beta_slow, .. } = &rope.scaling else { return None };
    let half = rope.inv_freq.len();
    if half == 0 {
        return None;
    }
    let dim = 2.0 * half as f64;
    let place = |rotations: f64| {
        dim * (*original as f64 / (rotations * 2.0 * std::f64::consts::PI)).ln() / (2.0 * rope.theta.ln())
    };
    let low = place(*beta_fast).floor().max(0.0);
    let high = place(*beta_slow).ceil().min(half as f64 - 1.0);
    let span = (high - low).max(1e-3);
    let frequency = |i: usize| {
        let plain = rope.theta.powf(-2.0 * i as f64 / dim);
        let ramp = ((i as f64 - low) / span).clamp(0.0, 1.0);
        plain / factor * ramp + plain * (1.0 - ramp)
    };
    Some((0..half).map(frequency).collect())
}
