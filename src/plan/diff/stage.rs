//! One stage in two plans: what differs in it and from which token on, and where the reading of
//! its sources stands.

use std::collections::BTreeMap;

use super::{Change, Pair, Point, SourceDiff, StageDiff, Standing, first};
use crate::plan::exhaustion::{Drawn, taken};
use crate::plan::hash::{apart, differ, read_from};
use crate::plan::{
    CheckpointPlan, FromKind, MixPlan, ModelPlan, OptimizerPlan, Phase, Plan, RopePlan, SourcePlan, StagePlan,
};
use crate::sema::show;

/// What differs between two stages of one name. The standing is not decided here.
pub(super) fn compare(old: &Plan, new: &Plan, o: &StagePlan, n: &StagePlan) -> StageDiff {
    let mut out = StageDiff::new(&n.name, Standing::Kept);
    let end = o.tokens.min(n.tokens);
    let mut change = |what: &str, from: u64, before: String, after: String| {
        out.changes.push(Change { what: what.to_owned(), from, before, after });
    };
    let (model_before, model_after) = models(old, new, o, n);
    let whole = [
        differing("model", (&model_before, &model_after), |model| model_text(*model)),
        differing("from", (&o.from, &n.from), String::clone),
        differing("rope", (&o.rope, &n.rope), |rope| rope_text(rope.as_ref())),
        differing("attention", (&o.attention, &n.attention), word),
        differing("packing", (&o.packing, &n.packing), word),
        differing("optimizer", (&o.optimizer, &n.optimizer), optimizer_text),
        differing("state", (&o.state, &n.state), word),
        differing("precision", (&o.precision, &n.precision), word),
        differing("data_seed", (&o.data_seed, &n.data_seed), u64::to_string),
        differing("init_seed", (&o.init_seed, &n.init_seed), u64::to_string),
        differing("heldout", (&old.heldout(), &new.heldout()), |share| show::percent(*share)),
    ];
    let sources = n.mix.iter().filter(|m| portion(o, &m.source).is_some()).map(|m| {
        let both = (&documents(old, &m.source), &documents(new, &m.source));
        differing(&format!("source {}", m.source), both, |source| documents_text(source.as_ref()))
    });
    for Change { what, from, before, after } in whole.into_iter().chain(sources).flatten() {
        change(&what, from, before, after);
    }
    if let Some(at) = first::grids(o, n, end) {
        change("batch", at, phase_text(o, at), phase_text(n, at));
    }
    if let Some(at) = first::curves(&o.lr.curve, &n.lr.curve, end) {
        change("lr", at, lr_text(o, at), lr_text(n, at));
    }
    for source in names(o, n) {
        let (a, b) = (portion(o, source), portion(n, source));
        if let Some(at) = first::weights(a.map(|m| &m.weight), b.map(|m| &m.weight), end) {
            change(&format!("mix.{source}"), at, weight_text(a, at), weight_text(b, at));
        }
    }
    // Which source a row is of hangs, where two are due, on their order.
    let order = |a: &StagePlan, b: &StagePlan| -> Vec<String> {
        a.mix.iter().map(|m| m.source.clone()).filter(|s| portion(b, s).is_some()).collect()
    };
    let (was, is) = (order(o, n), order(n, o));
    if was != is {
        change("mix", 0, was.join(", "), is.join(", "));
    }
    // With the same tokens it is the batch that makes other steps of them.
    if o.tokens != n.tokens {
        let text = |s: &StagePlan| format!("{} ({} steps)", show::count(s.tokens), show::digits(s.steps));
        change("tokens", end, text(o), text(n));
    }
    for (name, was, is) in moved_marks(o, n) {
        let at = was.iter().chain(&is).map(|c| c.tokens).min().unwrap_or(0);
        let text = |c: Option<&CheckpointPlan>| {
            c.map_or("none".to_owned(), |c| {
                format!("{} (step {})", show::count(c.tokens), show::digits(c.step))
            })
        };
        change(&format!("{MARK}{name}"), at, text(was), text(is));
    }
    out.watching = [
        ("eval", o.evals != n.evals),
        ("gate", o.gates != n.gates),
        ("save_every", (o.save_every, o.save_every_tokens) != (n.save_every, n.save_every_tokens)),
        ("keep", o.keep != n.keep || forever(o) != forever(n)),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(name, _)| name.to_owned())
    .collect();
    // A step uses what holds at its first token: steps that begin before the place are the same.
    let at = out.changes.iter().filter(|c| !is_mark(c)).map(|c| c.from).min();
    out.same_until = at.map(|at| {
        let step = o.step_containing(at);
        let point = o.step_point(step);
        let point = if point.tokens < at { o.step_point(step + 1) } else { point };
        Point { step: point.step, tokens: point.tokens }
    });
    out
}

