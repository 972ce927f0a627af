//! The execution plan: every number of a run, resolved, plain and hashed. What `midc plan` prints
//! and what the runtime and the emitters read; they never see the syntax tree.
//!
//! The clock of a stage is the tokens seen since the stage began. A step uses the values that hold
//! at the tokens seen before it.

mod at;
mod build;
mod cost;
mod diff;
mod exhaustion;
mod gate;
mod hash;
mod lineage;
pub(crate) mod member;
mod read;
mod shown;

pub use at::{AtError, Moment, at, moment};
pub use build::{build, sources, with_declared_shapes};
pub use cost::{Cost, StageCost, cost};
pub use diff::{Change, Diff, LrDiff, Pair, Point, SourceDiff, StageDiff, Standing, StepsDone, diff};
pub use exhaustion::{Exhaustion, Place, exhaustion, most_epochs};
pub use gate::{Comparison, GateMeasure, GatePlan, GateSource};
pub use hash::hash;
pub use lineage::Origin;
pub use read::{ReadError, first_version};
pub use shown::Shown;

pub use crate::sema::{MAX_CONTEXT, file_name};

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::curve::{Blend, Curve};
use crate::layers::{LayerPattern, Positions};
use crate::sema::Counted;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Format version, 1.
    #[serde(deserialize_with = "first_version")]
    pub v: u32,
    /// File stem of the curriculum.
    pub curriculum: String,
    /// `blake3:` and the hex hash of everything below that decides the outcome of the run.
    pub hash: String,
    /// Parameter values after `--set`, as written.
    pub params: BTreeMap<String, String>,
    /// Starting points.
    pub models: Vec<ModelPlan>,
    /// Stages in an order in which each comes after what it starts from.
    pub stages: Vec<StagePlan>,
    /// Weight averages.
    pub soups: Vec<SoupPlan>,
    /// Sources that some stage draws from.
    pub sources: Vec<SourcePlan>,
    /// Sums over all stages.
    pub totals: Totals,
}

/// A starting point: a checkpoint on disk or a fresh architecture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelPlan {
    /// Its name.
    pub name: String,
    /// Its doc comment, a line each.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub doc: String,
    /// Hugging Face directory or `.gguf` file; relative to the curriculum's directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checkpoint: Option<String>,
    /// Architecture to initialise at random.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub init: Option<Architecture>,
    /// `tokenizer.json`; beside the checkpoint when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokenizer: Option<String>,
    /// Native context length in tokens.
    pub context: Option<u64>,
    /// RoPE of the checkpoint.
    pub rope: Option<RopePlan>,
    /// Learning rate where the checkpoint stopped.
    pub lr: Option<f64>,
    /// Tokens the checkpoint has seen.
    pub seen_tokens: Option<u64>,
}

/// Dimensions of a decoder, with the names of a Hugging Face `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Architecture {
    /// `llama`, `qwen2`, `qwen3`, `olmo2`, `olmo3`, `smollm3` or `gemma3_text`.
    pub model_type: String,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Whether the output layer shares the embedding.
    pub tie_word_embeddings: bool,
    /// Epsilon of RMSNorm.
    pub rms_norm_eps: f64,
    /// Standard deviation of fresh weights.
    pub initializer_range: f64,
    /// How its layers differ from one another.
    #[serde(flatten)]
    pub pattern: LayerPattern,
}

impl Architecture {
    /// How a layer tells positions.
    pub fn positions(&self, layer: usize) -> Positions {
        self.pattern.positions(&self.model_type, layer)
    }

    /// Whether there are layers whose RoPE takes no part in its scaling.
    pub fn has_plain_rope(&self) -> bool {
        (0..self.num_hidden_layers).any(|layer| self.positions(layer) == Positions::Plain)
    }

