//! Functions and their parameters.

use super::Ty;
use super::words::{PSM, YES_NO};

/// Where a function may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A segment of a curve, after `then`.
    Segment,
    /// A whole curve.
    Curve,
    /// A position encoding.
    Rope,
    /// An architecture.
    Init,
    /// An optimizer.
    Optimizer,
    /// A mixture made of others.
    Mix,
    /// A weight average.
    Soup,
    /// Fill in the middle.
    Fim,
    /// The order of a source.
    Order,
    /// A measurement in a gate.
    Measure,
}

impl Family {
    /// With an article, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Family::Segment => "a segment of a curve",
            Family::Curve => "a curve",
            Family::Rope => "a RoPE spelling",
            Family::Init => "an architecture",
            Family::Optimizer => "an optimizer",
            Family::Mix => "a mixture",
            Family::Soup => "a weight average",
            Family::Fim => "a document transformation",
            Family::Order => "an order",
            Family::Measure => "a measurement",
        }
    }
}

/// A function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// Where it may stand.
    pub family: Family,
    /// Its named parameters.
    pub params: &'static [Param],
    /// What arguments without a name are, if it takes any.
    pub positional: Option<&'static str>,
    /// Whether names beyond `params` are taken (`upsample(decay, code: 2)`).
    pub open: Option<&'static str>,
    /// What it does.
    pub doc: &'static str,
}

/// A named parameter.
#[derive(Debug)]
pub struct Param {
    /// Its name.
    pub name: &'static str,
    /// What it takes.
    pub ty: Ty,
    /// Whether it must be given.
    pub required: bool,
    /// What holds when it is absent.
    pub default: Option<&'static str>,
    /// What it means.
    pub doc: &'static str,
}

const fn needs(name: &'static str, ty: Ty, doc: &'static str) -> Param {
    Param { name, ty, required: true, default: None, doc }
}

const fn may(name: &'static str, ty: Ty, doc: &'static str) -> Param {
    Param { name, ty, required: false, default: None, doc }
}

const fn or(name: &'static str, ty: Ty, default: &'static str, doc: &'static str) -> Param {
    Param { name, ty, required: false, default: Some(default), doc }
}

const fn function_(
    name: &'static str,
    family: Family,
    params: &'static [Param],
    doc: &'static str,
) -> Function {
    Function { name, family, params, positional: None, open: None, doc }
}

/// The function with this name.
pub fn function(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}

impl Function {
    /// The parameter with this name.
    pub fn param(&self, name: &str) -> Option<&'static Param> {
        self.params.iter().find(|p| p.name == name)
    }
}

const TO: Param = needs("to", Ty::Target, "The value at the end of the segment.");
const OVER: Param = may("over", Ty::Span, "How long; what the other segments leave when absent.");
const FACTOR: Param = needs("factor", Ty::Number, "Target length over original length.");
const ORIGINAL: Param =
    needs("original", Ty::Whole, "The length before any stretching, also in a chain of stages.");
const THETA: Param = may("theta", Ty::Number, "The base of the frequencies; the model's own when absent.");
const FAST: Param = or(
    "beta_fast",
    Ty::Number,
    "32",
    "Dimensions that turn more often than this over the original length are left alone.",
);
const SLOW: Param =
    or("beta_slow", Ty::Number, "1", "Dimensions that turn less often than this are interpolated.");

const BETAS: Param = or("betas", Ty::Numbers, "[0.9, 0.95]", "Decay rates of the moments.");
const EPS: Param = or("eps", Ty::Number, "1e-8", "Added to the root of the second moment.");
const WEIGHT_DECAY: Param = or("weight_decay", Ty::Number, "0.1", "Decoupled weight decay of matrices.");
const DECAY_EMBEDDINGS: Param = or(
    "decay_embeddings",
    Ty::Word(YES_NO),
    "yes",
    "Whether the embedding decays, too. OLMo 2 leaves it out: as it shrinks, gradients grow (arXiv:2501.00656, section 3.4.2).",
);
const DECAY_NORMS: Param =
    or("decay_norms", Ty::Word(YES_NO), "no", "Whether the weights of norms decay, too, as in OLMo 2.");
const CLIP: Param = may("clip", Ty::Number, "The largest global gradient norm.");
const Z_LOSS: Param = may("z_loss", Ty::Number, "The weight of log²Z in the loss.");

