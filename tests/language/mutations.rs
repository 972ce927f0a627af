//! Whatever a file contains: no panic, no hang, every place inside the text.

use midc::diag::render::{Format, render};
use midc::source::{FileId, Files as _, MemoryFiles};
use midc::syntax::parse;
use proptest::prelude::*;

use crate::support::{check, curricula};

/// Run the front end over `text` and check what it says about places.
fn survives(text: &str) {
    let mut files = MemoryFiles::new();
    let file = files.add("m.curriculum", text);
    let diagnostics = check(&mut files, file);
    let inside = |span: midc::source::Span| files.text(span.file).get(span.range()).is_some();
    for diagnostic in &diagnostics {
        assert!(inside(diagnostic.primary.span), "{diagnostic:?} in\n{text}");
        for label in &diagnostic.labels {
            assert!(inside(label.span), "{diagnostic:?} in\n{text}");
        }
        for edit in diagnostic.fixes.iter().flat_map(|fix| &fix.edits) {
            assert!(inside(edit.span), "{diagnostic:?} in\n{text}");
        }
    }
    render(Format::Text, &diagnostics, &files, false);
    let out = midc::fmt::format(text);
    let essence = |text: &str| {
        text.chars().filter(|c| !c.is_whitespace() && !matches!(c, ',' | '\u{feff}')).collect::<String>()
    };
    assert_eq!(essence(&out), essence(text));
}

/// A rough cut into tokens, white space included.
fn tokens(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let class = |c: char| (c.is_alphanumeric() || c == '_', c == ' ');
    for c in text.chars() {
        match out.last_mut() {
            Some(last) if last.chars().all(|l| class(l) == class(c) && class(c) != (false, false)) => {
                last.push(c)
            }
            _ => out.push(c.to_string()),
        }
    }
    out
}

#[derive(Clone, Debug)]
enum Change {
    Remove(prop::sample::Index),
    Double(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Put(prop::sample::Index, &'static str),
    Cut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    use prop::sample::Index;
    let strange = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "\\",
        "#",
        "##",
        "@",
        ",",
        ";",
        ":",
        "=",
        "==",
        "<=",
        "then",
        "of",
        "and",
        "not",
        "where",
        "rest",
        "inherit",
        "-",
        "*",
        "/",
        "%",
        "50e9T",
        "1e999",
        "0",
        "99999999999999999999999999999999999999",
        "\n",
        "\r",
        "\u{0}",
        "é",
        "\u{2028}",
        "\u{feff}",
        "stage x {",
        "let",
        "use \"x\"",
    ];
    prop_oneof![
        any::<Index>().prop_map(Change::Remove),
        any::<Index>().prop_map(Change::Double),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Change::Swap(a, b)),
        (any::<Index>(), prop::sample::select(strange.to_vec())).prop_map(|(a, t)| Change::Put(a, t)),
        any::<Index>().prop_map(Change::Cut),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn mutated_examples_are_survived(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let all = curricula("examples");
        prop_assume!(!all.is_empty());
        let mut tokens = tokens(&all[which.index(all.len())].1);
        for change in changes {
            if tokens.is_empty() {
                break;
            }
            let n = tokens.len();
            match change {
                Change::Remove(at) => { tokens.remove(at.index(n)); }
                Change::Double(at) => { let token = tokens[at.index(n)].clone(); tokens.insert(at.index(n), token); }
                Change::Swap(a, b) => tokens.swap(a.index(n), b.index(n)),
                Change::Put(at, text) => tokens.insert(at.index(n), text.to_owned()),
                Change::Cut(at) => tokens.truncate(at.index(n)),
            }
        }
        survives(&tokens.concat());
    }

    #[test]
    fn random_text_is_survived(text in "[a-z0-9 \n\"#@(){}\\[\\],.:=<>%é\\\\-]{0,200}") {
        survives(&text);
    }

    #[test]
    fn random_characters_are_survived(text in any::<String>()) {
        survives(&text);
    }
}

#[test]
fn deep_and_endless_input_is_survived() {
    for text in [
        "(".repeat(1000),
        format!("let x = {}1{}", "(".repeat(1000), ")".repeat(1000)),
        "stage a {\n".repeat(10_000),
        "stage a {".repeat(10_000),
        "}".repeat(10_000),
        "[(".repeat(5_000),
        "@a(".repeat(5_000),
        "let x = \"".repeat(5_000),
        format!("let x = {}", "f(".repeat(63)),
        format!("let x = {}", "-(".repeat(60)),
        "a = b then ".repeat(5_000),
        format!("let x = a{}", " then b".repeat(20_000)),
        format!("let x = a{}", " and b".repeat(20_000)),
        format!("let x = a{}", ".b".repeat(20_000)),
        format!("let x = a{}", "[1]".repeat(20_000)),
        format!("let x = {}", "9".repeat(100_000)),
        "\u{feff}".repeat(100),
        "é\n".repeat(5_000),
    ] {
        let (_, diagnostics) = parse(FileId(0), &text);
        drop(diagnostics);
        midc::fmt::format(&text);
    }
}
