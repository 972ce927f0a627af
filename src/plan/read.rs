//! Plans that come from a file. Whoever holds a [`Plan`] may take for granted what the compiler
//! guarantees; a file may have been damaged or edited, so everything that others rely on is checked
//! here, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::{Deserialize, Deserializer, de};

use super::{FromKind, GateMeasure, GatePlan, MAX_CONTEXT, Plan, StagePlan, file_name, hash};
use crate::curve::Curve;

/// Why a file is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not the JSON of a plan, or of another version.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// Something does not fit together.
    #[error("`{place}`: {why}")]
    Broken {
        /// The field.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The numbers are not those that were hashed.
    #[error(
        "`hash`: the plan has {hash}, and what it holds is {found}: it was changed after it had been made"
    )]
    Hash {
        /// As written.
        hash: String,
        /// Of what is there.
        found: String,
    },
}

/// A format version of which there has been one: 1. Another means that the rest cannot be understood.
///
/// # Errors
/// When it is not 1.
pub fn first_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        1 => Ok(1),
        other => Err(de::Error::custom(format!("this is format version {other}; this midc knows version 1"))),
    }
}

impl Plan {
    /// The plan in the text of a file.
    ///
    /// # Errors
    /// When it is not one that this version of midc could have written.
    pub fn read(json: &[u8]) -> Result<Self, ReadError> {
        let mut plan: Self = serde_json::from_slice(json)?;
        names(&plan)?;
        for (i, stage) in plan.stages.iter().enumerate() {
            let field = |what: &str| format!("stages[{i}].{what}");
            ancestry(&plan, i).map_err(broken(field("from")))?;
            phases(stage).map_err(broken(field("phases")))?;
            segments(&stage.lr.curve).map_err(broken(field("segments")))?;
            if stage.context.is_empty() {
                return Err(broken(field("context"))("there is no value".to_owned()));
            }
            mix(&plan, stage).map_err(broken(field("mix")))?;
            evals(&plan, stage).map_err(broken(field("evals")))?;
            gates(&plan, stage).map_err(broken(field("gates")))?;
            if let Some(beyond) = stage.checkpoints.iter().find(|c| c.step > stage.steps) {
                let why = format!(
                    "`{}` is after step {}, and the stage has {}",
                    beyond.name, beyond.step, stage.steps
                );
                return Err(broken(field("checkpoints"))(why));
            }
        }
        for (i, source) in plan.sources.iter().enumerate() {
            if source.max_epochs.is_some_and(|most| most.is_nan() || most <= 0.0) {
                return Err(broken(format!("sources[{i}].max_epochs"))("it is not above 0".to_owned()));
            }
        }
        for (i, soup) in plan.soups.iter().enumerate() {
            let broken = broken(format!("soups[{i}].ingredients"));
            if let Some(place) = soup.ingredients.iter().find(|place| plan.stage_point(place).is_none()) {
                return Err(broken(format!("there is no `{place}`")));
            }
            if soup.ingredients.is_empty() || soup.ingredients.len() != soup.weights.len() {
                return Err(broken("there is not one weight for each of them".to_owned()));
            }
        }
        let found = hash(&plan);
        if plan.hash != found {
            if plan.hash != hash::former(&plan) {
                return Err(ReadError::Hash { hash: plan.hash, found });
            }
            // The same plan as of an earlier midc, whose run may go on.
            plan.hash = found;
        }
        Ok(plan)
    }
}

fn broken(place: String) -> impl FnOnce(String) -> ReadError {
    move |why| ReadError::Broken { place, why }
}

/// Names become paths below the run directory and words of scripts.
fn names(plan: &Plan) -> Result<(), ReadError> {
    let bad = |name: &str| {
        let path = Path::new(name);
        let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
        name.is_empty() || !inside || name.contains('\\') || name.chars().any(char::is_control)
    };
    if plan.curriculum.chars().any(char::is_control) {
        return Err(broken("curriculum".to_owned())(format!("{:?} is not one line", plan.curriculum)));
    }
    // Stages and soups share a folder of checkpoints.
    let mut files: BTreeMap<String, &str> = BTreeMap::new();
    let runs = plan.stages.iter().map(|s| &s.name).chain(plan.soups.iter().map(|s| &s.name));
    for (name, is_run) in runs
        .map(|name| (name, true))
        .chain(plan.models.iter().map(|m| (&m.name, false)))
        .chain(plan.sources.iter().map(|s| (&s.name, false)))
        .chain(plan.stages.iter().flat_map(|s| &s.checkpoints).map(|c| (&c.name, false)))
    {
        if bad(name) {
            return Err(broken("name".to_owned())(format!(
                "{name:?} leads out of the run directory, or is no name at all"
            )));
        }
        if is_run && let Some(other) = files.insert(file_name(name), name) {
            return Err(broken("name".to_owned())(format!(
                "the files of {other:?} and {name:?} would be the same"
            )));
        }
    }
    Ok(())
}

