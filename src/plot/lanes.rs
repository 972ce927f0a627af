//! Where the stages of a plan lie on one token axis: equal members of a fan-out become one leg,
//! legs that would overlap get lanes of their own. Knows nothing of drawing.

use std::collections::BTreeMap;

use crate::plan::member::base;
use crate::plan::{FromKind, Plan, StagePlan};

/// One or more stages that differ only in their seeds, and where they lie.
#[derive(Debug)]
pub(crate) struct Leg<'a> {
    /// The stages; the first stands for all.
    pub stages: Vec<&'a StagePlan>,
    /// Tokens of the lineage before it, from the first stage of the plan on.
    pub start: u64,
    /// Row it is drawn in.
    pub lane: usize,
    /// Leg it starts from, when that is not the one before it in its lane.
    pub branches_from: Option<usize>,
}

impl Leg<'_> {
    /// The stage that stands for all.
    pub(crate) fn stage(&self) -> &StagePlan {
        self.stages[0]
    }

    /// One past its last token.
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.stage().tokens)
    }

    /// The stage's name, or that of the fan-out with the number of members.
    pub(crate) fn name(&self) -> String {
        match self.stages.as_slice() {
            [one] => one.name.clone(),
            many => format!("{} ×{}", base(&many[0].name), many.len()),
        }
    }
}

/// A soup and where it is taken.
#[derive(Debug)]
pub(crate) struct Blending {
    /// Its name.
    pub name: String,
    /// `average of 3`.
    pub what: String,
    /// Tokens of the longest lineage that goes in.
    pub at: u64,
    /// Legs that go in.
    pub legs: Vec<usize>,
}

/// The stages of a plan on one axis.
#[derive(Debug)]
pub(crate) struct Lanes<'a> {
    /// In plan order.
    pub legs: Vec<Leg<'a>>,
    /// In plan order.
    pub soups: Vec<Blending>,
    /// Number of lanes.
    pub count: usize,
}

impl<'a> Lanes<'a> {
    /// Lay out `plan`.
    pub(crate) fn new(plan: &'a Plan) -> Self {
        let starts = starts(plan);
        let mut legs: Vec<Leg<'a>> = Vec::new();
        // Legs of each fan-out, and the leg of each stage.
        let mut fans: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut leg_of: BTreeMap<&str, usize> = BTreeMap::new();
        for stage in &plan.stages {
            let start = starts.get(stage.name.as_str()).copied().unwrap_or(0);
            let siblings = fans.entry(base(&stage.name)).or_default();
            let same = siblings.iter().copied().find(|leg| {
                let first = legs[*leg].stage();
                let parents = (leg_of.get(parent(first)), leg_of.get(parent(stage)));
                let one_parent = first.from == stage.from || (parents.0.is_some() && parents.0 == parents.1);
                one_parent && legs[*leg].start == start && differ_in_seeds_only(first, stage)
            });
            let leg = same.unwrap_or(legs.len());
            match same {
                Some(leg) => legs[leg].stages.push(stage),
                None => {
                    siblings.push(leg);
                    legs.push(Leg { stages: vec![stage], start, lane: 0, branches_from: None });
                }
            }
            leg_of.insert(&stage.name, leg);
        }
        let count = assign(plan, &mut legs, &leg_of);
        let soups = plan.soups.iter().map(|soup| Blending {
            name: soup.name.clone(),
            what: format!("{} of {}", soup.method, soup.ingredients.len()),
            at: starts.get(soup.name.as_str()).copied().unwrap_or(0),
            legs: {
                let mut into: Vec<usize> =
                    soup.ingredients.iter().filter_map(|i| leg_of.get(i.as_str()).copied()).collect();
                into.sort_unstable();
                into.dedup();
                into
            },
        });
        Self { soups: soups.collect(), legs, count }
    }

    /// The legs of a lane, from left to right.
    pub(crate) fn lane(&self, lane: usize) -> Vec<&Leg<'a>> {
        let mut legs: Vec<_> = self.legs.iter().filter(|l| l.lane == lane).collect();
        legs.sort_by_key(|l| l.start);
        legs
    }
}

/// The stage or soup a stage starts from, a checkpoint's name cut off.
fn parent(stage: &StagePlan) -> &str {
    match stage.from_kind {
        FromKind::Checkpoint => stage.from.rsplit_once('.').map_or(stage.from.as_str(), |(stage, _)| stage),
        _ => &stage.from,
    }
}

