//! `stage` blocks. A block fans out as [`fan_out`] says; one member of it is in [`member`], what it starts from and
//! takes over in [`ground`], its smaller fields in `parts`.

mod fan_out;
mod ground;
mod member;
mod optimizer;
mod parts;
mod portions;

pub(crate) use fan_out::Members;
pub(crate) use ground::{Legacy, place_name};

use crate::sema::checker::Checker;
use crate::sema::eval::Scope;
use crate::sema::program::DefId;
use crate::syntax::ast;
use member::Draft;

impl<'p> Checker<'p> {
    /// A `stage` block: its members.
    pub(crate) fn resolve_stage(
        &mut self,
        id: DefId,
        item: &'p ast::Item,
        block: &'p ast::Block,
        scope: &Scope<'p>,
    ) -> Vec<usize> {
        let Some(name) = &block.name else { return Vec::new() };
        let Some(fields) = self.fields(block) else { return Vec::new() };
        let (fields, name_span, base) = (&fields, name.span, self.full_name(id));
        let draft = Draft { id, item, block, fields, scope, name_span, base, keys: Vec::new() };
        if block.each.is_empty() {
            return self.member(&draft).into_iter().collect();
        }
        let Some(combinations) = self.combinations(block, &draft.base, &name.text, scope) else {
            return Vec::new();
        };
        let count = combinations.len();
        let mut members = Vec::new();
        for combination in combinations {
            let scope = &Scope { locals: combination.locals, ..scope.clone() };
            members.extend(self.member(&Draft {
                scope,
                base: draft.base.clone(),
                keys: combination.keys,
                ..draft
            }));
        }
        // A fan-out with a broken member is broken as a whole: averages over it would be wrong.
        if members.len() == count { members } else { Vec::new() }
    }
}
