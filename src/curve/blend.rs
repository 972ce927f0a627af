//! Sums of products of curves: the weight of one source in nested, moving mixtures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Curve;

/// Σ coefficient · Π factors. A constant is one term without factors; `rest` is `1 − Σ others`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Blend {
    /// The summands.
    pub terms: Vec<Term>,
}

/// One summand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Term {
    /// Constant factor.
    pub coefficient: f64,
    /// Moving factors.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub factors: Vec<Curve>,
}

impl Blend {
    /// The weight that does not move.
    pub fn constant(value: f64) -> Self {
        Self { terms: vec![Term { coefficient: value, factors: Vec::new() }] }
    }

    /// Value at token `at`.
    pub fn value(&self, at: u64) -> f64 {
        self.terms.iter().map(|t| t.factors.iter().fold(t.coefficient, |v, c| v * c.value(at))).sum()
    }
}
