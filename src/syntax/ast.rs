//! The syntax tree: what was written, where, with its comments. No meaning yet.

use crate::source::Span;

pub use super::rational::Rational;

/// One parsed file. Of an entry that could not be read there is a diagnostic, its place in
/// [`File::broken`], and what could be saved: its key, name or kind over an [`ExprKind::Error`], so
/// that nobody reports it as missing or unknown as well.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Items in order.
    pub items: Vec<Item>,
    /// Every `#` comment, in order; the formatter puts them back.
    pub comments: Vec<Comment>,
    /// Entries, items and heads that could not be read as they stand.
    pub broken: Vec<Span>,
    /// The whole text.
    pub span: Span,
}

/// A `#` comment (not a doc comment).
#[derive(Clone, Debug, PartialEq)]
pub struct Comment {
    /// With its `#`, without the newline.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// A name as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Ident {
    /// The name.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// A string literal; escapes are resolved in `text`.
#[derive(Clone, Debug, PartialEq)]
pub struct Str {
    /// The content.
    pub text: String,
    /// With the quotes.
    pub span: Span,
}

/// `## text` lines and `@attr(…)` that precede an item or entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Preface {
    /// Doc comment lines without `##` and one space.
    pub docs: Vec<Str>,
    /// Attributes in order.
    pub attrs: Vec<Attr>,
}

impl Preface {
    /// The doc comment, a line each.
    pub fn doc(&self) -> String {
        self.docs.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

/// `@allow(lr_jump)`, `@cite("…")`.
#[derive(Clone, Debug, PartialEq)]
pub struct Attr {
    /// The name without `@`.
    pub name: Ident,
    /// Arguments.
    pub args: Vec<Arg>,
    /// All of it.
    pub span: Span,
}

/// A top-level item.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Docs and attributes.
    pub preface: Preface,
    /// What it is.
    pub kind: ItemKind,
    /// Without the preface.
    pub span: Span,
}

/// The kinds of item.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemKind {
    /// `use "sources.curriculum" as s, sha256: "…"`.
    Use {
        /// The relative path.
        path: Str,
        /// The namespace.
        alias: Option<Ident>,
        /// The pin.
        sha256: Option<Str>,
    },
    /// `param budget: tokens = 50B`.
    Param {
        /// Its name.
        name: Ident,
        /// Its type.
        ty: Option<Ident>,
        /// Its default.
        value: Expr,
    },
    /// `let decay = 10% of total`.
    Let {
        /// Its name.
        name: Ident,
        /// Its value.
        value: Expr,
    },
    /// `assert EXPR, "why"`.
    Assert(Assert),
    /// `stage anneal[seed in [1, 2]] { … }`, `budget { … }`.
    Block(Block),
    /// `soup final = average(anneal)`, `source long = books where length >= 16Ki`.
    Bind {
        /// `soup`, `source`, `mix`, …
        kind: Ident,
        /// The new name.
        name: Ident,
        /// What it is bound to.
        value: Expr,
    },
}

/// `assert EXPR, "why"`.
#[derive(Clone, Debug, PartialEq)]
pub struct Assert {
    /// What must hold.
    pub condition: Expr,
    /// Why.
    pub why: Option<Str>,
    /// All of it.
    pub span: Span,
}

/// A braced block.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The keyword: `model`, `source`, `mix`, `stage`, `eval`, …
    pub kind: Ident,
    /// Its name, if it has one.
    pub name: Option<Ident>,
    /// `[seed in [42, 43], peak in [1e-4, 3e-4]]`: the variables of a fan-out, of which the last moves fastest;
    /// none for a block that stands for itself.
    pub each: Vec<Each>,
    /// What is inside, in order.
    pub entries: Vec<Entry>,
    /// Whether something inside could not even be saved as an entry with an error for a value, so
    /// that a field may seem to be missing that is not.
    pub incomplete: bool,
    /// The opening brace.
    pub brace: Span,
    /// From the keyword to the closing brace.
    pub span: Span,
}

/// `seed in [42, 43]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Each {
    /// The variable.
    pub var: Ident,
    /// The list.
    pub values: Expr,
}

/// One entry of a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Docs and attributes.
    pub preface: Preface,
    /// What it is.
    pub kind: EntryKind,
    /// Without the preface.
    pub span: Span,
}

