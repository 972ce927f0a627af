//! The words that editors color, against the schema table: the TextMate grammar of the VS Code
//! extension and the keywords of the Emacs mode. And the extension's settings against the server's.

use std::collections::BTreeSet;

use midc::schema;
use serde_json::Value;

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn grammar() -> Value {
    serde_json::from_str(&read("editors/vscode/syntaxes/curriculum.tmLanguage.json")).unwrap()
}

/// Words of the first group of alternatives in `pattern` that holds `one`.
fn alternatives(pattern: &str, one: &str) -> BTreeSet<String> {
    pattern
        .split(['(', ')'])
        .map(|group| group.trim_start_matches("?:").split('|').map(str::to_owned).collect::<BTreeSet<_>>())
        .find(|words| words.contains(one))
        .unwrap_or_else(|| panic!("no alternative `{one}` in {pattern}"))
}

fn set<'a>(words: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    words.into_iter().map(str::to_owned).collect()
}

/// Every pattern below `value` that matches, as written.
fn patterns(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            out.extend(map.get("match").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|v| patterns(v, out));
        }
        Value::Array(items) => items.iter().for_each(|v| patterns(v, out)),
        _ => {}
    }
}

fn of(part: &str, one: &str) -> BTreeSet<String> {
    let mut found = Vec::new();
    patterns(&grammar()["repository"][part], &mut found);
    let holds = |p: &&String| p.split(['(', ')', '|']).any(|w| w == one);
    alternatives(found.iter().find(holds).unwrap_or_else(|| panic!("no pattern with `{one}` in {part}")), one)
}

#[test]
fn blocks_and_items() {
    let blocks = schema::BLOCKS.iter().map(|b| b.keyword).chain(["param", "let", "soup"]);
    assert_eq!(of("items", "model"), set(blocks));
    assert_eq!(of("items", "use"), set(["use", "assert"]));
}

#[test]
fn functions() {
    assert_eq!(of("values", "linear"), set(schema::FUNCTIONS.iter().map(|f| f.name)));
}

#[test]
fn units_and_words() {
    assert_eq!(of("numbers", "tokens"), set(schema::UNITS.iter().map(|u| u.name)));
    let words = schema::RESERVED.iter().map(|w| w.name).chain(["total"]);
    assert_eq!(of("values", "inherit"), set(words));
}

#[test]
fn emacs_knows_every_block() {
    let mode = read("editors/emacs/curriculum-mode.el");
    for block in schema::BLOCKS {
        assert!(mode.contains(&format!("\"{}\"", block.keyword)), "{}", block.keyword);
    }
}

#[test]
fn neovim_knows_every_keyword() {
    let syntax = read("editors/neovim/syntax/curriculum.vim");
    for word in schema::BLOCKS.iter().map(|b| b.keyword).chain(schema::FUNCTIONS.iter().map(|f| f.name)) {
        assert!(syntax.split_whitespace().any(|w| w == word), "{word}");
    }
}

/// The problem matcher reads what `check --format concise` prints.
#[test]
fn the_problem_matcher_reads_the_concise_format() {
    let package: Value = serde_json::from_str(&read("editors/vscode/package.json")).unwrap();
    let pattern = &package["contributes"]["problemMatchers"][0]["pattern"];
    assert_eq!(
        pattern["regexp"], r"^(.+?):(\d+):(\d+): (error|warning)\[(\w+)\]: (.*)$",
        "changed: change the check below with it"
    );
    for line in read("tests/ui/numbers.concise").lines() {
        let mut parts = line.splitn(4, ':');
        let (_, row, column, rest) = (parts.next(), parts.next(), parts.next(), parts.next().unwrap());
        assert!(row.and_then(|r| r.parse::<u32>().ok()).is_some(), "{line}");
        assert!(column.and_then(|c| c.parse::<u32>().ok()).is_some(), "{line}");
        assert!(rest.starts_with(" error[") || rest.starts_with(" warning["), "{line}");
    }
}
