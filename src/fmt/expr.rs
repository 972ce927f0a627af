//! Expressions to text, broken over lines where they must be.

use crate::source::Span;
use crate::syntax::ast::{Arg, Attr, BinaryOp, Comment, Expr, ExprKind, Path, PathSegment, Picked};

use super::WIDTH;

/// Blanks per level.
pub(super) const STEP: usize = 2;

/// Where an expression is written.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Characters before it on its line.
    pub(super) column: usize,
    /// Indentation of the line its entry starts on.
    pub(super) indent: usize,
    /// Characters that must follow on its last line.
    pub(super) tail: usize,
}

/// Writes expressions of one text.
pub(super) struct Writer<'a> {
    pub(super) text: &'a str,
    /// All comments, in order.
    pub(super) comments: &'a [Comment],
}

/// One element of a broken list, with the comments around it.
struct Element {
    /// Comments on lines of their own before it.
    before: Vec<String>,
    text: String,
    /// A comment behind it on its last line.
    behind: Option<String>,
}

impl Writer<'_> {
    pub(super) fn source(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or_default()
    }

    /// The comments that start inside `start..end`.
    pub(super) fn comments_in(&self, start: u32, end: u32) -> &[Comment] {
        let from = self.comments.partition_point(|c| c.span.start < start);
        let to = self.comments.partition_point(|c| c.span.start < end);
        &self.comments[from..to.max(from)]
    }

    fn has_comments(&self, span: Span) -> bool {
        !self.comments_in(span.start, span.end).is_empty()
    }

    fn newline_between(&self, start: u32, end: u32) -> bool {
        self.text.get(start as usize..end as usize).is_some_and(|gap| gap.contains('\n'))
    }

    /// Whether every comment inside `expr` stands where a broken form has room for it: between the
    /// elements of a list, call or chain.
    pub(super) fn has_room(&self, expr: &Expr) -> bool {
        if !self.has_comments(expr.span) {
            return true;
        }
        let children = children(expr);
        let inside: usize = children.iter().map(|c| self.comments_in(c.span.start, c.span.end).len()).sum();
        let between = self.comments_in(expr.span.start, expr.span.end).len() - inside;
        let room = match &expr.kind {
            ExprKind::List(_) | ExprKind::Call { .. } => {
                // Not between an argument's name and its value, nor before the bracket.
                let named = args(expr)
                    .iter()
                    .any(|arg| !self.comments_in(arg.span.start, arg.value.span.start).is_empty());
                let head = match &expr.kind {
                    ExprKind::Call { callee, .. } => callee.span.end,
                    _ => expr.span.start,
                };
                let first = children.first().map_or(expr.span.end, |c| c.span.start);
                let opens = self.text.get(head as usize..first as usize).and_then(|t| t.find(['(', '[']));
                let early = opens.map_or(0, |at| self.comments_in(head, head + at as u32).len());
                !named && early == 0 && !children.is_empty()
            }
            ExprKind::Then(parts) => parts.windows(2).all(|pair| {
                // A comment after the word would have to jump over it.
                let gap = Span { start: pair[0].span.end, end: pair[1].span.start, ..expr.span };
                let last = self.comments_in(gap.start, gap.end).last().map_or(gap.start, |c| c.span.end);
                self.source(Span { start: last, ..gap }).contains("then")
            }),
            _ => between == 0,
        };
        room && children.iter().all(|child| self.has_room(child))
    }

    /// Whether the author broke `expr`, or a comment inside breaks it.
    fn is_broken(&self, expr: &Expr) -> bool {
        if self.has_comments(expr.span) {
            return true;
        }
        let own = match &expr.kind {
            ExprKind::Then(parts) => {
                parts.len() > 1 && self.newline_between(parts[0].span.end, parts[1].span.start)
            }
            ExprKind::List(items) => {
                items.first().is_some_and(|first| self.newline_between(expr.span.start, first.span.start))
            }
            ExprKind::Call { callee, args } => {
                args.first().is_some_and(|arg| self.newline_between(callee.span.end, arg.span.start))
            }
            ExprKind::Binary { op: BinaryOp::And | BinaryOp::Or, op_span, left, .. } => {
                self.newline_between(left.span.end, op_span.start)
            }
            _ => false,
        };
        own || children(expr).iter().any(|child| self.is_broken(child))
    }

    /// `expr` on one line.
    pub(super) fn flat(&self, expr: &Expr) -> String {
        let list = |items: &[Expr]| items.iter().map(|e| self.flat(e)).collect::<Vec<_>>().join(", ");
        match &expr.kind {
            ExprKind::Quantity(_) => {
                // As written, with one blank before the unit.
                self.source(expr.span).split_whitespace().collect::<Vec<_>>().join(" ")
            }
            ExprKind::Str(_) | ExprKind::Error => self.source(expr.span).to_owned(),
            ExprKind::Path(path) => self.path(path),
            ExprKind::List(items) => format!("[{}]", list(items)),
            ExprKind::Call { callee, args } => format!("{}({})", self.path(callee), self.args(args)),
            ExprKind::Apply { word, arg } => format!("{} {}", word.text, self.flat(arg)),
            ExprKind::Neg(inner) => format!("-{}", self.flat(inner)),
            ExprKind::Not(inner) => format!("not {}", self.flat(inner)),
            ExprKind::Binary { op, left, right, .. } => {
                format!("{} {} {}", self.flat(left), sign(*op), self.flat(right))
            }
            ExprKind::Of { share, whole } => format!("{} of {}", self.flat(share), self.flat(whole)),
            ExprKind::Then(parts) => parts.iter().map(|e| self.flat(e)).collect::<Vec<_>>().join(" then "),
            ExprKind::Where { subject, predicate } => {
                format!("{} where {}", self.flat(subject), self.flat(predicate))
            }
            ExprKind::Paren(inner) => format!("({})", self.flat(inner)),
        }
    }

    fn args(&self, args: &[Arg]) -> String {
        args.iter()
            .map(|arg| format!("{}{}", label(arg), self.flat(&arg.value)))
            .collect::<Vec<_>>()
            .join(", ")
    }

    pub(super) fn path(&self, path: &Path) -> String {
        let mut out = String::new();
        for segment in &path.segments {
            match segment {
                PathSegment::Name(name) => {
                    if !out.is_empty() {
                        out.push('.');
                    }
                    out.push_str(&name.text);
                }
                PathSegment::Pick(pick) => {
                    let values = pick.values.iter().map(|picked| match picked {
                        Picked::One(value) => self.flat(value),
                        Picked::Every(_) => "*".to_owned(),
                    });
                    out.push('[');
                    out.push_str(&values.collect::<Vec<_>>().join(", "));
                    out.push(']');
                }
            }
        }
        out
    }

    /// An attribute on one line.
    pub(super) fn attr(&self, attr: &Attr) -> String {
        // `@assumed()` keeps its brackets.
        let brackets = self.source(attr.span).trim_end().ends_with(')');
        let args = if brackets { format!("({})", self.args(&attr.args)) } else { String::new() };
        format!("@{}{args}", attr.name.text)
    }

    /// `expr` at `place`, over several lines if it was or must be.
    pub(super) fn write(&self, expr: &Expr, place: Place) -> String {
        if !self.is_broken(expr) {
            let flat = self.flat(expr);
            if place.column + flat.chars().count() + place.tail <= WIDTH || !breakable(expr) {
                return flat;
            }
        }
        let Place { column, indent, tail } = place;
        match &expr.kind {
            ExprKind::Then(parts) => self.chain(expr, parts, place),
            ExprKind::List(items) => {
                if items.iter().all(|e| matches!(e.kind, ExprKind::Quantity(_) | ExprKind::Neg(_)))
                    && !self.has_comments(expr.span)
                {
                    return self.filled(items, indent);
                }
                let elements: Vec<(Span, String, &Expr)> =
                    items.iter().map(|e| (e.span, String::new(), e)).collect();
                let lines = self.elements(expr.span.start, expr.span.end, &elements, indent);
                format!("[\n{lines}{}]", " ".repeat(indent))
            }
            ExprKind::Call { callee, args } if !args.is_empty() => {
                let name = self.path(callee);
                if !self.own_break(expr) && args.len() == 1 && !self.has_comments(expr.span) {
                    // One argument that breaks well by itself hugs the brackets.
                    let arg = &args[0];
                    if matches!(arg.value.kind, ExprKind::List(_) | ExprKind::Call { .. }) {
                        let label = label(arg);
                        let column = column + name.len() + 1 + label.len();
                        let inner = self.write(&arg.value, Place { column, indent, tail: tail + 1 });
                        return format!("{name}({label}{inner})");
                    }
                }
                let elements: Vec<(Span, String, &Expr)> =
                    args.iter().map(|arg| (arg.span, label(arg), &arg.value)).collect();
                let lines = self.elements(callee.span.end, expr.span.end, &elements, indent);
                format!("{name}(\n{lines}{})", " ".repeat(indent))
            }
            ExprKind::Binary { op: op @ (BinaryOp::And | BinaryOp::Or), left, right, .. } => {
                let deeper = indent + STEP;
                let left = self.write(left, Place { column, indent, tail: 0 });
                let column = deeper + sign(*op).len() + 1;
                let right = self.write(right, Place { column, indent: deeper, tail });
                format!("{left}\n{}{} {right}", " ".repeat(deeper), sign(*op))
            }
            ExprKind::Where { subject, predicate } => {
                let head = format!("{} where ", self.flat(subject));
                let column = column + head.chars().count();
                format!("{head}{}", self.write(predicate, Place { column, indent, tail }))
            }
            ExprKind::Paren(inner) => {
                let inner = self.write(inner, Place { column: column + 1, indent, tail: tail + 1 });
                format!("({inner})")
            }
            ExprKind::Not(inner) => {
                format!("not {}", self.write(inner, Place { column: column + 4, indent, tail }))
            }
            ExprKind::Neg(inner) => {
                format!("-{}", self.write(inner, Place { column: column + 1, indent, tail }))
            }
            ExprKind::Of { share, whole } => {
                let head = format!("{} of ", self.write(share, Place { column, indent, tail: 0 }));
                let column = column + head.chars().count();
                format!("{head}{}", self.write(whole, Place { column, indent, tail }))
            }
            ExprKind::Binary { op, left, right, .. } => {
                let head = format!("{} {} ", self.write(left, Place { column, indent, tail: 0 }), sign(*op));
                let column = column + head.chars().count();
                format!("{head}{}", self.write(right, Place { column, indent, tail }))
            }
            _ => self.flat(expr),
        }
    }

    /// Whether the author broke `expr` right after its bracket.
    fn own_break(&self, expr: &Expr) -> bool {
        match &expr.kind {
            ExprKind::Call { callee, args } => {
                args.first().is_some_and(|arg| self.newline_between(callee.span.end, arg.span.start))
            }
            _ => false,
        }
    }

    /// `start`, then each segment on a line of its own.
    fn chain(&self, expr: &Expr, parts: &[Expr], place: Place) -> String {
        let deeper = place.indent + STEP;
        let pad = " ".repeat(deeper);
        let mut out = String::new();
        for (i, part) in parts.iter().enumerate() {
            let last = i + 1 == parts.len();
            let tail = if last { place.tail } else { 0 };
            if i == 0 {
                out.push_str(&self.write(part, Place { tail, ..place }));
            } else {
                let column = deeper + "then ".len();
                let written = self.write(part, Place { column, indent: deeper, tail });
                out.push_str(&format!("\n{pad}then {written}"));
            }
            let next = parts.get(i + 1).map_or(expr.span.end, |next| next.span.start);
            for comment in self.comments_in(part.span.end, next) {
                if self.newline_between(part.span.end, comment.span.start) {
                    out.push_str(&format!("\n{pad}{}", comment.text));
                } else {
                    out.push_str(&format!("  {}", comment.text));
                }
            }
        }
        out
    }

    /// Elements between brackets, one per line, each with a comma.
    fn elements(&self, start: u32, end: u32, elements: &[(Span, String, &Expr)], indent: usize) -> String {
        let deeper = indent + STEP;
        let pad = " ".repeat(deeper);
        let mut written: Vec<Element> = Vec::new();
        let mut waiting: Vec<String> = self
            .comments_in(start, elements.first().map_or(end, |(span, ..)| span.start))
            .iter()
            .map(|comment| comment.text.clone())
            .collect();
        for (i, (span, label, value)) in elements.iter().enumerate() {
            let column = deeper + label.len();
            let text = self.write(value, Place { column, indent: deeper, tail: 1 });
            let mut element = Element {
                before: std::mem::take(&mut waiting),
                text: format!("{label}{text}"),
                behind: None,
            };
            let next = elements.get(i + 1).map_or(end, |(span, ..)| span.start);
            for comment in self.comments_in(span.end, next) {
                if element.behind.is_none() && !self.newline_between(span.end, comment.span.start) {
                    element.behind = Some(comment.text.clone());
                } else {
                    waiting.push(comment.text.clone());
                }
            }
            written.push(element);
        }
        let mut out = String::new();
        for element in written {
            for comment in element.before {
                out.push_str(&format!("{pad}{comment}\n"));
            }
            let behind = element.behind.map(|c| format!("  {c}")).unwrap_or_default();
            out.push_str(&format!("{pad}{},{behind}\n", element.text));
        }
        for comment in waiting {
            out.push_str(&format!("{pad}{comment}\n"));
        }
        out
    }

    /// Numbers, as many to a line as fit.
    fn filled(&self, items: &[Expr], indent: usize) -> String {
        let pad = " ".repeat(indent + STEP);
        let mut out = String::from("[\n");
        let mut line = pad.clone();
        for item in items {
            let item = format!("{},", self.flat(item));
            if line.len() > pad.len() && line.chars().count() + 1 + item.chars().count() > WIDTH {
                out.push_str(line.trim_end());
                out.push('\n');
                line.clone_from(&pad);
            }
            line.push_str(&item);
            line.push(' ');
        }
        out.push_str(line.trim_end());
        format!("{out}\n{}]", " ".repeat(indent))
    }
}

