//! Whether a stage's gates held, as far as its measurements tell.

use super::history::{History, Measurement};
use crate::plan::{GatePlan, Plan, StagePlan};

/// What became of a gate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// The stage has not ended.
    Ahead,
    /// The stage ended without a measurement of that name.
    Unmeasured,
}

/// A gate's measured value, what it is held against, and the outcome.
pub(super) struct Judged {
    pub value: Option<f64>,
    pub bound: Option<f64>,
    pub verdict: Verdict,
}

/// Judge `gate` of `stage` (number `at` in the plan).
pub(super) fn judge(plan: &Plan, history: &History, at: usize, gate: &GatePlan) -> Judged {
    let stage = &plan.stages[at];
    let ended = history.stages[at].next >= stage.steps;
    let concerns = |m: &&Measurement| same_subject(&m.subject, &gate.argument);
    // What was measured for the gate goes before what an eval of the same name found.
    let last = history
        .of(&stage.name, gate.measure.name())
        .filter(concerns)
        .max_by_key(|m| (m.step, m.eval == GatePlan::EVAL));
    // A measurement from the middle of the stage does not decide.
    let value = last.filter(|m| ended && m.step >= stage.steps).map(|m| m.value);
    let bound = gate.held_against(before(plan, history, stage, gate));
    let verdict = match (value, bound) {
        _ if !ended => Verdict::Ahead,
        (Some(value), Some(bound)) if gate.holds(value, bound) => Verdict::Passed,
        (Some(_), Some(_)) => Verdict::Failed,
        _ => Verdict::Unmeasured,
    };
    Judged { value, bound, verdict }
}

/// The measure where the stage began: taken at its step 0, or at the end of the stage before it.
fn before(plan: &Plan, history: &History, stage: &StagePlan, gate: &GatePlan) -> Option<f64> {
    let concerns = |m: &&Measurement| same_subject(&m.subject, &gate.argument);
    let at_start = history.of(&stage.name, gate.measure.name()).filter(concerns).filter(|m| m.step == 0);
    let at_start = at_start.max_by_key(|m| m.eval == GatePlan::EVAL);
    let earlier = || {
        let parent = plan.stages.iter().find(|s| s.name == stage.from)?;
        let last = history.of(&parent.name, gate.measure.name()).filter(concerns).max_by_key(|m| m.step)?;
        (last.step >= parent.steps).then_some(last)
    };
    at_start.or_else(earlier).map(|m| m.value)
}

/// Equal, or two spellings of one length: `32Ki` and `32768`.
fn same_subject(a: &str, b: &str) -> bool {
    a == b || matches!((length(a), length(b)), (Some(a), Some(b)) if a == b)
}

/// A length as digits or with a binary magnitude.
pub(super) fn length(text: &str) -> Option<u64> {
    let (digits, scale) = match (text.strip_suffix("Ki"), text.strip_suffix("Mi")) {
        (Some(digits), _) => (digits, 1 << 10),
        (_, Some(digits)) => (digits, 1 << 20),
        _ => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(scale)
}
