//! The table of lints that the language promises, against the table of codes; and the fixes that
//! are promised, against what the explain pages' failing examples offer.

use std::collections::BTreeSet;

use midc::diag::fix::apply_edits;
use midc::diag::{Applicability, CODES, Level};

use crate::support::{check_text, examples};

/// Every lint of the reference manual and its level before anybody changes it.
const LINTS: &[(&str, Level)] = &[
    ("anneal_too_short", Level::Warn),
    ("batch_changes_tokens", Level::Warn),
    ("benchmark_in_train", Level::Warn),
    ("boundary_alignment", Level::Warn),
    ("budget_vs_source", Level::Deny),
    ("context_starved", Level::Warn),
    ("decay_too_short", Level::Warn),
    ("decimal_context", Level::Deny),
    ("epochs_over_cap", Level::Warn),
    ("gate_left_out", Level::Deny),
    ("long_only", Level::Warn),
    ("lr_jump", Level::Deny),
    ("lr_never_lands", Level::Deny),
    ("lr_rises_in_decay", Level::Deny),
    ("lr_scale", Level::Deny),
    ("missing_data_seed", Level::Warn),
    ("missing_files", Level::Warn),
    ("optimizer_reset_without_warmup", Level::Warn),
    ("orphan_doc", Level::Warn),
    ("quality_inverted", Level::Warn),
    ("replay_below_floor", Level::Warn),
    ("rope_reach", Level::Deny),
    ("rope_transition", Level::Deny),
    ("same_order", Level::Warn),
    ("soup_ingredients", Level::Deny),
    ("source_overlap", Level::Deny),
    ("target_drops", Level::Warn),
    ("unknown_lint", Level::Warn),
    ("unpinned_source", Level::Warn),
    ("unused_allow", Level::Warn),
    ("unused_let", Level::Warn),
    ("unused_mix", Level::Warn),
    ("unused_soup", Level::Warn),
    ("unused_source", Level::Warn),
    ("weight_below_quantum", Level::Warn),
];

/// Codes whose failing example must offer a fix that can be applied as it is.
const FIXED: &[&str] = &[
    "E0002", "E0003", "E0004", "E0008", "E0010", "E0011", "E0012", "E0101", "E0102", "E0103", "E0105",
    "E0106", "E0107", "E0150", "E0151", "E0153", "E0201", "E0203", "E0204", "E0205", "E0207", "E0211",
    "E0214", "E0255", "E0301", "E0303", "E0358", "E0401", "E0402", "E0450", "E0451", "E0502", "E0554",
    "E0651", "E0652",
];

#[test]
fn every_lint_is_there_with_its_level() {
    let mut found: Vec<(&str, Level)> =
        CODES.iter().filter_map(|info| info.lint.map(|lint| (lint, info.level))).collect();
    found.sort_by_key(|(name, _)| *name);
    assert_eq!(found, LINTS);
}

/// Each block of codes has its hundred.
#[test]
fn codes_lie_in_their_blocks() {
    for info in CODES {
        let block = info.code.0 / 100;
        assert!((0..=9).contains(&block), "{}", info.code);
        // Lints stand in the upper half of a block, the one on syntax and two on names aside.
        if info.lint.is_none() && block > 1 {
            assert!(info.code.0 % 100 < 50, "{} is no lint", info.code);
        }
    }
}

/// Every fix that is offered, applied to its file in canonical form, removes its diagnostic, brings
/// no other, and leaves a file that the formatter would not touch.
#[test]
fn fixes_mend_and_need_no_formatting() {
    let mut wrong = Vec::new();
    let mut offered: BTreeSet<String> = BTreeSet::new();
    for info in CODES {
        let code = info.code.to_string();
        for text in examples(info.page, "fail") {
            let canonical = midc::fmt::format(&text) == text;
            let (found, _) = check_text(&text);
            for diagnostic in &found {
                for fix in &diagnostic.fixes {
                    if fix.applicability == Applicability::HasPlaceholders {
                        continue;
                    }
                    offered.insert(code.clone());
                    let edits: Vec<_> = fix.edits.iter().collect();
                    let mended = midc::fmt::follow(&text, apply_edits(&edits, &text));
                    let left: Vec<String> =
                        check_text(&mended).0.iter().map(|d| d.code.to_string()).collect();
                    // What may be wrong may be wrong: it mends this mistake and can show another.
                    let sure = fix.applicability == Applicability::MachineApplicable;
                    if left.contains(&code) || sure && left.len() >= found.len() {
                        wrong.push(format!("{code}: `{}` leaves {left:?} in\n{mended}", fix.title));
                    }
                    if canonical && midc::fmt::format(&mended) != mended {
                        wrong.push(format!("{code}: `{}` leaves a file to format:\n{mended}", fix.title));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let promised: BTreeSet<String> = FIXED.iter().map(|code| (*code).to_owned()).collect();
    assert_eq!(offered, promised);
}
