//! The words of the language, each with what it means wherever it may stand.

use std::fmt::Write as _;

use crate::ide::{ITEM_WORDS, MORE_WORDS, label};
use crate::schema::{self, Block, Function, Word};

/// All that is to be said of `name`; `None` when it is no word of the language.
pub(super) fn explain(name: &str) -> Option<String> {
    let name = name.trim_start_matches('@');
    let mut found = Vec::new();
    for (place, words) in
        [("begins an item", ITEM_WORDS), ("inside values", MORE_WORDS), ("inside values", SIGNS)]
    {
        let words = words.iter().filter(|(word, _)| *word == name);
        found.extend(words.map(|(_, doc)| format!("`{name}`, {place}: {doc}\n")));
    }
    found.extend(schema::block(name).map(block));
    found.extend(schema::function(name).map(function));
    found.extend(schema::preset(name).map(|p| format!("`{name}`: {}, an architecture for `init`\n", p.doc)));
    for block in schema::BLOCKS {
        if let Some(f) = block.field(name) {
            let notes = notes(f.required, f.default);
            found.push(format!("`{name}` of a `{}`: {}{notes}\n{}\n", block.keyword, f.ty.takes(), f.doc));
        }
    }
    found.extend(arguments(name));
    for (place, words) in WORDS {
        let words = words.iter().filter(|word| word.name == name);
        found.extend(words.map(|word| format!("`{name}`, {place}: {}\n", word.doc)));
    }
    let attributes = schema::ATTRIBUTES.iter().filter(|a| a.name == name);
    found.extend(attributes.map(|a| format!("`@{name}`, before an item or a field: {}\n", a.doc)));
    (!found.is_empty()).then(|| found.join("\n"))
}

/// Every word that [`explain`] knows.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let blocks = schema::BLOCKS.iter().flat_map(|b| b.fields.iter().map(|f| f.name).chain([b.keyword]));
    let words = WORDS.iter().flat_map(|(_, words)| words.iter().map(|word| word.name));
    let functions = schema::FUNCTIONS.iter().flat_map(|f| f.params.iter().map(|p| p.name).chain([f.name]));
    blocks
        .chain(functions)
        .chain(schema::PRESETS.iter().map(|p| p.name))
        .chain(words)
        .chain([ITEM_WORDS, MORE_WORDS, SIGNS].into_iter().flatten().map(|(word, _)| *word))
        .chain(schema::ATTRIBUTES.iter().map(|a| a.name))
}

/// Words between values, which the grammar knows.
const SIGNS: &[(&str, &str)] = &[
    ("then", "the next segment of a curve: `3e-4 then linear(to: 0)`"),
    ("of", "a share of something: `10% of peak`, `5% of stage`"),
    ("where", "which records of a source: `books where length >= 16Ki`"),
    ("heldout", "documents kept from training to measure on: `loss = heldout 1%`"),
    ("in", "the values of a fan-out: `stage anneal[seed in [1, 2]]`"),
    ("as", "the name of an imported file: `use \"sources.curriculum\" as s`"),
    ("and", "both conditions hold"),
    ("or", "at least one of two conditions holds"),
    ("not", "a condition does not hold"),
];

/// Enumerations and where they stand.
const WORDS: &[(&str, &[Word])] = &[
    ("a unit after a number", schema::UNITS),
    ("a kind of source", schema::KINDS),
    ("an order of a source", schema::ORDERS),
    ("a value of `attention`", schema::ATTENTION),
    ("a value of `packing`", schema::PACKING),
    ("a value of `state`", schema::STATE),
    ("a value of `precision`", schema::PRECISION),
    ("a value of a checkpoint's `keep`", schema::KEEP),
    ("a value of `dedup`", schema::DEDUP),
    ("a value of `weights` in a mix", schema::WEIGHTS),
    ("a `style` of `fim`", schema::PSM),
    ("an accelerator of a `budget`", schema::ACCELERATOR_WORDS),
    ("a level of a lint", schema::LEVELS),
    ("a type of a `param`", schema::PARAM_TYPES),
    ("inside values", schema::RESERVED),
];

fn block(block: &Block) -> String {
    let inside = block.inside.map_or(String::new(), |outer| format!(", inside a `{outer}`"));
    let mut out = format!("`{}`{inside}: {}\n", block.keyword, block.doc);
    if let Some(open) = block.open {
        let _ = writeln!(out, "Its entries are {open}.");
    }
    let widest = block.fields.iter().map(|f| f.name.len()).max().unwrap_or(0);
    for field in block.fields {
        let _ =
            writeln!(out, "  {:widest$}  {}{}", field.name, field.doc, notes(field.required, field.default));
    }
    out
}

fn function(function: &Function) -> String {
    let family = function.family.describe();
    let mut out = format!("`{}`, {family}: {}\n", label(function).0, function.doc);
    let widest = function.params.iter().map(|p| p.name.len()).max().unwrap_or(0);
    for param in function.params {
        let _ =
            writeln!(out, "  {:widest$}  {}{}", param.name, param.doc, notes(param.required, param.default));
    }
    out
}

/// What `name` is as an argument: once for all functions of which the same is to be said.
fn arguments(name: &str) -> Vec<String> {
    let mut said: Vec<(String, Vec<String>)> = Vec::new();
    for function in schema::FUNCTIONS {
        let Some(param) = function.param(name) else { continue };
        let notes = notes(param.required, param.default);
        let text = format!("{}{notes}\n{}\n", param.ty.takes(), param.doc);
        let of = format!("`{}`", function.name);
        match said.iter_mut().find(|(known, _)| *known == text) {
            Some((_, functions)) => functions.push(of),
            None => said.push((text, vec![of])),
        }
    }
    said.into_iter().map(|(text, of)| format!("`{name}:` in {}: {text}", of.join(", "))).collect()
}

fn notes(required: bool, default: Option<&str>) -> String {
    match (required, default) {
        (true, _) => " (required)".to_owned(),
        (false, Some(default)) => format!(" (default `{default}`)"),
        (false, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_explained() {
        for name in names() {
            assert!(
                explain(name).is_some_and(
                    |text| text.contains(&format!("`{name}")) || text.contains(&format!("`@{name}"))
                ),
                "{name}"
            );
        }
        assert_eq!(explain("abracadabra"), None);
    }

    #[test]
    fn a_word_of_many_places_has_them_all() {
        let lr = explain("lr").unwrap();
        assert!(lr.contains("of a `model`") && lr.contains("of a `stage`"), "{lr}");
        let yarn = explain("yarn").unwrap();
        assert!(yarn.starts_with("`yarn(factor: ") && yarn.contains("beta_fast"), "{yarn}");
        let over = explain("over").unwrap();
        assert!(
            over.starts_with("`over:` in `hold`, `linear`") && over.contains("a span, such as"),
            "{over}"
        );
        assert!(explain("half_life").is_some() && explain("betas").unwrap().contains("`adamw`, `muon`"));
        assert!(explain("stage").unwrap().contains("data_seed"));
        assert!(explain("@cite").unwrap().starts_with("`@cite`"));
        assert!(explain("soup").unwrap().contains("average") && explain("then").is_some());
    }
}