/// The kinds of entry.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryKind {
    /// `key = value`; the key may be a path (`s.web = 60%`).
    Field {
        /// The key.
        key: Path,
        /// The value.
        value: Expr,
    },
    /// `tokens <= 200B`, `needle(32Ki) >= 99%`: the condition is an [`ExprKind::Binary`] comparison.
    Constraint(Expr),
    /// A nested block.
    Block(Block),
    /// A nested assert.
    Assert(Assert),
}

/// `name:` value in an argument list.
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    /// The name, if named.
    pub name: Option<Ident>,
    /// The value.
    pub value: Expr,
    /// All of it.
    pub span: Span,
}

/// A dotted path, with indices: `s.web`, `anneal[42].lr.end`, `anneal[*]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// At least one; the first is a name.
    pub segments: Vec<PathSegment>,
    /// All of it.
    pub span: Span,
}

/// One step of a [`Path`].
#[derive(Clone, Debug, PartialEq)]
pub enum PathSegment {
    /// A name.
    Name(Ident),
    /// `[42]`, `[*, 30%]`: members of a fan-out.
    Pick(Pick),
}

/// `[42]`, `[*, 30%]`: the members of a fan-out that have these values.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    /// At least one, in the order of the variables.
    pub values: Vec<Picked>,
    /// With the brackets.
    pub span: Span,
}

impl Pick {
    /// The values that are written out.
    pub fn exprs(&self) -> impl Iterator<Item = &Expr> {
        self.values.iter().filter_map(|picked| match picked {
            Picked::One(expr) => Some(expr),
            Picked::Every(_) => None,
        })
    }
}

/// What is picked of one variable of a fan-out.
#[derive(Clone, Debug, PartialEq)]
pub enum Picked {
    /// `42`.
    One(Expr),
    /// `*`.
    Every(Span),
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it is.
    pub kind: ExprKind,
    /// Where.
    pub span: Span,
}

/// The kinds of expression.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// A number with magnitude, percent sign and unit word.
    Quantity(Quantity),
    /// A string.
    Str(String),
    /// A name or dotted path.
    Path(Path),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `linear(to: 0, over: 5% of stage)`.
    Call {
        /// The function.
        callee: Path,
        /// Its arguments.
        args: Vec<Arg>,
    },
    /// `heldout 1%`: a word applied to a quantity.
    Apply {
        /// The word.
        word: Ident,
        /// The quantity.
        arg: Box<Expr>,
    },
    /// `-x`.
    Neg(Box<Expr>),
    /// `not x`.
    Not(Box<Expr>),
    /// `a + b`, `a <= b`, `a and b`.
    Binary {
        /// The operator.
        op: BinaryOp,
        /// Where the operator stands.
        op_span: Span,
        /// Left.
        left: Box<Expr>,
        /// Right.
        right: Box<Expr>,
    },
    /// `10% of peak`.
    Of {
        /// The share.
        share: Box<Expr>,
        /// Of what.
        whole: Box<Expr>,
    },
    /// `a then b then c`: at least two.
    Then(Vec<Expr>),
    /// `books where length >= 16Ki`.
    Where {
        /// The source.
        subject: Box<Expr>,
        /// The predicate.
        predicate: Box<Expr>,
    },
    /// `(a)`: kept so that the formatter can print it back.
    Paren(Box<Expr>),
    /// Something that did not parse or whose number is bad; already reported.
    Error,
}

/// Binary operators, loosest first: `or`, `and`, comparisons, sums, products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `or`
    Or,
    /// `and`
    And,
    /// `==`
    Eq,
    /// `!=`
    Ne,
    /// `<`
    Lt,
    /// `<=`
    Le,
    /// `>`
    Gt,
    /// `>=`
    Ge,
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
}

/// A number as written, exact.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// The value with its magnitude and percent sign applied (`50%` is 1/2, `4Ki` is 4096).
    pub value: Rational,
    /// The digits as written (`1_000.5`, `3e-4`).
    pub digits: String,
    /// `k M B T Ki Mi Gi Ti`.
    pub magnitude: Option<Magnitude>,
    /// Whether `%` follows.
    pub percent: bool,
    /// The unit word.
    pub unit: Option<Unit>,
}

/// Magnitude suffixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Magnitude {
    K,
    M,
    B,
    T,
    Ki,
    Mi,
    Gi,
    Ti,
}

/// Unit words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unit {
    Tokens,
    Seqs,
    Steps,
    Epochs,
    GpuHours,
    Flops,
}
