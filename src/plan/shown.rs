//! The plan with what follows from it, as `midc plan --format json` and editors get it.

use serde::Serialize;

use super::{Cost, Exhaustion, Plan, cost, exhaustion};
use crate::schema::Utilisation;
use crate::sema::Curriculum;

/// A plan, where its sources run out, and what the run costs.
#[derive(Debug, Serialize)]
pub struct Shown<'p> {
    /// The plan itself.
    #[serde(flatten)]
    pub plan: &'p Plan,
    /// Where each source runs out.
    pub exhaustion: Vec<Exhaustion>,
    /// The cost, where an accelerator is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

impl<'p> Shown<'p> {
    /// `plan` with what follows from it; with its cost `on` an accelerator when `curriculum`, of which it
    /// is the plan, is at hand.
    pub fn new(plan: &'p Plan, curriculum: Option<&Curriculum>, on: Option<Utilisation>) -> Self {
        let flops = |c: &Curriculum| c.stages.iter().map(|s| (s.name.clone(), s.flops())).collect::<Vec<_>>();
        let cost = curriculum.zip(on).map(|(c, on)| cost(flops(c).into_iter(), on));
        Self { plan, exhaustion: exhaustion(plan), cost }
    }
}
