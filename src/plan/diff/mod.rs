//! What another plan means for a run that is under way: which steps stay as they were taken, which
//! stages have to be run again and why, where the learning rate and the reading of the sources
//! would stand. Compares plans; knows no files and nothing of how a run is resumed.
//!
//! Two plans are compared by what they compute, not by how they are written: a curve that takes
//! the same values until token X is the same until token X.

mod first;
mod stage;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{FromKind, Plan, StagePlan, exhaustion, hash};
use stage::Side;

/// Steps done, by stage; a stage that is absent has not begun.
pub type StepsDone = BTreeMap<String, u64>;

/// The difference of two plans.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Format version, 1.
    pub v: u32,
    /// Hash of the old plan.
    pub old: String,
    /// Hash of the new plan.
    pub new: String,
    /// Whether nothing that decides the outcome of the run differs.
    pub same_outcome: bool,
    /// Whether it is known how far the run has come.
    pub progress_known: bool,
    /// Stages of both plans: those of the new one in its order, then those that are gone.
    pub stages: Vec<StageDiff>,
    /// Soups that are made differently, by name.
    pub soups: Vec<String>,
    /// Tokens of all stages.
    pub tokens: Pair<u64>,
    /// Steps of all stages.
    pub steps: Pair<u64>,
}

/// A value in the old plan and in the new one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair<T> {
    /// In the old plan.
    pub before: T,
    /// In the new plan.
    pub after: T,
}

/// What becomes of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It computes what it computed before.
    Kept,
    /// It differs, after the steps that are done: they stay valid.
    GoesOn,
    /// Steps of it are done that the new plan would have taken differently.
    Stale,
    /// It differs and has not begun.
    Ahead,
    /// It differs, and how far the run has come is not known.
    Changed,
    /// Only the new plan has it.
    Added,
    /// Only the old plan has it.
    Removed,
}

/// One stage in both plans.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageDiff {
    /// The stage.
    pub stage: String,
    /// What becomes of it.
    pub standing: Standing,
    /// Why it is not kept, one half sentence each.
    pub why: Vec<String>,
    /// The immutable past: what is done of it.
    pub done: Option<Point>,
    /// Up to here both plans take the same steps; `null` when they never differ.
    pub same_until: Option<Point>,
    /// What differs in the stage itself.
    pub changes: Vec<Change>,
    /// Settings that only watch the run and differ.
    pub watching: Vec<String>,
    /// The learning rate where the run stands, or from where the plans differ.
    pub lr: Option<LrDiff>,
    /// Sources whose reading differs.
    pub sources: Vec<SourceDiff>,
}

/// A step edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Steps before it.
    pub step: u64,
    /// Tokens of the stage before it.
    pub tokens: u64,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// A field of the stage, `checkpoint NAME`, `model`, `source NAME` or `heldout`.
    pub what: String,
    /// First token of the stage that it touches.
    pub from: u64,
    /// As the old plan has it.
    pub before: String,
    /// As the new plan has it.
    pub after: String,
}

/// Learning rates at one place and at the end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LrDiff {
    /// Tokens into the stage.
    pub at: u64,
    /// In the step that begins there.
    pub next: Pair<f64>,
    /// At the end of the stage.
    pub end: Pair<f64>,
}

/// Where the reading of a source stands, over the whole lineage, in tokens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceDiff {
    /// The source.
    pub source: String,
    /// Drawn up to where the run stands.
    pub drawn: Pair<u64>,
    /// Drawn at the end of the stage.
    pub end: Pair<u64>,
    /// What the new plan would read a second time: it is behind the old one.
    pub reread: u64,
    /// What the new plan would not read in its turn: it is ahead of the old one.
    pub skipped: u64,
    /// Whether the documents or their order differ, so that positions in the two do not compare;
    /// then all that was drawn may be read again.
    pub reordered: bool,
}

