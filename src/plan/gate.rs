//! Gates, and when they hold.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition at the end of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GatePlan {
    /// As written.
    pub text: String,
    /// `needle`, `loss`, `choice`.
    pub measure: String,
    /// The argument of the measure: a length, a source or mix, a task.
    pub argument: String,
    /// Of a mix, its sources and their shares: the loss is their mean by these.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sources: Vec<GateSource>,
    /// `<=`, `>=`, `<`, `>`, `==`.
    pub op: String,
    /// The bound, a number or a share of the value at `from`.
    pub bound: f64,
    /// Whether the bound is a share of the same measure at the start of the stage.
    pub relative_to_from: bool,
}

/// A source of a mix whose loss a gate is on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GateSource {
    /// Its name.
    pub source: String,
    /// Its share of the mix.
    pub share: f64,
}

impl GatePlan {
    /// Name of the eval under which the measurements of gates are written down.
    pub const EVAL: &str = "gate";

    /// What the measure is held against; `at_start` is the measure at the start of the stage, for a gate that is
    /// relative to it.
    pub fn held_against(&self, at_start: Option<f64>) -> Option<f64> {
        if self.relative_to_from { at_start.map(|value| self.bound * value) } else { Some(self.bound) }
    }

    /// Whether `measured` passes beside what it is [held against](Self::held_against); NaN never does.
    pub fn holds(&self, measured: f64, bound: f64) -> bool {
        match self.op.as_str() {
            "<=" => measured <= bound,
            ">=" => measured >= bound,
            "<" => measured < bound,
            ">" => measured > bound,
            "==" => measured == bound,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(op: &str) -> GatePlan {
        GatePlan {
            text: String::new(),
            measure: "loss".into(),
            argument: "web".into(),
            sources: Vec::new(),
            op: op.into(),
            bound: 1.5,
            relative_to_from: false,
        }
    }

    #[test]
    fn nothing_holds_for_nan() {
        for op in ["<=", ">=", "<", ">", "=="] {
            assert!(!gate(op).holds(f64::NAN, 1.0) && !gate(op).holds(1.0, f64::NAN), "{op}");
        }
        assert!(gate("<=").holds(1.0, 1.0) && !gate("<").holds(1.0, 1.0) && gate(">").holds(2.0, 1.0));
        assert!(gate(">=").holds(1.0, 1.0) && gate("==").holds(1.0, 1.0) && !gate("==").holds(1.0, 2.0));
    }

    #[test]
    fn a_share_is_of_what_was_measured_at_the_start() {
        let share = GatePlan { relative_to_from: true, ..gate("<=") };
        assert_eq!((gate("<=").held_against(None), share.held_against(None)), (Some(1.5), None));
        assert_eq!(share.held_against(Some(2.0)), Some(3.0));
    }
}
