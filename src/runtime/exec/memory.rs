//! What a run will hold in memory, stage by stage, before any of it is run.

use std::collections::BTreeMap;
use std::path::Path;

use crate::plan::{Architecture, Plan, Precision, StagePlan};
use crate::runtime::engine::{Device, EngineKind, MemoryReport, Rule, TrainingMemory, training_memory};
use crate::runtime::exec::{ExecError, root};
use crate::runtime::model;

/// What a stage holds while it trains rows of one length.
#[derive(Clone, Debug, PartialEq)]
pub struct StageMemory {
    /// The stage.
    pub stage: String,
    /// Most rows per step of this length.
    pub rows: usize,
    /// Tokens per row.
    pub context: usize,
    /// What is held, and how the rows are cut.
    pub memory: TrainingMemory,
}

/// Dimensions of the model a stage trains. Reads the configuration of a checkpoint, not its weights.
///
/// # Errors
/// The configuration cannot be read, or the plan is broken.
fn architecture(plan: &Plan, stage: &StagePlan, base_dir: &Path) -> Result<Architecture, ExecError> {
    let root = root(plan, stage)?;
    match (&root.checkpoint, &root.init) {
        (Some(checkpoint), _) => Ok(model::load_config(&base_dir.join(checkpoint))?.architecture),
        (None, Some(architecture)) => Ok(architecture.clone()),
        (None, None) => Err(ExecError::BrokenPlan { stage: stage.name.clone(), from: stage.from.clone() }),
    }
}

/// Bytes of the host's memory for a copy of what is trained, beside the training itself, within `limit` of the device's.
pub(super) fn room_for_a_copy(device: Device, limit: Option<u64>, held: &MemoryReport) -> u64 {
    /// The program, and what a report of memory leaves out.
    const BESIDE: u64 = 32 << 20;
    let within = match (device, limit) {
        (Device::Cpu, Some(limit)) => {
            limit.saturating_sub(held.parameters_bytes + held.activations_bytes + BESIDE)
        }
        _ => u64::MAX,
    };
    within.min(available().unwrap_or(u64::MAX))
}

/// Memory that this machine has to give, as far as the system says so.
fn available() -> Option<u64> {
    let report = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = report.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// For each stage and each length of its rows, what training holds on `device` within `budget` bytes.
///
/// # Errors
/// [`ExecError::TooLarge`] for the first stage that does not fit.
pub fn memory(
    plan: &Plan,
    base_dir: &Path,
    device: Device,
    precision: Precision,
    budget: Option<u64>,
) -> Result<Vec<StageMemory>, ExecError> {
    memory_of(plan, &plan.stages.iter().collect::<Vec<_>>(), base_dir, device, precision, budget)
}

/// [`memory`] of some stages of `plan`.
pub(super) fn memory_of(
    plan: &Plan,
    stages: &[&StagePlan],
    base_dir: &Path,
    device: Device,
    precision: Precision,
    budget: Option<u64>,
) -> Result<Vec<StageMemory>, ExecError> {
    let mut all = Vec::new();
    for stage in stages {
        let architecture = architecture(plan, stage, base_dir)?;
        let mut most: BTreeMap<u64, u64> = BTreeMap::new();
        for phase in &stage.phases {
            let rows = most.entry(phase.context).or_default();
            *rows = phase.sequences.max(*rows);
        }
        let rule = if stage.optimizer.muon.is_some() { Rule::Muon } else { Rule::AdamW };
        for (context, rows) in most {
            let (rows, context) = (rows as usize, context as usize);
            let held = EngineKind::on(device, stage.precision.unwrap_or(precision))
                .and_then(|kind| training_memory(kind, &architecture, rows, context, rule, budget));
            match held {
                Ok(memory) => all.push(StageMemory { stage: stage.name.clone(), rows, context, memory }),
                Err(source) => {
                    return Err(ExecError::TooLarge { stage: stage.name.clone(), parts: 1, source });
                }
            }
        }
    }
    Ok(all)
}