const LAYERS: Param = needs("layers", Ty::Whole, "Decoder layers.");
const HIDDEN: Param = needs("hidden", Ty::Whole, "Width of the residual stream.");
const HEADS: Param = needs("heads", Ty::Whole, "Query heads.");
const KV_HEADS: Param = may("kv_heads", Ty::Whole, "Key and value heads; as many as `heads` when absent.");
const HEAD_DIM: Param = may("head_dim", Ty::Whole, "Width of one head; `hidden / heads` when absent.");
const FFN: Param = needs("ffn", Ty::Whole, "Width of the feed-forward layer.");
const VOCAB: Param = needs("vocab", Ty::Whole, "Rows of the embedding.");
const TIE_EMBEDDINGS: Param =
    or("tie_embeddings", Ty::Word(YES_NO), "no", "Whether the output layer shares the embedding.");
const NORM_EPS: Param = or("eps", Ty::Number, "1e-5", "Epsilon of RMSNorm.");
const INIT_STD: Param = or("init_std", Ty::Number, "0.02", "Standard deviation of fresh weights.");
const BASE: Param = or("theta", Ty::Number, "10_000", "The base of the RoPE frequencies.");

const DIMENSIONS: &[Param] =
    &[LAYERS, HIDDEN, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, TIE_EMBEDDINGS, NORM_EPS, INIT_STD, BASE];

