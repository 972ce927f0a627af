//! Conditions: whether a comparison holds, and where on a curve it begins to (`hold(until: …)`).

use std::cmp::Ordering;

use crate::diag::Diagnostic;
use crate::source::Span;
use crate::syntax::ast::{BinaryOp, Expr, ExprKind, PathSegment, Rational, Unit};

use super::chain::Frame;
use super::checker::Checker;
use super::eval::Scope;
use super::show;
use super::value::{Kind, Val};
use crate::diag::codes;

impl<'p> Checker<'p> {
    /// Whether a condition holds, and what it came to; `None` when it cannot be decided (reported).
    pub(crate) fn condition(&mut self, expr: &'p Expr, scope: &Scope<'p>) -> Option<(bool, String)> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.condition(inner, scope),
            ExprKind::Not(inner) => self.condition(inner, scope).map(|(b, t)| (!b, t)),
            ExprKind::Binary { op: op @ (BinaryOp::And | BinaryOp::Or), left, right, .. } => {
                let (l, r) = (self.condition(left, scope), self.condition(right, scope));
                let ((l, lt), (r, rt)) = (l?, r?);
                Some(match op {
                    BinaryOp::And if l && !r => (false, rt),
                    BinaryOp::And => (l && r, lt),
                    _ => (l || r, format!("{lt}; {rt}")),
                })
            }
            ExprKind::Binary { op, op_span, left, right } if sign(*op).is_some() => {
                let (l, r) = (self.eval(left, scope), self.eval(right, scope));
                self.compare_values(*op, *op_span, &l, &r, &self.text(left.span))
            }
            ExprKind::Error => None,
            _ => {
                let value = self.eval(expr, scope);
                match value.kind {
                    Kind::Bool(b) => Some((b, self.text(expr.span))),
                    Kind::Poison => None,
                    _ => {
                        self.push(
                            Diagnostic::error(
                                codes::NOT_A_CONDITION,
                                expr.span,
                                format!("{} is not a condition", value.describe()),
                                "neither true nor false",
                            )
                            .help("compare it: `… <= …`"),
                        );
                        None
                    }
                }
            }
        }
    }

    fn compare_values(
        &mut self,
        op: BinaryOp,
        op_span: Span,
        l: &Val<'p>,
        r: &Val<'p>,
        left_text: &str,
    ) -> Option<(bool, String)> {
        if l.is_poison() || r.is_poison() {
            return None;
        }
        let (a, b) = (number(l), number(r));
        let share = |v: &Val<'_>| matches!(v.kind, Kind::Share(_));
        let comparable = match (unit(l), unit(r)) {
            (Some(x), Some(y)) => x == y,
            (Some(_), None) => !share(r),
            (None, Some(_)) => !share(l),
            (None, None) => true,
        };
        let (Some(a), Some(b), true) = (a, b, comparable) else {
            self.push(
                Diagnostic::error(
                    codes::NOT_A_CONDITION,
                    op_span,
                    format!("{} compared with {}", l.describe(), r.describe()),
                    "these two cannot be compared",
                )
                .label(l.span, l.describe())
                .label(r.span, r.describe()),
            );
            return None;
        };
        let order = match (exact(l), exact(r)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // Values of curves carry rounding; what is equal to twelve digits is equal.
            _ if (a - b).abs() <= 1e-12 * a.abs().max(b.abs()) => Ordering::Equal,
            _ => a.total_cmp(&b),
        };
        let holds = match op {
            BinaryOp::Eq => order.is_eq(),
            BinaryOp::Ne => order.is_ne(),
            BinaryOp::Lt => order.is_lt(),
            BinaryOp::Le => order.is_le(),
            BinaryOp::Gt => order.is_gt(),
            _ => order.is_ge(),
        };
        Some((holds, format!("`{left_text}` is {}", print(l))))
    }

    /// `hold(until: lr <= 9e-6)`: the first token from `start` on at which it is true.
    pub(crate) fn until(&mut self, value: &Val<'p>, start: u64, frame: Frame<'_>) -> Option<u64> {
        let Kind::Condition(expr) = value.kind else {
            self.wrong(value, crate::schema::Ty::Condition, "until");
            return None;
        };
        let mut inner = expr;
        while let ExprKind::Paren(e) = &inner.kind {
            inner = e;
        }
        let ExprKind::Binary { op, left, right, .. } = &inner.kind else {
            self.not_until(expr.span);
            return None;
        };
        let name = match &left.kind {
            ExprKind::Path(p) => match p.segments.as_slice() {
                [PathSegment::Name(n)] => n.text.as_str(),
                _ => "",
            },
            _ => "",
        };
        if name != "lr" || !matches!(op, BinaryOp::Lt | BinaryOp::Le | BinaryOp::Gt | BinaryOp::Ge) {
            self.not_until(expr.span);
            return None;
        }
        let Some(lr) = frame.lr else {
            if frame.field == "mix" {
                // What is wrong with the learning rate is said there.
                return None;
            }
            self.push(
                Diagnostic::error(
                    codes::CURVE_UNTIL,
                    expr.span,
                    format!("`until` in `{}`", frame.field),
                    "the learning rate is laid out after this",
                )
                .help(
                    "conditions can be used in `mix` and its weights; elsewhere say the place: `hold(until: 10% of stage)`",
                ),
            );
            return None;
        };
        // The bound stands in the module of the condition; its names were ordered before the stage.
        let module = self.program.modules.iter().position(|m| m.file == expr.span.file)?;
        let bound = self.eval(right, &Scope::top(module));
        let bound = match bound.kind {
            Kind::Number(n) => show::real(n),
            Kind::Real(v) => v,
            Kind::Relative { share, whole: super::value::Whole::Peak, .. } => show::real(share) * lr.max(),
            Kind::Word("peak") => lr.max(),
            _ => {
                self.wrong(&bound, crate::schema::Ty::Lr, "until");
                return None;
            }
        };
        let op = *op;
        let found = lr.first(start, |v| match op {
            BinaryOp::Lt => v < bound,
            BinaryOp::Le => v <= bound,
            BinaryOp::Gt => v > bound,
            _ => v >= bound,
        });
        match found.filter(|at| *at <= frame.tokens) {
            // A warm-up starts below the bound that the decay comes down to much later: to switch
            // there would be to switch at the start of the stage.
            Some(at) if at == start => {
                self.push(
                    Diagnostic::error(
                        codes::CURVE_UNTIL,
                        expr.span,
                        "the condition of `until` already holds where its `hold` begins",
                        format!("`lr` is {} at token {}", show::number(lr.value(start)), show::count(start)),
                    )
                    .note(format!("the bound is {}", show::number(bound)))
                    .help("hold past the warm-up first: `then hold(over: 2_000 steps) then hold(until: …)`; or leave this `hold` out"),
                );
                None
            }
            Some(at) => Some(at),
            None => {
                self.push(
                    Diagnostic::error(
                        codes::CURVE_UNTIL,
                        expr.span,
                        "the condition of `until` is never reached in this stage",
                        format!(
                            "`lr` stays between {} and {} from token {} on",
                            show::number(lr.min()),
                            show::number(lr.max()),
                            show::count(start)
                        ),
                    )
                    .note(format!("the bound is {}", show::number(bound))),
                );
                None
            }
        }
    }

    fn not_until(&mut self, span: Span) {
        self.push(
            Diagnostic::error(
                codes::CURVE_UNTIL,
                span,
                "`until` takes a place of the stage or a bound on the learning rate",
                "neither of them",
            )
            .help("write `hold(until: 40B)`, `hold(until: 10% of stage)` or, in `mix`, `hold(until: lr <= 20% of peak)`"),
        );
    }
}