/// Compare `new` with the plan `old` of a run that has come as far as `progress`.
pub fn diff(old: &Plan, new: &Plan, progress: Option<&StepsDone>) -> Diff {
    let mut stages: Vec<StageDiff> = Vec::new();
    let (drawn_old, drawn_new) = (exhaustion::before(old), exhaustion::before(new));
    // By name: from which step on a stage of the new plan computes something else; absent where
    // never. Stages come after what they start from, so those before are known.
    let mut differs: BTreeMap<&str, u64> = BTreeMap::new();
    for n in &new.stages {
        let Some(o) = old.stages.iter().find(|s| s.name == n.name) else {
            differs.insert(&n.name, 0);
            stages.push(StageDiff::new(&n.name, Standing::Added));
            continue;
        };
        let upstream = upstream(old, new, n, &differs);
        let own = stage::compare(old, new, o, n);
        let at = if upstream.is_some() { Some(0) } else { own.same_until.map(|p| p.step) };
        if let Some(step) = at {
            differs.insert(&n.name, step);
        }
        let steps = progress.map(|p| p.get(&n.name).copied().unwrap_or(0).min(o.steps));
        let done = steps.map(|step| Point { step, tokens: o.step_point(step).tokens });
        let standing = match (at, steps) {
            (None, _) if own.changes.is_empty() => Standing::Kept,
            (_, None) => Standing::Changed,
            (_, Some(0)) => Standing::Ahead,
            (Some(at), Some(steps)) if upstream.is_some() || at < steps => Standing::Stale,
            (_, Some(_)) => Standing::GoesOn,
        };
        let mut entry = StageDiff { done: done.filter(|d| d.step > 0), ..own };
        entry.standing = standing;
        entry.why = why(&entry, upstream);
        let missed = stage::missed_marks(o, n, steps.unwrap_or(0));
        entry.why.extend(missed.iter().map(|name| {
            format!("the steps up to `checkpoint {name}` are done, so it can no longer be written")
        }));
        if standing != Standing::Kept {
            let here = entry.done.or(entry.same_until).map_or(0, |p| p.tokens);
            entry.lr = Some(LrDiff {
                at: here,
                next: Pair { before: o.lr.curve.value(here), after: n.lr.curve.value(here) },
                end: Pair { before: o.lr.end, after: n.lr.end },
            });
            let was = Side { plan: old, stage: o, before: drawn_old.get(o.name.as_str()) };
            let is = Side { plan: new, stage: n, before: drawn_new.get(n.name.as_str()) };
            entry.sources = stage::reading(was, is, here);
        }
        stages.push(entry);
    }
    for o in &old.stages {
        if new.stages.iter().all(|s| s.name != o.name) {
            let done = progress.and_then(|p| p.get(&o.name)).filter(|s| **s > 0);
            let mut gone = StageDiff::new(&o.name, Standing::Removed);
            gone.done = done.map(|s| Point { step: *s, tokens: o.step_point(*s).tokens });
            stages.push(gone);
        }
    }
    let soups = new.soups.iter().map(|s| &s.name).chain(old.soups.iter().map(|s| &s.name));
    let soups: BTreeSet<&String> =
        soups.filter(|name| hash::differ(&soup_of(old, name), &soup_of(new, name))).collect();
    Diff {
        v: 1,
        old: old.hash.clone(),
        new: new.hash.clone(),
        same_outcome: old.hash == new.hash,
        progress_known: progress.is_some(),
        stages,
        soups: soups.into_iter().cloned().collect(),
        tokens: Pair { before: old.totals.tokens, after: new.totals.tokens },
        steps: Pair { before: old.totals.steps, after: new.totals.steps },
    }
}

impl Diff {
    /// Why a run of the old plan that has done so much does not go on with the new one, half a sentence each: nothing
    /// where all that is done stays as it is. A soup counts as done where `done` has it.
    pub fn obstacles(&self, done: &StepsDone) -> Vec<String> {
        let begun = |name: &str| done.get(name).is_some_and(|steps| *steps > 0);
        let stages = self.stages.iter().filter_map(|s| match s.standing {
            Standing::Kept | Standing::GoesOn | Standing::Ahead | Standing::Added => None,
            Standing::Stale | Standing::Changed => Some(format!("`{}`: {}", s.stage, s.why.join(", "))),
            Standing::Removed => begun(&s.stage).then(|| format!("`{}` has begun and is gone", s.stage)),
        });
        let soups = self.soups.iter().filter(|soup| begun(soup));
        stages.chain(soups.map(|soup| format!("the soup `{soup}` is made and would be another"))).collect()
    }
}

fn soup_of<'p>(plan: &'p Plan, name: &str) -> Option<&'p super::SoupPlan> {
    plan.soups.iter().find(|s| s.name == name)
}

impl StageDiff {
    fn new(stage: &str, standing: Standing) -> Self {
        Self {
            stage: stage.to_owned(),
            standing,
            why: Vec::new(),
            done: None,
            same_until: None,
            changes: Vec::new(),
            watching: Vec::new(),
            lr: None,
            sources: Vec::new(),
        }
    }
}

/// Why the weights that `stage` starts from are not those they were, if they are not.
fn upstream(old: &Plan, new: &Plan, stage: &StagePlan, differs: &BTreeMap<&str, u64>) -> Option<String> {
    let changed = |place: &str| {
        let (stage, step) = new.stage_point(place)?;
        // The same steps may have been taken to another place of the name.
        let moved = old.stage_point(place).is_none_or(|(_, before)| before != step);
        let differs = differs.get(stage.name.as_str()).is_some_and(|at| *at < step);
        (moved || differs).then(|| place.to_owned())
    };
    match stage.from_kind {
        FromKind::Model => None,
        FromKind::Stage | FromKind::Checkpoint => {
            changed(&stage.from).map(|place| format!("it starts from `{place}`, which changes"))
        }
        FromKind::Soup => {
            let soup = soup_of(new, &stage.from)?;
            if let Some(place) = soup.ingredients.iter().find_map(|place| changed(place)) {
                return Some(format!(
                    "it starts from the soup `{}`, whose ingredient `{place}` changes",
                    soup.name
                ));
            }
            hash::differ(&soup_of(old, &stage.from), &Some(soup))
                .then(|| format!("it starts from the soup `{}`, which is made differently", soup.name))
        }
    }
}

fn why(entry: &StageDiff, upstream: Option<String>) -> Vec<String> {
    let mut why: Vec<String> = upstream.into_iter().collect();
    let done = entry.done.map_or(0, |p| p.tokens);
    let past = |c: &&Change| c.from < done && !stage::is_mark(c);
    let list = |changes: Vec<&Change>| {
        let mut names: Vec<String> = changes.iter().map(|c| format!("`{}`", c.what)).collect();
        names.dedup();
        names.join(", ")
    };
    let touched: Vec<&Change> = entry.changes.iter().filter(past).collect();
    match entry.standing {
        Standing::Stale if !touched.is_empty() => {
            why.push(format!("steps that are done would differ in {}", list(touched)));
        }
        Standing::Kept | Standing::Stale => {}
        _ if !entry.changes.is_empty() => {
            let verb = if entry.changes.len() == 1 { "changes" } else { "change" };
            why.push(format!("{} {verb}", list(entry.changes.iter().collect())));
        }
        _ => {}
    }
    why
}
