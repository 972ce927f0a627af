//! `assert` items: conditions over the resolved graph that must hold.

use std::rc::Rc;

use crate::diag::Diagnostic;
use crate::syntax::ast;

use super::checker::{Checker, Resolved};
use super::eval::Scope;
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
                    let locals = Rc::clone(&self.member_locals[*m]);
                    let scope = Scope { member: Some(*m), locals, ..Scope::top(program.def(id).module) };
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
}
