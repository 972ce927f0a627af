//! Where each source runs out: the place in the run at which it has been read through, and the one
//! at which it has been read as often as it may be.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FromKind, MixPlan, Plan, SourcePlan, StagePlan};

/// A source and where it runs out, on the first line through the graph on which it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exhaustion {
    /// The source.
    pub source: String,
    /// Where every token of it that is not held out has been read once; `null` when the run ends before, or the
    /// size is not known.
    pub read_through: Option<Place>,
    /// Where it has been read `max_epochs` times; `null` as above.
    pub exhausted: Option<Place>,
}

/// A place in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Place {
    /// The stage.
    pub stage: String,
    /// Tokens into it.
    pub tokens: u64,
}

/// Where the sources of `plan` run out, in its order. What a lineage has read before a stage counts;
/// where lines meet in a soup the hungriest counts, because no weight has seen more.
pub fn exhaustion(plan: &Plan) -> Vec<Exhaustion> {
    let mut out: Vec<Exhaustion> = plan
        .sources
        .iter()
        .map(|s| Exhaustion { source: s.name.clone(), read_through: None, exhausted: None })
        .collect();
    let before = before(plan);
    for stage in &plan.stages {
        let Some(start) = before.get(stage.name.as_str()) else { continue };
        for (source, entry) in plan.sources.iter().zip(&mut out) {
            let Some(size) = source.tokens.filter(|s| *s > 0) else { continue };
            let size = read(source, size as f64 * (1.0 - plan.heldout()));
            let Some(portion) = stage.mix.iter().find(|m| m.source == source.name) else { continue };
            let already = start.get(source.name.as_str()).copied().unwrap_or(0);
            let place = |limit: f64| {
                crossing(stage, portion, already, limit)
                    .map(|tokens| Place { stage: stage.name.clone(), tokens })
            };
            entry.read_through = entry.read_through.take().or_else(|| place(size));
            let limit = source.max_epochs.map(|epochs| size * epochs);
            entry.exhausted = entry.exhausted.take().or_else(|| limit.and_then(place));
        }
    }
    out
}

/// How often each source is read on the line through the graph that reads it most, in the order of the plan: no
/// weight has seen it more often. `None` where the size is not known.
pub fn most_epochs(plan: &Plan) -> Vec<Option<f64>> {
    let before = before(plan);
    let most = |source: &SourcePlan| {
        let through = plan.stages.iter().map(|stage| {
            let already = before.get(stage.name.as_str()).and_then(|drawn| drawn.get(source.name.as_str()));
            let own = stage.mix.iter().find(|m| m.source == source.name).map_or(0, |m| m.tokens);
            already.copied().unwrap_or(0).saturating_add(own)
        });
        through.max().unwrap_or(0)
    };
    let epochs = |source: &SourcePlan| match (source.epochs?, most(source)) {
        (all, tokens) if tokens == source.drawn_tokens => Some(all),
        (all, tokens) => Some(all * tokens as f64 / source.drawn_tokens.max(1) as f64),
    };
    plan.sources.iter().map(epochs).collect()
}

/// Tokens of `source` that are not held out, `nominal` by the share of its documents: where they were measured,
/// the epochs of the plan tell them.
fn read(source: &SourcePlan, nominal: f64) -> f64 {
    let told = source.epochs.map(|epochs| source.drawn_tokens as f64 / epochs);
    // The same number but for the rounding of a division stays the same.
    told.filter(|told| told.is_finite() && *told > 0.0 && (told / nominal - 1.0).abs() > 1e-9)
        .unwrap_or(nominal)
}

/// Tokens drawn, by source.
pub(super) type Drawn<'p> = BTreeMap<&'p str, u64>;

/// What the lineage of each stage has drawn before it, by the stage's name. Stages come after what they
/// start from.
pub(super) fn before(plan: &Plan) -> BTreeMap<&str, Drawn<'_>> {
    let mut before = BTreeMap::new();
    for stage in &plan.stages {
        let start = at_start(plan, stage, &before);
        before.insert(stage.name.as_str(), start);
    }
    before
}

