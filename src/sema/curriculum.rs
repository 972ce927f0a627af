//! What the checker makes of a file: every item resolved and typed, with the places it was written.

use std::collections::BTreeMap;

use crate::curve::{Blend, Curve};
use crate::layers::LayerPattern;
use crate::rope::RopeScaling;
use crate::schema::Utilisation;
use crate::source::Span;

/// A resolved curriculum. Items that had errors are absent.
#[derive(Clone, Debug, Default)]
pub struct Curriculum {
    /// File stem.
    pub name: String,
    /// Parameters of the root file.
    pub params: Vec<Param>,
    /// Starting points.
    pub models: Vec<Model>,
    /// Bodies of text.
    pub sources: Vec<Source>,
    /// Stage members, each after what it starts from.
    pub stages: Vec<Stage>,
    /// Weight averages.
    pub soups: Vec<Soup>,
    /// On what a `budget` counts hours.
    pub utilisation: Option<Utilisation>,
}

/// A parameter and its value.
#[derive(Clone, Debug)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Its value, as people write it.
    pub value: String,
    /// Where the name stands.
    pub span: Span,
}

/// A starting point.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Its doc comment, a line each.
    pub doc: String,
    /// Where the name stands.
    pub span: Span,
    /// Directory or `.gguf` file, as written.
    pub checkpoint: Option<String>,
    /// The shape, declared or read from `config.json`.
    pub architecture: Option<Architecture>,
    /// Whether weights are drawn at random: an `init` and no `checkpoint`.
    pub fresh: bool,
    /// Tokenizer path, as written.
    pub tokenizer: Option<String>,
    /// Native context.
    pub context: Option<u64>,
    /// Position encoding.
    pub rope: Option<Rope>,
    /// Learning rate where it stopped.
    pub lr: Option<f64>,
    /// Tokens it has seen.
    pub seen: Option<u64>,
    /// What it last saw: shares of sources by index.
    pub mix: Option<Vec<(usize, f64)>>,
    /// Where each field is written.
    pub fields: BTreeMap<&'static str, Span>,
}

/// Dimensions of a decoder.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// `llama`, `qwen2`, `qwen3`, `olmo2`, `olmo3`, `smollm3`, `gemma3_text`; whatever a `config.json` says.
    pub model_type: String,
    /// Decoder layers.
    pub layers: u64,
    /// Width of the residual stream.
    pub hidden: u64,
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Width of one head.
    pub head_dim: u64,
    /// Width of the feed-forward layer.
    pub ffn: u64,
    /// How much of it one token goes through, where that is not what `ffn` says: in a mixture of experts.
    pub active_ffn: Option<u64>,
    /// Rows of the embedding.
    pub vocab: u64,
    /// Whether the output layer shares the embedding.
    pub tie_embeddings: bool,
    /// Epsilon of RMSNorm.
    pub eps: f64,
    /// Standard deviation of fresh weights.
    pub init_std: f64,
    /// How its layers differ from one another.
    pub pattern: LayerPattern,
}

impl Architecture {
    /// Parameters that take part in matrix products, the output layer included: the N of 6ND.
    pub fn matmul_parameters(&self) -> u64 {
        self.products() as u64
    }

    fn products(&self) -> f64 {
        // Whole numbers of 64 bits would wrap for dimensions that are each within range.
        let (hidden, head) = (self.hidden as f64, self.head_dim as f64);
        let q = hidden * self.heads as f64 * head;
        let kv = 2.0 * hidden * self.kv_heads as f64 * head;
        let ffn = 3.0 * hidden * self.active_ffn.unwrap_or(self.ffn) as f64;
        self.layers as f64 * (2.0 * q + kv + ffn) + hidden * self.vocab as f64
    }

    /// Training FLOPs for one token in rows of `context` tokens: 6N for the matrix products
    /// (forward 2N, backward 4N; Kaplan et al., arXiv:2001.08361) and 12·heads·head_dim in every layer
    /// for each key that a query sees on average, half of the T positions unless the layer has a window.
    pub fn flops_per_token(&self, context: u64) -> f64 {
        let layers = usize::try_from(self.layers).unwrap_or(usize::MAX);
        let seen = self.pattern.keys_seen(layers, context);
        let attention = 12.0 * self.heads as f64 * self.head_dim as f64 * seen;
        6.0 * self.products() + attention
    }
}

