//! What an expression evaluates to: typed, exact, with the place it was written. Values that
//! depend on a stage (a share of it, a curve over it) stay symbolic until a stage asks.

use std::rc::Rc;

use crate::source::{FileId, Span};
use crate::syntax::ast::{self, Rational, Unit};

use super::mix::MixSpec;
use super::program::DefId;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct Val<'p> {
    pub(crate) kind: Kind<'p>,
    pub(crate) span: Span,
}

/// The kinds of value.
#[derive(Clone, Debug)]
pub(crate) enum Kind<'p> {
    /// `50`, without a unit.
    Number(Rational),
    /// A result of floating-point arithmetic: a value of a curve.
    Real(f64),
    /// `50%`.
    Share(Rational),
    /// `50 steps`.
    Quantity(Rational, Unit),
    /// `10% of peak`.
    Relative { share: Rational, whole: Whole },
    /// `"text"`, and the file it is written in, whose place a path in it starts from.
    Text(Rc<str>, FileId),
    /// `yes`, `no`, the result of a comparison.
    Bool(bool),
    /// `[1, 2]`.
    List(Rc<[Val<'p>]>),
    /// A word with a meaning in its place: `inherit`, `peak`, `rest`, `stage`, `total`.
    Word(&'p str),
    /// Something defined.
    Entity(Entity),
    /// A mix that is written where it is read.
    Mix(Rc<MixSpec<'p>>),
    /// `linear(to: 0)`: a call, its arguments evaluated.
    Call(Rc<Call<'p>>),
    /// `a then b then c`.
    Chain(Rc<[Val<'p>]>),
    /// `heldout 1%`.
    Apply(&'p ast::Ident, Rc<Val<'p>>),
    /// An expression read by the field it stands in (`until: lr <= 1e-6`).
    Condition(&'p ast::Expr),
    /// Something wrong that has its message already.
    Poison,
}

/// What a share is a share of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Whole {
    /// The tokens of the stage.
    Stage,
    /// The tokens of the longest line through the graph.
    Total,
    /// The curve's maximum.
    Peak,
    /// The value at the end of `from`.
    Inherit,
    /// The measure at the start of the stage.
    From,
}

/// A reference to something defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entity {
    Model(DefId),
    Source(DefId),
    Mix(DefId),
    /// All members of a stage (one, or a fan-out).
    Stage(DefId),
    /// One member, by index in the list of resolved stages.
    Member(usize),
    /// A named checkpoint of a member.
    Checkpoint(usize, usize),
    Soup(DefId),
    /// What a member saw.
    StageMix(usize),
    /// What all members of a stage or a model saw.
    ModelMix(DefId),
}

/// A call of a function in the schema table.
#[derive(Clone, Debug)]
pub(crate) struct Call<'p> {
    pub(crate) function: &'static crate::schema::Function,
    /// Where the name stands.
    pub(crate) name_span: Span,
    /// Arguments without a name.
    pub(crate) positional: Vec<Val<'p>>,
    /// Named arguments.
    pub(crate) named: Vec<(&'p ast::Ident, Val<'p>)>,
    /// All of it.
    pub(crate) span: Span,
}

impl<'p> Call<'p> {
    /// The argument called `name`.
    pub(crate) fn arg(&self, name: &str) -> Option<&Val<'p>> {
        self.named.iter().find(|(n, _)| n.text == name).map(|(_, v)| v)
    }
}

impl<'p> Val<'p> {
    /// A poisoned value at `span`.
    pub(crate) fn poison(span: Span) -> Self {
        Self { kind: Kind::Poison, span }
    }

    /// Whether it (already reported) is no value at all.
    pub(crate) fn is_poison(&self) -> bool {
        matches!(self.kind, Kind::Poison)
    }

    /// What kind of thing it is, with an article, for messages.
    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::Number(_) | Kind::Real(_) => "a number".to_owned(),
            Kind::Share(_) => "a share".to_owned(),
            Kind::Quantity(_, unit) => format!("a number of {}", unit_name(*unit)),
            Kind::Relative { whole, .. } => format!("a share of {}", whole_name(*whole)),
            Kind::Text(..) => "a string".to_owned(),
            Kind::Bool(_) => "`yes` or `no`".to_owned(),
            Kind::List(_) => "a list".to_owned(),
            Kind::Word(word) => format!("the word `{word}`"),
            Kind::Entity(Entity::Model(_)) => "a model".to_owned(),
            Kind::Entity(Entity::Source(_)) => "a source".to_owned(),
            Kind::Mix(_) | Kind::Entity(Entity::Mix(_) | Entity::StageMix(_) | Entity::ModelMix(_)) => {
                "a mix".to_owned()
            }
            Kind::Entity(Entity::Stage(_) | Entity::Member(_)) => "a stage".to_owned(),
            Kind::Entity(Entity::Checkpoint(..)) => "a named checkpoint".to_owned(),
            Kind::Entity(Entity::Soup(_)) => "a soup".to_owned(),
            Kind::Call(call) => call.function.family.describe().to_owned(),
            Kind::Chain(_) => "a curve".to_owned(),
            Kind::Apply(..) => "a measurement".to_owned(),
            Kind::Condition(_) => "a condition".to_owned(),
            Kind::Poison => "nothing".to_owned(),
        }
    }
}

/// The unit word.
pub(crate) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Tokens => "tokens",
        Unit::Seqs => "seqs",
        Unit::Steps => "steps",
        Unit::Epochs => "epochs",
        Unit::GpuHours => "gpu_hours",
        Unit::Flops => "flops",
    }
}

/// As it is written after `of`.
pub(crate) fn whole_name(whole: Whole) -> &'static str {
    match whole {
        Whole::Stage => "stage",
        Whole::Total => "total",
        Whole::Peak => "peak",
        Whole::Inherit => "inherit",
        Whole::From => "from",
    }
}
