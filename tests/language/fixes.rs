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

/// `text` after every sure fix, round by round.
fn fixed(text: &str) -> String {
    let mut text = text.to_owned();
    for _ in 0..8 {
        let Some(next) = apply(&check_text(&text).0, FileId(0), &text) else { break };
        text = next.text;
    }
    text
}

/// A stage whose rate jumps; `attributes` before it and `more` in it.
fn jumping(attributes: &str, more: &str) -> String {
    format!(
        "lints {{ missing_files = allow }}\n\
         model ck {{ checkpoint = \"x\", init = llama3_8b, context = 8Ki, lr = 3e-4 }}\n\
         source web {{ kind = web }}\n{attributes}stage run {{\n  from = ck\n  tokens = 50B\n  \
         batch = 512 seqs\n  mix = web\n  lr = 5e-4 then linear(to: 0)\n{more}}}\n"
    )
}

#[test]
fn an_idle_lint_goes_alone_or_with_its_attribute() {
    let seed = "  data_seed = 1\n";
    for (attributes, more, left) in [
        ("@allow(lr_jump, missing_data_seed)\n", seed, "@allow(lr_jump)\n"),
        ("@allow(missing_data_seed, lr_jump)\n", seed, "@allow(lr_jump)\n"),
        ("@allow(same_order, lr_jump, missing_data_seed)\n", seed, "@allow(lr_jump)\n"),
        ("@allow(lr_jump)\n@allow(missing_data_seed) # why\n", seed, "@allow(lr_jump)\n# why\n"),
        ("@allow(same_order, missing_data_seed)\n@allow(lr_jump)\n", seed, "@allow(lr_jump)\n"),
        ("@allow(lr_jump, missing_data_seed)\n", "", "@allow(lr_jump, missing_data_seed)\n"),
    ] {
        assert_eq!(fixed(&jumping(attributes, more)), jumping(left, more), "{attributes}");
    }
}

#[test]
fn a_semicolon_becomes_what_separates() {
    let sources = "source a { kind = web }\nsource b { kind = web }\n";
    for (text, left) in [
        ("mix m { a = 50%; b = 50% }\n", "mix m { a = 50%, b = 50% }\n"),
        ("mix m {\n  a = 50%;\n  b = 50%; # half\n};\n", "mix m {\n  a = 50%\n  b = 50% # half\n}\n"),
        ("mix m { a = 50%;; b = rest; }\n", "mix m { a = 50%, b = rest }\n"),
    ] {
        let found = fixed(&format!("{sources}{text}"));
        assert_eq!(found.replace(" ,", ","), format!("{sources}{left}"));
    }
}

#[test]
fn signs_of_comparison_are_mended_and_never_piled_up() {
    for (wrong, right) in [
        ("assert 1 = 1\n", "assert 1 == 1\n"),
        ("assert 1 === 1\n", "assert 1 == 1\n"),
        ("assert 1 !== 2\n", "assert 1 != 2\n"),
        ("source b = a where length >== 10\n", "source b = a where length >= 10\n"),
        ("source b = a where length = 10\n", "source b = a where length == 10\n"),
        ("assert 1 == = 1\n", "assert 1 == = 1\n"),
        ("assert 1 => 1\n", "assert 1 => 1\n"),
        ("assert = 1\n", "assert = 1\n"),
        ("where = length >= 10\n", "where = length >= 10\n"),
    ] {
        assert_eq!(fixed(wrong), right);
    }
}

#[test]
fn a_decay_of_several_lines_ends_with_its_stage() {
    let text = jumping("@allow(lr_jump)\n", "  data_seed = 1\n").replace(
        "5e-4 then linear(to: 0)",
        "truncate(\n    5e-4 then hold(over: 40B) then linear(to: 0, over: 40_663_296_000),\n  )",
    );
    let found = check_text(&text).0;
    let lint = found.iter().find(|d| d.lint == Some("lr_never_lands")).expect("the lint");
    let edits: Vec<_> = lint.fixes[0].edits.iter().collect();
    let mended = apply_edits(&edits, &text);
    assert_eq!(codes(&mended), [""; 0], "{mended}");
}
