//! What can be folded away: blocks, long values, runs of comments.

use crate::source::{FileId, LineIndex};
use crate::syntax::ast::{Block, EntryKind, Expr, ItemKind};

use super::analysis::Names;

/// A fold, by 0-based lines, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fold {
    /// The line that stays.
    pub start: usize,
    /// The last line that goes.
    pub end: usize,
    /// What it is.
    pub kind: FoldKind,
}

/// What a fold is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoldKind {
    /// A block or value.
    Region,
    /// Comments.
    Comment,
    /// Lines of `use`.
    Imports,
}

/// The folds of `file`.
pub fn folds(names: &Names, file: FileId) -> Vec<Fold> {
    let Some(tree) = names.tree(file) else { return Vec::new() };
    let mut folding = Folding { lines: LineIndex::new(names.text(file)), out: Vec::new() };
    let mut uses: Vec<usize> = Vec::new();
    for item in &tree.items {
        match &item.kind {
            ItemKind::Block(block) => folding.block(block),
            ItemKind::Param { value, .. } | ItemKind::Let { value, .. } | ItemKind::Bind { value, .. } => {
                folding.value(value);
            }
            ItemKind::Use { .. } => uses.push(folding.lines.line(item.span.start)),
            ItemKind::Assert(_) => {}
        }
    }
    let mut remarks: Vec<usize> = tree.comments.iter().map(|c| folding.lines.line(c.span.start)).collect();
    let docs = tree.items.iter().flat_map(|i| &i.preface.docs);
    remarks.extend(docs.map(|d| folding.lines.line(d.span.start)));
    remarks.sort_unstable();
    // A comment behind a value is none to fold.
    let text = names.text(file);
    remarks.retain(|line| {
        let start = folding.lines.line_start(*line) as usize;
        text.get(start..).is_some_and(|t| t.trim_start_matches([' ', '\t']).starts_with('#'))
    });
    folding.runs(&remarks, FoldKind::Comment);
    folding.runs(&uses, FoldKind::Imports);
    folding.out.sort_by_key(|f| (f.start, f.end));
    folding.out
}

struct Folding {
    lines: LineIndex,
    out: Vec<Fold>,
}

impl Folding {
    fn push(&mut self, start: u32, end: u32) {
        let (start, end) = (self.lines.line(start), self.lines.line(end.saturating_sub(1)));
        if end > start {
            self.out.push(Fold { start, end, kind: FoldKind::Region });
        }
    }

    fn block(&mut self, block: &Block) {
        self.push(block.brace.start, block.span.end);
        for entry in &block.entries {
            match &entry.kind {
                EntryKind::Block(inner) => self.block(inner),
                EntryKind::Field { value, .. } => self.value(value),
                EntryKind::Constraint(_) | EntryKind::Assert(_) => {}
            }
        }
    }

    fn value(&mut self, value: &Expr) {
        self.push(value.span.start, value.span.end);
    }

    /// Fold runs of neighbouring lines.
    fn runs(&mut self, lines: &[usize], kind: FoldKind) {
        for run in lines.chunk_by(|a, b| b - a <= 1) {
            if let [start, .., end] = run
                && end > start
            {
                self.out.push(Fold { start: *start, end: *end, kind });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::analyze;

    #[test]
    fn blocks_comments_and_imports() {
        let text =
            "# a\n# b\nuse \"a\" as a\nuse \"b\" as b\nmodel m {\n  init = llama(\n    layers: 1,\n  )\n}\n";
        let (_, main, analysis) = analyze(text);
        let found: Vec<_> = folds(analysis.names(), main).iter().map(|f| (f.start, f.end, f.kind)).collect();
        assert_eq!(
            found,
            [
                (0, 1, FoldKind::Comment),
                (2, 3, FoldKind::Imports),
                (4, 8, FoldKind::Region),
                (5, 7, FoldKind::Region)
            ]
        );
    }
}
