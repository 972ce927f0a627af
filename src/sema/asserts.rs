//! `assert` items and `budget` blocks: conditions over the resolved graph that must hold.

use crate::diag::Diagnostic;
use crate::diag::suggest::nearest;
use crate::syntax::ast::{self, BinaryOp, ExprKind, Unit};

use super::checker::{Checker, Resolved};
use super::eval::Scope;
use super::program::suggest;
use super::query::{number, unit};
use super::show;
use super::value::Kind;
use crate::diag::codes;

impl<'p> Checker<'p> {
    /// All asserts and budgets of all files.
    pub(crate) fn check_asserts(&mut self) {
        let program = self.program;
        for (m, module) in program.modules.iter().enumerate() {
            for item in &module.ast.items {
                match &item.kind {
                    ast::ItemKind::Assert(a) => self.check_assert(a, &Scope::top(m), None),
                    ast::ItemKind::Block(b) if b.kind.text == "budget" => self.check_budget(b, m),
                    _ => {}
                }
            }
        }
        for id in program.ids() {
            let ast::ItemKind::Block(block) = &program.item(id).kind else { continue };
            let Resolved::Stage(members) = self.resolved[id.index()].clone() else { continue };
            for entry in &block.entries {
                let ast::EntryKind::Assert(a) = &entry.kind else { continue };
                for m in &members {
                    let mut scope = Scope { member: Some(*m), ..Scope::top(program.def(id).module) };
                    if let (Some(each), Some(_)) = (&block.each, &self.out.stages[*m].key) {
                        let values = self.eval(&each.values, &Scope::top(program.def(id).module));
                        let at = members.iter().position(|x| x == m).unwrap_or(0);
                        if let Kind::List(values) = &values.kind {
                            scope.local = values.get(at).map(|v| (each.var.text.as_str(), v.clone()));
                        }
                    }
                    self.check_assert(a, &scope, Some(*m));
                }
            }
        }
    }

    fn check_assert(&mut self, a: &'p ast::Assert, scope: &Scope<'p>, member: Option<usize>) {
        // What it speaks of may be broken; then that has its message and this has none.
        let mut lost = false;
        super::program::visit_expr(&a.condition, &mut |path| {
            if let super::program::Lookup::Def(id, _) = self.program.lookup(scope.module, path) {
                lost |= matches!(self.resolved[id.index()], Resolved::Poison);
            }
        });
        if lost {
            return;
        }
        let Some((holds, found)) = self.condition(&a.condition, scope) else { return };
        if holds {
            return;
        }
        let whose = member.map_or(String::new(), |m| format!(" in `{}`", self.out.stages[m].name));
        let mut d = Diagnostic::error(
            codes::ASSERT_FAILED,
            a.condition.span,
            match &a.why {
                Some(why) => format!("assert does not hold{whose}: {}", why.text),
                None => format!("assert does not hold{whose}"),
            },
            found,
        );
        if let Some(why) = &a.why {
            d = d.label(why.span, "the reason given");
        }
        self.push(d);
    }

    fn check_budget(&mut self, block: &'p ast::Block, module: usize) {
        for entry in &block.entries {
            let ast::EntryKind::Constraint(expr) = &entry.kind else {
                self.push(
                    Diagnostic::error(
                        codes::NOT_A_CONDITION,
                        entry.span,
                        "a budget holds bounds only",
                        "not a bound",
                    )
                    .help("write `tokens <= 200B`"),
                );
                continue;
            };
            let ExprKind::Binary { op, left, right, .. } = &expr.kind else { continue };
            let name = self.text(left.span);
            let tokens_total: u64 = self.out.stages.iter().fold(0, |n, s| n.saturating_add(s.tokens));
            let steps_total: u64 = self.out.stages.iter().fold(0, |n, s| n.saturating_add(s.steps));
            let bound = self.eval(right, &Scope::top(module));
            let (found, expected, text) = match name.as_str() {
                "tokens" => (
                    Some(tokens_total as f64),
                    Some(Unit::Tokens),
                    format!("{} tokens", show::count(tokens_total)),
                ),
                "steps" => (
                    Some(steps_total as f64),
                    Some(Unit::Steps),
                    format!("{} steps", show::digits(steps_total)),
                ),
                "flops" => {
                    let flops = self.flops();
                    (flops, Some(Unit::Flops), flops.map_or(String::new(), |f| format!("{f:.3e} flops")))
                }
                _ => {
                    let d = Diagnostic::error(
                        codes::UNKNOWN_PROPERTY,
                        left.span,
                        format!("a budget has no `{name}`"),
                        "unknown total",
                    );
                    let near = nearest(&name, ["tokens", "steps", "flops"]);
                    self.push(suggest(d, left.span, near, "totals are `tokens`, `steps` and `flops`"));
                    continue;
                }
            };
            if bound.is_poison() {
                continue;
            }
            let (Some(limit), true) = (number(&bound), unit(&bound).is_none() || unit(&bound) == expected)
            else {
                self.wrong(&bound, crate::schema::Ty::Number, &name);
                continue;
            };
            let Some(found) = found else {
                self.push(
                    Diagnostic::error(
                        codes::ASSERT_UNDECIDED,
                        left.span,
                        "the FLOPs of this run are not known",
                        "some stage trains an unknown architecture",
                    )
                    .help("declare it: `init = llama(…)` beside `checkpoint`"),
                );
                continue;
            };
            let holds = match op {
                BinaryOp::Le => found <= limit,
                BinaryOp::Lt => found < limit,
                _ => {
                    self.push(Diagnostic::error(
                        codes::NOT_A_CONDITION,
                        expr.span,
                        "a budget is an upper bound",
                        "write `<=` here",
                    ));
                    continue;
                }
            };
            if !holds && !self.out.stages.is_empty() {
                self.push(Diagnostic::error(
                    codes::BUDGET_EXCEEDED,
                    expr.span,
                    format!("the run takes {text}, over its budget"),
                    format!("over by {}", show::percent(found / limit - 1.0)),
                ));
            }
        }
    }

    /// Training FLOPs of all stages, while every architecture is known.
    pub(crate) fn flops(&self) -> Option<f64> {
        self.out.flops()
    }
}
