//! What "expand selection" takes step by step: word, value, entry, block, file.

use crate::source::{FileId, Span};
use crate::syntax::ast::{Block, Entry, EntryKind, Expr, ExprKind, ItemKind};

use super::analysis::Names;

/// Spans around byte `offset`, innermost first, each inside the next.
pub fn selection_ranges(names: &Names, file: FileId, offset: usize) -> Vec<Span> {
    let Some(tree) = names.tree(file) else { return Vec::new() };
    let mut around = Around { offset: offset as u32, out: Vec::new() };
    around.push(tree.span);
    for item in &tree.items {
        if !around.push(item.span) {
            continue;
        }
        match &item.kind {
            ItemKind::Param { value, name, .. } | ItemKind::Let { value, name } => {
                around.push(name.span);
                around.expr(value);
            }
            ItemKind::Bind { value, name, .. } => {
                around.push(name.span);
                around.expr(value);
            }
            ItemKind::Assert(assert) => around.expr(&assert.condition),
            ItemKind::Block(block) => around.block(block),
            ItemKind::Use { path, .. } => {
                around.push(path.span);
            }
        }
    }
    // The word itself.
    for mark in names.marks(file) {
        around.push(mark.span);
    }
    let mut out = around.out;
    out.sort_by_key(|s| (s.end - s.start, s.start));
    out.dedup();
    // Each must hold the one before it.
    let mut nested: Vec<Span> = Vec::new();
    for span in out {
        if nested.last().is_none_or(|last| span.start <= last.start && last.end <= span.end) {
            nested.push(span);
        }
    }
    nested
}

struct Around {
    offset: u32,
    out: Vec<Span>,
}

impl Around {
    fn push(&mut self, span: Span) -> bool {
        let holds = span.start <= self.offset && self.offset <= span.end;
        if holds {
            self.out.push(span);
        }
        holds
    }

    fn block(&mut self, block: &Block) {
        self.push(block.span);
        let inner = Span { start: block.brace.end, end: block.span.end.saturating_sub(1), ..block.span };
        if inner.start < inner.end {
            self.push(inner);
        }
        for Entry { kind, span, .. } in &block.entries {
            if !self.push(*span) {
                continue;
            }
            match kind {
                EntryKind::Field { key, value } => {
                    self.push(key.span);
                    self.expr(value);
                }
                EntryKind::Constraint(condition) => self.expr(condition),
                EntryKind::Block(inner) => self.block(inner),
                EntryKind::Assert(assert) => self.expr(&assert.condition),
            }
        }
    }

    /// Depth is bounded by the parser.
    fn expr(&mut self, expr: &Expr) {
        if !self.push(expr.span) {
            return;
        }
        match &expr.kind {
            ExprKind::List(items) | ExprKind::Then(items) => items.iter().for_each(|e| self.expr(e)),
            ExprKind::Call { args, .. } => {
                for arg in args {
                    self.push(arg.span);
                    self.expr(&arg.value);
                }
            }
            ExprKind::Apply { arg: inner, .. }
            | ExprKind::Neg(inner)
            | ExprKind::Not(inner)
            | ExprKind::Paren(inner) => self.expr(inner),
            ExprKind::Binary { left, right, .. } => {
                self.expr(left);
                self.expr(right);
            }
            ExprKind::Of { share, whole } => {
                self.expr(share);
                self.expr(whole);
            }
            ExprKind::Where { subject, predicate } => {
                self.expr(subject);
                self.expr(predicate);
            }
            ExprKind::Quantity(_) | ExprKind::Str(_) | ExprKind::Path(_) | ExprKind::Error => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::{analyze, cursor};

    #[test]
    fn each_step_holds_the_one_before() {
        let (text, offset) = cursor("stage a {\n  lr = 1 then linear(to: $00)\n}\n");
        let (_, main, analysis) = analyze(&text);
        let found: Vec<&str> =
            selection_ranges(analysis.names(), main, offset).into_iter().map(|s| &text[s.range()]).collect();
        assert_eq!(
            found[..5],
            ["0", "to: 0", "linear(to: 0)", "1 then linear(to: 0)", "lr = 1 then linear(to: 0)"]
        );
        assert_eq!(found.last(), Some(&text.as_str()));
    }
}