fn label(arg: &Arg) -> String {
    arg.name.as_ref().map(|name| format!("{}: ", name.text)).unwrap_or_default()
}

fn args(expr: &Expr) -> &[Arg] {
    match &expr.kind {
        ExprKind::Call { args, .. } => args,
        _ => &[],
    }
}

fn children(expr: &Expr) -> Vec<&Expr> {
    match &expr.kind {
        ExprKind::Quantity(_) | ExprKind::Str(_) | ExprKind::Path(_) | ExprKind::Error => Vec::new(),
        ExprKind::List(items) | ExprKind::Then(items) => items.iter().collect(),
        ExprKind::Call { args, .. } => args.iter().map(|arg| &arg.value).collect(),
        ExprKind::Apply { arg: inner, .. }
        | ExprKind::Neg(inner)
        | ExprKind::Not(inner)
        | ExprKind::Paren(inner) => vec![inner],
        ExprKind::Binary { left, right, .. }
        | ExprKind::Of { share: left, whole: right }
        | ExprKind::Where { subject: left, predicate: right } => vec![left, right],
    }
}

/// Whether breaking can make any line of `expr` shorter.
fn breakable(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::Then(_) => true,
        ExprKind::List(items) => !items.is_empty(),
        ExprKind::Call { args, .. } => !args.is_empty(),
        ExprKind::Binary { op: BinaryOp::And | BinaryOp::Or, .. } => true,
        _ => children(expr).iter().any(|child| breakable(child)),
    }
}

fn sign(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Or => "or",
        BinaryOp::And => "and",
        BinaryOp::Eq => "==",
        BinaryOp::Ne => "!=",
        BinaryOp::Lt => "<",
        BinaryOp::Le => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::Ge => ">=",
        BinaryOp::Add => "+",
        BinaryOp::Sub => "-",
        BinaryOp::Mul => "*",
        BinaryOp::Div => "/",
    }
}
