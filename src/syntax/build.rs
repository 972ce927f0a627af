//! Matched entries to syntax tree. Reports what the grammar lets through on purpose because a
//! message can say more than a failed match: bad literals, chains of comparisons, entries that are
//! no entry.

use pest::iterators::Pair;

use super::ast::{
    Arg, Assert, Attr, BinaryOp, Each, EntryKind, Expr, ExprKind, Ident, ItemKind, Path, PathSegment, Pick,
    Picked, Str,
};
use super::grammar::Rule;
use super::literal::{Written, unescape};
use crate::diag::{Applicability, Diagnostic, codes};
use crate::source::{FileId, Span};

/// Trees deeper than this are reported and replaced by [`ExprKind::Error`], so that whoever walks
/// the tree may recurse.
pub(super) const MAX_DEPTH: u32 = 160;

type Node<'t> = Pair<'t, Rule>;

/// Turns the pairs of one entry, which starts at byte `base` of `file`, into tree.
pub(super) struct Builder {
    pub(super) file: FileId,
    pub(super) base: usize,
    /// All of the entry, without white space around it.
    pub(super) whole: Span,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// An expression and how deep it is.
struct Deep {
    expr: Expr,
    depth: u32,
}

/// A block's head.
pub(super) struct Head {
    pub(super) kind: Ident,
    pub(super) name: Option<Ident>,
    pub(super) each: Vec<Each>,
}

impl Builder {
    /// What the pair covers. Where a rule ends in something optional this may take in white space
    /// behind it, so nodes over such rules are placed by their children.
    fn span(&self, pair: &Node<'_>) -> Span {
        let span = pair.as_span();
        Span::new(self.file, self.base + span.start(), self.base + span.end())
    }

    pub(super) fn ident(&self, pair: &Node<'_>) -> Ident {
        Ident { text: pair.as_str().to_owned(), span: self.span(pair) }
    }

    fn string(&mut self, pair: &Node<'_>) -> Str {
        let span = self.span(pair);
        let text = unescape(pair.as_str()).unwrap_or_else(|range| {
            let at = Span::new(self.file, span.start as usize + range.start, span.start as usize + range.end);
            let escape = &pair.as_str()[range];
            let message = format!("unknown escape `{escape}` in a string");
            self.diagnostics.push(
                Diagnostic::error(codes::BAD_ESCAPE, at, message, "no such escape")
                    .help("the escapes are `\\\"`, `\\\\`, `\\n`, `\\t` and `\\r`")
                    .fix("write a plain backslash", Applicability::MaybeIncorrect, at, format!("\\{escape}")),
            );
            String::new()
        });
        Str { text, span }
    }

    /// `item` → its kind and span.
    pub(super) fn item(&mut self, pair: Node<'_>) -> Option<ItemKind> {
        let pair = pair.into_inner().next()?;
        let rule = pair.as_rule();
        let mut inner = pair.into_inner().filter(|p| !is_keyword(p.as_rule())).peekable();
        match rule {
            Rule::use_ => {
                let path = self.string(&inner.next()?);
                let alias = inner.next_if(|p| p.as_rule() == Rule::word).map(|p| self.ident(&p));
                let sha256 =
                    inner.next().and_then(|pin| pin.into_inner().next()).map(|pin| self.string(&pin));
                Some(ItemKind::Use { path, alias, sha256 })
            }
            Rule::param => {
                let name = self.ident(&inner.next()?);
                let ty = inner.next_if(|p| p.as_rule() == Rule::word).map(|p| self.ident(&p));
                Some(ItemKind::Param { name, ty, value: self.expr(inner.next()?) })
            }
            Rule::let_ => {
                let name = self.ident(&inner.next()?);
                Some(ItemKind::Let { name, value: self.expr(inner.next()?) })
            }
            Rule::assert_ => self.assertion(inner).map(ItemKind::Assert),
            Rule::bind => {
                let kind = self.ident(&inner.next()?);
                let name = self.ident(&inner.next()?);
                Some(ItemKind::Bind { kind, name, value: self.expr(inner.next()?) })
            }
            _ => None,
        }
    }

    fn assertion<'t>(&mut self, mut inner: impl Iterator<Item = Node<'t>>) -> Option<Assert> {
        let condition = self.expr(inner.next()?);
        let why = inner.next().map(|p| self.string(&p));
        Some(Assert { condition, why, span: self.whole })
    }