/// Lineage tokens before each stage, and at each soup. Plans list what is started from first; what
/// refers forward (a damaged plan) starts at 0.
fn starts(plan: &Plan) -> BTreeMap<&str, u64> {
    let stages: BTreeMap<&str, &StagePlan> = plan.stages.iter().map(|s| (s.name.as_str(), s)).collect();
    let mut starts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut soups: BTreeMap<&str, u64> = BTreeMap::new();
    for stage in &plan.stages {
        // Soups lie between stages; those whose ingredients are placed by now are placed.
        if stage.from_kind == FromKind::Soup && !soups.contains_key(stage.from.as_str()) {
            place_soups(plan, &stages, &starts, &mut soups);
        }
        let start = match stage.from_kind {
            FromKind::Model => Some(0),
            FromKind::Stage => end_of(&stage.from, &stages, &starts),
            FromKind::Checkpoint => checkpoint_of(&stage.from, &stages, &starts),
            FromKind::Soup => soups.get(stage.from.as_str()).copied(),
        };
        starts.insert(&stage.name, start.unwrap_or(0));
    }
    place_soups(plan, &stages, &starts, &mut soups);
    soups.extend(starts);
    soups
}

fn place_soups<'a>(
    plan: &'a Plan,
    stages: &BTreeMap<&str, &StagePlan>,
    starts: &BTreeMap<&str, u64>,
    soups: &mut BTreeMap<&'a str, u64>,
) {
    for soup in &plan.soups {
        let ends = soup.ingredients.iter().filter_map(|i| {
            end_of(i, stages, starts)
                .or_else(|| checkpoint_of(i, stages, starts))
                .or_else(|| soups.get(i.as_str()).copied())
        });
        if let Some(at) = ends.max() {
            soups.insert(&soup.name, at);
        }
    }
}

fn end_of(name: &str, stages: &BTreeMap<&str, &StagePlan>, starts: &BTreeMap<&str, u64>) -> Option<u64> {
    Some(starts.get(name)?.saturating_add(stages.get(name)?.tokens))
}

fn checkpoint_of(
    name: &str,
    stages: &BTreeMap<&str, &StagePlan>,
    starts: &BTreeMap<&str, u64>,
) -> Option<u64> {
    let (stage, checkpoint) = name.rsplit_once('.')?;
    let at = stages.get(stage)?.checkpoints.iter().find(|c| c.name == checkpoint)?.tokens;
    Some(starts.get(stage)?.saturating_add(at))
}

fn differ_in_seeds_only(a: &StagePlan, b: &StagePlan) -> bool {
    a.tokens == b.tokens
        && a.lr == b.lr
        && a.phases == b.phases
        && a.context == b.context
        && a.mix == b.mix
        && a.rope == b.rope
        && a.assumed == b.assumed
        && a.checkpoints == b.checkpoints
        && a.evals == b.evals
        && a.gates == b.gates
        && a.save_every == b.save_every
        && a.save_every_tokens == b.save_every_tokens
}

/// Give each leg a lane: its parent's where it follows at once, else the first that is free.
fn assign(plan: &Plan, legs: &mut [Leg], leg_of: &BTreeMap<&str, usize>) -> usize {
    // For each lane the spans that are taken; legs come in plan order, not from left to right.
    let mut taken: Vec<Vec<(u64, u64)>> = Vec::new();
    for i in 0..legs.len() {
        let (start, end) = (legs[i].start, legs[i].end());
        let stage = legs[i].stage();
        let of_soup = || {
            let soup = plan.soups.iter().find(|s| s.name == stage.from)?;
            soup.ingredients.iter().find_map(|i| leg_of.get(i.as_str()))
        };
        let from = leg_of.get(parent(stage)).or_else(of_soup).copied().filter(|f| *f < i);
        let free = |spans: &Vec<(u64, u64)>| spans.iter().all(|(s, e)| end <= *s || *e <= start);
        let follows = from.filter(|f| legs[*f].end() == start && free(&taken[legs[*f].lane]));
        let lane = match follows {
            Some(from) => legs[from].lane,
            None => taken.iter().position(free).unwrap_or(taken.len()),
        };
        if lane == taken.len() {
            taken.push(Vec::new());
        }
        taken[lane].push((start, end));
        legs[i].lane = lane;
        legs[i].branches_from = if follows.is_some() { None } else { from };
    }
    taken.len()
}