    /// Training FLOPs for one token in rows of `context` tokens: 6 for each weight of a matrix
    /// product, the output layer included (forward 2, backward 4; Kaplan et al., arXiv:2001.08361),
    /// and 12·heads·head_dim in every layer for each key that a query sees on average, half of the T
    /// positions unless the layer has a window.
    pub fn train_flops_per_token(&self, context: u64) -> f64 {
        // Whole numbers of 64 bits would wrap for dimensions that are each within range.
        let real = |n: usize| n as f64;
        let (hidden, head) = (real(self.hidden_size), real(self.head_dim));
        let (q, kv) = (real(self.num_attention_heads) * head, real(self.num_key_value_heads) * head);
        let layer = hidden * (2.0 * q + 2.0 * kv) + 3.0 * hidden * real(self.intermediate_size);
        let weights = real(self.num_hidden_layers) * layer + hidden * real(self.vocab_size);
        6.0 * weights + 12.0 * q * self.pattern.keys_seen(self.num_hidden_layers, context)
    }
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StagePlan {
    /// `anneal[42]` for a member of a fan-out.
    pub name: String,
    /// Its doc comment, a line each.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub doc: String,
    /// What it starts from: a model, stage, soup, or `stage.checkpoint`.
    pub from: String,
    /// What kind of thing `from` is.
    pub from_kind: FromKind,
    /// Declared length in tokens.
    pub tokens: u64,
    /// Optimizer steps: the fewest that reach `tokens`.
    pub steps: u64,
    /// Tokens the last step goes past `tokens`.
    pub overshoot_tokens: u64,
    /// Tokens seen by the lineage before this stage, the starting checkpoint's included where known.
    pub start_tokens: u64,
    /// Learning rate over the tokens of the stage.
    pub lr: LrPlan,
    /// Tokens per step.
    pub batch_tokens: BatchPlan,
    /// Context length: the value holds from `at` (tokens into the stage).
    pub context: Vec<ContextPoint>,
    /// Steps of equal shape.
    pub phases: Vec<Phase>,
    /// Position encoding; `null` leaves the model's own.
    pub rope: Option<RopePlan>,
    /// What the stage reads.
    pub mix: Vec<MixPlan>,
    /// Whether attention stops at document boundaries inside a row.
    pub attention: Attention,
    /// How documents fill rows.
    pub packing: Packing,
    /// Optimizer constants.
    pub optimizer: OptimizerPlan,
    /// What is carried over from `from` besides the weights.
    pub state: State,
    /// Arithmetic; `null` lets the device choose.
    pub precision: Option<Precision>,
    /// Seed of the data order.
    pub data_seed: u64,
    /// Seed of fresh weights.
    pub init_seed: u64,
    /// Checkpoint every so many steps, besides the end; of `save_every_tokens`, where that is there, the first.
    pub save_every: Option<u64>,
    /// Checkpoint at the first step past each multiple of so many tokens of the stage; absent where all steps have as
    /// many tokens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub save_every_tokens: Option<u64>,
    /// How many periodic checkpoints stay.
    pub keep: Option<u64>,
    /// Named checkpoints.
    pub checkpoints: Vec<CheckpointPlan>,
    /// Measurements during the stage.
    pub evals: Vec<EvalPlan>,
    /// Conditions at its end.
    pub gates: Vec<GatePlan>,
    /// Fields whose value is marked `@assumed`.
    pub assumed: Vec<String>,
    /// Fields taken over from `from`.
    pub inherited: Vec<String>,
}

/// What a stage starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FromKind {
    /// A `model`.
    Model,
    /// The end of a stage.
    Stage,
    /// A named checkpoint of a stage.
    Checkpoint,
    /// A `soup`.
    Soup,
}

/// The learning-rate curve with its landmarks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LrPlan {
    /// At the first step.
    pub start: f64,
    /// At the end of the stage.
    pub end: f64,
    /// The maximum.
    pub peak: f64,
    /// The curve: `segments`.
    #[serde(flatten)]
    pub curve: Curve,
}

/// Batch size in tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BatchPlan {
    /// At the first step.
    pub start: u64,
    /// At the last step.
    pub end: u64,
    /// The smallest.
    #[serde(default)]
    pub min: u64,
    /// The largest.
    pub max: u64,
}

/// The context length from a point on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ContextPoint {
    /// Tokens into the stage.
    pub at: u64,
    /// Tokens per row.
    pub value: u64,
}

/// A run of steps with the same number of rows of the same length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    /// First step, counted from 0 in the stage.
    pub step: u64,
    /// Tokens of the stage seen before that step.
    pub tokens: u64,
    /// Rows per step.
    pub sequences: u64,
    /// Tokens per row.
    pub context: u64,
}

