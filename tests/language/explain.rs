//! Every code and lint has an explain page whose failing example draws exactly that code and whose
//! fixed example is clean.

use crate::support::{check_text, examples};
use midc::diag::CODES;

#[test]
fn every_page_has_its_parts() {
    for info in CODES {
        let code = info.code.to_string();
        let first = info.page.lines().next().unwrap_or_default();
        assert!(first.starts_with(&format!("# {code}: ")), "{code}: the page starts with `{first}`");
        assert!(info.page.contains("\n## Why it matters\n"), "{code}: the page says why it matters");
        if let Some(lint) = info.lint {
            assert!(first.contains(&format!("(`{lint}`)")), "{code}: the heading names the lint");
        }
        for line in info.page.lines() {
            assert!(line.chars().count() <= 120, "{code}: a line longer than 120 characters");
        }
    }
}

#[test]
fn failing_examples_fail_and_fixed_ones_are_clean() {
    let mut wrong = Vec::new();
    for info in CODES {
        let code = info.code.to_string();
        if info.page.contains("No example is shown") {
            continue;
        }
        for (kind, expected) in [("fail", vec![code.clone()]), ("ok", Vec::new())] {
            let texts = examples(info.page, kind);
            if texts.is_empty() {
                wrong.push(format!("{code}: no `{kind}` example"));
            }
            for text in texts {
                let (found, _) = check_text(&text);
                let mut codes: Vec<String> = found.iter().map(|d| d.code.to_string()).collect();
                codes.dedup();
                if codes != expected {
                    let messages: Vec<&str> = found.iter().map(|d| d.message.as_str()).collect();
                    wrong.push(format!("{code}: the `{kind}` example draws {codes:?}: {messages:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn codes_are_unique_and_in_order() {
    for pair in CODES.windows(2) {
        assert!(pair[0].code < pair[1].code, "{} before {}", pair[0].code, pair[1].code);
    }
    let mut lints: Vec<&str> = CODES.iter().filter_map(|info| info.lint).collect();
    let count = lints.len();
    lints.sort_unstable();
    lints.dedup();
    assert_eq!(lints.len(), count);
}