    /// `entry` → its kind; `None` after reporting that it is no entry.
    pub(super) fn entry(&mut self, pair: Node<'_>) -> Option<EntryKind> {
        let pair = pair.into_inner().next()?;
        let rule = pair.as_rule();
        if rule == Rule::expr {
            let expr = self.expr(pair);
            return self.constraint(expr);
        }
        let mut inner = pair.into_inner().filter(|p| !is_keyword(p.as_rule()));
        match rule {
            Rule::assert_ => self.assertion(inner).map(EntryKind::Assert),
            Rule::field => {
                let key = self.path(inner.next()?);
                Some(EntryKind::Field { key, value: self.expr(inner.next()?) })
            }
            _ => None,
        }
    }

    fn constraint(&mut self, expr: Expr) -> Option<EntryKind> {
        match expr.kind {
            ExprKind::Binary { op, .. }
                if !matches!(op, BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Div) =>
            {
                Some(EntryKind::Constraint(expr))
            }
            // Already reported.
            ExprKind::Error => None,
            ExprKind::Not(_) => Some(EntryKind::Constraint(expr)),
            ExprKind::Apply { word, arg } => {
                let gap = Span { end: arg.span.start, start: word.span.end, ..word.span };
                self.diagnostics.push(
                    Diagnostic::error(
                        codes::WRONG_SIGN,
                        word.span.to(arg.span),
                        format!("no `=` between `{}` and its value", word.text),
                        "a field is `key = value`",
                    )
                    .fix("insert `=`", Applicability::MachineApplicable, gap, " = "),
                );
                let key = Path { span: word.span, segments: vec![PathSegment::Name(word)] };
                Some(EntryKind::Field { key, value: *arg })
            }
            ExprKind::Path(path) => {
                self.diagnostics.push(Diagnostic::error(
                    codes::MISSING_VALUE,
                    path.span,
                    "a key without a value",
                    "a field is `key = value`",
                ));
                let value = Expr { kind: ExprKind::Error, span: path.span };
                Some(EntryKind::Field { key: path, value })
            }
            _ => {
                self.diagnostics.push(Diagnostic::error(
                    codes::UNEXPECTED,
                    expr.span,
                    "a value that belongs to no field",
                    "an entry is `key = value`, a comparison or a block",
                ));
                None
            }
        }
    }

    /// `head`.
    pub(super) fn head(&mut self, pair: Node<'_>) -> Option<Head> {
        let mut inner = pair.into_inner().peekable();
        let kind = self.ident(&inner.next()?);
        let name = inner.next_if(|p| p.as_rule() == Rule::word).map(|p| self.ident(&p));
        let each = inner.next_if(|p| p.as_rule() == Rule::each).map(Pair::into_inner).into_iter().flatten();
        Some(Head { kind, name, each: each.filter_map(|p| self.each(p)).collect() })
    }

    fn each(&mut self, pair: Node<'_>) -> Option<Each> {
        let mut inner = pair.into_inner().filter(|p| !is_keyword(p.as_rule()));
        let var = self.ident(&inner.next()?);
        Some(Each { var, values: self.expr(inner.next()?) })
    }

    /// `attribute`.
    pub(super) fn attribute(&mut self, pair: Node<'_>) -> Option<Attr> {
        let start = self.span(&pair);
        let mut inner = pair.into_inner();
        let name = self.ident(&inner.next()?);
        let mut span = Span { start: start.start, ..name.span };
        let mut args = Vec::new();
        if let Some(pair) = inner.next().filter(|p| p.as_rule() == Rule::args) {
            span = span.to(self.span(&pair));
            args = self.args(pair).0;
        }
        Some(Attr { name, args, span })
    }

    /// `expr`; [`ExprKind::Error`] after reporting what is wrong with it.
    pub(super) fn expr(&mut self, pair: Node<'_>) -> Expr {
        self.deep(pair).expr
    }

    fn error(&self, span: Span) -> Deep {
        Deep { expr: Expr { kind: ExprKind::Error, span }, depth: 1 }
    }

    /// Put a node over children of depth `below`.
    fn over(&mut self, kind: ExprKind, span: Span, below: u32) -> Deep {
        if below < MAX_DEPTH {
            return Deep { expr: Expr { kind, span }, depth: below + 1 };
        }
        self.diagnostics.push(
            Diagnostic::error(codes::TOO_DEEP, span, "an expression nested too deeply", "too deep")
                .note(format!("at most {MAX_DEPTH} operators and brackets may stand inside one another"))
                .help("name a part of it with `let`"),
        );
        self.error(span)
    }