/// A RoPE method with everything a model needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RopePlan {
    /// The spelling: `rope`, `abf`, `pi`, `ntk`, `dynamic_ntk`, `ntk_by_parts`, `yarn`, `llama3`, `longrope`.
    pub method: String,
    /// Base of the frequencies before scaling.
    pub theta: f64,
    /// Stretch relative to `original`.
    pub factor: Option<f64>,
    /// Context length before any stretching.
    pub original: Option<u64>,
    /// Multiplies q and k.
    pub attention_factor: f64,
    /// `head_dim / 2` angular frequencies; empty while the head dimension is unknown.
    pub inv_freq: Vec<f64>,
    /// Parameters of the method beyond those above, for `config.json`.
    pub scaling: crate::rope::RopeScaling,
}

/// One source in a stage's mixture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MixPlan {
    /// The source.
    pub source: String,
    /// Token-weighted over the stage.
    pub weight_mean: f64,
    /// At the first step.
    pub weight_start: f64,
    /// At the end.
    pub weight_end: f64,
    /// Tokens the stage draws.
    pub tokens: u64,
    /// `tokens` over what is not held out of the source's size, this stage alone; `null` when the size is not known.
    pub epochs: Option<f64>,
    /// The weight over the tokens of the stage.
    pub weight: Blend,
}

/// Attention within a packed row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// Every earlier token of the row.
    Causal,
    /// Earlier tokens of the same document.
    Documents,
}

/// How documents fill rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Documents end to end, cut at row length.
    Concat,
    /// Whole documents where they fit.
    BestFit,
}

/// What travels from the previous stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Weights and optimizer moments.
    Keep,
    /// Weights only.
    WeightsOnly,
}

/// Arithmetic of the forward and backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// bf16 inputs, f32 sums and master weights.
    Bf16,
    /// f32 throughout.
    F32,
}

fn decays() -> bool {
    true
}

/// Constants of Muon (Jordan et al. 2024), which moves the matrices within layers; AdamW moves the rest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MuonPlan {
    /// How much of the momentum stays from step to step.
    pub momentum: f64,
    /// Whether the direction looks ahead as Nesterov's does.
    pub nesterov: bool,
    /// Steps of Newton–Schulz.
    pub ns_steps: u32,
    /// Root mean square of a step at a learning rate of 1 (arXiv:2502.16982, section 2.2).
    pub update_rms: f64,
}

/// AdamW constants (Loshchilov & Hutter, arXiv:1711.05101), and Muon's where it is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OptimizerPlan {
    /// Muon for the matrices within layers; absent where everything is AdamW's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub muon: Option<MuonPlan>,
    /// Decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Whether the embedding decays, too, which may be the output matrix as well; absent where it does.
    #[serde(skip_serializing_if = "Clone::clone", default = "decays")]
    pub decay_embeddings: bool,
    /// Whether the weights of norms decay, too; absent where they do not.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub decay_norms: bool,
    /// Largest global gradient norm.
    pub clip: Option<f64>,
    /// Weight of log²Z in the loss.
    pub z_loss: Option<f64>,
}

/// A named checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointPlan {
    /// Its name.
    pub name: String,
    /// Tokens into the stage.
    pub tokens: u64,
    /// After so many steps.
    pub step: u64,
    /// Never pruned.
    pub forever: bool,
}

/// A measurement during a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EvalPlan {
    /// Its name.
    pub name: String,
    /// Every so many steps; at the end of the stage when absent.
    pub every_steps: Option<u64>,
    /// As `save_every_tokens`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub every_tokens: Option<u64>,
    /// Share of each source's documents held out for the loss.
    pub heldout: Option<f64>,
    /// Sources for validation whose loss is taken; of all sources where `heldout` is given.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub sources: Vec<String>,
    /// Most held-out tokens of each source that the loss is taken over; 65,536 when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub heldout_tokens: Option<u64>,
    /// Lengths for needle in a haystack.
    pub needle: Vec<u64>,
    /// Multiple-choice task file.
    pub choice: Option<String>,
}

impl EvalPlan {
    /// Held-out tokens of a source that are read where nothing is said.
    pub const HELDOUT_TOKENS: u64 = 1 << 16;
}

