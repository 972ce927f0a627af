//! `source` blocks and derived sources.

use crate::diag::{Applicability, Diagnostic};
use crate::schema::{self, Family, Ty};
use crate::syntax::ast::{self, BinaryOp, Expr, ExprKind, PathSegment};

use super::checker::{Checker, Resolved};
use super::curriculum::Source;
use super::eval::Scope;
use super::measured::{self, Count};
use super::program::{DefId, DefKind, Lookup};
use super::show;
use super::value::{Entity, Kind, Val};
use crate::diag::codes;

impl<'p> Checker<'p> {
    /// A `source` block.
    pub(crate) fn resolve_source(
        &mut self,
        id: DefId,
        block: &'p ast::Block,
        scope: &Scope<'p>,
    ) -> Option<usize> {
        let name = block.name.as_ref()?;
        let fields = self.fields(block)?;
        let mut sound = !block.incomplete;
        macro_rules! read {
            ($field:literal, |$v:ident| $read:expr) => {
                match self.field(&fields, $field, scope) {
                    Some($v) => {
                        let value = $read;
                        sound &= value.is_some();
                        value
                    }
                    None => None,
                }
            };
        }
        let path = read!("path", |v| self.paths(&v, "path")).unwrap_or_default();
        let kind = read!("kind", |v| self.word(&v, schema::KINDS, "kind")).unwrap_or("other");
        let tokens = read!("tokens", |v| self.tokens(&v, "tokens"));
        let text = read!("text", |v| self.template(&v));
        let filter = read!("where", |v| self.predicate(&v));
        let synthetic = read!("synthetic", |v| self.yes_no(&v, "synthetic")).unwrap_or(false);
        let validation = read!("validation", |v| self.yes_no(&v, "validation")).unwrap_or(false);
        let max_epochs = read!("max_epochs", |v| self.epochs(&v)).unwrap_or(4.0);
        let fim = read!("fim", |v| self.fim(&v));
        let loss_on = read!("loss_on", |v| self.loss_on(&v, text.as_deref())).unwrap_or_default();
        let today = read!("today", |v| self.day(&v));
        let order = read!("order", |v| self.data_order(&v)).unwrap_or_else(|| "shuffled".to_owned());
        let dedup = read!("dedup", |v| self.word(&v, schema::DEDUP, "dedup")).is_some();
        let exclude = read!("exclude", |v| self.paths(&v, "exclude")).unwrap_or_default();
        if !sound {
            return None;
        }
        let mut source = Source {
            name: self.full_name(id),
            doc: self.program.item(id).preface.doc(),
            span: name.span,
            path,
            kind,
            tokens,
            heldout: None,
            text,
            filter,
            max_epochs,
            fim,
            loss_on,
            today,
            synthetic,
            validation,
            order,
            dedup,
            exclude,
            parent: None,
            fields: fields.spans(),
        };
        if let Some(count) = self.measured(&source) {
            let (tokens, heldout) = (count.tokens, count.heldout());
            source.tokens = source.tokens.or(Some(tokens));
            source.heldout = heldout;
        }
        self.out.sources.push(source);
        Some(self.out.sources.len() - 1)
    }

    /// A source as `midc data --save` counted it.
    fn measured(&mut self, source: &Source) -> Option<&Count> {
        self.counted(&source.name).filter(|known| known.tokens > 0 && known.is_of(source))
    }

    /// Whether `source` was counted when it read something else.
    pub(crate) fn counted_otherwise(&mut self, source: &Source) -> bool {
        self.counted(&source.name).is_some_and(|known| !known.is_of(source))
    }

    fn counted(&mut self, name: &str) -> Option<&Count> {
        let root = self.program.modules[0].file;
        self.measured.get_or_insert_with(|| measured::counts(self.files, root)).get(name)
    }