    fn deep(&mut self, pair: Node<'_>) -> Deep {
        let span = self.span(&pair);
        let rule = pair.as_rule();
        match rule {
            Rule::quantity => self.quantity(pair),
            Rule::string => {
                let kind = ExprKind::Str(self.string(&pair).text);
                self.over(kind, span, 0)
            }
            Rule::list => {
                let (mut items, mut below) = (Vec::new(), 0);
                for item in pair.into_inner() {
                    let item = self.deep(item);
                    below = below.max(item.depth);
                    items.push(item.expr);
                }
                self.over(ExprKind::List(items), span, below)
            }
            Rule::reference => self.reference(pair),
            Rule::any_of | Rule::all_of | Rule::relation | Rule::sum | Rule::product => self.chain(pair),
            _ => {
                let mut inner = pair.into_inner().peekable();
                let prefix = inner.next_if(|p| matches!(p.as_rule(), Rule::kw_not | Rule::minus));
                let Some(first) = inner.next() else { return self.error(span) };
                let first = self.deep(first);
                let prefixed = Span { end: first.expr.span.end, ..span };
                let mut rest = inner.filter(|p| !is_keyword(p.as_rule())).peekable();
                match (rule, prefix.is_some(), rest.peek().is_some()) {
                    (Rule::paren, ..) => {
                        let depth = first.depth;
                        self.over(ExprKind::Paren(Box::new(first.expr)), span, depth)
                    }
                    (Rule::unary, true, _) => {
                        let depth = first.depth;
                        self.over(ExprKind::Neg(Box::new(first.expr)), prefixed, depth)
                    }
                    (Rule::inverse, true, _) => {
                        let depth = first.depth;
                        self.over(ExprKind::Not(Box::new(first.expr)), prefixed, depth)
                    }
                    (_, _, false) => first,
                    (Rule::expr, ..) => {
                        let mut below = first.depth;
                        let mut parts = vec![first.expr];
                        for part in rest {
                            let part = self.deep(part);
                            below = below.max(part.depth);
                            parts.push(part.expr);
                        }
                        let end = parts.last().map_or(prefixed.end, |last| last.span.end);
                        self.over(ExprKind::Then(parts), Span { end, ..span }, below)
                    }
                    _ => {
                        let Some(second) = rest.next() else { return first };
                        let second = self.deep(second);
                        let below = first.depth.max(second.depth);
                        let span = first.expr.span.to(second.expr.span);
                        let (left, right) = (Box::new(first.expr), Box::new(second.expr));
                        let kind = if rule == Rule::share {
                            ExprKind::Of { share: left, whole: right }
                        } else {
                            ExprKind::Where { subject: left, predicate: right }
                        };
                        self.over(kind, span, below)
                    }
                }
            }
        }
    }

    /// A chain of binary operators of one strength, left to right.
    fn chain(&mut self, pair: Node<'_>) -> Deep {
        let span = self.span(&pair);
        let comparison = pair.as_rule() == Rule::relation;
        let mut inner = pair.into_inner();
        let Some(first) = inner.next() else { return self.error(span) };
        let mut left = self.deep(first);
        let mut first_op: Option<Span> = None;
        while let (Some(op), Some(right)) = (inner.next(), inner.next()) {
            let op_span = self.span(&op);
            if comparison && let Some(first_op) = first_op {
                self.diagnostics.push(
                    Diagnostic::error(
                        codes::CHAINED_COMPARISON,
                        op_span,
                        "a chain of comparisons",
                        "compares the outcome of another comparison",
                    )
                    .label(first_op, "the first comparison")
                    .help("write two comparisons joined by `and`"),
                );
                return self.error(span);
            }
            first_op = Some(op_span);
            let Some(op) = binary_op(op.as_str()) else { return self.error(span) };
            let right = self.deep(right);
            let below = left.depth.max(right.depth);
            let whole = left.expr.span.to(right.expr.span);
            let kind =
                ExprKind::Binary { op, op_span, left: Box::new(left.expr), right: Box::new(right.expr) };
            left = self.over(kind, whole, below);
            if matches!(left.expr.kind, ExprKind::Error) {
                return self.error(span);
            }
        }
        left
    }

