//! What a stage descends from.

use super::{FromKind, ModelPlan, Plan, SoupPlan, StagePlan};

/// What a stage starts from.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// A model.
    Model(&'a ModelPlan),
    /// A stage after so many steps.
    Stage(&'a StagePlan, u64),
    /// A soup.
    Soup(&'a SoupPlan),
}

impl Plan {
    /// What `stage` starts from; `None` in a plan that does not hold it.
    pub fn origin(&self, stage: &StagePlan) -> Option<Origin<'_>> {
        match stage.from_kind {
            FromKind::Model => self.models.iter().find(|m| m.name == stage.from).map(Origin::Model),
            FromKind::Stage | FromKind::Checkpoint => {
                self.stage_point(&stage.from).map(|(stage, steps)| Origin::Stage(stage, steps))
            }
            FromKind::Soup => self.soups.iter().find(|s| s.name == stage.from).map(Origin::Soup),
        }
    }

    /// The model at the root of a stage's lineage (of a soup's first ingredient, where it passes
    /// one), and the stages on the way, `stage` itself first. `None` in a plan that does not hold
    /// it.
    pub fn lineage<'a>(&'a self, stage: &'a StagePlan) -> Option<(&'a ModelPlan, Vec<&'a StagePlan>)> {
        let mut stages = vec![stage];
        // No longer than the plan; a plan edited by hand could hold a cycle.
        while stages.len() <= self.stages.len() {
            let at = stages[stages.len() - 1];
            let before = match self.origin(at)? {
                Origin::Model(model) => return Some((model, stages)),
                Origin::Stage(stage, _) => stage,
                Origin::Soup(soup) => self.stage_point(soup.ingredients.first()?)?.0,
            };
            stages.push(before);
        }
        None
    }
}
