//! `examples/published-mistakes/`: every file draws exactly the diagnostics of its first line, and
//! its corrected twin none.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

const MISTAKES: &[&str] = &["examples/published-mistakes"];

/// Lint names, or codes where there is no lint, of what `midc check -D warnings` reports; and its
/// exit code.
fn check(path: &Path) -> (BTreeSet<String>, i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_midc"))
        .args(["check", "--format", "json", "-D", "warnings"])
        .arg(path)
        .output()
        .expect("midc runs");
    let found = String::from_utf8(output.stdout)
        .expect("JSON is UTF-8")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON object per line"))
        .filter(|value| value.get("summary").is_none())
        .map(|value| value["lint"].as_str().or(value["code"].as_str()).expect("a lint or a code").to_owned())
        .collect();
    (found, output.status.code().expect("no signal"))
}

fn expected(path: &Path) -> Option<BTreeSet<String>> {
    let text = std::fs::read_to_string(path).expect("readable");
    let names = text.lines().next()?.strip_prefix("# expect: ")?;
    Some(names.split(',').map(|name| name.trim().to_owned()).collect())
}

fn is_twin(path: &Path) -> bool {
    path.to_string_lossy().ends_with(".fixed.curriculum")
}

#[test]
fn each_mistake_draws_its_diagnostic() {
    let mut wrong = Vec::new();
    for path in common::curricula(MISTAKES).iter().filter(|path| !is_twin(path)) {
        let expected = expected(path).unwrap_or_else(|| panic!("{} says what it expects", path.display()));
        let (found, status) = check(path);
        if found != expected || status != 1 {
            wrong.push(format!("{}: {found:?} (exit code {status}), not {expected:?}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_corrected_twin_is_clean() {
    let mut wrong = Vec::new();
    for path in common::curricula(MISTAKES).iter().filter(|path| is_twin(path)) {
        let (found, status) = check(path);
        if !found.is_empty() || status != 0 {
            wrong.push(format!("{}: {found:?} (exit code {status})", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_twenty_are_there_with_their_twins() {
    let names: Vec<String> = common::curricula(MISTAKES)
        .iter()
        .map(|path| path.file_name().expect("a file").to_string_lossy().into_owned())
        .collect();
    for number in 1..=20 {
        let prefix = format!("m{number:02}_");
        let of: Vec<&String> = names.iter().filter(|name| name.starts_with(&prefix)).collect();
        let [launched, fixed] = of.as_slice() else { panic!("{prefix}: {of:?}") };
        assert_eq!(fixed.replace(".fixed", ""), **launched);
    }
}
