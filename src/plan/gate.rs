//! Gates, and when they hold.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition at the end of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GatePlan {
    /// As written.
    pub text: String,
    /// What is measured.
    pub measure: GateMeasure,
    /// The argument of the measure: a length, a source or mix, a task.
    pub argument: String,
    /// Of a mix, its sources and their shares: the loss is their mean by these.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sources: Vec<GateSource>,
    /// How the two are compared.
    pub op: Comparison,
    /// The bound, a number or a share of the value at `from`.
    pub bound: f64,
    /// Whether the bound is a share of the same measure at the start of the stage.
    pub relative_to_from: bool,
}

/// What a gate measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateMeasure {
    /// Share of needles found at a length.
    Needle,
    /// Held-out loss of a source or mix, nats per token.
    Loss,
    /// Accuracy on a task file.
    Choice,
}

impl GateMeasure {
    /// As the language and `evals.jsonl` write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Needle => "needle",
            Self::Loss => "loss",
            Self::Choice => "choice",
        }
    }
}

/// A comparison, as the language writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Comparison {
    /// At most.
    #[serde(rename = "<=")]
    AtMost,
    /// At least.
    #[serde(rename = ">=")]
    AtLeast,
    /// Less.
    #[serde(rename = "<")]
    Below,
    /// More.
    #[serde(rename = ">")]
    Above,
    /// The same.
    #[serde(rename = "==")]
    Equal,
    /// Another.
    #[serde(rename = "!=")]
    Unequal,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::AtMost, Self::AtLeast, Self::Below, Self::Above, Self::Equal, Self::Unequal];

    /// As it is written.
    pub fn sign(self) -> &'static str {
        match self {
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::Above => ">",
            Self::Equal => "==",
            Self::Unequal => "!=",
        }
    }
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
        match self.op {
            Comparison::AtMost => measured <= bound,
            Comparison::AtLeast => measured >= bound,
            Comparison::Below => measured < bound,
            Comparison::Above => measured > bound,
            Comparison::Equal => measured == bound,
            Comparison::Unequal => measured.partial_cmp(&bound).is_some_and(Ordering::is_ne),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(op: Comparison) -> GatePlan {
        GatePlan {
            text: String::new(),
            measure: GateMeasure::Loss,
            argument: "web".into(),
            sources: Vec::new(),
            op,
            bound: 1.5,
            relative_to_from: false,
        }
    }

    #[test]
    fn nothing_holds_for_nan() {
        for op in Comparison::ALL {
            assert!(!gate(op).holds(f64::NAN, 1.0) && !gate(op).holds(1.0, f64::NAN), "{op:?}");
        }
        for (op, passes) in [
            (Comparison::AtMost, [true, true, false]),
            (Comparison::AtLeast, [false, true, true]),
            (Comparison::Below, [true, false, false]),
            (Comparison::Above, [false, false, true]),
            (Comparison::Equal, [false, true, false]),
            (Comparison::Unequal, [true, false, true]),
        ] {
            assert_eq!([0.5, 1.0, 1.5].map(|measured| gate(op).holds(measured, 1.0)), passes, "{op:?}");
        }
    }

    #[test]
    fn plans_have_the_words_of_the_language() {
        for op in Comparison::ALL {
            assert_eq!(serde_json::to_value(op).unwrap(), op.sign());
        }
        for measure in [GateMeasure::Needle, GateMeasure::Loss, GateMeasure::Choice] {
            assert_eq!(serde_json::to_value(measure).unwrap(), measure.name());
        }
    }

    #[test]
    fn a_share_is_of_what_was_measured_at_the_start() {
        let share = GatePlan { relative_to_from: true, ..gate(Comparison::AtMost) };
        let plain = gate(Comparison::AtMost);
        assert_eq!((plain.held_against(None), share.held_against(None)), (Some(1.5), None));
        assert_eq!(share.held_against(Some(2.0)), Some(3.0));
    }
}
