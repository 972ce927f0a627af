//! RoPE frequencies and attention factors, one scaling method per file. Pure functions; depends on
//! nothing and knows neither curricula nor checkpoints.
//!
//! Every method equals its namesake in Hugging Face transformers (`modeling_rope_utils`), which
//! computes in f32, to 1e-6 relative on every frequency; `tests/rope_transformers.sh` compares.

mod by_parts;
mod check;
mod dynamic_ntk;
mod hf;
mod llama3;
mod longrope;
mod ntk;
mod pi;
mod plain;
mod reach;
#[cfg(test)]
mod tests;
mod yarn;

pub use check::{RopeError, check};
pub use hf::{Rope, RopeConfigError, default_local_theta, from_hf, nested, to_hf};
pub use reach::{Reach, base_for, base_reach, reach};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A scaling method and its parameters (LANGUAGE.md section 5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum RopeScaling {
    /// No scaling; also `abf`, whose new base is the `theta` beside this.
    Default,
    /// Position interpolation (Chen et al., arXiv:2306.15595): θ/s.
    Pi {
        /// s.
        factor: f64,
    },
    /// NTK-aware base change: base·s^(D/(D−2)).
    Ntk {
        /// s.
        factor: f64,
    },
    /// NTK with s from the current length.
    DynamicNtk {
        /// s.
        factor: f64,
        /// L.
        original: u64,
    },
    /// Ramp between θ/s and θ by rotations (YaRN paper section 3.2, arXiv:2309.00071).
    NtkByParts {
        /// s.
        factor: f64,
        /// L.
        original: u64,
        /// Rotations above which a dimension is left alone.
        beta_fast: f64,
        /// Rotations below which it is interpolated.
        beta_slow: f64,
    },
    /// By parts with the attention temperature (arXiv:2309.00071).
    Yarn {
        /// s.
        factor: f64,
        /// L.
        original: u64,
        /// As above.
        beta_fast: f64,
        /// As above.
        beta_slow: f64,
        /// DeepSeek's numerator coefficient.
        mscale: Option<f64>,
        /// DeepSeek's denominator coefficient.
        mscale_all_dim: Option<f64>,
        /// Overrides the attention factor.
        attention_factor: Option<f64>,
        /// Whether the ends of the ramp are rounded to whole dimensions (transformers' default).
        #[serde(default = "yes", skip_serializing_if = "is_true")]
        truncate: bool,
    },
    /// Stepwise with a smooth blend (Llama 3.1).
    Llama3 {
        /// s.
        factor: f64,
        /// Low-frequency factor.
        low: f64,
        /// High-frequency factor.
        high: f64,
        /// L.
        original: u64,
    },
    /// Per-dimension factors (arXiv:2402.13753).
    Longrope {
        /// Factors up to the original length.
        short: Vec<f64>,
        /// Factors beyond it.
        long: Vec<f64>,
        /// L.
        original: u64,
        /// s, for the attention factor.
        factor: f64,
        /// Overrides the attention factor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        attention_factor: Option<f64>,
    },
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_true(value: &bool) -> bool {
    *value
}

/// What a model rotates by: angle = position · `inv_freq[d]`, and q·k is multiplied by
/// `attention_factor`² (cos and sin are each multiplied by it once).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RopeFrequencies {
    /// `head_dim / 2` angular frequencies in radians per token, dimension pair 0 first.
    pub inv_freq: Vec<f64>,
    /// Multiplies the rotated q and k, each.
    pub attention_factor: f64,
}

/// Frequencies of `scaling` over the base `theta` for heads of `head_dim` dimensions.
///
/// `seq_len` is the current length in tokens; only [`RopeScaling::DynamicNtk`] and
/// [`RopeScaling::Longrope`] look at it. Parameters that [`check`] rejects give meaningless
/// numbers, never a panic.
pub fn inv_freq(head_dim: usize, theta: f64, scaling: &RopeScaling, seq_len: u64) -> RopeFrequencies {
    let head = plain::Head { dim: head_dim, theta };
    let plain_factor = |inv_freq| RopeFrequencies { inv_freq, attention_factor: 1.0 };
    match scaling {
        RopeScaling::Default => plain_factor(plain::inv_freq(head)),
        RopeScaling::Pi { factor } => plain_factor(pi::inv_freq(head, *factor)),
        RopeScaling::Ntk { factor } => plain_factor(plain::inv_freq(ntk::stretched(head, *factor))),
        RopeScaling::DynamicNtk { factor, original } => {
            plain_factor(plain::inv_freq(dynamic_ntk::stretched(head, *factor, *original, seq_len)))
        }
        RopeScaling::NtkByParts { factor, original, beta_fast, beta_slow } => {
            let ramp = by_parts::Ramp {
                original: *original,
                beta_fast: *beta_fast,
                beta_slow: *beta_slow,
                truncate: true,
            };
            plain_factor(by_parts::inv_freq(head, *factor, ramp))
        }
        RopeScaling::Yarn {
            factor,
            original,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            attention_factor,
            truncate,
        } => {
            let ramp = by_parts::Ramp {
                original: *original,
                beta_fast: *beta_fast,
                beta_slow: *beta_slow,
                truncate: *truncate,
            };
            RopeFrequencies {
                inv_freq: by_parts::inv_freq(head, *factor, ramp),
                attention_factor: attention_factor
                    .unwrap_or_else(|| yarn::attention_factor(*factor, *mscale, *mscale_all_dim)),
            }
        }
        RopeScaling::Llama3 { factor, low, high, original } => {
            plain_factor(llama3::inv_freq(head, *factor, *low, *high, *original))
        }
        RopeScaling::Longrope { short, long, original, factor, attention_factor } => {
            let factors = if seq_len > *original { long } else { short };
            RopeFrequencies {
                inv_freq: longrope::inv_freq(head, factors),
                attention_factor: attention_factor
                    .unwrap_or_else(|| longrope::attention_factor(*factor, *original)),
            }
        }
    }
}

impl RopeScaling {
    /// Stretch relative to the original length; `None` without scaling.
    pub fn factor(&self) -> Option<f64> {
        match self {
            Self::Default => None,
            Self::Pi { factor }
            | Self::Ntk { factor }
            | Self::DynamicNtk { factor, .. }
            | Self::NtkByParts { factor, .. }
            | Self::Yarn { factor, .. }
            | Self::Llama3 { factor, .. }
            | Self::Longrope { factor, .. } => Some(*factor),
        }
    }

    /// Context length before any stretching, for the methods that need it.
    pub fn original(&self) -> Option<u64> {
        match self {
            Self::Default | Self::Pi { .. } | Self::Ntk { .. } => None,
            Self::DynamicNtk { original, .. }
            | Self::NtkByParts { original, .. }
            | Self::Yarn { original, .. }
            | Self::Llama3 { original, .. }
            | Self::Longrope { original, .. } => Some(*original),
        }
    }

    /// The longest of the lengths up to `longest` at which the frequencies are those at `length`.
    pub fn same_up_to(&self, length: u64, longest: u64) -> u64 {
        match self {
            Self::DynamicNtk { original, .. } | Self::Longrope { original, .. } if length <= *original => {
                longest.min(*original)
            }
            Self::DynamicNtk { .. } => length,
            _ => longest,
        }
    }

    /// The spelling in a `.curriculum` file; an unscaled base is `rope`.
    pub fn method(&self) -> &'static str {
        match self {
            Self::Default => "rope",
            Self::Pi { .. } => "pi",
            Self::Ntk { .. } => "ntk",
            Self::DynamicNtk { .. } => "dynamic_ntk",
            Self::NtkByParts { .. } => "ntk_by_parts",
            Self::Yarn { .. } => "yarn",
            Self::Llama3 { .. } => "llama3",
            Self::Longrope { .. } => "longrope",
        }
    }
}
