//! Launches for Hugging Face transformers: one fixed runner on plain PyTorch, for any architecture
//! that `AutoModelForCausalLM` knows.

use super::{CountRows, Engine, File, stage};
use crate::plan::Plan;

const RUNNER: &str = include_str!("train.py");

/// What the runner was tried with, as ranges.
const REQUIREMENTS: &str = "torch>=2.6\ntransformers>=5.0\nsafetensors\nnumpy\n";

/// The files of the launch.
pub(super) fn files(plan: &Plan, base: &str, count: &CountRows<'_>) -> Vec<File> {
    stage::launch(Engine::Transformers, plan, base, count, RUNNER, REQUIREMENTS)
}
