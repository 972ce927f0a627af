//! `decimal_context`: a decimal magnitude where a context length is meant.
//!
//! Looks at what was written, not at what it is worth: `32k` and `32_000` are the same number, and
//! only the first is likely to be a slip.

use crate::diag::{Applicability, Diagnostic, Level, codes};
use crate::sema::show;
use crate::syntax::ast::{
    Arg, Block, Entry, EntryKind, Expr, ExprKind, File, ItemKind, Magnitude, PathSegment, Quantity, Unit,
};

pub(super) fn check(file: &File, out: &mut Vec<Diagnostic>) {
    for item in &file.items {
        match &item.kind {
            ItemKind::Block(block) => walk_block(block, out),
            ItemKind::Let { value, .. } | ItemKind::Param { value, .. } | ItemKind::Bind { value, .. } => {
                arguments(value, out);
            }
            ItemKind::Use { .. } | ItemKind::Assert(_) => {}
        }
    }
}

fn walk_block(block: &Block, out: &mut Vec<Diagnostic>) {
    for entry in &block.entries {
        match &entry.kind {
            EntryKind::Block(inner) => walk_block(inner, out),
            EntryKind::Field { value, .. } => match key(entry) {
                "context" | "needle" => lengths(value, out),
                _ => arguments(value, out),
            },
            EntryKind::Constraint(condition) => arguments(condition, out),
            EntryKind::Assert(_) => {}
        }
    }
}

fn key(entry: &Entry) -> &str {
    match &entry.kind {
        EntryKind::Field { key, .. } => match key.segments.as_slice() {
            [PathSegment::Name(name)] => name.text.as_str(),
            _ => "",
        },
        _ => "",
    }
}

/// Every number in a place that takes lengths; spans of a curve are no lengths.
fn lengths(expr: &Expr, out: &mut Vec<Diagnostic>) {
    match &expr.kind {
        ExprKind::Quantity(q) => report(expr, q, out),
        ExprKind::List(items) | ExprKind::Then(items) => items.iter().for_each(|e| lengths(e, out)),
        ExprKind::Paren(inner) => lengths(inner, out),
        ExprKind::Call { args, .. } => {
            args.iter()
                .filter(|a| !named(a, "over") && !named(a, "until"))
                .for_each(|a| lengths(&a.value, out));
        }
        _ => {}
    }
}

/// The lengths among the arguments of calls: `original: 8k`, `needle(32k)`.
fn arguments(expr: &Expr, out: &mut Vec<Diagnostic>) {
    match &expr.kind {
        ExprKind::Call { callee, args } => {
            let needle = matches!(callee.segments.as_slice(), [PathSegment::Name(n)] if n.text == "needle");
            for arg in args {
                if needle || named(arg, "original") {
                    lengths(&arg.value, out)
                } else {
                    arguments(&arg.value, out)
                }
            }
        }
        ExprKind::List(items) | ExprKind::Then(items) => items.iter().for_each(|e| arguments(e, out)),
        ExprKind::Paren(inner) => arguments(inner, out),
        ExprKind::Binary { left, right, .. } => {
            arguments(left, out);
            arguments(right, out);
        }
        _ => {}
    }
}

fn named(arg: &Arg, name: &str) -> bool {
    arg.name.as_ref().is_some_and(|n| n.text == name)
}

fn report(expr: &Expr, q: &Quantity, out: &mut Vec<Diagnostic>) {
    let (binary, unit) = match q.magnitude {
        Some(Magnitude::K) => ("Ki", 1u64 << 10),
        Some(Magnitude::M) => ("Mi", 1 << 20),
        _ => return,
    };
    if q.unit.is_some_and(|u| u != Unit::Tokens) || !q.value.is_integer() {
        return;
    }
    let Ok(value) = u64::try_from(q.value.numer()) else { return };
    let spelled = format!("{}{binary}", q.digits);
    let mut d = Diagnostic::lint(
        codes::DECIMAL_CONTEXT,
        "decimal_context",
        Level::Deny,
        expr.span,
        format!("a context of {} tokens, written with a decimal magnitude", show::digits(value)),
        format!("{} tokens", show::digits(value)),
    );
    let scale = if unit == 1 << 10 { 1_000 } else { 1_000_000 };
    if let Some(meant) = (value / scale).checked_mul(unit).filter(|_| value % scale == 0) {
        d = d
            .help(format!(
                "`{spelled}` is {}; for {} write the number out",
                show::digits(meant),
                show::digits(value)
            ))
            .fix(format!("write `{spelled}`"), Applicability::MaybeIncorrect, expr.span, spelled);
    }
    out.push(d);
}