/// What a stage starts from is there, and made before it.
fn ancestry(plan: &Plan, at: usize) -> Result<(), String> {
    let stage = &plan.stages[at];
    let before = |place: &str| {
        let (from, _) = plan.stage_point(place).ok_or_else(|| format!("there is no `{place}`"))?;
        match plan.stages[..at].iter().any(|s| s.name == from.name) {
            true => Ok(()),
            false => Err(format!("`{place}` does not come before `{}`", stage.name)),
        }
    };
    match stage.from_kind {
        FromKind::Model if plan.models.iter().any(|m| m.name == stage.from) => Ok(()),
        FromKind::Model => Err(format!("there is no model `{}`", stage.from)),
        FromKind::Stage | FromKind::Checkpoint => before(&stage.from),
        FromKind::Soup => {
            let soup = plan.soups.iter().find(|s| s.name == stage.from);
            let soup = soup.ok_or_else(|| format!("there is no soup `{}`", stage.from))?;
            soup.ingredients.iter().try_for_each(|place| before(place))
        }
    }
}

/// Phases ascend from step 0, their tokens are those of their steps, and the last ends with the stage.
fn phases(stage: &StagePlan) -> Result<(), String> {
    let mut reached = (0, 0);
    let ends = stage.phases.iter().skip(1).map(|p| p.step).chain([stage.steps]);
    for (phase, end) in stage.phases.iter().zip(ends) {
        let (step, tokens) = reached;
        if (phase.step, phase.tokens) != reached {
            return Err(format!(
                "one begins at step {} and token {}, where step {step} and token {tokens} are reached",
                phase.step, phase.tokens
            ));
        }
        if phase.sequences == 0 || !(1..=MAX_CONTEXT).contains(&phase.context) {
            return Err(format!("steps of {} rows of {} tokens", phase.sequences, phase.context));
        }
        let size = phase.sequences.checked_mul(phase.context);
        let steps = end.checked_sub(step).filter(|steps| *steps > 0);
        let after = steps
            .zip(size)
            .and_then(|(steps, size)| steps.checked_mul(size)?.checked_add(tokens))
            .ok_or_else(|| format!("the one from step {step} to step {end} has no end"))?;
        reached = (end, after);
    }
    match stage.tokens.checked_add(stage.overshoot_tokens) {
        _ if stage.phases.is_empty() => Err("there is none".to_owned()),
        Some(end) if reached == (stage.steps, end) => Ok(()),
        _ => Err(format!(
            "they end at token {}, the stage at {} and {} tokens over",
            reached.1, stage.tokens, stage.overshoot_tokens
        )),
    }
}

/// A curve has a value everywhere: its segments follow each other from token 0 on.
fn segments(curve: &Curve) -> Result<(), String> {
    let mut reached = 0;
    for segment in &curve.segments {
        if segment.start != reached || segment.end < segment.start {
            return Err(format!("one covers tokens {} to {}, after {reached}", segment.start, segment.end));
        }
        reached = segment.end;
    }
    if curve.segments.is_empty() { Err("there is none".to_owned()) } else { Ok(()) }
}

fn mix(plan: &Plan, stage: &StagePlan) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for portion in &stage.mix {
        let source = &portion.source;
        match plan.sources.iter().find(|s| s.name == *source) {
            None => return Err(format!("there is no source `{source}`")),
            Some(of) if of.validation => return Err(format!("`{source}` is for validation")),
            Some(_) => {}
        }
        if !seen.insert(source) {
            return Err(format!("`{source}` is there twice"));
        }
        portion
            .weight
            .terms
            .iter()
            .flat_map(|term| &term.factors)
            .try_for_each(segments)
            .map_err(|why| format!("segments of the weight of `{source}`: {why}"))?;
    }
    if stage.mix.is_empty() { Err("nothing is read".to_owned()) } else { Ok(()) }
}

/// What evals measure is there, and can be: nothing of it is looked at before training.
fn evals(plan: &Plan, stage: &StagePlan) -> Result<(), String> {
    let mut seen = BTreeSet::from([GatePlan::EVAL]);
    for eval in &stage.evals {
        let name = eval.name.as_str();
        if !seen.insert(name) {
            return Err(format!("`{name}` is there twice, or the name of what gates measure"));
        }
        eval.sources.iter().try_for_each(|source| has_source(plan, source))?;
        eval.needle.iter().try_for_each(|length| haystack(*length))?;
        if eval.heldout.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
            return Err(format!("`{name}` holds out no share of the documents, or all of them"));
        }
    }
    Ok(())
}

fn gates(plan: &Plan, stage: &StagePlan) -> Result<(), String> {
    for gate in &stage.gates {
        match gate.measure {
            GateMeasure::Loss if gate.sources.is_empty() => has_source(plan, &gate.argument)?,
            GateMeasure::Loss => gate.sources.iter().try_for_each(|part| has_source(plan, &part.source))?,
            // In the spelling by which measurements are found again.
            GateMeasure::Needle => match gate.argument.parse::<u64>() {
                Ok(length) if length.to_string() == gate.argument => haystack(length)?,
                _ => return Err(format!("{:?} is no length", gate.argument)),
            },
            GateMeasure::Choice => {}
        }
    }
    Ok(())
}

fn has_source(plan: &Plan, name: &str) -> Result<(), String> {
    let there = plan.sources.iter().any(|source| source.name == name);
    there.then_some(()).ok_or_else(|| format!("there is no source `{name}`"))
}

fn haystack(length: u64) -> Result<(), String> {
    let fits = (1..=MAX_CONTEXT).contains(&length);
    fits.then_some(())
        .ok_or_else(|| format!("a needle in {length} tokens; the longest rows have {MAX_CONTEXT}"))
}