/// A change of all of the stage, where the two values of a field decide other outcomes. Texts are for people, and
/// round: where they are the same, what differs stands behind them in full.
fn differing<T: serde::Serialize>(
    what: &str,
    (before, after): (&T, &T),
    text: impl Fn(&T) -> String,
) -> Option<Change> {
    if !differ(before, after) {
        return None;
    }
    let (mut was, mut is) = (text(before), text(after));
    if was == is {
        for (place, before, after) in apart(before, after).into_iter().take(MOST_APART) {
            for (text, value) in [(&mut was, before), (&mut is, after)] {
                let named = if place.is_empty() {
                    format!(", exactly {value}")
                } else {
                    format!(", {place} {value}")
                };
                text.push_str(&named);
            }
        }
    }
    Some(Change { what: what.to_owned(), from: 0, before: was, after: is })
}

/// Numbers that a change gives in full: of some fields there is one for every dimension.
const MOST_APART: usize = 3;

/// What changes of named checkpoints are called by.
const MARK: &str = "checkpoint ";

/// Whether only a named checkpoint differs, which no step is taken differently for.
pub(super) fn is_mark(change: &Change) -> bool {
    change.what.starts_with(MARK)
}

/// A named checkpoint in the old stage and in the new one.
type Mark<'p> = (&'p str, Option<&'p CheckpointPlan>, Option<&'p CheckpointPlan>);

/// The named checkpoints of either stage that stand elsewhere in the other, or not at all.
fn moved_marks<'p>(o: &'p StagePlan, n: &'p StagePlan) -> Vec<Mark<'p>> {
    let gone = o.checkpoints.iter().filter(|c| n.checkpoints.iter().all(|x| x.name != c.name));
    let find = |s: &'p StagePlan, name: &str| s.checkpoints.iter().find(|x| x.name == name);
    let both =
        n.checkpoints.iter().chain(gone).map(|c| (c.name.as_str(), find(o, &c.name), find(n, &c.name)));
    let place = |c: &CheckpointPlan| (c.tokens, c.step);
    both.filter(|(_, was, is)| was.map(place) != is.map(place)).collect()
}

/// Named checkpoints that the new plan has in the first `done` steps and the old one had elsewhere.
pub(super) fn missed_marks<'p>(o: &'p StagePlan, n: &'p StagePlan, done: u64) -> Vec<&'p str> {
    let missed = |(name, _, is): Mark<'p>| is.filter(|c| c.step < done).map(|_| name);
    moved_marks(o, n).into_iter().filter_map(missed).collect()
}

/// A stage with its plan and what its lineage had drawn before it.
#[derive(Clone, Copy)]
pub(super) struct Side<'p> {
    pub(super) plan: &'p Plan,
    pub(super) stage: &'p StagePlan,
    pub(super) before: Option<&'p Drawn<'p>>,
}

impl<'p> Side<'p> {
    /// Tokens of every source drawn `at` tokens into the stage and on the way to it.
    fn drawn(self, at: u64) -> Drawn<'p> {
        let mut out = self.before.cloned().unwrap_or_default();
        for m in &self.stage.mix {
            let sum = out.entry(&m.source).or_insert(0);
            *sum = sum.saturating_add(taken(self.stage, m, at));
        }
        out
    }

    fn at_end(self) -> Drawn<'p> {
        self.drawn(self.stage.tokens + self.stage.overshoot_tokens)
    }
}

/// Checkpoints that are never pruned.
fn forever(stage: &StagePlan) -> Vec<&str> {
    stage.checkpoints.iter().filter(|c| c.forever).map(|c| c.name.as_str()).collect()
}

/// Where the sources stand `at` tokens into the stage and at its end, where that differs.
pub(super) fn reading(was: Side<'_>, is: Side<'_>, at: u64) -> Vec<SourceDiff> {
    let (old, o, new, n) = (was.plan, was.stage, is.plan, is.stage);
    let (before, after) = (was.drawn(at), is.drawn(at));
    let (end_before, end_after) = (was.at_end(), is.at_end());
    let get = |map: &BTreeMap<&str, u64>, name: &str| map.get(name).copied().unwrap_or(0);
    names(o, n)
        .into_iter()
        .filter_map(|source| {
            let drawn = Pair { before: get(&before, source), after: get(&after, source) };
            let end = Pair { before: get(&end_before, source), after: get(&end_after, source) };
            let reordered = drawn.before > 0
                && (differ(&documents(old, source), &documents(new, source))
                    || o.data_seed != n.data_seed
                    || old.heldout() != new.heldout());
            let (reread, skipped) = if reordered {
                (drawn.before, 0)
            } else {
                (drawn.before.saturating_sub(drawn.after), drawn.after.saturating_sub(drawn.before))
            };
            let differs = drawn.before != drawn.after || end.before != end.after || reordered;
            differs.then(|| SourceDiff { source: source.to_owned(), drawn, end, reread, skipped, reordered })
        })
        .collect()
}

/// Sources of either stage, the new one's first.
fn names<'p>(o: &'p StagePlan, n: &'p StagePlan) -> Vec<&'p str> {
    let gone = o.mix.iter().filter(|m| portion(n, &m.source).is_none());
    n.mix.iter().chain(gone).map(|m| m.source.as_str()).collect()
}

fn portion<'p>(stage: &'p StagePlan, source: &str) -> Option<&'p MixPlan> {
    stage.mix.iter().find(|m| m.source == source)
}