/// A weight average.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SoupPlan {
    /// Its name.
    pub name: String,
    /// Its doc comment, a line each.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub doc: String,
    /// `average`, `ema`, …
    pub method: String,
    /// Stages or checkpoints that go in.
    pub ingredients: Vec<String>,
    /// Their weights, summing to 1.
    pub weights: Vec<f64>,
}

impl Plan {
    /// Names with their doc comments: models, sources, stages once for all members, soups.
    pub fn docs(&self) -> Vec<(&str, &str)> {
        let models = self.models.iter().map(|m| (m.name.as_str(), m.doc.as_str()));
        let sources = self.sources.iter().map(|s| (s.name.as_str(), s.doc.as_str()));
        let stages = self.stages.iter().map(|s| (member::base(&s.name), s.doc.as_str()));
        let soups = self.soups.iter().map(|s| (s.name.as_str(), s.doc.as_str()));
        let all = models.chain(sources).chain(stages).chain(soups);
        let mut out: Vec<(&str, &str)> = all.filter(|(_, doc)| !doc.trim().is_empty()).collect();
        out.dedup();
        out
    }
}

impl SoupPlan {
    /// For people: what goes in, with its weight where they are not all the same.
    pub fn describe(&self) -> String {
        let alike = self.weights.windows(2).all(|w| w[0] == w[1]);
        let each = |(place, weight): (&String, &f64)| {
            if alike { place.clone() } else { format!("{place} {:.1}%", 100.0 * weight) }
        };
        let all: Vec<String> = self.ingredients.iter().zip(&self.weights).map(each).collect();
        format!("{}({})", self.method, all.join(", "))
    }
}

/// A body of text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SourcePlan {
    /// Its name.
    pub name: String,
    /// Its doc comment, a line each.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub doc: String,
    /// `web`, `code`, …
    pub kind: String,
    /// Declared size in tokens.
    pub tokens: Option<u64>,
    /// Drawn by all stages together.
    pub drawn_tokens: u64,
    /// `drawn_tokens` over what is not held out of the size, which adds up branches that no weight has all seen (the
    /// table of `midc plan` has the worst line's); `null` when the size is not known.
    pub epochs: Option<f64>,
    /// Paths or globs, relative to the curriculum's directory.
    pub path: Vec<String>,
    /// Field name or template; `null` reads `text`, then `messages`.
    pub text: Option<String>,
    /// Predicate as written, in the canonical form.
    #[serde(rename = "where")]
    pub filter: Option<String>,
    /// Largest number of passes.
    pub max_epochs: Option<f64>,
    /// `shuffled`, `as_written`, `ascending(field)`, `descending(field)`.
    pub order: String,
    /// Fields the loss is taken on; empty means all.
    pub loss_on: Vec<String>,
    /// The day that chat templates see as today's, `YYYY-MM-DD`; absent when they see none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub today: Option<String>,
    /// Fill-in-the-middle rate and style.
    pub fim: Option<FimPlan>,
    /// Whether all of it is held out: measured by evals and gates, in no mix.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub validation: bool,
    /// Drop exact duplicates.
    pub dedup: bool,
    /// Globs of files to decontaminate against.
    pub exclude: Vec<String>,
}

impl SourcePlan {
    /// The fields that its count hangs on, as `NAME.data.json` keeps them.
    pub fn counted(&self) -> serde_json::Value {
        let fim = self.fim.as_ref().map(|fim| (fim.rate, fim.style.as_str()));
        let (text, filter, today) = (self.text.as_deref(), self.filter.as_deref(), self.today.as_deref());
        Counted { path: &self.path, text, filter, today, fim, dedup: self.dedup, exclude: &self.exclude }
            .settings()
    }
}

/// Fill in the middle (Bavarian et al., arXiv:2207.14255).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FimPlan {
    /// Share of documents transformed.
    pub rate: f64,
    /// `psm` or `spm`.
    pub style: String,
}

/// Sums.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Tokens of all stages.
    pub tokens: u64,
    /// Steps of all stages.
    pub steps: u64,
    /// Training FLOPs; `null` while an architecture is unknown.
    pub flops: Option<f64>,
}

