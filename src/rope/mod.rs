//! RoPE frequencies and attention factors, one scaling method per file. Depends on nothing.

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
    },
}
