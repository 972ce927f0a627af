//! All that a check makes of a file, for those who show more than a verdict: names and where they
//! lead, what each definition is worth, and what could be resolved in spite of mistakes elsewhere.

use std::collections::HashMap;

use super::checker::{Checker, Resolved};
use super::curriculum::Curriculum;
use super::mix::{Amount, Flat};
use super::program::{DefId, DefKind, Program};
use super::{Options, params, settings, show};
use crate::diag::Diagnostic;
use crate::source::{FileId, Files, Span};

/// What came of a check.
pub(crate) struct Outcome {
    /// Files and names.
    pub(crate) program: Program,
    /// What could be resolved.
    pub(crate) curriculum: Curriculum,
    /// Whether that is everything, so that there is a plan.
    pub(crate) complete: bool,
    /// At the levels of the files.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// By definition.
    pub(crate) facts: Vec<Fact>,
    /// Where `rest` stands in a mix, and what it comes to.
    pub(crate) rests: HashMap<Span, String>,
}

/// What a definition is worth, beyond what the curriculum says of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fact {
    /// Nothing more.
    None,
    /// A `param` or `let`, as people write it.
    Value(String),
    /// A mixture.
    Mix {
        /// Shares of sources by index, when nothing moves.
        shares: Option<Vec<(usize, f64)>>,
    },
}

/// Check `file` and everything it uses.
pub(crate) fn analyze(files: &mut dyn Files, file: FileId, options: &Options) -> Outcome {
    let mut diags = Vec::new();
    let program = Program::load(files, file, &mut diags);
    let settings = settings::parse(&options.set);
    let mut checker = Checker::new(&program, files, diags);
    checker.apply_settings(&settings);
    checker.resolve();
    checker.check_asserts();
    checker.check_gates();
    checker.check_attributes();
    let facts = program.ids().map(|id| checker.fact(id)).collect();
    let stem = files.name(file).rsplit('/').next().unwrap_or_default();
    // One line, which can stand in the comments of what is emitted.
    let stem = stem.strip_suffix(".curriculum").unwrap_or(stem).replace(char::is_control, "-");
    let rests = std::mem::take(&mut checker.rests);
    let (curriculum, complete, diagnostics) = checker.finish(stem);
    Outcome { program, curriculum, complete, diagnostics, facts, rests }
}

impl Checker<'_> {
    fn fact(&mut self, id: DefId) -> Fact {
        match &self.resolved[id.index()] {
            Resolved::Value(value) => {
                let text = params::print(value);
                // `mix more = upsample(…)` is a mixture like any other.
                if self.program.def(id).kind == DefKind::Mix {
                    let (value, before) = (value.clone(), self.diags.len());
                    let flat = self.flatten(&value, None);
                    self.diags.truncate(before);
                    if let Some(flat) = flat {
                        return Fact::Mix { shares: shares(&flat) };
                    }
                }
                Fact::Value(text)
            }
            Resolved::Mix(spec) => Fact::Mix { shares: spec.still.as_ref().and_then(shares) },
            _ => Fact::None,
        }
    }
}

fn shares(flat: &Flat) -> Option<Vec<(usize, f64)>> {
    flat.iter()
        .map(|(source, amount)| match amount {
            Amount::Exact(share) => Some((*source, show::real(*share))),
            Amount::Moving(_) => None,
        })
        .collect()
}
