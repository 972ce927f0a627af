//! The values that hold at one moment of a run: `midc plan --at anneal[42]:25B`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::member::is_asked_for;
use super::{Plan, StagePlan};

/// What a step uses, or what holds when the last is done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// The stage.
    pub stage: String,
    /// The place that was asked for, in tokens of the stage.
    pub tokens: u64,
    /// The step that begins there or contains it, whose values the others are; at the end of the stage
    /// the number of its steps.
    pub step: u64,
    /// Learning rate.
    pub lr: f64,
    /// Tokens of that step.
    pub batch_tokens: u64,
    /// Tokens per row.
    pub context: u64,
    /// Share of each source.
    pub mix: BTreeMap<String, f64>,
}

/// Why a position means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AtError {
    /// Not `STAGE:POSITION`.
    #[error("`{0}` is not STAGE:POSITION")]
    Form(String),
    /// No such stage.
    #[error("there is no stage `{stage}`; stages are {known}")]
    Stage {
        /// As asked.
        stage: String,
        /// What there is.
        known: String,
    },
    /// Not a position.
    #[error("`{0}` is no position: write tokens (`25B`), `50%`, `step 100` or `end`")]
    Position(String),
    /// Past the end.
    #[error("the stage ends before {0}")]
    Beyond(String),
}

/// The values at `text`, such as `anneal[42]:25B`, `anneal:step 100`, `anneal:50%`, `anneal:end`.
///
/// # Errors
/// When there is no such stage or position.
pub fn at(plan: &Plan, text: &str) -> Result<Moment, AtError> {
    let (name, position) = text.rsplit_once(':').ok_or_else(|| AtError::Form(text.to_owned()))?;
    let name = name.trim();
    let found: Vec<&StagePlan> = plan.stages.iter().filter(|s| is_asked_for(&s.name, name)).collect();
    let [stage] = found[..] else {
        let known: Vec<&StagePlan> = if found.is_empty() { plan.stages.iter().collect() } else { found };
        let known = known.iter().map(|s| format!("`{}`", s.name)).collect::<Vec<_>>().join(", ");
        return Err(AtError::Stage { stage: name.to_owned(), known });
    };
    let position = position.trim();
    let bad = || AtError::Position(position.to_owned());
    let beyond = || AtError::Beyond(position.to_owned());
    let here = |tokens: u64| if tokens < stage.tokens { moment(stage, tokens) } else { end(stage) };
    if position == "end" {
        return Ok(end(stage));
    }
    if let Some(step) = position.strip_prefix("step") {
        let step: u64 = step.trim().replace('_', "").parse().map_err(|_| bad())?;
        if step > stage.steps {
            return Err(beyond());
        }
        return Ok(here(stage.step_point(step).tokens));
    }
    if let Some(share) = position.strip_suffix('%') {
        let share: f64 = share.trim().parse().map_err(|_| bad())?;
        if !(0.0..=100.0).contains(&share) {
            return Err(beyond());
        }
        return Ok(here((stage.tokens as f64 * share / 100.0).floor() as u64));
    }
    let tokens = tokens(position).ok_or_else(bad)?;
    if tokens > stage.tokens {
        return Err(beyond());
    }
    Ok(here(tokens))
}

/// The values of the step that has `tokens` inside: those that hold at its first token.
pub fn moment(stage: &StagePlan, tokens: u64) -> Moment {
    let step = stage.step_containing(tokens);
    values(stage, tokens, step, stage.step_point(step).tokens)
}

/// The values when all steps are done: where the curves end.
fn end(stage: &StagePlan) -> Moment {
    values(stage, stage.tokens, stage.steps, stage.tokens)
}

/// What holds in `step`, with curves and weights as they are at token `at`.
fn values(stage: &StagePlan, tokens: u64, step: u64, at: u64) -> Moment {
    let point = stage.step_point(step);
    Moment {
        stage: stage.name.clone(),
        tokens,
        step,
        lr: stage.lr.curve.value(at),
        batch_tokens: point.sequences * point.context,
        context: point.context,
        mix: stage.mix.iter().map(|m| (m.source.clone(), m.weight.value(at))).collect(),
    }
}

/// `25B`, `4Ki`, `1_000`, with an optional `tokens`.
fn tokens(text: &str) -> Option<u64> {
    let text = text.strip_suffix("tokens").unwrap_or(text).trim().replace('_', "");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, magnitude) = text.split_at(split);
    let scale: u64 = match magnitude {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "B" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        _ => return None,
    };
    // Exact: digits and fraction apart.
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut value: u128 = u128::from(whole.parse::<u64>().ok()?) * u128::from(scale);
    if !fraction.is_empty() {
        let places = u32::try_from(fraction.len()).ok().filter(|p| *p <= 15)?;
        value += u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / 10u128.pow(places);
    }
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::tokens;

    #[test]
    fn positions_are_exact() {
        assert_eq!(tokens("25B"), Some(25_000_000_000));
        assert_eq!(tokens("3.8950T"), Some(3_895_000_000_000));
        assert_eq!(tokens("4Ki tokens"), Some(4096));
        assert_eq!(tokens("1_000"), Some(1000));
        assert_eq!(tokens("12q"), None);
    }
}
