//! The compiler's fixes as actions of an editor.

use crate::diag::{Applicability, Diagnostic, Edit, Fix, fix};
use crate::fmt;
use crate::source::{FileId, Span};

use super::analysis::Analysis;
use super::format::TextEdit;

/// Something that can be done about a diagnostic.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// What it does.
    pub title: String,
    /// What sort it is.
    pub kind: ActionKind,
    /// Position in [`Analysis::diagnostics`].
    pub diagnostic: usize,
    /// Whether it is the one to take unasked.
    pub preferred: bool,
    /// The change.
    pub edits: Vec<Edit>,
}

/// What sort of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// The compiler's fix.
    Fix,
    /// `@allow` before the entry.
    Allow,
}

/// What can be done about diagnostics that touch `range` of `file`.
pub fn actions(analysis: &Analysis, file: FileId, range: std::ops::Range<usize>) -> Vec<Action> {
    let touches = |span: Span| {
        span.file == file && span.start as usize <= range.end && range.start <= span.end as usize
    };
    let mut out = Vec::new();
    for (at, diagnostic) in analysis.diagnostics().iter().enumerate() {
        if !touches(diagnostic.primary.span) {
            continue;
        }
        for fix in &diagnostic.fixes {
            out.push(Action {
                title: title(fix),
                kind: ActionKind::Fix,
                diagnostic: at,
                preferred: fix.applicability == Applicability::MachineApplicable
                    && diagnostic.fixes.len() == 1,
                edits: fix.edits.clone(),
            });
        }
        out.extend(allow(analysis, at, diagnostic));
    }
    out
}

fn title(fix: &Fix) -> String {
    let mut letters = fix.title.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `@allow(lint)` before the entry or item that holds the finding.
fn allow(analysis: &Analysis, at: usize, diagnostic: &Diagnostic) -> Option<Action> {
    let lint = diagnostic.lint?;
    if matches!(lint, "unknown_lint" | "unused_allow" | "orphan_doc") {
        return None;
    }
    let file = diagnostic.primary.span.file;
    let text = analysis.names.text(file);
    let line = text.get(..diagnostic.primary.span.start as usize)?.rfind('\n').map_or(0, |n| n + 1);
    let indent: String = text[line..].chars().take_while(|c| matches!(c, ' ' | '\t')).collect();
    // A value that goes on from a line above has no line of its own to put it before.
    let first = text[line + indent.len()..].chars().next()?;
    if !(first.is_ascii_alphabetic() || first == '_') || text[line..].trim_start().starts_with("then ") {
        return None;
    }
    Some(Action {
        title: format!("Allow `{lint}` here"),
        kind: ActionKind::Allow,
        diagnostic: at,
        preferred: false,
        edits: vec![Edit { span: Span::new(file, line, line), text: format!("{indent}@allow({lint})\n") }],
    })
}

/// All sure fixes of `file` at once, each round checked again with `check`. What was formatted stays
/// so, as with `midc check --fix`.
pub fn fix_all(text: &str, file: FileId, mut check: impl FnMut(&str) -> Vec<Diagnostic>) -> Option<TextEdit> {
    /// Each round that changes anything removes at least one diagnostic.
    const ROUNDS: usize = 16;
    let mut current = text.to_owned();
    for _ in 0..ROUNDS {
        let Some(fixed) = fix::apply(&check(&current), file, &current) else { break };
        current = fmt::follow(&current, fixed.text);
    }
    (current != text).then_some(TextEdit { range: 0..text.len(), text: current })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::{CLEAN, LIBRARY};
    use crate::source::MemoryFiles;

    fn fixed(text: &str) -> String {
        let mut files = MemoryFiles::new();
        files.add("lib.curriculum", LIBRARY);
        let file = files.add("main.curriculum", text);
        let edit = fix_all(text, file, |candidate| {
            files.add("main.curriculum", candidate);
            Analysis::new(&mut files, file).diagnostics().to_vec()
        });
        edit.map_or_else(|| text.to_owned(), |edit| edit.text)
    }

    #[test]
    fn what_was_formatted_stays_so() {
        // With the `=` that is missing the field belongs to the run, and is its longest.
        let loose = CLEAN.replacen("  data_seed = 1\n", "  checkpoint_name 1\n", 1);
        let wrong = fmt::format(&loose);
        assert!(wrong.contains("  lr      ="), "{wrong}");
        let right = fixed(&wrong);
        assert!(right.contains("  lr              = inherit"), "{right}");
        assert_eq!(right, fmt::format(&right));
        // Another layout is the author's.
        assert_eq!(fixed(&loose), loose.replace("checkpoint_name 1", "checkpoint_name = 1"));
    }
}
