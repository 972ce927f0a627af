//! All that a check makes of a file, for those who show more than a verdict: names and where they
//! lead, what each definition is worth, and what could be resolved in spite of mistakes elsewhere.

use num_traits::CheckedSub;

use super::checker::{Checker, Resolved};
use super::curriculum::Curriculum;
use super::mix::{Amount, MixSpec, Weight};
use super::program::Program;
use super::{Options, params, settings, show};
use crate::diag::Diagnostic;
use crate::source::{FileId, Files, Span};
use crate::syntax::ast::Rational;

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
        /// Where `rest` stands and what it comes to.
        rest: Option<(Span, String)>,
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
    let facts = checker.resolved.iter().map(fact).collect();
    let stem = files.name(file).rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".curriculum").unwrap_or(stem).to_owned();
    let (curriculum, complete, diagnostics) = checker.finish(stem);
    Outcome { program, curriculum, complete, diagnostics, facts }
}

fn fact(resolved: &Resolved<'_>) -> Fact {
    match resolved {
        Resolved::Value(value) => Fact::Value(params::print(value)),
        Resolved::Mix(spec) => Fact::Mix { shares: shares(spec), rest: rest(spec) },
        _ => Fact::None,
    }
}

fn shares(spec: &MixSpec<'_>) -> Option<Vec<(usize, f64)>> {
    let still = spec.still.as_ref()?;
    still
        .iter()
        .map(|(source, amount)| match amount {
            Amount::Exact(share) => Some((*source, show::real(*share))),
            Amount::Moving(_) => None,
        })
        .collect()
}

fn rest(spec: &MixSpec<'_>) -> Option<(Span, String)> {
    let mut left = Rational::from_integer(1);
    let mut at = None;
    for entry in &spec.entries {
        match &entry.weight {
            Weight::Share(share) => left = left.checked_sub(share)?,
            Weight::Rest => at = Some(entry.value_span),
            Weight::Curve(_) => return None,
        }
    }
    Some((at?, show::exact_percent(left)))
}
