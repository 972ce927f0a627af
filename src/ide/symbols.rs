//! The outline of a file: items and the blocks inside them.

use crate::source::{FileId, Span};
use crate::syntax::ast::{self, EntryKind, ItemKind};

use super::analysis::Names;

/// An item or inner block.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// Its name.
    pub name: String,
    /// `stage`, `source`; of a `let` its value.
    pub detail: String,
    /// What it is.
    pub kind: OutlineKind,
    /// All of it.
    pub span: Span,
    /// Its name.
    pub name_span: Span,
    /// Blocks inside.
    pub children: Vec<Outline>,
}

/// What an outline entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutlineKind {
    /// `use`.
    Use,
    /// `param` or `let`.
    Value,
    /// `model`.
    Model,
    /// `source`.
    Source,
    /// `mix`.
    Mix,
    /// `stage`.
    Stage,
    /// `soup`.
    Soup,
    /// Anything else.
    Other,
}

/// The outline of `file`.
pub fn outline(names: &Names, file: FileId) -> Vec<Outline> {
    let text = names.text(file);
    let Some(tree) = names.tree(file) else { return Vec::new() };
    tree.items.iter().filter_map(|item| item_outline(item, text)).collect()
}

fn item_outline(item: &ast::Item, text: &str) -> Option<Outline> {
    let value = |e: &ast::Expr| {
        let text = text.get(e.span.range()).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let (name, detail, kind) = match &item.kind {
        ItemKind::Use { path, alias, .. } => (alias.as_ref()?, path.text.clone(), OutlineKind::Use),
        ItemKind::Param { name, value: v, .. } => (name, format!("param = {}", value(v)), OutlineKind::Value),
        ItemKind::Let { name, value: v } => (name, format!("let = {}", value(v)), OutlineKind::Value),
        ItemKind::Bind { kind, name, .. } => (name, kind.text.clone(), of_keyword(&kind.text)),
        ItemKind::Block(block) => return Some(block_outline(block)),
        ItemKind::Assert(_) => return None,
    };
    Some(Outline {
        name: name.text.clone(),
        detail,
        kind,
        span: item.span,
        name_span: name.span,
        children: Vec::new(),
    })
}

fn block_outline(block: &ast::Block) -> Outline {
    let name = block.name.as_ref().unwrap_or(&block.kind);
    let children = block.entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Block(inner) => Some(block_outline(inner)),
        _ => None,
    });
    Outline {
        name: name.text.clone(),
        detail: if block.name.is_some() { block.kind.text.clone() } else { String::new() },
        kind: of_keyword(&block.kind.text),
        span: block.span,
        name_span: name.span,
        children: children.collect(),
    }
}

fn of_keyword(keyword: &str) -> OutlineKind {
    match keyword {
        "model" => OutlineKind::Model,
        "source" => OutlineKind::Source,
        "mix" => OutlineKind::Mix,
        "stage" => OutlineKind::Stage,
        "soup" => OutlineKind::Soup,
        _ => OutlineKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::{CLEAN, analyze};

    #[test]
    fn items_and_inner_blocks() {
        let (_, main, analysis) = analyze(CLEAN);
        let found: Vec<String> = outline(analysis.names(), main)
            .iter()
            .map(|o| {
                let inner: Vec<&str> = o.children.iter().map(|c| c.name.as_str()).collect();
                format!("{} {}", o.name, inner.join(" ")).trim().to_owned()
            })
            .collect();
        let expected =
            ["s", "lints", "total_tokens", "base", "quality", "anneal half", "after reach gate", "final"];
        assert_eq!(found, expected);
    }
}
