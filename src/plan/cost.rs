//! What a run costs on a named accelerator: FLOPs over peak and utilisation, in GPU-hours.

use serde::Serialize;

use crate::schema::Utilisation;

/// The cost of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// The accelerator's name.
    pub accelerator: &'static str,
    /// Its dense bf16 peak in FLOP/s.
    pub peak_flops: f64,
    /// Model FLOPs utilisation assumed: FLOPs of the model over peak.
    pub mfu: f64,
    /// Hours of one device; `null` while an architecture is unknown.
    pub gpu_hours: Option<f64>,
    /// The stages in the order of the plan.
    pub stages: Vec<StageCost>,
}

/// The cost of one stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageCost {
    /// The stage.
    pub stage: String,
    /// Training FLOPs; `null` while its architecture is unknown.
    pub flops: Option<f64>,
    /// Hours of one device.
    pub gpu_hours: Option<f64>,
}

/// The cost of stages with so many FLOPs each.
pub fn cost(stages: impl Iterator<Item = (String, Option<f64>)>, on: Utilisation) -> Cost {
    let stages: Vec<StageCost> = stages
        .map(|(stage, flops)| StageCost { stage, flops, gpu_hours: flops.map(|f| on.hours(f)) })
        .collect();
    Cost {
        accelerator: on.accelerator.name,
        peak_flops: on.accelerator.peak_flops,
        mfu: on.mfu,
        gpu_hours: stages.iter().map(|s| s.gpu_hours).sum(),
        stages,
    }
}