    /// `source long = books where length >= 16Ki`.
    pub(crate) fn resolve_part(&mut self, id: DefId, value: &'p Expr, scope: &Scope<'p>) -> Option<usize> {
        let ExprKind::Where { subject, predicate } = &value.kind else {
            if !matches!(value.kind, ExprKind::Error) {
                self.push(
                    Diagnostic::error(
                        codes::WRONG_VALUE,
                        value.span,
                        "a source is bound to a part of another",
                        "`where` is missing",
                    )
                    .help("write `source long_books = books where length >= 16Ki`"),
                );
            }
            return None;
        };
        let base = self.eval(subject, scope);
        let Kind::Entity(Entity::Source(parent)) = base.kind else {
            if !base.is_poison() {
                let found = base.describe();
                self.push(Diagnostic::error(
                    codes::WRONG_KIND,
                    base.span,
                    format!("a part of {found}"),
                    "only sources have parts",
                ));
            }
            return None;
        };
        let Resolved::Source(parent) = self.resolved[parent.index()] else { return None };
        let predicate = self.predicate(&Val { kind: Kind::Condition(predicate), span: predicate.span })?;
        let whole = self.out.sources[parent].clone();
        let filter = match &whole.filter {
            Some(outer) => format!("({outer}) and ({predicate})"),
            None => predicate,
        };
        let def = self.program.def(id);
        let mut part = Source {
            name: self.full_name(id),
            doc: self.program.item(id).preface.doc(),
            span: def.name_span,
            filter: Some(filter),
            tokens: None,
            heldout: None,
            parent: Some(parent),
            ..whole
        };
        // How much of the whole it is, only `midc data` can tell.
        if let Some(count) = self.measured(&part) {
            (part.tokens, part.heldout) = (Some(count.tokens), count.heldout());
        }
        self.out.sources.push(part);
        Some(self.out.sources.len() - 1)
    }

    fn epochs(&mut self, value: &Val<'p>) -> Option<f64> {
        match value.kind {
            Kind::Quantity(n, ast::Unit::Epochs) | Kind::Number(n) if n > ast::Rational::ZERO => {
                Some(show::real(n))
            }
            _ => self.positive(value, "max_epochs"),
        }
    }

    fn fim(&mut self, value: &Val<'p>) -> Option<(f64, &'static str)> {
        let Kind::Call(call) = &value.kind else {
            self.wrong(value, Ty::Fim, "fim");
            return None;
        };
        if call.function.family != Family::Fim {
            self.wrong(value, Ty::Fim, "fim");
            return None;
        }
        let call = call.clone();
        let rate = self.share(&call.arg("rate")?.clone(), "rate")?;
        let style = match call.arg("style").cloned() {
            Some(v) => self.word(&v, schema::PSM, "style")?,
            None => "psm",
        };
        Some((show::real(rate), style))
    }

    fn data_order(&mut self, value: &Val<'p>) -> Option<String> {
        match &value.kind {
            Kind::Word(_) | Kind::Text(..) => self.word(value, schema::ORDERS, "order").map(str::to_owned),
            Kind::Call(call) if call.function.family == Family::Order => match call.positional.as_slice() {
                [Val { kind: Kind::Poison, .. }] => None,
                [Val { kind: Kind::Text(field, _), .. }] => Some(format!("{}({field})", call.function.name)),
                _ => {
                    let (name, span) = (call.function.name, call.span);
                    self.push(
                        Diagnostic::error(
                            codes::MISSING_ARGUMENT,
                            span,
                            format!("`{name}` takes the name of one field"),
                            "by which field?",
                        )
                        .help(format!("write `{name}(difficulty)`")),
                    );
                    None
                }
            },
            _ => {
                self.wrong(value, Ty::Order, "order");
                None
            }
        }
    }

    /// A predicate over records, checked and printed in its canonical form: numbers without
    /// magnitudes, strings quoted, parentheses where `and` and `or` meet.
    pub(crate) fn predicate(&mut self, value: &Val<'p>) -> Option<String> {
        match value.kind {
            Kind::Condition(expr) => self.canonical(expr),
            _ => {
                self.wrong(value, Ty::Predicate, "where");
                None
            }
        }
    }

