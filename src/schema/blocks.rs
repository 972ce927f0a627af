//! Blocks and their fields.

use super::Ty;
use super::accelerators::ACCELERATOR_WORDS;
use super::words::{ATTENTION, DEDUP, KEEP, KINDS, PACKING, PRECISION, STATE, WEIGHTS, YES_NO};

/// Whether a block has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It must have one.
    Named,
    /// It must not.
    Unnamed,
}

/// A braced block.
#[derive(Debug)]
pub struct Block {
    /// `stage`.
    pub keyword: &'static str,
    /// Whether it has a name.
    pub naming: Naming,
    /// The block it stands in; `None` at the top of a file.
    pub inside: Option<&'static str>,
    /// Its fields.
    pub fields: &'static [Field],
    /// What other keys it takes, in words (`mix`: sources and mixes).
    pub open: Option<&'static str>,
    /// What it is for.
    pub doc: &'static str,
}

/// A field of a block.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub ty: Ty,
    /// Whether it must be written.
    pub required: bool,
    /// Whether it is taken over from the stage in `from`.
    pub inherited: bool,
    /// What holds when it is absent, as it would be written.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
}

const fn field(name: &'static str, ty: Ty, doc: &'static str) -> Field {
    Field { name, ty, required: false, inherited: false, default: None, doc }
}

impl Field {
    const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    const fn inherited(mut self) -> Self {
        self.inherited = true;
        self
    }

    const fn default(mut self, value: &'static str) -> Self {
        self.default = Some(value);
        self
    }
}

/// What a task is read from.
const TASK: &str = "A multiple-choice task file, one question to a line: `{\"question\": \"…\", \"choices\": [\"…\", \"…\"], \"answer\": 0}`, where `context` may stand for `question`, and `answer` is the index of the right choice or its letter.";

/// The block with this keyword.
pub fn block(keyword: &str) -> Option<&'static Block> {
    BLOCKS.iter().find(|b| b.keyword == keyword)
}

impl Block {
    /// The field with this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.name == name)
    }
}

