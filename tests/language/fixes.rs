//! Fixes mend what they promise: applied, the diagnostic is gone and the rest is no worse.

use midc::diag::fix::{apply, apply_edits};
use midc::diag::{Applicability, CODES, Diagnostic};
use midc::source::FileId;

use crate::support::{check_text, examples};

/// Codes of what is wrong with `text`, sorted.
fn codes(text: &str) -> Vec<String> {
    let mut codes: Vec<String> = check_text(text).0.iter().map(|d: &Diagnostic| d.code.to_string()).collect();
    codes.sort();
    codes
}

#[test]
fn sure_fixes_remove_their_diagnostic() {
    let mut wrong = Vec::new();
    for info in CODES {
        for text in examples(info.page, "fail") {
            let (found, _) = check_text(&text);
            let Some(fixed) = apply(&found, FileId(0), &text) else { continue };
            let left = codes(&fixed.text);
            if left.len() >= found.len() {
                wrong.push(format!("{}: {left:?} after the fix:\n{}", info.code, fixed.text));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_fix_of_a_syntax_error_mends_it() {
    let mut wrong = Vec::new();
    for info in CODES.iter().filter(|info| info.code.0 < 150) {
        for text in examples(info.page, "fail") {
            for diagnostic in check_text(&text).0 {
                for fix in
                    diagnostic.fixes.iter().filter(|f| f.applicability != Applicability::HasPlaceholders)
                {
                    let edits: Vec<_> = fix.edits.iter().collect();
                    let mended = apply_edits(&edits, &text);
                    let left = codes(&mended);
                    if left.contains(&info.code.to_string()) {
                        wrong.push(format!("{}: `{}` leaves {left:?} in\n{mended}", info.code, fix.title));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
