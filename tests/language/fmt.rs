//! The formatter on real and random curricula.

use midc::fmt::format;
use midc::ide::format_range;
use midc::source::FileId;
use midc::syntax::{ast, parse};
use proptest::prelude::*;

use crate::support::curricula;

#[test]
fn examples_are_formatted() {
    let unformatted: Vec<String> = curricula("examples")
        .iter()
        .filter(|(_, text)| format(text) != *text)
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(unformatted.is_empty(), "run `midc fmt` on {unformatted:?}");
}

/// The tree without places: Rust's debug form with every span cut out.
fn shape(file: &ast::File) -> String {
    let mut out = String::new();
    let debug = format!("{:?}", (&file.items, &file.comments));
    let mut rest = debug.as_str();
    while let Some(at) = rest.find("Span {") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[rest.find('}').map_or(rest.len(), |end| end + 1)..];
    }
    out + rest
}

/// A name, now and then a long one.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-z][a-z_0-9]{0,6}", 1 => "[a-z]{20,40}"].prop_filter("a keyword", |n| {
        !["use", "as", "param", "let", "assert", "in", "then", "of", "and", "or", "not", "where"]
            .contains(&n.as_str())
    })
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9]{1,4}",
        "[0-9]{1,3}(k|M|B|T|Ki|Mi|Gi|Ti)",
        "[0-9]{1,2}(\\.[0-9]{1,2})?%",
        "[0-9]\\.[0-9]{1,4}e-[1-9]",
        "[1-9][0-9]{0,2}  ?(tokens|steps|seqs)",
    ]
}

/// White space or a comment, as may stand between the tokens of a bracket.
fn gap() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 3 => Just(" ".to_owned()), 1 => Just("\n".to_owned()),
        1 => "[ a-z]{0,8}".prop_map(|c| format!(" # {c}\n"))]
}

fn expr() -> impl Strategy<Value = String> {
    let leaf =
        prop_oneof![number(), name(), Just("\"a, # b\\\"\"".to_owned()), Just("s.web[42].x[*]".to_owned())];
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            (name(), prop::collection::vec((any::<bool>(), gap(), inner.clone(), gap()), 0..5)).prop_map(
                |(f, args)| {
                    let args: Vec<String> = args
                        .into_iter()
                        .map(|(named, a, e, b)| format!("{a}{}{e}{b}", if named { "k:" } else { "" }))
                        .collect();
                    format!("{f}({})", args.join(","))
                }
            ),
            prop::collection::vec((gap(), inner.clone(), gap()), 0..5).prop_map(|items| {
                let items: Vec<String> = items.into_iter().map(|(a, e, b)| format!("{a}{e}{b}")).collect();
                format!("[{}]", items.join(","))
            }),
            (inner.clone(), gap(), prop_oneof![Just("then"), Just("and"), Just("or")], gap(), inner.clone())
                .prop_map(|(a, g, op, h, b)| format!("({a} {g}{op} {h}{b})")),
            (
                inner.clone(),
                prop_oneof![Just("+"), Just("*"), Just(" of "), Just("<="), Just(" where ")],
                inner.clone()
            )
                .prop_map(|(a, op, b)| format!("({a}{op}{b})")),
            inner.prop_map(|e| format!("({e})")),
        ]
    })
}

fn chain() -> impl Strategy<Value = String> {
    (expr(), prop::collection::vec((gap(), expr()), 0..4)).prop_map(|(first, rest)| {
        rest.into_iter().fold(first, |out, (gap, e)| format!("{out} {gap}then {e}"))
    })
}

fn preface() -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(String::new()), 1 => "[a-z ]{0,9}".prop_map(|d| format!("##{d}\n")),
        1 => Just("@cite(\"x\") ".to_owned()), 1 => Just("@assumed\n".to_owned()), 1 => "[a-z ]{0,9}".prop_map(|c| format!("# {c}\n\n"))]
}

fn entry() -> impl Strategy<Value = String> {
    (
        preface(),
        prop_oneof![
            4 => (name(), chain()).prop_map(|(k, v)| format!("{k}={v}")),
            1 => (name(), number()).prop_map(|(k, v)| format!("{k} <={v}")),
            1 => (name(), name(), number()).prop_map(|(b, k, v)| format!("{b} {{ {k}={v} }}")),
            1 => expr().prop_map(|e| format!("assert {e}, \"why\"")),
        ],
    )
        .prop_map(|(p, e)| p + &e)
}

fn item() -> impl Strategy<Value = String> {
    let end = prop_oneof![3 => Just("\n"), 1 => Just(", "), 1 => Just("  # trailing\n"), 1 => Just("\n\n\n")];
    (
        preface(),
        prop_oneof![
            (name(), chain()).prop_map(|(n, v)| format!("let {n} = {v}")),
            (name(), chain()).prop_map(|(n, v)| format!("param {n} :tokens= {v}")),
            (name(), name(), chain()).prop_map(|(k, n, v)| format!("{k} {n}= {v}")),
            Just("use \"a.curriculum\"as s , sha256:\"f\"".to_owned()),
            (name(), name(), prop::collection::vec((entry(), end), 0..6)).prop_map(|(k, n, entries)| {
                let entries: String = entries.into_iter().map(|(e, end)| e + end).collect();
                format!("{k} {n}[x in [1,2]] {{{entries}}}")
            }),
        ],
    )
        .prop_map(|(p, i)| p + &i)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn formatting_keeps_everything_and_settles(items in prop::collection::vec(item(), 0..5)) {
        let text = items.join("\n");
        let (before, diagnostics) = parse(FileId(0), &text);
        prop_assert!(diagnostics.is_empty(), "{:?} in\n{}", diagnostics, text);
        let out = format(&text);
        let (after, diagnostics) = parse(FileId(0), &out);
        prop_assert!(diagnostics.is_empty(), "{:?} in\n{}", diagnostics, out);
        prop_assert_eq!(shape(&before), shape(&after), "{}\n{}", text, out);
        prop_assert_eq!(format(&out), out);
    }

    #[test]
    fn a_line_formatted_by_itself_leaves_the_rest(
        items in prop::collection::vec(item(), 1..4),
        place in any::<prop::sample::Index>(),
    ) {
        let text = items.join("\n");
        let at = place.index(text.len());
        prop_assume!(text.is_char_boundary(at));
        let mut partly = text.clone();
        for edit in format_range(&text, at..at).iter().rev() {
            partly.replace_range(edit.range.clone(), &edit.text);
        }
        prop_assert_eq!(format(&partly), format(&text), "{}\n{}", text, partly);
    }
}

#[test]
fn broken_examples_settle_and_lose_nothing() {
    let essence = |text: &str| text.chars().filter(|c| !c.is_whitespace() && *c != ',').collect::<String>();
    for (path, text) in curricula("tests/ui") {
        let once = format(&text);
        assert_eq!(essence(&once), essence(&text), "{}", path.display());
        assert_eq!(format(&once), once, "{}", path.display());
    }
}
