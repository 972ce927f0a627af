//! Expressions to values. Depth is bounded by the parser; names are resolved before what uses
//! them, so nothing here recurses through definitions.

use std::rc::Rc;

use crate::diag::suggest::nearest;
use crate::diag::{Applicability, Diagnostic};
use crate::schema::{self, Family, Ty};
use crate::source::Span;
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, PathSegment, Rational, Unit};

use super::checker::{Checker, Resolved};
use super::habits;
use super::program::{DefKind, Lookup, suggest};
use super::value::{Call, Entity, Kind, Val, Whole};
use crate::diag::codes;

/// Where an expression stands.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'p> {
    /// The file.
    pub(crate) module: usize,
    /// The variables of a fan-out and their values.
    pub(crate) locals: Rc<[Local<'p>]>,
    /// The stage whose properties need no prefix (asserts inside a stage).
    pub(crate) member: Option<usize>,
    /// The functions that the place takes, for messages.
    pub(crate) family: Option<Family>,
}

/// A variable of a fan-out, and its value for one member.
pub(crate) type Local<'p> = (&'p str, Val<'p>);

impl<'p> Scope<'p> {
    /// The top of a file.
    pub(crate) fn top(module: usize) -> Self {
        Self { module, locals: Rc::default(), member: None, family: None }
    }

    /// The value of a variable of the fan-out around the place.
    fn local(&self, name: &str) -> Option<&Val<'p>> {
        self.locals.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value)
    }

    /// The same place, where functions of `family` are taken.
    pub(crate) fn taking(&self, family: Family) -> Self {
        Self { family: Some(family), ..self.clone() }
    }
}

/// Words with a meaning of their own inside values.
const WORDS: [&str; 7] = ["inherit", "peak", "rest", "stage", "total", "from", "forever"];

/// What `rest` is called elsewhere.
const OTHERS: [&str; 7] = ["remaining", "remainder", "remain", "leftover", "others", "other", "balance"];

