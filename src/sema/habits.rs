//! What other tools call things, and what they are called here: fields of blocks and functions. Only names; where
//! they may stand is in the schema.

use crate::schema::{self, Block, Family};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meant {
    /// Another name in its place.
    Name(&'static str),
    /// Something said in another way.
    Said(&'static str),
}

use Meant::{Name, Said};

/// A block, what is meant there, and the names others have for it.
type Row = (&'static str, Meant, &'static [&'static str]);

const OPTIMIZER: Meant =
    Said("it is the optimizer's: `optimizer = adamw(betas: [0.9, 0.95], weight_decay: 0.1)`");
const SCHEDULE: Meant = Said(
    "the whole of it is one curve: `lr = 0 then linear(to: 3e-4, over: 2000 steps) then cosine(to: 3e-5)`",
);
const MEASURE: Meant =
    Said("a measurement is a block: `eval heldout { every = 500 steps, loss = heldout 1% }`");
const LENGTH: Meant = Said(
    "the length of a stage is its `tokens` or `steps`; how often a source may be read is its `max_epochs`",
);
const SHARES: Meant = Said(SHARES_STAND_IN_A_MIX);
const CUT: Meant =
    Said("`batch` is what one step of the optimizer sees; how it is cut is found when it is run");

/// Said where several sources stand without their shares.
pub(super) const SHARES_STAND_IN_A_MIX: &str =
    "how much is read of each is said in a mix: `mix { web = 60%, code = rest }`";

/// Fields of blocks.
const FIELDS: &[Row] = &[
    ("stage", Name("lr"), &["learning_rate", "max_lr", "peak_lr", "base_lr"]),
    (
        "stage",
        Name("context"),
        &[
            "seq_len",
            "seq_length",
            "sequence_length",
            "max_seq_len",
            "max_seq_length",
            "max_sequence_length",
            "max_length",
            "block_size",
            "context_length",
            "context_len",
            "n_ctx",
        ],
    ),
    ("stage", Name("batch"), &["batch_size", "global_batch_size", "train_batch_size", "tokens_per_step"]),
    ("stage", Name("mix"), &["data", "mixture", "dataset", "data_mix", "train_data"]),
    ("stage", SHARES, &["datasets", "sources", "data_sources"]),
    ("stage", Name("rope"), &["rope_scaling"]),
    (
        "stage",
        Said("a new base is a value of `rope`: `rope = abf(theta: 1_000_000)`"),
        &["rope_theta", "rope_base"],
    ),
    (
        "stage",
        Said("write `attention = documents`: no token sees those of another document"),
        &[
            "intra_document_masking",
            "intra_doc_masking",
            "document_masking",
            "document_mask",
            "doc_mask",
            "reset_attention_mask",
        ],
    ),
    ("stage", Name("from"), &["base", "parent", "init_from", "resume_from", "load_from", "model"]),
    ("stage", Name("steps"), &["max_steps", "num_steps", "train_steps", "total_steps", "train_iters"]),
    ("stage", Name("tokens"), &["token_budget", "budget", "max_tokens", "num_tokens", "train_tokens"]),
    (
        "stage",
        Name("save_every"),
        &["save_steps", "save_interval", "checkpoint_every", "ckpt_interval", "checkpoint_interval"],
    ),
    ("stage", Name("keep"), &["save_total_limit", "keep_last"]),
    ("stage", Name("clip"), &["max_grad_norm", "grad_clip", "gradient_clipping", "clip_grad"]),
    ("stage", Name("precision"), &["dtype", "torch_dtype", "param_dtype", "mixed_precision"]),
    ("stage", Said("write `precision = bf16`; without it the device's best is taken"), &["bf16", "fp16"]),
    ("stage", OPTIMIZER, &["weight_decay", "betas", "adam_beta1", "adam_beta2", "adam_epsilon", "eps"]),
    (
        "stage",
        SCHEDULE,
        &[
            "warmup",
            "warmup_steps",
            "num_warmup_steps",
            "warmup_ratio",
            "warmup_tokens",
            "lr_scheduler_type",
            "lr_scheduler",
            "lr_schedule",
            "lr_decay_style",
            "scheduler",
            "schedule",
            "min_lr",
            "min_lr_ratio",
            "min_lr_rate",
            "lr_min",
            "final_lr",
            "end_lr",
            "lr_end",
            "decay",
            "decay_steps",
        ],
    ),
    ("stage", MEASURE, &["eval_every", "eval_steps", "eval_interval", "evaluation_strategy"]),
    ("stage", LENGTH, &["epochs", "num_epochs", "num_train_epochs"]),
    (
        "stage",
        CUT,
        &[
            "gradient_accumulation_steps",
            "grad_accum_steps",
            "micro_batch_size",
            "per_device_batch_size",
            "per_device_train_batch_size",
        ],
    ),
    ("source", Name("where"), &["filter", "filters", "predicate", "condition"]),
    ("source", Name("text"), &["text_field", "text_column", "text_key", "content_field"]),
    ("source", Name("exclude"), &["decontaminate", "decontamination", "decontaminate_against"]),
    ("source", Name("tokens"), &["size", "num_tokens", "token_count", "n_tokens"]),
    ("source", Name("kind"), &["type", "category", "domain"]),
    ("source", Name("path"), &["paths", "file", "files", "data_files", "dataset", "url"]),
    ("source", Name("max_epochs"), &["epochs", "max_repeats", "repeats", "repeat"]),
    ("source", Name("dedup"), &["deduplicate", "deduplication", "dedupe"]),
    ("source", Name("loss_on"), &["loss_mask", "train_on"]),
    (
        "source",
        Said("how much of it is read is said in a mix: `mix NAME { web = 60%, code = rest }`"),
        &["weight", "proportion", "ratio", "probability", "sampling_weight"],
    ),
    (
        "source",
        Said("documents are shuffled unless `order` says otherwise, as in `order = as_written`"),
        &["shuffle"],
    ),
    (
        "source",
        Said("the tokenizer is the model's: `model base { … tokenizer = \"tokenizer.json\" }`"),
        &["tokenizer"],
    ),
    ("model", Name("checkpoint"), &["path", "pretrained", "model_name_or_path", "weights"]),
    ("model", Name("init"), &["config", "architecture", "arch"]),
    ("model", Name("context"), &["seq_len", "max_seq_len", "max_position_embeddings", "context_length"]),
    ("model", Name("rope"), &["rope_scaling"]),
    (
        "model",
        Said("the base is that of its RoPE: `rope = rope(theta: 500_000)`"),
        &["rope_theta", "rope_base"],
    ),
    ("model", Name("lr"), &["learning_rate"]),
    ("model", Name("seen"), &["tokens", "tokens_seen", "trained_on"]),
];

const WARMED_COSINE: Meant =
    Said("write it in parts: `0 then linear(to: 3e-4, over: 2000 steps) then cosine(to: 3e-5)`");

/// Functions.
const FUNCTIONS: &[(Family, Meant, &[&str])] = &[
    (
        Family::Segment,
        Said("a warm-up is a line from zero: `0 then linear(to: 3e-4, over: 2000 steps) then …`"),
        &["warmup", "linear_warmup", "warm_up"],
    ),
    (Family::Segment, Name("hold"), &["constant", "flat", "plateau", "stable"]),
    (
        Family::Segment,
        Said(
            "write it in parts: `0 then linear(to: 3e-4, over: 1% of stage) then hold then \
             one_minus_sqrt(to: 0, over: 10% of stage)`",
        ),
        &["wsd", "wsd_schedule", "warmup_stable_decay", "trapezoid", "trapezoidal"],
    ),
    (
        Family::Segment,
        WARMED_COSINE,
        &["cosine_with_warmup", "warmup_cosine", "cosine_schedule", "cosine_schedule_with_warmup"],
    ),
    (Family::Segment, Name("cosine"), &["cosine_annealing", "cosine_decay", "cos"]),
    (Family::Segment, Name("linear"), &["linear_decay", "lerp", "ramp"]),
    (Family::Segment, Name("one_minus_sqrt"), &["sqrt", "sqrt_decay", "minus_sqrt"]),
    (Family::Segment, Name("inv_sqrt"), &["inverse_sqrt", "inverse_square_root", "rsqrt", "noam"]),
    (Family::Segment, Name("poly"), &["polynomial", "polynomial_decay"]),
    (Family::Segment, Name("exp"), &["exponential", "exponential_decay"]),
    (Family::Measure, Name("choice"), &["acc", "accuracy", "exact_match", "multiple_choice"]),
    (Family::Measure, Name("loss"), &["nll", "cross_entropy", "val_loss", "eval_loss"]),
    (
        Family::Measure,
        Said("a gate compares the loss, in nats: of a perplexity of 12, `loss(web) <= 2.485`, its logarithm"),
        &["ppl", "perplexity"],
    ),
];

/// Arguments of functions, and the names others have for them. Each is that of any function which has it.
const ARGUMENTS: &[(&str, &[&str])] = &[
    // What some papers call s.
    ("factor", &["scale", "scaling_factor"]),
    ("original", &["original_max_position_embeddings", "original_context", "original_length"]),
    ("theta", &["rope_theta", "base"]),
    ("low", &["low_freq_factor"]),
    ("high", &["high_freq_factor"]),
    ("short", &["short_factor"]),
    ("long", &["long_factor"]),
    ("attention_factor", &["attn_factor"]),
    ("betas", &["adam_betas"]),
    ("eps", &["epsilon", "adam_epsilon"]),
    ("weight_decay", &["wd"]),
];

/// One of the two numbers that `betas` has here: whether it is the second of them.
pub(super) fn beta(name: &str) -> Option<bool> {
    match name {
        "beta1" | "beta_1" | "adam_beta1" | "b1" => Some(false),
        "beta2" | "beta_2" | "adam_beta2" | "b2" => Some(true),
        _ => None,
    }
}

/// What an argument of `function` called `name` stands for.
pub(super) fn argument(function: &schema::Function, name: &str) -> Option<&'static str> {
    let mut rows = ARGUMENTS.iter().filter(|(right, _)| function.param(right).is_some());
    rows.find(|(_, names)| names.contains(&name)).map(|(right, _)| *right)
}

/// What a field called `name` in `block` stands for.
pub(super) fn field(block: &Block, name: &str) -> Option<Meant> {
    let mut rows = FIELDS.iter().filter(|(keyword, ..)| *keyword == block.keyword);
    rows.find(|(_, _, names)| names.contains(&name)).map(|(_, meant, _)| *meant)
}

/// What a function called `name` stands for, and the family of what is meant.
pub(super) fn function(name: &str) -> Option<(Family, Meant)> {
    let row = FUNCTIONS.iter().find(|(_, _, names)| names.contains(&name));
    row.map(|(family, meant, _)| (*family, *meant))
}

/// The functions of a family, as they are called.
pub(super) fn functions(family: Family) -> String {
    let known = schema::FUNCTIONS.iter().filter(|f| f.family == family);
    known.map(|f| format!("`{}(…)`", f.name)).collect::<Vec<_>>().join(", ")
}

/// How a block that stands inside another is written.
pub(super) fn block(keyword: &str) -> Option<&'static str> {
    match keyword {
        "gate" => Some("write `gate { loss(web) <= 2.5 }`"),
        "checkpoint" => Some("write `checkpoint NAME { at = 50% of stage }`"),
        "eval" => Some("write `eval NAME { every = 500 steps, loss = heldout 1% }`"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Diagnostic;
    use crate::sema::{Options, check};
    use crate::source::MemoryFiles;

    fn found(text: &str) -> Vec<Diagnostic> {
        let mut files = MemoryFiles::new();
        let file = files.add("run.curriculum", text);
        check(&mut files, file, &Options::default()).1
    }

    /// Whether the message about `name` in `text` leads to what is meant.
    fn told(text: &str, name: &str, meant: Meant) {
        let found = found(text);
        let at = |d: &&Diagnostic| &text[d.primary.span.range()] == name;
        let Some(d) = found.iter().find(at) else { panic!("`{name}` is not told of: {found:?}") };
        match meant {
            Name(right) => {
                assert!(d.help.iter().any(|h| h.contains(&format!("`{right}`"))), "{name}: {d:?}");
                assert!(d.fixes.iter().any(|f| f.edits[0].text == right), "{name}: {d:?}");
            }
            Said(help) => assert_eq!(d.help, [help], "{name}"),
        }
    }

    #[test]
    fn every_field_of_others_leads_to_the_one_here() {
        for (keyword, meant, names) in FIELDS {
            let block = schema::block(keyword).expect("a block");
            for name in *names {
                assert!(block.field(name).is_none(), "{keyword}.{name}");
                if let Name(right) = meant {
                    assert!(block.field(right).is_some(), "{keyword}.{right}");
                }
                told(&format!("{keyword} x {{ {name} = 1 }}\n"), name, *meant);
            }
        }
    }

    #[test]
    fn every_function_of_others_leads_to_the_one_here() {
        for (family, meant, names) in FUNCTIONS {
            for name in *names {
                assert!(schema::function(name).is_none(), "{name}");
                if let Name(right) = meant {
                    assert_eq!(schema::function(right).map(|f| f.family), Some(*family), "{right}");
                }
                told(&format!("let x = 1 then {name}(1)\n"), name, *meant);
            }
        }
    }

    #[test]
    fn every_argument_of_others_leads_to_the_one_here() {
        for (right, names) in ARGUMENTS {
            let function = schema::FUNCTIONS.iter().find(|f| f.param(right).is_some()).expect("a function");
            for name in *names {
                assert_eq!(argument(function, name), Some(*right), "{}", function.name);
                told(&format!("let x = {}({name}: 1)\n", function.name), name, Name(right));
            }
        }
    }

    #[test]
    fn blocks_inside_a_stage_are_no_fields() {
        for inner in schema::BLOCKS.iter().filter(|b| b.inside == Some("stage")) {
            let help = block(inner.keyword).expect("every one has an example");
            let found = found(&format!("stage s {{ {} = 1 }}\n", inner.keyword));
            assert_eq!(found[0].help, [help]);
        }
    }

    #[test]
    fn the_segments_that_the_grammar_speaks_of_are_those_of_the_schema() {
        let known: Vec<&str> =
            schema::FUNCTIONS.iter().filter(|f| f.family == Family::Segment).map(|f| f.name).collect();
        assert_eq!(known, crate::syntax::SEGMENTS);
    }
}
