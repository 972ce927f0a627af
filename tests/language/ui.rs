//! Golden output: `tests/ui/NAME.curriculum` with `NAME.concise` and `NAME.txt` beside it.

use midc::diag::CODES;
use midc::diag::render::{Format, render};
use midc::source::MemoryFiles;

use crate::support::{check, curricula, golden};

#[test]
fn diagnostics_read_as_blessed() {
    let mut wrong = Vec::new();
    for (path, text) in curricula("tests/ui") {
        let mut files = MemoryFiles::new();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let file = files.add(&name, text);
        let diagnostics = check(&mut files, file);
        for (format, extension) in [(Format::Concise, "concise"), (Format::Text, "txt")] {
            let actual = render(format, &diagnostics, &files, false);
            wrong.extend(golden(&path.with_extension(extension), &actual));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_code_has_a_golden_file() {
    let blessed: String = curricula("tests/ui")
        .into_iter()
        .map(|(path, _)| std::fs::read_to_string(path.with_extension("concise")).unwrap_or_default())
        .collect();
    let missing: Vec<String> = CODES
        .iter()
        .filter(|info| !info.page.contains("No example is shown"))
        .map(|info| info.code.to_string())
        .filter(|code| !blessed.contains(&format!("[{code}]")))
        .collect();
    assert!(missing.is_empty(), "codes without a file in tests/ui: {missing:?}");
}

#[test]
fn messages_keep_to_the_rules() {
    let mut wrong = Vec::new();
    for (path, text) in curricula("tests/ui") {
        let mut files = MemoryFiles::new();
        let file = files.add("test.curriculum", text);
        for diagnostic in check(&mut files, file) {
            let message = &diagnostic.message;
            let first = message.chars().next().unwrap_or('X');
            if first.is_uppercase() || message.ends_with('.') || message.contains('\n') {
                wrong.push(format!("{}: `{message}`", path.display()));
            }
            if diagnostic.primary.text.ends_with('.') || diagnostic.primary.text.is_empty() {
                wrong.push(format!("{}: label of `{message}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn five_mistakes_on_five_lines_are_five_diagnostics() {
    let text =
        std::fs::read_to_string(crate::support::root().join("tests/ui/five_mistakes.curriculum")).unwrap();
    let marked: Vec<usize> =
        text.lines().enumerate().filter(|(_, l)| l.ends_with("# wrong")).map(|(i, _)| i + 1).collect();
    let (found, files) = crate::support::check_text(&text);
    let concise = render(Format::Concise, &found, &files, false);
    let lines: Vec<usize> = concise.lines().map(|l| l.split(':').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(marked.len(), 5);
    assert_eq!(lines, marked, "{concise}");
}
