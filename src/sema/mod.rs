//! From syntax tree to curriculum: names, values, curves, mixtures, stages, with every mistake as a
//! diagnostic. Reads files only through [`Files`]; knows nothing of terminals, models or data.
//!
//! ```text
//! program   files and names          fields   blocks against the schema
//! eval      expressions to values    calls  …of functions    expect   values where something definite is needed
//! chain     curves to positions      numeric  …with numbers     batch, clock  …on the grid of steps
//! mix       flat shares of sources   model, source, stage, soup  the items
//! property  what can be asked of items   query  conditions   asserts  those that must hold   budget  bounds to totals
//! measured  what `midc data` counted     measures  evals and gates             lints  what is legal and unwise
//! paths     where paths start from           habits   what other tools call things
//! file_name what the files of a stage are called
//! ```

mod asserts;
mod attributes;
mod batch;
mod budget;
mod calls;
mod chain;
mod checker;
mod clock;
mod curriculum;
mod eval;
mod expect;
mod fields;
mod file_name;
mod habits;
mod lints;
mod measured;
mod measures;
mod mix;
mod model;
mod numeric;
mod outcome;
mod params;
mod paths;
pub(crate) mod program;
mod property;
mod query;
mod rope;
mod settings;
mod sha256;
pub(crate) mod show;
mod soup;
mod source;
mod stage;
#[cfg(test)]
mod tests;
mod value;

pub use curriculum::{
    Architecture, Checkpoint, Curriculum, Eval, Every, From, Gate, HeldOut, Model, Muon, Optimizer, Param,
    Phase, Portion, Rope, Soup, Source, Stage,
};

pub use expect::MAX_CONTEXT;
pub use file_name::file_name;
pub use measured::Counted;

pub(crate) use outcome::{Fact, analyze};
pub(crate) use property::{
    CURVE as CURVE_PROPERTIES, PORTION as PORTION_PROPERTIES, ROPE as ROPE_PROPERTIES,
    STAGE as STAGE_PROPERTIES, is_property,
};

use crate::diag::Diagnostic;
use crate::source::{FileId, Files, Span};

/// What the command line says beside the file.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--set NAME=VALUE` and the lines of `--params` files, in order; later ones win.
    pub set: Vec<Setting>,
}

/// A value given to a parameter from outside the file.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The parameter.
    pub name: String,
    /// An expression of the language.
    pub value: String,
    /// Where the name and the value are written, when that is in a loaded file: messages point there.
    pub place: Option<(Span, Span)>,
}

impl Setting {
    /// A setting that is written nowhere.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), place: None }
    }
}

/// Check `file` and everything it uses.
///
/// The curriculum is there unless some error stands in the way of a plan; the diagnostics have the
/// levels of the files (`lints`, `@allow`), to which the command line applies its own.
pub fn check(
    files: &mut dyn Files,
    file: FileId,
    options: &Options,
) -> (Option<Curriculum>, Vec<Diagnostic>) {
    let outcome = outcome::analyze(files, file, options);
    (outcome.complete.then_some(outcome.curriculum), outcome.diagnostics)
}

/// Give `diagnostics`, found when the curriculum was put to some use, the levels that `file` and those it uses say.
pub fn give_levels(files: &mut dyn Files, file: FileId, diagnostics: &mut Vec<Diagnostic>) {
    let program = program::Program::load(files, file, &mut Vec::new());
    lints::give_levels(&program, diagnostics);
}

/// What of `file` could be resolved in spite of its mistakes: enough to look at the sources of a curriculum that
/// has no plan yet.
pub fn resolved(files: &mut dyn Files, file: FileId, options: &Options) -> Curriculum {
    outcome::analyze(files, file, options).curriculum
}

/// The name of a place as the plan spells it: `anneal[42]`, `main.stable_end`.
pub fn place_name(curriculum: &Curriculum, from: &From) -> String {
    stage::place_name(curriculum, from)
}
