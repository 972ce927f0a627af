//! Calls of the functions of the schema table: arguments to parameters, and what to say of those that fit none.

use std::rc::Rc;

use crate::diag::suggest::nearest;
use crate::diag::{Applicability, Diagnostic, codes};
use crate::schema::{self, Family, Ty};
use crate::source::Span;
use crate::syntax::ast::{self, Expr, ExprKind, PathSegment, Unit};

use super::checker::Checker;
use super::eval::{Scope, lone_name};
use super::habits::{self, Meant};
use super::program::suggest;
use super::value::{Call, Kind, Val};

impl<'p> Checker<'p> {
    /// A call of a function of the schema table.
    pub(super) fn eval_call(
        &mut self,
        expr: &'p Expr,
        callee: &'p ast::Path,
        args: &'p [ast::Arg],
        scope: &Scope<'p>,
    ) -> Val<'p> {
        let span = expr.span;
        let (name, name_span) = match callee.segments.as_slice() {
            [PathSegment::Name(name)] => (name.text.as_str(), name.span),
            _ => ("", callee.span),
        };
        let Some(function) = schema::function(name) else {
            self.unknown_function(name, name_span, scope.family);
            return Val::poison(span);
        };
        let mut call = Call { function, name_span, positional: Vec::new(), named: Vec::new(), span };
        let mut sound = true;
        for arg in args {
            let Some(arg_name) = &arg.name else {
                if function.positional.is_none() {
                    let param = self.meant_param(function, args, arg);
                    self.unnamed_argument(function, arg, param);
                    sound = false;
                    continue;
                }
                let value = if function.family == Family::Order {
                    self.record_field(&arg.value, false, name, scope)
                } else {
                    self.eval(&arg.value, scope)
                };
                call.positional.push(value);
                continue;
            };
            if let Some((first, _)) = call.named.iter().find(|(n, _)| n.text == arg_name.text) {
                let first = first.span;
                self.push(
                    Diagnostic::error(
                        codes::DUPLICATE_FIELD,
                        arg_name.span,
                        format!("`{}` is given twice", arg_name.text),
                        "given again here",
                    )
                    .label(first, "first given here"),
                );
                sound = false;
                continue;
            }
            let ty = match (function.param(&arg_name.text), function.open) {
                (Some(param), _) => param.ty,
                (None, Some(_)) => Ty::Number,
                (None, None) => {
                    self.unknown_argument(function, args, arg_name);
                    sound = false;
                    continue;
                }
            };
            let value = self.eval_typed(&arg.value, ty, &arg_name.text, scope);
            call.named.push((arg_name, value));
        }
        let missing: Vec<&str> = function
            .params
            .iter()
            .filter(|p| p.required && call.arg(p.name).is_none())
            .map(|p| p.name)
            .collect();
        if sound && !missing.is_empty() {
            let list = missing.iter().map(|m| format!("`{m}`")).collect::<Vec<_>>().join(", ");
            self.push(
                Diagnostic::error(
                    codes::MISSING_ARGUMENT,
                    span,
                    format!("`{name}` needs {list}"),
                    format!("{list} {} missing", if missing.len() == 1 { "is" } else { "are" }),
                )
                .help(
                    missing
                        .iter()
                        .filter_map(|m| function.param(m))
                        .map(|p| format!("`{}`: {}", p.name, p.doc))
                        .collect::<Vec<_>>()
                        .join(" "),
                ),
            );
            sound = false;
        }
        if sound { Val { kind: Kind::Call(Rc::new(call)), span } } else { Val::poison(span) }
    }

    /// "`yarn` has no argument `base`": what is meant by it, or what there is.
    fn unknown_argument(
        &mut self,
        function: &'static schema::Function,
        args: &'p [ast::Arg],
        arg_name: &'p ast::Ident,
    ) {
        let name = function.name;
        let d = Diagnostic::error(
            codes::UNKNOWN_ARGUMENT,
            arg_name.span,
            format!("`{name}` has no argument `{}`", arg_name.text),
            "unknown argument",
        );
        if function.param("betas").is_some()
            && let Some(second) = habits::beta(&arg_name.text)
        {
            self.one_beta(d, args, second);
            return;
        }
        let near = habits::argument(function, &arg_name.text)
            .or_else(|| nearest(&arg_name.text, function.params.iter().map(|p| p.name)));
        let all = function.params.iter().map(|p| format!("`{}`", p.name)).collect::<Vec<_>>();
        let other = if all.is_empty() {
            format!("`{name}` takes no named arguments")
        } else {
            format!("it takes {}", all.join(", "))
        };
        self.push(suggest(d, arg_name.span, near, &other));
    }

    /// `beta1: 0.9, beta2: 0.95`, which is one argument here: said once.
    fn one_beta(&mut self, d: Diagnostic, args: &'p [ast::Arg], second: bool) {
        let beta = |arg: &ast::Arg| habits::beta(&arg.name.as_ref()?.text);
        let place = |which| args.iter().position(|arg| beta(arg) == Some(which));
        let (Some(first), Some(next)) = (place(false), place(true)) else {
            self.push(d.help("both stand in a list: `betas: [0.9, 0.95]`"));
            return;
        };
        if second {
            return;
        }
        let value = |at: usize| self.text(args[at].value.span);
        let betas = format!("betas: [{}, {}]", value(first), value(next));
        self.push(match first.abs_diff(next) {
            1 => d.help("both stand in a list").fix(
                format!("write `{betas}`"),
                Applicability::MaybeIncorrect,
                args[first.min(next)].span.to(args[first.max(next)].span),
                betas,
            ),
            _ => d.help(format!("both stand in a list: `{betas}`")),
        });
    }

    /// "`wsd` is no function": what is meant by it, or what the place takes.
    fn unknown_function(&mut self, name: &str, span: Span, family: Option<Family>) {
        let d = Diagnostic::error(
            codes::UNKNOWN_FUNCTION,
            span,
            if name.is_empty() {
                "this cannot be called".to_owned()
            } else {
                format!("unknown function `{name}`")
            },
            if schema::preset(name).is_some() {
                "a preset takes no arguments"
            } else {
                "no function has this name"
            },
        );
        let near = nearest(name, schema::FUNCTIONS.iter().map(|f| f.name));
        let takes = family.map_or(String::new(), |family| {
            format!("{} is one of {}", family.describe(), habits::functions(family))
        });
        self.push(match habits::function(name) {
            Some((_, Meant::Said(help))) => d.help(help),
            Some((_, Meant::Name(near))) => suggest(d, span, Some(near), ""),
            None => suggest(d, span, near, &takes),
        });
    }

    /// Which parameter an argument without a name is, by its place among those that have none. Of a segment with too
    /// many of them, `cosine(3e-4, 0)`, the first say where the curve is already.
    fn meant_param(
        &self,
        function: &'static schema::Function,
        args: &'p [ast::Arg],
        arg: &'p ast::Arg,
    ) -> Option<&'static schema::Param> {
        let named =
            |p: &schema::Param| args.iter().any(|a| a.name.as_ref().is_some_and(|n| n.text == p.name));
        let free = || function.params.iter().filter(|p| !named(p));
        let over = free().find(|p| p.name == "over");
        // `linear(3e-5, 2000 steps)`: what can only be a span is one.
        if over.is_some() && is_span(&arg.value) {
            return over;
        }
        let unnamed = args.iter().filter(|a| a.name.is_none() && !(over.is_some() && is_span(&a.value)));
        let unnamed: Vec<&ast::Arg> = unnamed.collect();
        let values: Vec<&schema::Param> =
            free().filter(|p| !matches!(p.ty, Ty::Span | Ty::Condition)).collect();
        let params = if values.is_empty() { free().collect() } else { values };
        let place = unnamed.iter().position(|a| std::ptr::eq(*a, arg))?;
        let before = match function.family {
            Family::Segment => unnamed.len().saturating_sub(params.len()),
            _ => 0,
        };
        params.get(place.checked_sub(before)?).copied()
    }

    /// An argument without its name, which is `param`'s if any.
    fn unnamed_argument(
        &mut self,
        function: &'static schema::Function,
        arg: &'p ast::Arg,
        param: Option<&'static schema::Param>,
    ) {
        let d = Diagnostic::error(
            codes::UNKNOWN_ARGUMENT,
            arg.span,
            format!("an argument of `{}` without a name", function.name),
            "which argument this is must be said",
        );
        // `linear(to 0)`, which reads like `heldout 1%`.
        let unsigned = match &arg.value.kind {
            ExprKind::Apply { word, arg } => function.param(&word.text).map(|p| (p, word, arg)),
            _ => None,
        };
        self.push(match (unsigned, param) {
            (Some((param, word, value)), _) => d.help(format!("an argument is `{}: value`", param.name)).fix(
                "insert `:`",
                Applicability::MaybeIncorrect,
                Span { start: word.span.end, end: value.span.start, ..word.span },
                ": ",
            ),
            (None, Some(param)) => d.help(format!("write `{}: …`", param.name)).fix(
                format!("name it `{}`", param.name),
                Applicability::MaybeIncorrect,
                Span { end: arg.span.start, ..arg.span },
                format!("{}: ", param.name),
            ),
            (None, None) if function.family == Family::Segment => d.help(
                "a segment goes on from where the curve is: the value it starts from stands before `then`",
            ),
            (None, None) => d.help("it has all its arguments: take this out"),
        });
    }
}

/// Whether `expr` is written as a span of a stage and can be no value of a curve.
fn is_span(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Quantity(q) => matches!(q.unit, Some(Unit::Steps | Unit::Tokens)),
        ExprKind::Of { whole, .. } => matches!(lone_name(whole), Some("stage" | "total")),
        _ => false,
    }
}