    fn canonical(&mut self, expr: &'p Expr) -> Option<String> {
        match &expr.kind {
            ExprKind::Paren(inner) => self.canonical(inner).map(|t| format!("({t})")),
            ExprKind::Not(inner) => self.canonical(inner).map(|t| format!("not {t}")),
            ExprKind::Path(path) => match self.stands_for(path) {
                Some(Val { kind: Kind::Condition(inner), .. }) => {
                    self.canonical(inner).map(|t| format!("({t})"))
                }
                Some(value) => self.no_operand(&value, "a condition or the name of a field is expected here"),
                None => Some(self.text(path.span)),
            },
            ExprKind::Binary { op, left, right, .. } => {
                let sign = match op {
                    BinaryOp::Or => "or",
                    BinaryOp::And => "and",
                    BinaryOp::Eq => "==",
                    BinaryOp::Ne => "!=",
                    BinaryOp::Lt => "<",
                    BinaryOp::Le => "<=",
                    BinaryOp::Gt => ">",
                    BinaryOp::Ge => ">=",
                    BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div => {
                        return self.not_a_predicate(expr);
                    }
                };
                let logical = matches!(op, BinaryOp::And | BinaryOp::Or);
                let side = |this: &mut Self, e: &'p Expr| {
                    if logical { this.canonical(e) } else { this.operand(e) }
                };
                if !logical && (is_length(left) && is_text(right) || is_text(left) && is_length(right)) {
                    return self.length_of_text(if is_text(right) { right } else { left });
                }
                if !logical && !self.is_of_record(left) && !self.is_of_record(right) {
                    self.push(
                        Diagnostic::error(
                            codes::NOT_A_CONDITION,
                            expr.span,
                            "a comparison that no record decides",
                            "neither side is a field",
                        )
                        .help("a name that a `param` or `let` has stands for its value: give that another name where a field is meant"),
                    );
                    return None;
                }
                let (left, right) = (side(self, left), side(self, right));
                Some(format!("{} {sign} {}", left?, right?))
            }
            ExprKind::Error => None,
            _ => self.not_a_predicate(expr),
        }
    }

    /// A number of tokens is neither more nor less than a text: no record would pass.
    fn length_of_text<T>(&mut self, text: &'p Expr) -> Option<T> {
        let mut d = Diagnostic::error(
            codes::WRONG_VALUE,
            text.span,
            "`length` compared with a string",
            "`length` is a number of tokens",
        );
        if let ExprKind::Str(inner) = &text.kind
            && inner.starts_with(|c: char| c.is_ascii_digit())
            && inner.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
        {
            d = d.fix("take the quotes away", Applicability::MaybeIncorrect, text.span, inner.clone());
        }
        self.push(d);
        None
    }

    /// Names of what is trained on, some of which the template has, if there is one. A field that is named alone may
    /// hold a dialogue, whose roles only its records know.
    fn loss_on(&mut self, value: &Val<'p>, template: Option<&str>) -> Option<Vec<String>> {
        let names = self.names(value, "loss_on")?;
        if names.is_empty() {
            self.push(
                Diagnostic::error(
                    codes::WRONG_VALUE,
                    value.span,
                    "`loss_on` names nothing",
                    "nothing would be trained on",
                )
                .help("leave it out to train on every token"),
            );
            return None;
        }
        let fields = template.map(template_fields).unwrap_or_default();
        if fields.is_empty() {
            return Some(names);
        }
        let unknown = names.iter().find(|name| !fields.contains(&name.as_str()));
        let Some(unknown) = unknown.filter(|_| !names.iter().any(|n| fields.contains(&n.as_str()))) else {
            return Some(names);
        };
        let near = crate::diag::suggest::nearest(unknown, fields.iter().copied());
        let all = fields.iter().map(|f| format!("`{f}`")).collect::<Vec<_>>().join(", ");
        let d = Diagnostic::error(
            codes::WRONG_VALUE,
            value.span,
            format!("`loss_on` names `{unknown}`, which the text is not made of"),
            "nothing would be trained on",
        );
        self.push(d.help(match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the text is made of {all}"),
        }));
        None
    }

    /// A template of a record's text must be readable as the reader of the data will read it.
    fn template(&mut self, value: &Val<'p>) -> Option<String> {
        let text = self.string(value, "text")?;
        let Some(fault) = template_fault(&text) else { return Some(text) };
        self.push(
            Diagnostic::error(codes::WRONG_VALUE, value.span, "a template that cannot be read", fault)
                .help("write a field name, or a template such as `\"{question}\\n{answer}\"`; a literal brace is `{{` or `}}`"),
        );
        None
    }

    /// A day of the calendar, as it is written.
    fn day(&mut self, value: &Val<'p>) -> Option<String> {
        let text = self.string(value, "today")?;
        if text.len() == 10 && chrono::NaiveDate::parse_from_str(&text, "%Y-%m-%d").is_ok() {
            return Some(text);
        }
        self.push(
            Diagnostic::error(
                codes::WRONG_VALUE,
                value.span,
                format!("`{text}` is no day"),
                "year, month, day?",
            )
            .help("write it as `\"2025-07-08\"`"),
        );
        None
    }

    fn operand(&mut self, expr: &'p Expr) -> Option<String> {
        match &expr.kind {
            ExprKind::Path(path) if path.segments.iter().all(|s| matches!(s, PathSegment::Name(_))) => {
                let Some(value) = self.stands_for(path) else { return Some(self.text(path.span)) };
                match value.kind {
                    Kind::Number(n) | Kind::Quantity(n, ast::Unit::Tokens) => Some(decimal(n)),
                    Kind::Real(n) => Some(n.to_string()),
                    Kind::Text(ref text, _) => Some(format!("{text:?}")),
                    Kind::Bool(holds) => Some(holds.to_string()),
                    Kind::Word(word @ ("yes" | "no")) => Some((word == "yes").to_string()),
                    _ => self.no_operand(&value, "a field is compared with a number or a string"),
                }
            }
            ExprKind::Quantity(q) if q.unit.is_none() || q.unit == Some(ast::Unit::Tokens) => {
                Some(decimal(q.value))
            }
            ExprKind::Str(text) => Some(format!("{text:?}")),
            // A name may stand for what is negative already.
            ExprKind::Neg(inner) => {
                let text = self.operand(inner)?;
                Some(text.strip_prefix('-').map_or_else(|| format!("-{text}"), str::to_owned))
            }
            ExprKind::Paren(inner) => self.operand(inner),
            ExprKind::Error => None,
            _ => self.not_a_predicate(expr),
        }
    }

    /// What a name in a condition stands for where it is that of a `param` or a `let`; a field of the record
    /// otherwise.
    fn stands_for(&mut self, path: &'p ast::Path) -> Option<Val<'p>> {
        let module = self.program.modules.iter().position(|m| m.file == path.span.file)?;
        let Lookup::Def(id, used) = self.program.lookup(module, path) else { return None };
        let value = matches!(self.program.def(id).kind, DefKind::Param | DefKind::Let);
        (value && used == path.segments.len()).then(|| self.eval_path(path, &Scope::top(module)))
    }

    /// Whether a side of a comparison differs from record to record, or is wrong, which has its own message.
    fn is_of_record(&mut self, expr: &'p Expr) -> bool {
        match &expr.kind {
            ExprKind::Paren(inner) | ExprKind::Neg(inner) => self.is_of_record(inner),
            ExprKind::Path(path) => self.stands_for(path).is_none_or(|value| value.is_poison()),
            ExprKind::Quantity(_) | ExprKind::Str(_) => false,
            _ => true,
        }
    }

    /// A value that has no place in a condition on a record.
    fn no_operand<T>(&mut self, value: &Val<'p>, wanted: &str) -> Option<T> {
        if !value.is_poison() {
            let message = format!("{} in a condition on a record", value.describe());
            self.push(Diagnostic::error(codes::NOT_A_CONDITION, value.span, message, wanted));
        }
        None
    }

    fn not_a_predicate(&mut self, expr: &'p Expr) -> Option<String> {
        self.push(
            Diagnostic::error(
                codes::NOT_A_CONDITION,
                expr.span,
                "not a condition on a record",
                "compare a field or `length` with a value here",
            )
            .help("for example `where = int_score >= 4 and length >= 8Ki`"),
        );
        None
    }
}

fn is_length(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Path(path)
        if matches!(path.segments.as_slice(), [PathSegment::Name(name)] if name.text == "length"))
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Str(_))
}

fn decimal(n: ast::Rational) -> String {
    show::decimal(n).unwrap_or_else(|| show::real(n).to_string())
}

/// The fields in braces of a template without faults.
fn template_fields(text: &str) -> Vec<&str> {
    let mut fields = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            rest = after;
        } else if let Some(end) = rest.find('}') {
            fields.push(rest[..end].trim());
            rest = &rest[end + 1..];
        }
    }
    fields
}

/// What is wrong with the braces of a template.
fn template_fault(text: &str) -> Option<&'static str> {
    if text.trim().is_empty() {
        return Some("names no field");
    }
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.peek() == Some(&c) => {
                chars.next();
            }
            '{' => {
                let mut empty = true;
                loop {
                    match chars.next() {
                        Some('}') if empty => return Some("a field without a name"),
                        Some('}') => break,
                        Some(c) if c != '{' => empty &= c.is_whitespace(),
                        _ => return Some("a `{` is not closed"),
                    }
                }
            }
            '}' => return Some("a `}` without a `{`"),
            _ => {}
        }
    }
    None
}
