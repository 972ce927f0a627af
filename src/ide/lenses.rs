//! What can be done with a stage, shown above it.

use crate::source::{FileId, Span};
use crate::syntax::ast::ItemKind;

use super::analysis::Names;

/// An action above a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lens {
    /// The name it stands above.
    pub span: Span,
    /// The stage.
    pub stage: String,
    /// What it does.
    pub kind: LensKind,
}

/// What a lens does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LensKind {
    /// Print the plan.
    Plan,
    /// Draw the plan.
    Plot,
    /// Run the graph at toy scale.
    Rehearse,
}

/// The lenses of `file`: three for each stage.
pub fn lenses(names: &Names, file: FileId) -> Vec<Lens> {
    let Some(tree) = names.tree(file) else { return Vec::new() };
    let stages = tree.items.iter().filter_map(|item| match &item.kind {
        ItemKind::Block(block) if block.kind.text == "stage" => block.name.as_ref(),
        _ => None,
    });
    stages
        .flat_map(|name| {
            [LensKind::Plan, LensKind::Plot, LensKind::Rehearse].map(|kind| Lens {
                span: name.span,
                stage: name.text.clone(),
                kind,
            })
        })
        .collect()
}
