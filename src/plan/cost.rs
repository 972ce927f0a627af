//! What a run costs on a named accelerator: FLOPs over peak and utilisation, in GPU-hours.

use serde::Serialize;

/// An accelerator and what its maker says it can do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accelerator {
    /// As it is asked for.
    pub name: &'static str,
    /// What it is.
    pub doc: &'static str,
    /// Dense bf16 FLOP/s of one device, as its data sheet says.
    pub peak_flops: f64,
}

const fn accelerator(name: &'static str, teraflops: f64, doc: &'static str) -> Accelerator {
    Accelerator { name, doc, peak_flops: teraflops * 1e12 }
}

/// The accelerators whose peak is known here.
pub const ACCELERATORS: &[Accelerator] = &[
    accelerator("v100", 125.0, "NVIDIA V100 SXM2 (f16)"),
    accelerator("a100", 312.0, "NVIDIA A100"),
    accelerator("l40s", 362.0, "NVIDIA L40S"),
    accelerator("rtx4090", 165.2, "NVIDIA GeForce RTX 4090 (f32 accumulation)"),
    accelerator("h100", 989.4, "NVIDIA H100 SXM"),
    accelerator("h100_pcie", 756.0, "NVIDIA H100 PCIe"),
    accelerator("h800", 989.4, "NVIDIA H800 SXM"),
    accelerator("h200", 989.4, "NVIDIA H200 SXM"),
    accelerator("b200", 2250.0, "NVIDIA B200"),
    accelerator("mi250x", 383.0, "AMD Instinct MI250X, both dies"),
    accelerator("mi300x", 1307.4, "AMD Instinct MI300X"),
    accelerator("tpu_v4", 275.0, "Google TPU v4"),
    accelerator("tpu_v5e", 197.0, "Google TPU v5e"),
    accelerator("tpu_v5p", 459.0, "Google TPU v5p"),
    accelerator("tpu_v6e", 918.0, "Google TPU v6e"),
];

impl Accelerator {
    /// The row of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ACCELERATORS.iter().find(|a| a.name.eq_ignore_ascii_case(name))
    }

    /// Hours of one device for `flops` model FLOPs at a utilisation of `mfu`.
    pub fn hours(&self, flops: f64, mfu: f64) -> f64 {
        flops / (self.peak_flops * mfu) / 3600.0
    }
}

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
pub fn cost(stages: impl Iterator<Item = (String, Option<f64>)>, on: &'static Accelerator, mfu: f64) -> Cost {
    let hours = |flops: Option<f64>| flops.map(|f| on.hours(f, mfu));
    let stages: Vec<StageCost> =
        stages.map(|(stage, flops)| StageCost { stage, flops, gpu_hours: hours(flops) }).collect();
    let gpu_hours = stages.iter().map(|s| s.gpu_hours).sum();
    Cost { accelerator: on.name, peak_flops: on.peak_flops, mfu, gpu_hours, stages }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Llama 3 405B (arXiv:2407.21783): 3.8e25 FLOPs; at the 38% to 43% it reports, some 27 million
    /// hours of H100, and Meta's model card says 30.84 million.
    #[test]
    fn llama3_on_h100() {
        let hours = Accelerator::find("H100").unwrap().hours(3.8e25, 0.38);
        assert!((27e6..31e6).contains(&hours), "{hours}");
        assert_eq!(Accelerator::find("abacus"), None);
    }
}
