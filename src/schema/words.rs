//! Words with a fixed meaning: enumerations, units, attributes, reserved names.

/// A word and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    /// As written.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
}

pub(super) const fn word(name: &'static str, doc: &'static str) -> Word {
    Word { name, doc }
}

/// Kinds of source.
pub const KINDS: &[Word] = &[
    word("web", "crawled pages"),
    word("code", "source code and notebooks"),
    word("math", "mathematical text"),
    word("instruct", "instructions, questions and answers, dialogues"),
    word("textbook", "books for learners, encyclopaedias, papers"),
    word("long", "documents longer than the usual context"),
    word("reasoning", "worked chains of thought"),
    word("multilingual", "text in languages other than the main one"),
    word("other", "anything else"),
];

/// `yes` and `no`.
pub const YES_NO: &[Word] = &[word("yes", "on"), word("no", "off")];

/// Values of `attention`.
pub const ATTENTION: &[Word] = &[
    word("causal", "every earlier token of the row is visible"),
    word("documents", "attention stops at the document's beginning inside a packed row"),
];

/// Values of `packing`.
pub const PACKING: &[Word] = &[
    word("concat", "documents end to end, cut at the row's length"),
    word("best_fit", "whole documents where they fit"),
];

/// Values of `state`.
pub const STATE: &[Word] =
    &[word("keep", "optimizer moments carry over"), word("weights_only", "the optimizer starts anew")];

/// Values of `precision`.
pub const PRECISION: &[Word] =
    &[word("bf16", "bf16 products, f32 sums and master weights"), word("f32", "f32 throughout")];

/// Values of a checkpoint's `keep`.
pub const KEEP: &[Word] = &[word("forever", "never pruned")];

/// Styles of fill in the middle.
pub const PSM: &[Word] = &[word("psm", "prefix, suffix, middle"), word("spm", "suffix, prefix, middle")];

/// Values of `dedup`.
pub const DEDUP: &[Word] = &[word("exact", "by content hash, across the files of the source")];

/// Values of a lint's level in `lints`.
pub const LEVELS: &[Word] = &[
    word("allow", "not shown"),
    word("warn", "shown; does not fail the check"),
    word("deny", "fails the check"),
];

/// Orders of a source that need no field.
pub const ORDERS: &[Word] =
    &[word("shuffled", "a fresh permutation for every epoch"), word("as_written", "the order of the files")];

/// Values of a mix's `weights`.
pub const WEIGHTS: &[Word] = &[word("relative", "weights are divided by their sum")];

/// Types of a `param`.
pub const PARAM_TYPES: &[Word] = &[
    word("tokens", "a number of tokens"),
    word("steps", "a number of steps"),
    word("number", "a plain number"),
    word("share", "a percentage"),
    word("text", "a string"),
    word("batch", "a batch in `seqs` or `tokens`"),
    word("bool", "`yes` or `no`"),
];

/// Unit words.
pub const UNITS: &[Word] = &[
    word("tokens", "tokens"),
    word("seqs", "rows of one context length"),
    word("steps", "optimizer steps"),
    word("epochs", "passes over a source"),
    word("gpu_hours", "hours of one accelerator"),
    word("flops", "floating-point operations"),
];

/// Names that cannot be defined, because they have a meaning inside values.
pub const RESERVED: &[Word] = &[
    word("inherit", "the value at the end of `from`"),
    word("peak", "the curve's own maximum"),
    word("rest", "what the other weights leave"),
    word("stage", "the tokens of the stage"),
    word("yes", "on"),
    word("no", "off"),
];

/// An attribute.
#[derive(Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Without `@`.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
}

/// Attributes.
pub const ATTRIBUTES: &[Attribute] = &[
    Attribute { name: "allow", doc: "silences a lint for the item or field that follows" },
    Attribute { name: "warn", doc: "makes a lint a warning for the item or field that follows" },
    Attribute { name: "deny", doc: "makes a lint an error for the item or field that follows" },
    Attribute { name: "cite", doc: "says where a number was published" },
    Attribute { name: "assumed", doc: "marks a number that no source discloses, with the reason" },
];