/// A position encoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The spelling.
    pub method: &'static str,
    /// Base before scaling; the model's own where the author left it out.
    pub theta: Option<f64>,
    /// The method's parameters.
    pub scaling: RopeScaling,
}

/// A body of text.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name, with its namespace: `s.web`.
    pub name: String,
    /// Its doc comment, a line each.
    pub doc: String,
    /// Where the name stands.
    pub span: Span,
    /// Paths or globs, relative to the root file.
    pub path: Vec<String>,
    /// What sort of text.
    pub kind: &'static str,
    /// Declared tokens.
    pub tokens: Option<u64>,
    /// What was held out of it when it was measured.
    pub heldout: Option<HeldOut>,
    /// Text field or template.
    pub text: Option<String>,
    /// Predicate, in the canonical form.
    pub filter: Option<String>,
    /// How often it may be read.
    pub max_epochs: f64,
    /// Fill in the middle: rate and style.
    pub fim: Option<(f64, &'static str)>,
    /// Fields the loss is taken on.
    pub loss_on: Vec<String>,
    /// The day that chat templates see as today's.
    pub today: Option<String>,
    /// Whether a model wrote it.
    pub synthetic: bool,
    /// The order of its documents.
    pub order: String,
    /// Whether it is measured alone, never trained on.
    pub validation: bool,
    /// Drop exact duplicates.
    pub dedup: bool,
    /// Decontamination globs.
    pub exclude: Vec<String>,
    /// The source it is a part of (`where`), by index.
    pub parent: Option<usize>,
    /// Where each field is written.
    pub fields: BTreeMap<&'static str, Span>,
}

/// What was held out of a source when it was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeldOut {
    /// The share of documents that was asked for, 0 to 1.
    pub documents: f64,
    /// The share of its tokens that this came to, 0 to below 1.
    pub tokens: f64,
}

/// What a stage or soup reads weights from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum From {
    /// A model, by index.
    Model(usize),
    /// The end of a stage, by index.
    Stage(usize),
    /// A named checkpoint of a stage: both by index.
    Checkpoint(usize, usize),
    /// A soup, by index.
    Soup(usize),
}

/// A run of steps of equal shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// First step.
    pub step: u64,
    /// Tokens before it.
    pub tokens: u64,
    /// Rows per step.
    pub sequences: u64,
    /// Tokens per row.
    pub context: u64,
}

/// One stage member.
#[derive(Clone, Debug)]
pub struct Stage {
    /// `anneal[42]`.
    pub name: String,
    /// Its doc comment, a line each.
    pub doc: String,
    /// `anneal`.
    pub base: String,
    /// What the member of a fan-out is called by each variable: `42`; none without a fan-out.
    pub keys: Vec<String>,
    /// Where the name stands.
    pub span: Span,
    /// The whole item.
    pub item: Span,
    /// What it starts from.
    pub from: From,
    /// Declared length.
    pub tokens: u64,
    /// Steps.
    pub steps: u64,
    /// Tokens the last step goes past `tokens`.
    pub overshoot: u64,
    /// Tokens seen by the lineage before.
    pub start_tokens: u64,
    /// Learning rate.
    pub lr: Curve,
    /// Where each segment of `lr` is written.
    pub lr_spans: Vec<Span>,
    /// Whether `lr` is wrapped in `truncate`.
    pub lr_truncated: bool,
    /// Context by position.
    pub context: Vec<(u64, u64)>,
    /// Steps of equal shape.
    pub phases: std::sync::Arc<[Phase]>,
    /// Written or inherited position encoding, with its base filled in.
    pub rope: Option<Rope>,
    /// What it reads, in the order of the mix.
    pub mix: Vec<Portion>,
    /// `causal`, `documents`.
    pub attention: &'static str,
    /// `concat`, `best_fit`.
    pub packing: &'static str,
    /// Constants of the optimizer.
    pub optimizer: Optimizer,
    /// `keep`, `weights_only`.
    pub state: &'static str,
    /// `bf16`, `f32`.
    pub precision: Option<&'static str>,
    /// Data order.
    pub data_seed: u64,
    /// Fresh weights.
    pub init_seed: u64,
    /// How far periodic checkpoints are apart.
    pub save_every: Option<Every>,
    /// How many of them stay.
    pub keep: Option<u64>,
    /// Named checkpoints.
    pub checkpoints: Vec<Checkpoint>,
    /// Measurements.
    pub evals: Vec<Eval>,
    /// Conditions at the end.
    pub gates: Vec<Gate>,
    /// Fields marked `@assumed`.
    pub assumed: Vec<String>,
    /// Fields taken over.
    pub inherited: Vec<&'static str>,
    /// The architecture it trains.
    pub architecture: Option<Architecture>,
    /// The model at the root of its lineage, by index, where there is one.
    pub root: Option<usize>,
    /// Where each field's value is written.
    pub fields: BTreeMap<&'static str, Span>,
}