/// The models two stages start from, where they start from one of the same name.
fn models<'p>(
    old: &'p Plan,
    new: &'p Plan,
    o: &StagePlan,
    n: &StagePlan,
) -> (Option<&'p ModelPlan>, Option<&'p ModelPlan>) {
    let find = |plan: &'p Plan| plan.models.iter().find(|m| m.name == n.from);
    let same = n.from_kind == FromKind::Model && o.from == n.from;
    (find(old).filter(|_| same), find(new).filter(|_| same))
}

/// What decides which documents a source gives, and in which order.
fn documents(plan: &Plan, name: &str) -> Option<SourcePlan> {
    plan.sources.iter().find(|s| s.name == name).map(read_from)
}

fn documents_text(source: Option<&SourcePlan>) -> String {
    let Some(s) = source else { return "none".to_owned() };
    let SourcePlan { path, text, filter, order, loss_on, today, fim, validation, dedup, exclude, .. } = s;
    let mut out = path.join(", ");
    let mut say = |what: &str, value: Option<String>| {
        if let Some(value) = value {
            out.push_str(&format!("; {what} {value}"));
        }
    };
    say("text", text.clone());
    say("where", filter.clone());
    say("order", Some(order.clone()).filter(|o| o != "shuffled"));
    say("loss on", Some(loss_on.join(", ")).filter(|l| !l.is_empty()));
    say("today", today.clone());
    say("fim", fim.as_ref().map(|f| format!("{} {}", show::percent(f.rate), f.style)));
    say("for", validation.then(|| "validation".to_owned()));
    say("dedup", dedup.then(|| "exact".to_owned()));
    say("exclude", Some(exclude.join(", ")).filter(|e| !e.is_empty()));
    out
}

fn model_text(model: Option<&ModelPlan>) -> String {
    let Some(m) = model else { return "none".to_owned() };
    let mut out = match (&m.checkpoint, &m.init) {
        (Some(checkpoint), _) => checkpoint.clone(),
        (None, Some(a)) => {
            let pattern =
                a.pattern.describe().into_iter().map(|part| format!(", {part}")).collect::<String>();
            format!(
                "fresh {} of {} layers, {} wide, vocabulary {}{pattern}",
                a.model_type, a.num_hidden_layers, a.hidden_size, a.vocab_size
            )
        }
        (None, None) => m.name.clone(),
    };
    if let Some(lr) = m.lr {
        out.push_str(&format!(", lr {}", show::number(lr)));
    }
    if let Some(seen) = m.seen_tokens {
        out.push_str(&format!(", {} tokens seen", show::count(seen)));
    }
    if let Some(tokenizer) = &m.tokenizer {
        out.push_str(&format!(", tokenizer {tokenizer}"));
    }
    if let Some(context) = m.context {
        out.push_str(&format!(", context {}", show::length(context)));
    }
    format!("{out}, {}", rope_text(m.rope.as_ref()))
}

fn rope_text(rope: Option<&RopePlan>) -> String {
    let Some(r) = rope else { return "the model's own".to_owned() };
    let mut out = format!("{}(theta: {}", r.method, show::number(r.theta));
    if let Some(factor) = r.factor {
        out.push_str(&format!(", factor: {}", show::number(factor)));
    }
    if let Some(original) = r.original {
        out.push_str(&format!(", original: {}", show::length(original)));
    }
    out.push(')');
    out
}

fn optimizer_text(o: &OptimizerPlan) -> String {
    let optional = |v: Option<f64>| v.map_or("none".to_owned(), show::number);
    let own = o.muon.as_ref().map_or("adamw(".to_owned(), |m| {
        let nesterov = if m.nesterov { "" } else { "nesterov: no, " };
        let (momentum, rms) = (show::number(m.momentum), show::number(m.update_rms));
        format!("muon(momentum: {momentum}, {nesterov}ns_steps: {}, update_rms: {rms}, ", m.ns_steps)
    });
    format!(
        "{own}betas: [{}, {}], eps: {}, weight_decay: {}{}{}), clip {}, z_loss {}",
        o.betas[0],
        o.betas[1],
        show::number(o.eps),
        show::number(o.weight_decay),
        if o.decay_embeddings { "" } else { ", decay_embeddings: no" },
        if o.decay_norms { ", decay_norms: yes" } else { "" },
        optional(o.clip),
        optional(o.z_loss)
    )
}

/// An enum as the language writes it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "the device's choice".to_owned(),
    }
}

fn phase_text(stage: &StagePlan, at: u64) -> String {
    let i = stage.phases.partition_point(|p| p.tokens <= at).saturating_sub(1);
    let Phase { sequences, context, .. } = stage.phases[i];
    format!("{} seqs of {}", show::digits(sequences), show::length(context))
}

fn lr_text(stage: &StagePlan, at: u64) -> String {
    show::number(stage.lr.curve.value(at))
}

fn weight_text(portion: Option<&MixPlan>, at: u64) -> String {
    portion.map_or("none".to_owned(), |m| show::percent(m.weight.value(at)))
}