impl<'p> Checker<'p> {
    /// Evaluate `expr`.
    pub(crate) fn eval(&mut self, expr: &'p Expr, scope: &Scope<'p>) -> Val<'p> {
        let span = expr.span;
        let kind = match &expr.kind {
            ExprKind::Quantity(q) => match (q.percent, q.unit) {
                (true, _) => Kind::Share(q.value),
                (false, Some(unit)) => Kind::Quantity(q.value, unit),
                (false, None) => Kind::Number(q.value),
            },
            ExprKind::Str(text) => Kind::Text(text.as_str().into(), span.file),
            ExprKind::Path(path) => return self.eval_path(path, scope),
            ExprKind::List(items) => Kind::List(items.iter().map(|e| self.eval(e, scope)).collect()),
            ExprKind::Call { callee, args } => return self.eval_call(expr, callee, args, scope),
            ExprKind::Apply { word, arg } => Kind::Apply(word, Rc::new(self.eval(arg, scope))),
            ExprKind::Neg(inner) => {
                let value = self.eval(inner, scope);
                match value.kind {
                    Kind::Number(n) => Kind::Number(-n),
                    Kind::Real(n) => Kind::Real(-n),
                    Kind::Share(n) => Kind::Share(-n),
                    Kind::Quantity(n, unit) => Kind::Quantity(-n, unit),
                    Kind::Poison => Kind::Poison,
                    _ => {
                        self.push(Diagnostic::error(
                            codes::WRONG_VALUE,
                            value.span,
                            format!("`-` before {}", value.describe()),
                            "only a number can be negative",
                        ));
                        Kind::Poison
                    }
                }
            }
            ExprKind::Binary { op, op_span, left, right } => match op {
                BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => {
                    let (left, right) = (self.eval(left, scope), self.eval(right, scope));
                    self.arithmetic(*op, *op_span, &left, &right)
                }
                _ => Kind::Condition(expr),
            },
            ExprKind::Not(_) | ExprKind::Where { .. } => Kind::Condition(expr),
            ExprKind::Of { share, whole } => self.eval_of(share, whole, scope),
            ExprKind::Then(parts) => {
                let parts = parts.iter().enumerate();
                Kind::Chain(parts.map(|(i, e)| self.part(e, i > 0, scope)).collect())
            }
            ExprKind::Paren(inner) => {
                let inner = self.eval(inner, scope);
                return Val { span, ..inner };
            }
            ExprKind::Error => Kind::Poison,
        };
        Val { kind, span }
    }

    /// A part of a curve. After `then` a function that is no segment is not asked for its arguments.
    fn part(&mut self, expr: &'p Expr, after_then: bool, scope: &Scope<'p>) -> Val<'p> {
        if let ExprKind::Call { callee, .. } = &expr.kind
            && let [PathSegment::Name(name)] = callee.segments.as_slice()
            && let Some(function) = schema::function(&name.text)
            && after_then
            && !matches!(function.family, Family::Segment | Family::Mix)
        {
            self.push(
                Diagnostic::error(
                    codes::CURVE_SEGMENT,
                    name.span,
                    format!("`{}` after `then`", name.text),
                    "a segment is expected here",
                )
                .help("to jump to a value write `step(to: …)`; to approach it, `linear(to: …)`"),
            );
            return Val::poison(expr.span);
        }
        if after_then { self.eval(expr, &scope.taking(Family::Segment)) } else { self.eval(expr, scope) }
    }

    /// A name or dotted path.
    pub(crate) fn eval_path(&mut self, path: &'p ast::Path, scope: &Scope<'p>) -> Val<'p> {
        let span = path.span;
        let Some(PathSegment::Name(first)) = path.segments.first() else { return Val::poison(span) };
        if let Some(value) = scope.local(&first.text)
            && path.segments.len() == 1
        {
            return Val { kind: value.kind.clone(), span };
        }
        match self.program.lookup(scope.module, path) {
            Lookup::Def(id, used) => {
                self.used[id.index()] = true;
                let def = self.program.def(id);
                let base = match (&self.resolved[id.index()], def.kind) {
                    (Resolved::Value(value), _) => Val { kind: value.kind.clone(), span },
                    // A cycle or an error: it has its message.
                    (Resolved::Poison, _) => return Val::poison(span),
                    (_, DefKind::Model) => Val { kind: Kind::Entity(Entity::Model(id)), span },
                    (_, DefKind::Source) => Val { kind: Kind::Entity(Entity::Source(id)), span },
                    (_, DefKind::Mix) => Val { kind: Kind::Entity(Entity::Mix(id)), span },
                    (_, DefKind::Stage) => Val { kind: Kind::Entity(Entity::Stage(id)), span },
                    (_, DefKind::Soup) => Val { kind: Kind::Entity(Entity::Soup(id)), span },
                    (_, DefKind::Param | DefKind::Let) => return Val::poison(span),
                };
                self.properties(base, &path.segments[used..], scope)
            }
            Lookup::Lost => Val::poison(span),
            Lookup::Space => {
                self.push(
                    Diagnostic::error(
                        codes::WRONG_KIND,
                        span,
                        format!("`{}` is a file, not a value", first.text),
                        "a name in it is missing after this",
                    )
                    .help(format!("write `{}.NAME`", first.text)),
                );
                Val::poison(span)
            }
            Lookup::Unknown => self.unknown_first(path, first, scope),
            Lookup::UnknownIn(module) => {
                let name = path
                    .segments
                    .iter()
                    .filter_map(|s| match s {
                        PathSegment::Name(n) => Some(n),
                        _ => None,
                    })
                    .find(|n| {
                        !self.program.modules[module].names.contains_key(&n.text)
                            && !self.program.modules[scope.module].spaces.contains_key(&n.text)
                    })
                    .unwrap_or(first);
                let near = self.nearest_name(module, &name.text);
                let file = self.files.name(self.program.modules[module].file).to_owned();
                let d = Diagnostic::error(
                    codes::UNKNOWN_NAME,
                    name.span,
                    format!("unknown name `{}`", name.text),
                    format!("`{file}` defines no such name"),
                );
                self.push(suggest(d, name.span, near.as_deref(), ""));
                Val::poison(span)
            }
        }
    }

    /// The definition most like `name`. All of them are looked through for each unknown name, and whoever has this
    /// many of them did not mistype them.
    fn nearest_name(&mut self, module: usize, name: &str) -> Option<String> {
        const MISTYPED: u32 = 100;
        self.unknown_names += 1;
        (self.unknown_names <= MISTYPED).then(|| self.program.nearest(module, name, |_| true))?
    }

    fn unknown_first(&mut self, path: &'p ast::Path, first: &'p ast::Ident, scope: &Scope<'p>) -> Val<'p> {
        let span = path.span;
        if let Some(member) = scope.member
            && super::property::is_property(&first.text)
        {
            let base = Val { kind: Kind::Entity(Entity::Member(member)), span };
            return self.properties(base, &path.segments, scope);
        }
        if path.segments.len() == 1 {
            match first.text.as_str() {
                "yes" => return Val { kind: Kind::Bool(true), span },
                "no" => return Val { kind: Kind::Bool(false), span },
                word if WORDS.contains(&word) => {
                    return Val { kind: Kind::Word(first.text.as_str()), span };
                }
                // A segment that needs no arguments is written without parentheses: `then hold`.
                "hold" => {
                    if let Some(function) = schema::function("hold") {
                        let call = Call {
                            function,
                            name_span: span,
                            positional: Vec::new(),
                            named: Vec::new(),
                            span,
                        };
                        return Val { kind: Kind::Call(Rc::new(call)), span };
                    }
                }
                _ => {}
            }
        }
        let near = self.nearest_name(scope.module, &first.text);
        let mut d = Diagnostic::error(
            codes::UNKNOWN_NAME,
            first.span,
            format!("unknown name `{}`", first.text),
            "nothing with this name is defined here",
        );
        if near.is_none() && ["constant", "flat", "plateau"].contains(&first.text.as_str()) {
            d = suggest(d, first.span, Some("hold"), "");
        } else if near.is_none() && path.segments.len() == 1 && OTHERS.contains(&first.text.as_str()) {
            d = suggest(d, first.span, Some("rest"), "");
        } else if first.text == "heldout" && path.segments.len() == 1 {
            d = d.help("say which share is held out: `heldout 1%`");
        } else if near.is_none() && schema::function(&first.text).is_some() {
            d = d.help(format!("`{0}` is a function: write `{0}(…)`", first.text));
        } else {
            // `stage1` is the name of a stage that is not there, and no slip in `stage`.
            let bare = first.text.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
            let word = nearest(&first.text, WORDS).filter(|word| first.text == bare || *word != bare);
            let near = near.or_else(|| word.map(str::to_owned));
            d = suggest(d, first.span, near.as_deref(), "");
        }
        self.push(d);
        Val::poison(span)
    }

    /// Evaluate `expr` where `ty` is expected: words of an enumeration and conditions are not
    /// looked up as names.
    pub(crate) fn eval_typed(&mut self, expr: &'p Expr, ty: Ty, field: &str, scope: &Scope<'p>) -> Val<'p> {
        let span = expr.span;
        match ty {
            Ty::Predicate => Val { kind: Kind::Condition(expr), span },
            // `until: lr`, half a condition, is told as one.
            Ty::Condition if lone_name(expr) == Some("lr") => Val { kind: Kind::Condition(expr), span },
            Ty::Names => match &expr.kind {
                ExprKind::List(items) => {
                    let names = items.iter().map(|e| self.record_field(e, false, field, scope));
                    Val { kind: Kind::List(names.collect()), span }
                }
                _ => self.record_field(expr, true, field, scope),
            },
            Ty::Word(words) => self.one_of(expr, words, field, scope),
            Ty::Order => self.one_of(expr, schema::ORDERS, field, scope),
            Ty::Init => {
                let Some(name) = lone_name(expr) else { return self.eval(expr, scope) };
                if let Some(preset) = schema::preset(name) {
                    return Val { kind: Kind::Word(preset.name), span };
                }
                if let Some(value) = self.named_value(name, expr, scope) {
                    return value;
                }
                self.unknown_architecture(span, name);
                Val::poison(span)
            }
            // A function of another kind would be judged by arguments that are not its fault.
            Ty::Rope | Ty::Optimizer => {
                let ExprKind::Call { callee, .. } = &expr.kind else { return self.eval(expr, scope) };
                let name = match callee.segments.as_slice() {
                    [PathSegment::Name(name)] => name,
                    _ => return self.eval(expr, scope),
                };
                let family = if ty == Ty::Rope { Family::Rope } else { Family::Optimizer };
                if schema::function(&name.text).is_some_and(|f| f.family == family) {
                    return self.eval(expr, scope);
                }
                self.foreign_function(name, family, field);
                Val::poison(span)
            }
            Ty::Lr | Ty::Batch | Ty::Context => self.eval(expr, &scope.taking(Family::Segment)),
            Ty::Mix => self.eval(expr, &scope.taking(Family::Mix)),
            Ty::From => self.eval(expr, &scope.taking(Family::Soup)),
            _ => self.eval(expr, scope),
        }
    }

    /// A word of `words`, before what has its name; any other value otherwise.
    fn one_of(
        &mut self,
        expr: &'p Expr,
        words: &'static [schema::Word],
        field: &str,
        scope: &Scope<'p>,
    ) -> Val<'p> {
        let Some(name) = lone_name(expr) else { return self.eval(expr, scope) };
        if let Some(word) = words.iter().find(|w| w.name == name) {
            return Val { kind: Kind::Word(word.name), span: expr.span };
        }
        if let Some(value) = self.named_value(name, expr, scope) {
            return value;
        }
        self.unknown_word(expr.span, name, words, field);
        Val::poison(expr.span)
    }

    /// The name of a field of records, or several where a list has its place. As in `where`, a name that a
    /// `param` or `let` has stands for its value and never for a field of the same name.
    pub(super) fn record_field(
        &mut self,
        expr: &'p Expr,
        list: bool,
        field: &str,
        scope: &Scope<'p>,
    ) -> Val<'p> {
        let span = expr.span;
        // Dots reach into objects; what another file defines is called so, too.
        let Some(name) = dotted_name(expr) else { return self.eval(expr, scope) };
        let Some(value) = self.named_value(&name, expr, scope) else {
            return Val { kind: Kind::Text(name.as_str().into(), span.file), span };
        };
        let names = match &value.kind {
            Kind::List(items) => list && items.iter().all(|v| matches!(v.kind, Kind::Text(..))),
            Kind::Text(..) | Kind::Poison => true,
            _ => false,
        };
        if names {
            return value;
        }
        let found = match value.kind {
            Kind::List(_) if list => "a list that holds other values".to_owned(),
            _ => value.describe(),
        };
        self.push(
            Diagnostic::error(
                codes::WRONG_VALUE,
                span,
                format!("`{field}` takes the name of a field, not {found}"),
                "the value of a `param` or `let`",
            )
            .help(format!(
                "where the field `{name}` of a record is meant, write `\"{name}\"`: without quotes a name that a \
                 `param` or `let` has stands for its value"
            )),
        );
        Val::poison(span)
    }

    /// What `expr`, the name `name` alone, stands for where a `param`, a `let` or the variable of a fan-out has
    /// that name.
    fn named_value(&mut self, name: &str, expr: &'p Expr, scope: &Scope<'p>) -> Option<Val<'p>> {
        let ExprKind::Path(path) = &expr.kind else { return None };
        let named = || match self.program.lookup(scope.module, path) {
            Lookup::Def(id, _) => matches!(self.program.def(id).kind, DefKind::Param | DefKind::Let),
            _ => false,
        };
        (scope.local(name).is_some() || named()).then(|| self.eval_path(path, scope))
    }

    /// The value of a `let`: a word of the fields may stand there alone, so that they can share it.
    pub(crate) fn eval_named(&mut self, expr: &'p Expr, scope: &Scope<'p>) -> Val<'p> {
        if let ExprKind::Path(path) = &expr.kind
            && let Some(word) = lone_name(expr).and_then(schema::word_of_a_field)
            && matches!(self.program.lookup(scope.module, path), Lookup::Unknown)
        {
            return Val { kind: Kind::Word(word), span: expr.span };
        }
        self.eval(expr, scope)
    }

    /// "`lama` is no architecture".
    pub(crate) fn unknown_architecture(&mut self, span: Span, name: &str) {
        let d = Diagnostic::error(
            codes::UNKNOWN_NAME,
            span,
            format!("unknown architecture `{name}`"),
            "no preset has this name",
        );
        let near = nearest(name, schema::PRESETS.iter().map(|p| p.name));
        let otherwise = "write it out: `llama(layers: …, hidden: …, heads: …, ffn: …, vocab: …)`";
        self.push(suggest(d, span, near, otherwise));
    }

    /// "`linear` is no `rope`": a function that does not belong where it stands.
    fn foreign_function(&mut self, name: &ast::Ident, family: Family, field: &str) {
        let known = || schema::FUNCTIONS.iter().filter(|f| f.family == family).map(|f| f.name);
        // What configurations of Hugging Face call it.
        let near = match (family, name.text.as_str()) {
            (Family::Rope, "linear") => Some("pi"),
            (Family::Rope, "dynamic") => Some("dynamic_ntk"),
            (Family::Rope, "default") => Some("rope"),
            _ => nearest(&name.text, known()),
        };
        let d = match schema::function(&name.text) {
            Some(_) => Diagnostic::error(
                codes::WRONG_VALUE,
                name.span,
                format!("`{}` is no value of `{field}`", name.text),
                "a function of another kind",
            ),
            None => Diagnostic::error(
                codes::UNKNOWN_FUNCTION,
                name.span,
                format!("unknown function `{}`", name.text),
                "no function has this name",
            ),
        };
        let all = habits::functions(family);
        self.push(suggest(d, name.span, near, &format!("`{field}` takes {all}")));
    }

    /// "`x` is not one of …".
    pub(crate) fn unknown_word(&mut self, span: Span, name: &str, words: &[schema::Word], field: &str) {
        let d = Diagnostic::error(
            codes::UNKNOWN_WORD,
            span,
            format!("`{field}` cannot be `{name}`"),
            "not one of its words",
        );
        let near = nearest(name, words.iter().map(|w| w.name));
        let all = words.iter().map(|w| format!("`{}`", w.name)).collect::<Vec<_>>().join(", ");
        self.push(suggest(d, span, near, &format!("it is one of {all}")));
    }

    fn eval_of(&mut self, share: &'p Expr, whole: &'p Expr, scope: &Scope<'p>) -> Kind<'p> {
        let share_value = self.eval(share, scope);
        let share = match share_value.kind {
            Kind::Share(n) | Kind::Number(n) => n,
            Kind::Poison => return Kind::Poison,
            ref kind => {
                let mut d = Diagnostic::error(
                    codes::WRONG_VALUE,
                    share_value.span,
                    format!("{} before `of`", share_value.describe()),
                    "a share such as `10%` stands before `of`",
                );
                if let Kind::Quantity(_, Unit::Epochs) = kind {
                    d = d.help("`2 * math.tokens` is twice the size of a source `math`");
                }
                self.push(d);
                return Kind::Poison;
            }
        };
        let whole_value = self.eval(whole, scope);
        let word = |whole| Kind::Relative { share, whole };
        match &whole_value.kind {
            Kind::Word("stage") => word(Whole::Stage),
            Kind::Word("total") => word(Whole::Total),
            Kind::Word("peak") => word(Whole::Peak),
            Kind::Word("inherit") => word(Whole::Inherit),
            Kind::Word("from") => word(Whole::From),
            Kind::Number(n) => self.product(share, *n, whole_value.span).map_or(Kind::Poison, Kind::Number),
            Kind::Quantity(n, unit) => {
                self.product(share, *n, whole_value.span).map_or(Kind::Poison, |v| Kind::Quantity(v, *unit))
            }
            Kind::Real(v) => Kind::Real(super::show::real(share) * v),
            Kind::Poison => Kind::Poison,
            _ => {
                let mut d = Diagnostic::error(
                    codes::WRONG_VALUE,
                    whole_value.span,
                    format!("a share of {}", whole_value.describe()),
                    "a share can be taken of `stage`, `total`, `peak`, `inherit` or a number",
                );
                if let Kind::Entity(Entity::Source(_) | Entity::Stage(_)) = whole_value.kind {
                    d = d.help("the number of its tokens is its property: `10% of NAME.tokens`");
                }
                self.push(d);
                Kind::Poison
            }
        }
    }

    fn product(&mut self, a: Rational, b: Rational, span: Span) -> Option<Rational> {
        let product = a.checked_mul(b);
        if product.is_none() {
            self.overflow(span);
        }
        product
    }

    fn overflow(&mut self, span: Span) {
        self.push(Diagnostic::error(
            codes::OVERFLOW,
            span,
            "the result is too large or too precise",
            "exact arithmetic ends here",
        ));
    }

    /// `0.1 * peak`, `peak / 10` and `share * total` as they are written here.
    fn share_written(&self, op: BinaryOp, left: &Val<'p>, right: &Val<'p>) -> Option<String> {
        let whole = |v: &Val<'p>| {
            let word = matches!(v.kind, Kind::Word("peak" | "inherit" | "stage" | "total" | "from"));
            (word || matches!(v.kind, Kind::Quantity(..))).then(|| self.text(v.span))
        };
        let share = |v: &Val<'p>| match v.kind {
            Kind::Number(n) => Some(super::show::exact_percent(n)).filter(|share| share.ends_with('%')),
            Kind::Share(_) => Some(self.text(v.span)),
            _ => None,
        };
        match op {
            BinaryOp::Mul => match (share(left), whole(right)) {
                (Some(share), Some(whole)) => Some(format!("{share} of {whole}")),
                _ => Some(format!("{} of {}", share(right)?, whole(left)?)),
            },
            BinaryOp::Div => match right.kind {
                Kind::Number(n) if n > Rational::ZERO => {
                    let part = Rational::ONE.checked_div(n)?;
                    let part = Some(super::show::exact_percent(part)).filter(|share| share.ends_with('%'))?;
                    Some(format!("{part} of {}", whole(left)?))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn arithmetic(&mut self, op: BinaryOp, op_span: Span, left: &Val<'p>, right: &Val<'p>) -> Kind<'p> {
        if left.is_poison() || right.is_poison() {
            return Kind::Poison;
        }
        let span = left.span.to(right.span);
        let real = |k: &Kind<'p>| match k {
            Kind::Real(v) => Some(*v),
            Kind::Number(n) | Kind::Share(n) => Some(super::show::real(*n)),
            _ => None,
        };
        if (matches!(left.kind, Kind::Real(_)) || matches!(right.kind, Kind::Real(_)))
            && let (Some(a), Some(b)) = (real(&left.kind), real(&right.kind))
        {
            return Kind::Real(match op {
                BinaryOp::Add => a + b,
                BinaryOp::Sub => a - b,
                BinaryOp::Mul => a * b,
                _ => a / b,
            });
        }
        let exact = |a: Rational, b: Rational| match op {
            BinaryOp::Add => a.checked_add(b),
            BinaryOp::Sub => a.checked_sub(b),
            BinaryOp::Mul => a.checked_mul(b),
            _ => a.checked_div(b),
        };
        let additive = matches!(op, BinaryOp::Add | BinaryOp::Sub);
        let (a, b, wrap): (Rational, Rational, Box<dyn Fn(Rational) -> Kind<'p>>) = match (
            &left.kind,
            &right.kind,
        ) {
            (Kind::Number(a), Kind::Number(b)) => (*a, *b, Box::new(Kind::Number)),
            (Kind::Share(a), Kind::Share(b)) if op == BinaryOp::Div => (*a, *b, Box::new(Kind::Number)),
            (Kind::Share(a), Kind::Share(b)) => (*a, *b, Box::new(Kind::Share)),
            (Kind::Share(a), Kind::Number(b)) if !additive => (*a, *b, Box::new(Kind::Share)),
            (Kind::Number(a), Kind::Share(b)) if op == BinaryOp::Mul => (*a, *b, Box::new(Kind::Share)),
            (Kind::Quantity(a, ua), Kind::Quantity(b, ub)) if ua == ub && additive => {
                let unit = *ua;
                (*a, *b, Box::new(move |v| Kind::Quantity(v, unit)))
            }
            (Kind::Quantity(a, ua), Kind::Quantity(b, ub)) if ua == ub && op == BinaryOp::Div => {
                (*a, *b, Box::new(Kind::Number))
            }
            // A bare number beside tokens is tokens: `budget - 1B`.
            (Kind::Quantity(a, Unit::Tokens), Kind::Number(b))
            | (Kind::Number(a), Kind::Quantity(b, Unit::Tokens))
                if additive =>
            {
                (*a, *b, Box::new(|v| Kind::Quantity(v, Unit::Tokens)))
            }
            (Kind::Quantity(a, unit), Kind::Number(b)) if !additive => {
                let unit = *unit;
                (*a, *b, Box::new(move |v| Kind::Quantity(v, unit)))
            }
            (Kind::Number(a), Kind::Quantity(b, unit)) if op == BinaryOp::Mul => {
                let unit = *unit;
                (*a, *b, Box::new(move |v| Kind::Quantity(v, unit)))
            }
            _ => {
                let sign = match op {
                    BinaryOp::Add => "+",
                    BinaryOp::Sub => "-",
                    BinaryOp::Mul => "*",
                    _ => "/",
                };
                let mut d = Diagnostic::error(
                    codes::WRONG_VALUE,
                    op_span,
                    format!("`{sign}` between {} and {}", left.describe(), right.describe()),
                    "these two cannot be combined",
                )
                .label(left.span, left.describe())
                .label(right.span, right.describe());
                let span = |v: &Val<'p>| {
                    matches!(
                        v.kind,
                        Kind::Number(_)
                            | Kind::Quantity(_, Unit::Tokens | Unit::Steps)
                            | Kind::Relative { whole: Whole::Stage | Whole::Total, .. }
                    )
                };
                if let Some(share) = self.share_written(op, left, right) {
                    let whole = left.span.to(right.span);
                    d = d.help(format!("write `{share}`")).fix(
                        format!("write `{share}`"),
                        Applicability::MachineApplicable,
                        whole,
                        share,
                    );
                }
                if [left, right]
                    .iter()
                    .any(|v| matches!(v.kind, Kind::Entity(Entity::Source(_) | Entity::Mix(_))))
                {
                    d = d.help("shares of sources stand in a mix, `mix NAME { web = 60%, code = rest }`, and the stage says `mix = NAME`");
                }
                if additive && span(left) && span(right) {
                    d = d.help("give both in `tokens`, or leave out the `over` of one segment: it takes what the others leave");
                }
                self.push(d);
                return Kind::Poison;
            }
        };
        if op == BinaryOp::Div && b == Rational::ZERO {
            self.push(Diagnostic::error(codes::OUT_OF_RANGE, right.span, "division by zero", "this is zero"));
            return Kind::Poison;
        }
        match exact(a, b) {
            Some(v) => wrap(v),
            None => {
                self.overflow(span);
                Kind::Poison
            }
        }
    }
}

/// The name that `expr` is, where it is nothing else.
pub(super) fn lone_name(expr: &Expr) -> Option<&str> {
    let ExprKind::Path(path) = &expr.kind else { return None };
    match path.segments.as_slice() {
        [PathSegment::Name(name)] => Some(&name.text),
        _ => None,
    }
}

/// The field that names with dots between them reach, as in `where`.
fn dotted_name(expr: &Expr) -> Option<String> {
    let ExprKind::Path(path) = &expr.kind else { return None };
    let names = path.segments.iter().map(|segment| match segment {
        PathSegment::Name(name) => Some(name.text.as_str()),
        _ => None,
    });
    names.collect::<Option<Vec<_>>>().map(|names| names.join("."))
}
