//! Which stages and soups of a plan to run: all, some by name, or one and what leads to it.

use std::collections::BTreeSet;

use crate::plan::Plan;
use crate::plan::member::is_asked_for;
use crate::runtime::exec::ExecError;
use crate::runtime::exec::survey::{self, Origin, stage_point};

/// What of a plan to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// Everything.
    #[default]
    All,
    /// These stages and soups and nothing else; what they start from must be done.
    Only(Vec<String>),
    /// This stage or soup and everything it descends from.
    Until(String),
}

impl Selection {
    /// The names of the chosen stages and soups. The name of a fan-out stands for all its members, `anneal[*, 30%]` for those
    /// that have this value.
    ///
    /// # Errors
    /// [`ExecError::UnknownStage`]; a plan that does not hold what it speaks of.
    pub fn names(&self, plan: &Plan) -> Result<BTreeSet<String>, ExecError> {
        let everything = || plan.stages.iter().map(|s| &s.name).chain(plan.soups.iter().map(|s| &s.name));
        let named = |wanted: &str| {
            let found: Vec<String> =
                everything().filter(|name| is_asked_for(name, wanted)).cloned().collect();
            if found.is_empty() {
                let known = everything().cloned().collect::<Vec<_>>().join("`, `");
                return Err(ExecError::UnknownStage { name: wanted.to_string(), known });
            }
            Ok(found)
        };
        match self {
            Self::All => Ok(everything().cloned().collect()),
            Self::Only(names) => {
                let mut chosen = BTreeSet::new();
                for name in names {
                    chosen.extend(named(name)?);
                }
                Ok(chosen)
            }
            Self::Until(name) => {
                let mut chosen = BTreeSet::new();
                let mut open = named(name)?;
                while let Some(name) = open.pop() {
                    if chosen.insert(name.clone()) {
                        open.extend(before(plan, &name)?);
                    }
                }
                Ok(chosen)
            }
        }
    }
}

/// The stages and soups that `name` starts from directly.
pub(super) fn before(plan: &Plan, name: &str) -> Result<Vec<String>, ExecError> {
    let of = |ingredient: &String| stage_point(plan, ingredient).map(|(stage, _)| stage.name.clone());
    if let Some(soup) = plan.soups.iter().find(|s| s.name == name) {
        return Ok(soup.ingredients.iter().filter_map(of).collect());
    }
    let Some(stage) = plan.stages.iter().find(|s| s.name == name) else { return Ok(Vec::new()) };
    Ok(match survey::origin(plan, stage)? {
        Origin::Model(_) => Vec::new(),
        Origin::Stage(stage, _) => vec![stage.name.clone()],
        Origin::Soup(soup) => vec![soup.name.clone()],
    })
}