/// One source in a stage.
#[derive(Clone, Debug)]
pub struct Portion {
    /// The source, by index.
    pub source: usize,
    /// Its weight over the stage.
    pub weight: Blend,
    /// The weight, when it never moves.
    pub exact: Option<crate::syntax::ast::Rational>,
    /// Token-weighted mean.
    pub mean: f64,
    /// Tokens drawn.
    pub tokens: u64,
}

/// Constants of the optimizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// Muon for the matrices within layers; AdamW alone without.
    pub muon: Option<Muon>,
    /// Decay rates of the moments.
    pub betas: [f64; 2],
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of matrices.
    pub weight_decay: f64,
    /// Whether the embedding decays, too.
    pub decay_embeddings: bool,
    /// Whether the weights of norms decay, too.
    pub decay_norms: bool,
    /// Largest gradient norm.
    pub clip: Option<f64>,
    /// Weight of log²Z.
    pub z_loss: Option<f64>,
}

impl Optimizer {
    /// For messages.
    pub fn name(&self) -> &'static str {
        if self.muon.is_some() { "Muon" } else { "AdamW" }
    }
}

/// Constants of Muon beside those of AdamW.
#[derive(Clone, Debug, PartialEq)]
pub struct Muon {
    /// How much of the momentum stays.
    pub momentum: f64,
    /// Whether the direction looks ahead as Nesterov's does.
    pub nesterov: bool,
    /// Steps of Newton–Schulz.
    pub ns_steps: u32,
    /// Root mean square of a step at a learning rate of 1.
    pub update_rms: f64,
}

/// A named checkpoint.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// Where the name stands.
    pub span: Span,
    /// Tokens into the stage, as written.
    pub tokens: u64,
    /// The first step edge at or after that.
    pub step: u64,
    /// Never pruned.
    pub forever: bool,
}

/// A period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    /// In steps, counted from the beginning of the stage.
    pub steps: u64,
    /// In tokens, where it was not given in steps and the tokens of a step change.
    pub tokens: Option<u64>,
}

/// A measurement.
#[derive(Clone, Debug)]
pub struct Eval {
    /// Its name.
    pub name: String,
    /// How far measurements are apart; at the end only when absent.
    pub every: Option<Every>,
    /// Held-out share.
    pub heldout: Option<f64>,
    /// Sources for validation whose loss is taken.
    pub sources: Vec<usize>,
    /// Most held-out tokens of each source that the loss is taken over.
    pub heldout_tokens: Option<u64>,
    /// Needle lengths.
    pub needle: Vec<u64>,
    /// Task file.
    pub choice: Option<String>,
}

/// A condition at the end of a stage.
#[derive(Clone, Debug)]
pub struct Gate {
    /// As written.
    pub text: String,
    /// Where.
    pub span: Span,
    /// `needle`, `loss`, `choice`.
    pub measure: String,
    /// What is measured.
    pub argument: String,
    /// The sources whose loss it is, by index, with their shares; a single one where no mix is named.
    pub sources: Vec<(usize, f64)>,
    /// The comparison.
    pub op: &'static str,
    /// The bound.
    pub bound: f64,
    /// Whether it is a share of the measure at the start.
    pub relative_to_from: bool,
}

