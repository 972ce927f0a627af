//! Fixes applied to a text.

use super::{Applicability, Diagnostic, Edit, Fix};
use crate::source::FileId;

/// A text with fixes applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// The new text.
    pub text: String,
    /// How many fixes are in it.
    pub applied: usize,
}

/// Apply the machine-applicable fixes of `diagnostics` that lie wholly in `file`, whose text is
/// `text`. Of a diagnostic with several, the first; of fixes that touch one another, the first, so
/// apply again after checking again. `None` if there is nothing to apply.
pub fn apply(diagnostics: &[Diagnostic], file: FileId, text: &str) -> Option<Fixed> {
    let sure = |fix: &&Fix| {
        fix.applicability == Applicability::MachineApplicable
            && !fix.edits.is_empty()
            && fix.edits.iter().all(|e| e.span.file == file && text.get(e.span.range()).is_some())
    };
    let mut fixes: Vec<&Fix> = diagnostics.iter().filter_map(|d| d.fixes.iter().find(sure)).collect();
    fixes.sort_by_key(|fix| fix.edits.iter().map(|e| e.span.start).min());
    let mut accepted: Vec<&Edit> = Vec::new();
    let mut applied = 0;
    for fix in fixes {
        // Two insertions at one place touch as well: which comes first would be a guess.
        let touches = |edit: &Edit| {
            accepted.iter().any(|a| edit.span.start <= a.span.end && a.span.start <= edit.span.end)
        };
        if !fix.edits.iter().any(touches) {
            accepted.extend(&fix.edits);
            applied += 1;
        }
    }
    if applied == 0 {
        return None;
    }
    Some(Fixed { text: apply_edits(&accepted, text), applied })
}

/// Apply edits that do not overlap.
pub fn apply_edits(edits: &[&Edit], text: &str) -> String {
    let mut edits: Vec<&Edit> = edits.to_vec();
    edits.sort_by_key(|edit| edit.span.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for edit in edits {
        let range = edit.span.range();
        out.push_str(text.get(at..range.start).unwrap_or_default());
        out.push_str(&edit.text);
        at = range.end.max(at);
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::codes;
    use crate::source::Span;

    fn fixing(start: usize, end: usize, text: &str, applicability: Applicability) -> Diagnostic {
        let span = Span::new(FileId(0), start, end);
        Diagnostic::error(codes::UNEXPECTED, span, "", "").fix("", applicability, span, text)
    }

    #[test]
    fn sure_fixes_that_do_not_touch_are_applied() {
        use Applicability::{MachineApplicable as Sure, MaybeIncorrect as Maybe};
        let all = [
            fixing(4, 5, "E", Sure),
            fixing(0, 1, "A", Sure),
            fixing(1, 2, "B", Sure),
            fixing(2, 3, "C", Maybe),
            fixing(99, 100, "?", Sure),
        ];
        let fixed = apply(&all, FileId(0), "abcdef").unwrap();
        assert_eq!((fixed.text.as_str(), fixed.applied), ("AbcdEf", 2));
        assert_eq!(apply(&all, FileId(1), "abcdef"), None);
    }
}
