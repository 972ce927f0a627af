//! Types of parameters and how their values are printed.

use crate::syntax::ast::Unit;

use super::show;
use super::value::{Kind, Val, unit_name};

/// Why a value does not fit its declared type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// No such type.
    Type,
    /// The value is of another.
    Value,
}

/// The value as `ty`, a bare number taking the type's unit.
pub(crate) fn conform<'p>(value: &Val<'p>, ty: &str) -> Result<Kind<'p>, Misfit> {
    let kind = value.kind.clone();
    let fits = match (ty, &kind) {
        ("tokens", Kind::Number(n) | Kind::Quantity(n, Unit::Tokens)) => {
            return Ok(Kind::Quantity(*n, Unit::Tokens));
        }
        ("steps", Kind::Number(n) | Kind::Quantity(n, Unit::Steps)) => {
            return Ok(Kind::Quantity(*n, Unit::Steps));
        }
        ("number", Kind::Number(_) | Kind::Real(_)) => true,
        ("share", Kind::Share(_)) => true,
        ("text", Kind::Text(..)) => true,
        ("batch", Kind::Quantity(_, Unit::Seqs | Unit::Tokens)) => true,
        ("bool", Kind::Bool(_)) => true,
        ("tokens" | "steps" | "number" | "share" | "text" | "batch" | "bool", _) => false,
        _ => return Err(Misfit::Type),
    };
    if fits { Ok(kind) } else { Err(Misfit::Value) }
}

/// With an article.
pub(crate) fn describe(ty: &str) -> String {
    match ty {
        "tokens" | "steps" => format!("a number of {ty}"),
        "text" => "a string".to_owned(),
        "bool" => "`yes` or `no`".to_owned(),
        other => format!("a {other}"),
    }
}

/// As people write it.
pub(crate) fn print(value: &Val<'_>) -> String {
    let plain = |n| show::decimal(n).unwrap_or_else(|| n.to_string());
    match &value.kind {
        Kind::Number(n) => plain(*n),
        Kind::Real(v) => v.to_string(),
        Kind::Share(n) => show::exact_percent(*n),
        Kind::Quantity(n, unit) => format!("{} {}", plain(*n), unit_name(*unit)),
        Kind::Text(t, _) => t.to_string(),
        Kind::Bool(b) => if *b { "yes" } else { "no" }.to_owned(),
        Kind::List(items) => format!("[{}]", items.iter().map(print).collect::<Vec<_>>().join(", ")),
        _ => value.describe(),
    }
}