/// Where one step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPoint {
    /// Step in the stage, from 0.
    pub step: u64,
    /// Tokens of the stage seen before it.
    pub tokens: u64,
    /// Rows.
    pub sequences: u64,
    /// Tokens per row.
    pub context: u64,
}

impl StagePlan {
    /// Tokens of its longest rows.
    pub fn max_context(&self) -> u64 {
        self.phases.iter().map(|p| p.context).max().unwrap_or(0)
    }

    /// Whether a checkpoint is periodically due after `done` steps.
    pub fn saves_after(&self, done: u64) -> bool {
        self.due(done, self.save_every, self.save_every_tokens)
    }

    /// Whether `eval` is periodically due after `done` steps.
    pub fn measures_after(&self, eval: &EvalPlan, done: u64) -> bool {
        self.due(done, eval.every_steps, eval.every_tokens)
    }

    /// Most held-out tokens of a source that a loss of `eval` is taken over; a gate takes as many as the evals of its
    /// stage.
    pub fn heldout_tokens(&self, eval: &str) -> u64 {
        let of = |e: &EvalPlan| e.heldout_tokens.unwrap_or(EvalPlan::HELDOUT_TOKENS);
        let own = self.evals.iter().find(|e| e.name == eval).map(of);
        let most =
            || self.evals.iter().filter(|e| e.heldout.is_some() || !e.sources.is_empty()).map(of).max();
        own.or_else(most).unwrap_or(EvalPlan::HELDOUT_TOKENS)
    }

    fn due(&self, done: u64, steps: Option<u64>, tokens: Option<u64>) -> bool {
        let periods = |period: u64, done: u64| self.step_point(done).tokens / period.max(1);
        match (steps, tokens) {
            (_, Some(period)) => done > 0 && periods(period, done) > periods(period, done - 1),
            (Some(period), None) => period > 0 && done.is_multiple_of(period),
            (None, None) => false,
        }
    }

    /// The shape of step `step` (0-based); the last phase goes on past the end.
    ///
    /// # Panics
    /// Never for a plan of the compiler or of [`Plan::read`]: both have a phase that starts at step 0.
    pub fn step_point(&self, step: u64) -> StepPoint {
        let at = self.phases.partition_point(|p| p.step <= step).saturating_sub(1);
        let p = self.phases[at];
        let tokens = p.tokens + (step - p.step) * p.sequences * p.context;
        StepPoint { step, tokens, sequences: p.sequences, context: p.context }
    }

    /// Rows of the stage before step `step`.
    pub fn rows_before(&self, step: u64) -> u64 {
        let ends = self.phases.iter().skip(1).map(|p| p.step).chain([u64::MAX]);
        let rows = |(p, end): (&Phase, u64)| step.min(end).saturating_sub(p.step) * p.sequences;
        self.phases.iter().zip(ends).map(rows).sum()
    }

    /// The step that begins at `tokens` or has it inside; the last phase goes on past the end.
    ///
    /// # Panics
    /// As [`StagePlan::step_point`].
    pub fn step_containing(&self, tokens: u64) -> u64 {
        let at = self.phases.partition_point(|p| p.tokens <= tokens).saturating_sub(1);
        let p = self.phases[at];
        p.step + (tokens - p.tokens) / (p.sequences * p.context)
    }
}

impl Plan {
    /// The stage and the steps of it that a place stands for: `main` is all of it, `main.stable_end`
    /// its first steps. `None` for models and soups.
    pub fn stage_point(&self, place: &str) -> Option<(&StagePlan, u64)> {
        if let Some(stage) = self.stages.iter().find(|s| s.name == place) {
            return Some((stage, stage.steps));
        }
        let (name, point) = place.rsplit_once('.')?;
        let stage = self.stages.iter().find(|s| s.name == name)?;
        let point = stage.checkpoints.iter().find(|c| c.name == point)?;
        Some((stage, point.step))
    }

    /// Share of documents no stage may train on: the largest any `eval` asks for, because a
    /// document held out for one stage must not be read by another.
    pub fn heldout(&self) -> f64 {
        let shares = self.stages.iter().flat_map(|s| &s.evals).filter_map(|e| e.heldout);
        shares.fold(0.0, f64::max)
    }

    /// The JSON schema of the plan.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Plan).to_value()
    }
}
