//! What is legal and unwise, one file per lint. Each exists because a published run got it wrong
//! or a study measured it.

use crate::diag::Diagnostic;
use crate::diag::Level;

use super::chain::{Chain, Frame};
use super::checker::Checker;
use super::curriculum::Curriculum;

impl<'p> Checker<'p> {
    /// Run the lints, set levels, sort, hand over.
    pub(crate) fn finish(mut self, name: String) -> (Option<Curriculum>, Vec<Diagnostic>) {
        self.out.name = name;
        let complete = self.diags.iter().all(|d| d.level != Level::Deny || d.lint.is_some());
        self.diags.sort_by_key(|d| (d.primary.span.file, d.primary.span.start, d.code));
        (complete.then_some(self.out), self.diags)
    }

    /// `lr_never_lands` for spans in steps under a growing batch.
    pub(crate) fn never_lands_in_steps(
        &mut self,
        _chain: &Chain<'p>,
        _over: u64,
        _share: f64,
        _frame: Frame<'_>,
    ) {
    }
}