/// Every block.
pub const BLOCKS: &[Block] = &[
    Block {
        keyword: "model",
        naming: Naming::Named,
        inside: None,
        open: None,
        doc: "A starting point: an existing checkpoint or a fresh architecture.",
        fields: &[
            field("checkpoint", Ty::Text, "A Hugging Face directory or a `.gguf` file."),
            field(
                "init",
                Ty::Init,
                "An architecture to initialise at random, or the known shape of a checkpoint that is not here.",
            ),
            field("tokenizer", Ty::Text, "`tokenizer.json`; the one beside the checkpoint when absent."),
            field("context", Ty::Context, "The native context length, before any stretching."),
            field("rope", Ty::Rope, "Its position encoding."),
            field("lr", Ty::Number, "The learning rate where the checkpoint stopped; `inherit` reads it."),
            field("seen", Ty::Tokens, "Tokens the checkpoint has seen."),
            field("mix", Ty::Mix, "What it last saw, for replay."),
        ],
    },
    Block {
        keyword: "source",
        naming: Naming::Named,
        inside: None,
        open: None,
        doc: "A body of text.",
        fields: &[
            field(
                "path",
                Ty::Paths,
                "Paths or globs: `.jsonl`, `.jsonl.gz`, `.jsonl.zst`, `.parquet`, `.txt`, source trees, `.npy`, `.bin`.",
            ),
            field("kind", Ty::Word(KINDS), "What sort of text it is; lints and reports group by it.")
                .default("other"),
            field(
                "tokens",
                Ty::Tokens,
                "Its size; what `midc data --save` measured where it is not written.",
            ),
            field(
                "text",
                Ty::Text,
                "The record's text field, or a template such as `\"{question}\\n{answer}\"`.",
            ),
            field(
                "where",
                Ty::Predicate,
                "Which records belong to it: a condition over fields of the record and `length` in tokens.",
            ),
            field("max_epochs", Ty::Number, "How often it may be read.").default("4"),
            field("fim", Ty::Fim, "Fill in the middle, per document."),
            field("loss_on", Ty::Names, "Fields the loss is taken on; all when absent."),
            field(
                "today",
                Ty::Text,
                "The day that a chat template sees as today's, such as `\"2025-07-08\"`; undefined when absent.",
            ),
            field(
                "validation",
                Ty::Word(YES_NO),
                "Whether it is for evals and gates alone: in no mix, and what it holds is trained on through no other source.",
            )
            .default("no"),
            field(
                "synthetic",
                Ty::Word(YES_NO),
                "Whether a model wrote it; synthetic text tolerates more epochs.",
            )
            .default("no"),
            field("order", Ty::Order, "The order of its documents.").default("shuffled"),
            field("dedup", Ty::Word(DEDUP), "Drop documents whose content was already seen in the source."),
            field(
                "exclude",
                Ty::Paths,
                "Drop documents that share a 13-gram with these files (decontamination).",
            ),
        ],
    },
    Block {
        keyword: "mix",
        naming: Naming::Named,
        inside: None,
        open: Some("sources and mixes"),
        doc: "Named proportions: shares of sampled tokens that sum to exactly 100%.",
        fields: &[field(
            "weights",
            Ty::Word(WEIGHTS),
            "`relative` lets the weights be any positive numbers.",
        )],
    },
    Block {
        keyword: "stage",
        naming: Naming::Named,
        inside: None,
        open: None,
        doc: "One leg of the run.",
        fields: &[
            field("from", Ty::From, "The model, stage, fan-out, soup or named checkpoint it starts from.")
                .required(),
            field("tokens", Ty::Tokens, "Its length in tokens; this or `steps` must be written."),
            field("steps", Ty::Steps, "Its length in optimizer steps; this or `tokens` must be written."),
            field("context", Ty::Context, "Tokens per row: constant, or a curve of steps.").inherited(),
            field("batch", Ty::Batch, "Rows or tokens per optimizer step; whole rows at every moment.")
                .inherited(),
            field("mix", Ty::Mix, "What it reads: a mix, a source, or a curve of mixes.").inherited(),
            field("lr", Ty::Lr, "The learning rate over the tokens of the stage.").required(),
            field("rope", Ty::Rope, "How RoPE is stretched.").inherited(),
            field("attention", Ty::Word(ATTENTION), "What a token sees of its packed row.")
                .inherited()
                .default("causal"),
            field("packing", Ty::Word(PACKING), "How documents fill rows.").inherited().default("concat"),
            field("optimizer", Ty::Optimizer, "The optimizer and its constants.")
                .inherited()
                .default("adamw()"),
            field("clip", Ty::Number, "The largest global gradient norm.").inherited().default("1.0"),
            field("z_loss", Ty::Number, "The weight of log²Z in the loss.").inherited(),
            field("state", Ty::Word(STATE), "Whether optimizer moments carry over.").default("keep"),
            field("data_seed", Ty::Whole, "Seed of the data order."),
            field("init_seed", Ty::Whole, "Seed of fresh weights.").default("0"),
            field("save_every", Ty::Span, "A checkpoint every so often, besides the one at the end."),
            field("keep", Ty::Whole, "How many periodic checkpoints stay."),
            field("precision", Ty::Word(PRECISION), "Arithmetic; the device's best when absent.").inherited(),
        ],
    },
    Block {
        keyword: "checkpoint",
        naming: Naming::Named,
        inside: Some("stage"),
        open: None,
        doc: "A named point that later stages can start from.",
        fields: &[
            field("at", Ty::Span, "Where in the stage: tokens, steps or a share of it.").required(),
            field("keep", Ty::Word(KEEP), "`forever` protects it from pruning."),
        ],
    },
    Block {
        keyword: "eval",
        naming: Naming::Named,
        inside: Some("stage"),
        open: None,
        doc: "A measurement during the stage.",
        fields: &[
            field("every", Ty::Span, "How often; at the end of the stage when absent."),
            field("loss", Ty::Heldout, "Loss on a held-out share of every source, or on sources for validation, one or a list."),
            field(
                "tokens",
                Ty::Tokens,
                "Held-out tokens of each source that the loss is taken over, at most.",
            )
            .default("64Ki"),
            field("needle", Ty::Numbers, "Needle in a haystack at these lengths."),
            field("choice", Ty::Text, TASK),
        ],
    },
    Block {
        keyword: "gate",
        naming: Naming::Unnamed,
        inside: Some("stage"),
        open: Some("conditions on measurements"),
        doc: "Conditions at the end of the stage; a failed one halts the run with the checkpoint kept.",
        fields: &[],
    },
    Block {
        keyword: "budget",
        naming: Naming::Unnamed,
        inside: None,
        open: Some("`<=` constraints"),
        doc: "Totals over the whole graph: `tokens`, `steps`, `flops`, and `gpu_hours` on an accelerator.",
        fields: &[
            field("accelerator", Ty::Word(ACCELERATOR_WORDS), "Whose hours `gpu_hours` counts."),
            field("mfu", Ty::Share, "Share of its peak that the run reaches: model FLOPs utilisation.")
                .default("40%"),
        ],
    },
    Block {
        keyword: "lints",
        naming: Naming::Unnamed,
        inside: None,
        open: Some("lint names"),
        doc: "Lint levels for the file.",
        fields: &[],
    },
];