    fn reference(&mut self, pair: Node<'_>) -> Deep {
        let start = self.span(&pair);
        let mut inner = pair.into_inner();
        let Some(path) = inner.next() else { return self.error(start) };
        let path = self.path(path);
        match inner.next() {
            None => {
                let span = path.span;
                self.over(ExprKind::Path(path), span, 0)
            }
            Some(args) if args.as_rule() == Rule::args => {
                let span = path.span.to(self.span(&args));
                let (args, below) = self.args(args);
                self.over(ExprKind::Call { callee: path, args }, span, below)
            }
            Some(quantity) => {
                let quantity = self.deep(quantity);
                let span = path.span.to(quantity.expr.span);
                match <[PathSegment; 1]>::try_from(path.segments) {
                    Ok([PathSegment::Name(word)]) => {
                        let below = quantity.depth;
                        self.over(ExprKind::Apply { word, arg: Box::new(quantity.expr) }, span, below)
                    }
                    _ => {
                        self.diagnostics.push(Diagnostic::error(
                            codes::UNEXPECTED,
                            quantity.expr.span,
                            "a number after a path",
                            "nothing joins it to the path",
                        ));
                        self.error(span)
                    }
                }
            }
        }
    }

    fn args(&mut self, pair: Node<'_>) -> (Vec<Arg>, u32) {
        let (mut args, mut below) = (Vec::new(), 0);
        for arg in pair.into_inner() {
            let span = self.span(&arg);
            let mut inner = arg.into_inner().peekable();
            let name = inner
                .next_if(|p| p.as_rule() == Rule::label)
                .and_then(|label| label.into_inner().next())
                .map(|word| self.ident(&word));
            let Some(value) = inner.next() else { continue };
            let value = self.deep(value);
            below = below.max(value.depth);
            let span = Span { end: value.expr.span.end.max(span.start), ..span };
            args.push(Arg { name, value: value.expr, span });
        }
        (args, below)
    }

    /// `path` or `key`.
    pub(super) fn path(&mut self, pair: Node<'_>) -> Path {
        let span = self.span(&pair);
        let segments = pair.into_inner().map(|part| match part.as_rule() {
            Rule::pick => PathSegment::Pick(self.pick(part)),
            _ => PathSegment::Name(self.ident(&part)),
        });
        Path { segments: segments.collect(), span }
    }

    fn pick(&mut self, pair: Node<'_>) -> Pick {
        let span = self.span(&pair);
        let values = pair.into_inner().map(|part| {
            let span = self.span(&part);
            match part.as_rule() {
                Rule::star => Picked::Every(span),
                Rule::word => {
                    let path = Path { segments: vec![PathSegment::Name(self.ident(&part))], span };
                    Picked::One(Expr { kind: ExprKind::Path(path), span })
                }
                _ => Picked::One(self.expr(part)),
            }
        });
        Pick { values: values.collect(), span }
    }

    fn quantity(&mut self, pair: Node<'_>) -> Deep {
        let span = self.span(&pair);
        let mut inner = pair.into_inner().peekable();
        let Some(number) = inner.next() else { return self.error(span) };
        let number_span = self.span(&number);
        let percent = inner.next_if(|p| p.as_rule() == Rule::percent).map(|p| self.span(&p));
        let units = inner.map(|unit| (unit.as_str(), self.span(&unit))).collect();
        match (Written { number: number.as_str(), number_span, percent, units }).read() {
            Ok(quantity) => self.over(ExprKind::Quantity(quantity), span, 0),
            Err(diagnostic) => {
                self.diagnostics.push(*diagnostic);
                self.error(span)
            }
        }
    }
}

fn is_keyword(rule: Rule) -> bool {
    matches!(
        rule,
        Rule::kw_use
            | Rule::kw_as
            | Rule::kw_param
            | Rule::kw_let
            | Rule::kw_assert
            | Rule::kw_in
            | Rule::kw_then
            | Rule::kw_where
            | Rule::kw_of
            | Rule::EOI
    )
}

fn binary_op(text: &str) -> Option<BinaryOp> {
    Some(match text {
        "or" => BinaryOp::Or,
        "and" => BinaryOp::And,
        "==" => BinaryOp::Eq,
        "!=" => BinaryOp::Ne,
        "<" => BinaryOp::Lt,
        "<=" => BinaryOp::Le,
        ">" => BinaryOp::Gt,
        ">=" => BinaryOp::Ge,
        "+" => BinaryOp::Add,
        "-" => BinaryOp::Sub,
        "*" => BinaryOp::Mul,
        "/" => BinaryOp::Div,
        _ => return None,
    })
}
