//! The vocabulary of the language in one table: blocks, fields, functions, words, units, with
//! their doc strings. Unknown-name errors, completion, hover and the reference manual read it.
//! Knows nothing of values or meaning.

mod accelerators;
mod blocks;
mod functions;
mod presets;
mod words;

pub use accelerators::{ACCELERATOR_WORDS, ACCELERATORS, Accelerator, Utilisation};
pub use blocks::{BLOCKS, Block, Field, Naming, block};
pub use functions::{FUNCTIONS, Family, Function, Param, function};
pub use presets::{PRESETS, Preset, preset};
pub use words::{
    ATTENTION, ATTRIBUTES, Attribute, DEDUP, KEEP, KINDS, LEVELS, ORDERS, PACKING, PARAM_TYPES, PRECISION,
    PSM, RESERVED, STATE, UNITS, WEIGHTS, Word, YES_NO,
};

/// What a field or argument takes; decides how its value is read and how it is described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    /// A number of tokens: `50B`, `50B tokens`, `10% of total`.
    Tokens,
    /// A number of steps: `1000`, `1000 steps`.
    Steps,
    /// A span of the stage: tokens, steps, or a share of stage or total.
    Span,
    /// A context length in tokens, or a stepped curve of them.
    Context,
    /// A batch in `seqs` or `tokens`, or a curve of them.
    Batch,
    /// A learning-rate curve.
    Lr,
    /// The value a curve moves to.
    Target,
    /// A mix, a source, or a curve of mixes.
    Mix,
    /// A share: `10%`.
    Share,
    /// A plain number.
    Number,
    /// A whole number.
    Whole,
    /// A string.
    Text,
    /// A string or a list of strings: paths or globs.
    Paths,
    /// One of a list of words.
    Word(&'static [Word]),
    /// A list of numbers.
    Numbers,
    /// What a stage starts from.
    From,
    /// An architecture: `llama(…)` or a preset.
    Init,
    /// A RoPE spelling.
    Rope,
    /// `adamw(…)`.
    Optimizer,
    /// `fim(…)`.
    Fim,
    /// A predicate over the fields of a record.
    Predicate,
    /// A place of the stage, or a condition on its learning rate.
    Condition,
    /// One name or a list of names, of fields of a record.
    Names,
    /// `shuffled`, `as_written`, `ascending(field)`, `descending(field)`.
    Order,
    /// `heldout 1%`.
    Heldout,
    /// Stages, fan-outs or checkpoints.
    Ingredients,
}

impl Ty {
    /// The words it is one of, or what is expected.
    pub fn takes(self) -> String {
        let Ty::Word(words) = self else { return self.describe().to_owned() };
        let words: Vec<String> = words.iter().map(|w| format!("`{}`", w.name)).collect();
        match words.as_slice() {
            [one] => one.clone(),
            [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
            [] => String::new(),
        }
    }

    /// What is expected, for messages: `a number of tokens, such as 50B`.
    pub fn describe(self) -> &'static str {
        match self {
            Ty::Tokens => "a number of tokens, such as `50B`",
            Ty::Steps => "a number of steps, such as `1000 steps`",
            Ty::Span => "a span, such as `2B tokens`, `1000 steps` or `5% of stage`",
            Ty::Context => "a context length, such as `4Ki`",
            Ty::Batch => "a batch, such as `1024 seqs` or `4Mi tokens`",
            Ty::Lr => "a learning rate or a curve, such as `3e-4 then linear(to: 0)`",
            Ty::Target => "the value the curve moves to",
            Ty::Mix => "a mix or a source",
            Ty::Share => "a share, such as `10%`",
            Ty::Number => "a number",
            Ty::Whole => "a whole number",
            Ty::Text => "a string",
            Ty::Paths => "a path or a list of paths",
            Ty::Word(_) => "one of a few words",
            Ty::Numbers => "a list of numbers",
            Ty::From => "a model, stage, soup or named checkpoint",
            Ty::Init => "an architecture, such as `llama(layers: 6, …)` or `smollm2_135m`",
            Ty::Rope => "a RoPE spelling, such as `yarn(factor: 4, original: 8Ki)`",
            Ty::Optimizer => "an optimizer, such as `adamw(weight_decay: 0.1)`",
            Ty::Fim => "`fim(rate: 10%, style: psm)`",
            Ty::Predicate => "a condition on a record, such as `length >= 16Ki`",
            Ty::Condition => {
                "a place of the stage, such as `40B`, or a condition, such as `lr <= 20% of peak`"
            }
            Ty::Names => "a field name or a list of them",
            Ty::Order => "`shuffled`, `as_written`, `ascending(field)` or `descending(field)`",
            Ty::Heldout => "`heldout 1%` or sources for validation",
            Ty::Ingredients => "stages, fan-outs or checkpoints",
        }
    }
}

/// A word that a field or an argument may have for its value: of an enumeration, an order or a preset.
pub fn word_of_a_field(name: &str) -> Option<&'static str> {
    let fields = BLOCKS.iter().flat_map(|b| b.fields).map(|f| f.ty);
    let params = FUNCTIONS.iter().flat_map(|f| f.params).map(|p| p.ty);
    let mut words = fields.chain(params).flat_map(|ty| match ty {
        Ty::Word(words) => words,
        Ty::Order => ORDERS,
        _ => &[],
    });
    let reserved = RESERVED.iter().any(|w| w.name == name);
    let word = words.find(|w| w.name == name && !reserved).map(|w| w.name);
    word.or_else(|| preset(name).map(|p| p.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        let mut seen = std::collections::BTreeSet::new();
        for b in BLOCKS {
            assert!(seen.insert(format!("block {}", b.keyword)), "{}", b.keyword);
            assert!(!b.doc.is_empty());
            let mut fields = std::collections::BTreeSet::new();
            for f in b.fields {
                assert!(fields.insert(f.name), "{}.{}", b.keyword, f.name);
                assert!(!f.doc.is_empty(), "{}.{}", b.keyword, f.name);
            }
        }
        for f in FUNCTIONS {
            assert!(seen.insert(format!("function {}", f.name)), "{}", f.name);
            assert!(!f.doc.is_empty());
            let mut params = std::collections::BTreeSet::new();
            for p in f.params {
                assert!(params.insert(p.name), "{}({})", f.name, p.name);
                assert!(!p.doc.is_empty(), "{}({})", f.name, p.name);
            }
        }
    }
}