/// The number behind a value, where no rounding has touched it.
fn exact(v: &Val<'_>) -> Option<Rational> {
    match v.kind {
        Kind::Number(n) | Kind::Share(n) | Kind::Quantity(n, _) => Some(n),
        _ => None,
    }
}

/// The number behind a value.
pub(crate) fn number(v: &Val<'_>) -> Option<f64> {
    match v.kind {
        Kind::Number(n) | Kind::Share(n) | Kind::Quantity(n, _) => Some(show::real(n)),
        Kind::Real(v) => Some(v),
        _ => None,
    }
}

pub(crate) fn unit(v: &Val<'_>) -> Option<Unit> {
    match v.kind {
        Kind::Quantity(_, unit) => Some(unit),
        _ => None,
    }
}

fn print(v: &Val<'_>) -> String {
    match v.kind {
        Kind::Real(v) => show::number(v),
        Kind::Quantity(n, Unit::Tokens) if n.is_integer() => u64::try_from(n.numer())
            .map_or_else(|_| super::params::print(v), |n| format!("{} tokens", show::count(n))),
        _ => super::params::print(v),
    }
}

/// The sign of a comparison.
pub(crate) fn sign(op: BinaryOp) -> Option<&'static str> {
    match op {
        BinaryOp::Eq => Some("=="),
        BinaryOp::Ne => Some("!="),
        BinaryOp::Lt => Some("<"),
        BinaryOp::Le => Some("<="),
        BinaryOp::Gt => Some(">"),
        BinaryOp::Ge => Some(">="),
        _ => None,
    }
}
