//! Accelerators and their peaks, by which FLOPs are hours.

use super::words::{Word, word};

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

/// Their names, as words of the language.
pub const ACCELERATOR_WORDS: &[Word] = &{
    let mut words = [const { word("", "") }; ACCELERATORS.len()];
    let mut i = 0;
    while i < words.len() {
        words[i] = word(ACCELERATORS[i].name, ACCELERATORS[i].doc);
        i += 1;
    }
    words
};

impl Accelerator {
    /// The row of a name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ACCELERATORS.iter().find(|a| a.name.eq_ignore_ascii_case(name))
    }
}

/// An accelerator, and how much of its peak a run reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Utilisation {
    /// Of which peak.
    pub accelerator: &'static Accelerator,
    /// Model FLOPs utilisation: FLOPs of the model over peak.
    pub mfu: f64,
}

impl Utilisation {
    /// What is taken where no other is given.
    pub const MFU: f64 = 0.4;

    /// Hours of one device for `flops` model FLOPs.
    pub fn hours(&self, flops: f64) -> f64 {
        flops / (self.accelerator.peak_flops * self.mfu) / 3600.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Llama 3 405B (arXiv:2407.21783): 3.8e25 FLOPs; at the 38% to 43% it reports, some 27 million
    /// hours of H100, and Meta's model card says 30.84 million.
    #[test]
    fn llama3_on_h100() {
        let accelerator = Accelerator::find("H100").unwrap();
        let hours = Utilisation { accelerator, mfu: 0.38 }.hours(3.8e25);
        assert!((27e6..31e6).contains(&hours), "{hours}");
        assert_eq!(Accelerator::find("abacus"), None);
    }

    #[test]
    fn names_are_words() {
        let names: Vec<&str> = ACCELERATORS.iter().map(|a| a.name).collect();
        assert_eq!(ACCELERATOR_WORDS.iter().map(|w| w.name).collect::<Vec<_>>(), names);
    }
}