/// What the lineage of `stage` has drawn before it; `before` has the same of the stages before it.
fn at_start<'p>(plan: &'p Plan, stage: &'p StagePlan, before: &BTreeMap<&'p str, Drawn<'p>>) -> Drawn<'p> {
    let through = |place: &str| -> Drawn<'p> {
        let Some((from, step)) = plan.stage_point(place) else { return Drawn::new() };
        let mut drawn = before.get(from.name.as_str()).cloned().unwrap_or_default();
        let at = from.step_point(step).tokens;
        for m in &from.mix {
            let sum = drawn.entry(&m.source).or_insert(0);
            *sum = sum.saturating_add(taken(from, m, at));
        }
        drawn
    };
    match stage.from_kind {
        FromKind::Model => Drawn::new(),
        FromKind::Stage | FromKind::Checkpoint => through(&stage.from),
        FromKind::Soup => {
            let mut most = Drawn::new();
            let soup = plan.soups.iter().find(|s| s.name == stage.from);
            for place in soup.iter().flat_map(|s| &s.ingredients) {
                for (source, tokens) in through(place) {
                    let known = most.entry(source).or_insert(0);
                    *known = tokens.max(*known);
                }
            }
            most
        }
    }
}

/// Tokens of a source in the first `at` tokens of a stage.
pub(super) fn taken(stage: &StagePlan, portion: &MixPlan, at: u64) -> u64 {
    by_ledger(stage, portion, at).round() as u64
}

/// The same by the integral of its weight, so that it ends on what the plan says the whole stage
/// draws. A step reads by the weight at its first token: where weights move the integral is off by
/// part of a step.
fn by_ledger(stage: &StagePlan, portion: &MixPlan, at: u64) -> f64 {
    let integral = |at: u64| portion.weight.mean(at) * at as f64;
    let whole = integral(stage.tokens + stage.overshoot_tokens);
    match portion.weight.as_constant() {
        None if whole > 0.0 => integral(at) / whole * portion.tokens as f64,
        _ => integral(at),
    }
}

/// The first token of `stage` before which `limit` tokens have been drawn, `already` of them earlier.
fn crossing(stage: &StagePlan, portion: &MixPlan, already: u64, limit: f64) -> Option<u64> {
    let reached = |at: u64| already as f64 + by_ledger(stage, portion, at) >= limit;
    let end = stage.tokens + stage.overshoot_tokens;
    if already as f64 >= limit || !reached(end) {
        return None;
    }
    let (mut short, mut enough) = (0, end);
    while enough - short > 1 {
        let middle = short + (enough - short) / 2;
        if reached(middle) { enough = middle } else { short = middle }
    }
    Some(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two branches that read the same source are two runs of it.
    #[test]
    fn epochs_count_on_the_line_that_reads_most() {
        let text = "model m { init = llama(layers: 1, hidden: 16, heads: 2, ffn: 32, vocab: 512), context = 64 }\n\
            source web { path = \"w\", tokens = 64_000 }\nsource qa { path = \"q\", tokens = 6_400, max_epochs = 10 }\n\
            stage a { from = m, tokens = 64_000, batch = 4 seqs, mix = web, lr = 1e-4, data_seed = 1 }\n\
            stage b { from = a, tokens = 32_000, mix = qa, lr = 1e-4, data_seed = 2 }\n\
            stage c { from = a, tokens = 51_200, mix = qa, lr = 1e-4, data_seed = 3 }\n";
        let mut files = crate::source::MemoryFiles::new();
        let file = files.add("run.curriculum", text);
        let (curriculum, found) = crate::sema::check(&mut files, file, &crate::sema::Options::default());
        let plan = crate::plan::build(&curriculum.unwrap_or_else(|| panic!("{found:?}")));
        assert_eq!(plan.sources[1].epochs, Some(13.0));
        let most = most_epochs(&plan);
        assert_eq!(most, [Some(1.0), Some(8.0)]);
    }
}