/// A weight average.
#[derive(Clone, Debug)]
pub struct Soup {
    /// Its name.
    pub name: String,
    /// Its doc comment, a line each.
    pub doc: String,
    /// Where the name stands.
    pub span: Span,
    /// `average`, `ema`.
    pub method: &'static str,
    /// What goes in.
    pub ingredients: Vec<From>,
    /// Shares, summing to 1.
    pub weights: Vec<f64>,
}

impl Stage {
    /// Steps whose first token is before `tokens`: where a position falls on the grid of steps.
    pub fn step_at(&self, tokens: u64) -> u64 {
        let at = self.phases.partition_point(|p| p.tokens <= tokens).saturating_sub(1);
        let p = self.phases[at];
        p.step + (tokens - p.tokens).div_ceil(p.sequences * p.context)
    }

    /// Tokens seen before `step`.
    pub fn tokens_at(&self, step: u64) -> u64 {
        let at = self.phases.partition_point(|p| p.step <= step).saturating_sub(1);
        let p = self.phases[at];
        p.tokens + (step - p.step) * p.sequences * p.context
    }

    /// The context at the end.
    pub fn context_end(&self) -> u64 {
        self.context.last().map_or(0, |c| c.1)
    }

    /// The largest context.
    pub fn context_max(&self) -> u64 {
        self.context.iter().map(|c| c.1).max().unwrap_or(0)
    }

    /// Training FLOPs, the overshoot's included; `None` while the architecture is unknown.
    pub fn flops(&self) -> Option<f64> {
        let shape = self.architecture.as_ref()?;
        let ends = self.phases.iter().skip(1).map(|p| p.tokens).chain([self.drawn()]);
        let of_phase = |(p, end): (&Phase, u64)| shape.flops_per_token(p.context) * (end - p.tokens) as f64;
        Some(self.phases.iter().zip(ends).map(of_phase).sum())
    }

    /// All tokens drawn, the overshoot included.
    pub fn drawn(&self) -> u64 {
        self.tokens + self.overshoot
    }
}

impl Curriculum {
    /// The largest share of the documents of every source that an `eval` holds out of training, 0 to 1.
    pub fn held_out(&self) -> f64 {
        self.stages.iter().flat_map(|s| &s.evals).filter_map(|e| e.heldout).fold(0.0, f64::max)
    }

    /// The share of the tokens of a source that is held out of training, 0 to 1: as it was measured, where that
    /// was with the share of documents that holds now, and that share otherwise.
    pub fn held_out_of(&self, source: &Source) -> f64 {
        let documents = self.held_out();
        source.heldout.filter(|measured| measured.documents == documents).map_or(documents, |m| m.tokens)
    }

    /// How often `drawn` tokens read what is not held out of a source; `None` while its size is not known.
    pub fn epochs(&self, source: usize, drawn: u64) -> Option<f64> {
        let source = self.sources.get(source)?;
        let size = source.tokens.filter(|size| *size > 0)?;
        Some(drawn as f64 / (size as f64 * (1.0 - self.held_out_of(source))))
    }

    /// Training FLOPs of all stages; `None` while an architecture is unknown.
    pub fn flops(&self) -> Option<f64> {
        self.stages.iter().map(Stage::flops).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flops_of_the_largest_dimensions_do_not_wrap() {
        let most = 1 << 27;
        let shape = Architecture {
            model_type: "llama".into(),
            layers: 4096,
            hidden: most,
            heads: most / 128,
            kv_heads: most / 128,
            head_dim: 128,
            ffn: most,
            active_ffn: None,
            vocab: most,
            tie_embeddings: false,
            eps: 1e-5,
            init_std: 0.02,
            pattern: LayerPattern::default(),
        };
        let square = (most as f64).powi(2);
        assert!(shape.flops_per_token(2) >= 6.0 * 4096.0 * 7.0 * square);
    }
}