/// Every function.
pub const FUNCTIONS: &[Function] = &[
    function_(
        "hold",
        Family::Segment,
        &[
            OVER,
            may(
                "until",
                Ty::Condition,
                "Hold up to this place of the stage, `40B`, `3000 steps` or `10% of stage`; in mixtures also until a condition on the stage's learning rate becomes true, which must not hold already.",
            ),
        ],
        "Stays where the last segment ended.",
    ),
    function_("linear", Family::Segment, &[TO, OVER], "a + (b − a)u"),
    function_("cosine", Family::Segment, &[TO, OVER], "b + (a − b)(1 + cos πu)/2: half a cosine."),
    function_("one_minus_sqrt", Family::Segment, &[TO, OVER], "a + (b − a)√u (arXiv:2405.18392)."),
    function_(
        "exp",
        Family::Segment,
        &[
            may("to", Ty::Target, "The value at the end; or give `half_life`."),
            may("half_life", Ty::Span, "The span in which the value halves; or give `to`."),
            OVER,
        ],
        "a·(b/a)^u, a geometric curve; with `half_life`, a·0.5^(t/H) (arXiv:2404.06395).",
    ),
    function_(
        "exp_floor",
        Family::Segment,
        &[TO, needs("gamma", Ty::Number, "How steep: smaller falls earlier."), OVER],
        "A·e^(−u/γ) + B, an exponential that lands on `to` (arXiv:2405.16712).",
    ),
    function_(
        "poly",
        Family::Segment,
        &[TO, needs("power", Ty::Number, "The exponent; 1 is linear."), OVER],
        "b + (a − b)(1 − u)^power.",
    ),
    function_(
        "inv_sqrt",
        Family::Segment,
        &[TO, OVER],
        "a·√(t₀/(t₀ + t)), the inverse square root of arXiv:1706.03762 that reaches `to`.",
    ),
    function_(
        "power",
        Family::Segment,
        &[TO, needs("b", Ty::Number, "The exponent, negative."), OVER],
        "a·(1 + t/t₀)^b, the power schedule of arXiv:2408.13359 that reaches `to`.",
    ),
    function_("step", Family::Segment, &[TO], "A jump of zero length."),
    Function {
        name: "truncate",
        family: Family::Curve,
        params: &[],
        positional: Some("a curve"),
        open: None,
        doc: "Allows a curve that runs past the end of the stage, which cuts it.",
    },
    function_(
        "rope",
        Family::Rope,
        &[needs("theta", Ty::Number, "The base of the frequencies.")],
        "Plain RoPE.",
    ),
    function_(
        "abf",
        Family::Rope,
        &[needs("theta", Ty::Number, "The new base.")],
        "Adjusted base frequency: a larger base, nothing else (arXiv:2309.16039).",
    ),
    function_("pi", Family::Rope, &[FACTOR, THETA], "Position interpolation: θ/s (arXiv:2306.15595)."),
    function_("ntk", Family::Rope, &[FACTOR, THETA], "NTK-aware: base·s^(D/(D−2))."),
    function_(
        "dynamic_ntk",
        Family::Rope,
        &[FACTOR, ORIGINAL, THETA],
        "NTK-aware with s from the current length.",
    ),
    function_(
        "ntk_by_parts",
        Family::Rope,
        &[FACTOR, ORIGINAL, FAST, SLOW, THETA],
        "A ramp between θ/s and θ by rotations (arXiv:2309.00071 section 3.2).",
    ),
    function_(
        "yarn",
        Family::Rope,
        &[
            FACTOR,
            ORIGINAL,
            FAST,
            SLOW,
            THETA,
            may("mscale", Ty::Number, "DeepSeek's coefficient of the attention factor's numerator."),
            may("mscale_all_dim", Ty::Number, "DeepSeek's coefficient of its denominator."),
            may("attention_factor", Ty::Number, "Overrides 0.1·ln s + 1."),
            or(
                "truncate",
                Ty::Word(YES_NO),
                "yes",
                "Whether the ends of the ramp are rounded to whole dimensions.",
            ),
        ],
        "NTK by parts with the attention temperature 0.1·ln s + 1 on q and k (arXiv:2309.00071).",
    ),
    function_(
        "llama3",
        Family::Rope,
        &[
            FACTOR,
            or("low", Ty::Number, "1", "Low-frequency factor."),
            or("high", Ty::Number, "4", "High-frequency factor."),
            ORIGINAL,
            THETA,
        ],
        "Stepwise with a smooth blend, as Llama 3.1.",
    ),
    function_(
        "longrope",
        Family::Rope,
        &[
            needs(
                "short",
                Ty::Numbers,
                "Divisors of the frequencies up to the original length, one per pair of dimensions.",
            ),
            needs("long", Ty::Numbers, "Divisors beyond it."),
            ORIGINAL,
            may(
                "factor",
                Ty::Number,
                "For the attention factor √(1 + ln s / ln L); the stage's context over `original` when absent.",
            ),
            may("attention_factor", Ty::Number, "Overrides √(1 + ln s / ln L)."),
            THETA,
        ],
        "Per-dimension factors (arXiv:2402.13753).",
    ),
    function_("llama", Family::Init, DIMENSIONS, "A Llama decoder: pre-norm, GQA, SwiGLU, RoPE."),
    function_(
        "qwen2",
        Family::Init,
        DIMENSIONS,
        "A Qwen2 or Qwen2.5 decoder: as Llama, with biases on q, k and v.",
    ),
    function_("qwen3", Family::Init, DIMENSIONS, "A Qwen3 decoder: as Llama, with norms on q and k."),
    function_("olmo2", Family::Init, DIMENSIONS, "An OLMo 2 decoder: norms after the blocks and on q and k."),
    function_(
        "olmo3",
        Family::Init,
        &[
            LAYERS,
            HIDDEN,
            HEADS,
            KV_HEADS,
            HEAD_DIM,
            FFN,
            VOCAB,
            TIE_EMBEDDINGS,
            NORM_EPS,
            INIT_STD,
            BASE,
            or("window", Ty::Tokens, "4Ki", "Tokens a query sees in layers with a window, itself included."),
            or("full_every", Ty::Whole, "4", "Every so many layers one attends to the whole context."),
        ],
        "An OLMo 3 decoder: as OLMo 2, with sliding-window attention in all layers but every fourth. Scaling of RoPE, and another base, hold in the others only.",
    ),
    function_(
        "smollm3",
        Family::Init,
        &[
            LAYERS,
            HIDDEN,
            HEADS,
            KV_HEADS,
            HEAD_DIM,
            FFN,
            VOCAB,
            TIE_EMBEDDINGS,
            NORM_EPS,
            INIT_STD,
            BASE,
            or("nope_every", Ty::Whole, "4", "Every so many layers one has no RoPE (NoPE)."),
        ],
        "A SmolLM3 decoder: as Llama, without RoPE in every fourth layer.",
    ),
    function_(
        "gemma3",
        Family::Init,
        &[
            LAYERS,
            HIDDEN,
            HEADS,
            KV_HEADS,
            HEAD_DIM,
            FFN,
            VOCAB,
            or("tie_embeddings", Ty::Word(YES_NO), "yes", "Whether the output layer shares the embedding."),
            or("eps", Ty::Number, "1e-6", "Epsilon of RMSNorm."),
            INIT_STD,
            or(
                "theta",
                Ty::Number,
                "1_000_000",
                "The base of the RoPE frequencies in layers of full attention; it is 10_000 in the others.",
            ),
            or("window", Ty::Tokens, "512", "Tokens a query sees in layers with a window, itself included."),
            or("full_every", Ty::Whole, "6", "Every so many layers one attends to the whole context."),
        ],
        "A Gemma 3 decoder (the text model): norms around the blocks and on q and k, GeGLU, and sliding-window attention in all layers but every sixth. Scaling of RoPE, and another base, hold in the others only.",
    ),
    function_(
        "adamw",
        Family::Optimizer,
        &[BETAS, EPS, WEIGHT_DECAY, DECAY_EMBEDDINGS, DECAY_NORMS, CLIP, Z_LOSS],
        "AdamW (arXiv:1711.05101).",
    ),
    function_(
        "muon",
        Family::Optimizer,
        &[
            or("momentum", Ty::Number, "0.95", "How much of the momentum stays from step to step."),
            or("nesterov", Ty::Word(YES_NO), "yes", "Whether the direction looks ahead as Nesterov's does."),
            or("ns_steps", Ty::Whole, "5", "Steps of Newton–Schulz, 1 to 20."),
            or(
                "update_rms",
                Ty::Number,
                "0.2",
                "Root mean square of a step at a learning rate of 1: 0.2 is about that of AdamW, so that its learning rates fit (arXiv:2502.16982, section 2.2).",
            ),
            BETAS,
            EPS,
            WEIGHT_DECAY,
            DECAY_EMBEDDINGS,
            DECAY_NORMS,
            CLIP,
            Z_LOSS,
        ],
        "Muon for the matrices within layers: momentum made orthogonal (Jordan et al. 2024). Embedding, output matrix and norms are AdamW's, whose `betas` and `eps` follow; they share learning rate and weight decay.",
    ),
    Function {
        name: "upsample",
        family: Family::Mix,
        params: &[],
        positional: Some("a mix"),
        open: Some("entries of the mix"),
        doc: "Multiplies the weights of the named entries and divides all by the new sum. What another entry, itself a mix, draws of the same source is not multiplied.",
    },
    Function {
        name: "reweight",
        family: Family::Mix,
        params: &[],
        positional: Some("a mix"),
        open: Some("entries of the mix"),
        doc: "Gives the named entries these shares; the others keep their proportions in what is left. In a fan-out it sweeps a share: `stage anneal[share in [10%, 20%]] { mix = reweight(decay, math: share) … }`.",
    },
    Function {
        name: "proportional",
        family: Family::Mix,
        params: &[],
        positional: Some("sources"),
        open: None,
        doc: "Weights by the number of tokens of each source.",
    },
    Function {
        name: "temperature",
        family: Family::Mix,
        params: &[],
        positional: Some("sources, then the exponent"),
        open: None,
        doc: "Weights by tokens to a power from 0 to 1, the inverse of a temperature: 1 is proportional, 0 is equal.",
    },
    Function {
        name: "average",
        family: Family::Soup,
        params: &[may(
            "weights",
            Ty::Numbers,
            "One per ingredient, any positive numbers; equal when absent.",
        )],
        positional: Some("stages, fan-outs or checkpoints"),
        open: None,
        doc: "The mean of the weights.",
    },
    Function {
        name: "ema",
        family: Family::Soup,
        params: &[needs("decay", Ty::Number, "What an older ingredient keeps for each younger one.")],
        positional: Some("checkpoints, oldest first"),
        open: None,
        doc: "An exponential moving average over checkpoints.",
    },
    function_(
        "fim",
        Family::Fim,
        &[
            needs("rate", Ty::Share, "Share of documents that are transformed."),
            or("style", Ty::Word(PSM), "psm", "How the three parts are ordered."),
        ],
        "Fill in the middle (arXiv:2207.14255), before packing.",
    ),
    Function {
        name: "ascending",
        family: Family::Order,
        params: &[],
        positional: Some("a field of the record"),
        open: None,
        doc: "Smallest first: curriculum learning proper.",
    },
    Function {
        name: "descending",
        family: Family::Order,
        params: &[],
        positional: Some("a field of the record"),
        open: None,
        doc: "Largest first.",
    },
    Function {
        name: "needle",
        family: Family::Measure,
        params: &[],
        positional: Some("a length"),
        open: None,
        doc: "Share of needles found in a haystack of this length.",
    },
    Function {
        name: "loss",
        family: Family::Measure,
        params: &[],
        positional: Some("a source or mix"),
        open: None,
        doc: "Held-out loss in nats.",
    },
    Function {
        name: "choice",
        family: Family::Measure,
        params: &[],
        positional: Some("a task file"),
        open: None,
        doc: "Accuracy on a multiple-choice task, a share of its questions; the file is that of `choice` in an `eval`.",
    },
];
