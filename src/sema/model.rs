//! `model` blocks: what is declared, and what the configuration of a checkpoint that is here says.

use crate::diag::Diagnostic;
use crate::layers::{self, LayerPattern, MOST_LAYERS};
use crate::schema::{self, Family, Ty};
use crate::source::Span;
use crate::syntax::ast;

use super::checker::Checker;
use super::curriculum::{Architecture, Model, Rope};
use super::eval::Scope;
use super::program::DefId;
use super::rope::RopeGround;
use super::show;
use super::value::{Call, Kind, Val};
use crate::diag::codes;

/// More than any model has in one dimension: what the engine's reader of `config.json` takes.
const LARGEST: u64 = 1 << 27;

/// More than any head has. A plan holds a frequency for every second of its dimensions.
const WIDEST_HEAD: u64 = 1 << 16;

/// What a `config.json` says.
struct Config {
    architecture: Option<Architecture>,
    theta: Option<f64>,
    rope: Option<Rope>,
    context: Option<u64>,
}

impl<'p> Checker<'p> {
    /// A `model` block.
    pub(crate) fn resolve_model(
        &mut self,
        id: DefId,
        block: &'p ast::Block,
        scope: &Scope<'p>,
    ) -> Option<usize> {
        let name = block.name.as_ref()?;
        let fields = self.fields(block)?;
        let mut sound = !block.incomplete;
        let optional = |this: &mut Self, field: &str| this.field(&fields, field, scope);
        let mut checkpoint = None;
        if let Some(v) = optional(self, "checkpoint") {
            checkpoint = self.path(&v, "checkpoint");
            sound &= checkpoint.is_some();
        }
        let (mut declared, mut init_theta) = (None, None);
        if let Some(v) = optional(self, "init") {
            declared = self.architecture(&v);
            sound &= declared.is_some();
            if let (Kind::Call(call), Some((_, Some(theta), _))) = (&v.kind, &declared) {
                init_theta = call.arg("theta").map(|written| (*theta, written.span));
            }
        }
        if fields.get("checkpoint").is_none() && fields.get("init").is_none() && sound && !fields.doubtful {
            self.push(
                Diagnostic::error(
                    codes::MISSING_FIELD,
                    name.span,
                    format!("model `{}` has neither `checkpoint` nor `init`", name.text),
                    "there are no weights to start from",
                )
                .help("write `checkpoint = \"DIR\"` for an existing model, or `init = llama(…)` for a fresh one"),
            );
            sound = false;
        }
        let mut tokenizer = None;
        if let Some(v) = optional(self, "tokenizer") {
            tokenizer = self.path(&v, "tokenizer");
            sound &= tokenizer.is_some();
        }
        let mut context = None;
        if let Some(v) = optional(self, "context") {
            context = self.tokens(&v, "context");
            sound &= context.is_some();
        }
        let mut lr = None;
        if let Some(v) = optional(self, "lr") {
            lr = self.non_negative(&v, "lr");
            sound &= lr.is_some();
        }
        let mut seen = None;
        if let Some(v) = optional(self, "seen") {
            seen = self.tokens(&v, "seen");
            sound &= seen.is_some();
        }
        let mut mix = None;
        if let Some(v) = optional(self, "mix") {
            match self.flatten(&v, None) {
                Some(flat) => mix = Some(flat.iter().map(|(s, a)| (*s, a.blend().value(0))).collect()),
                None => sound = false,
            }
        }
        // They speak of a training that a fresh model has not had: nothing would read them.
        let past = ["lr", "seen", "mix"].into_iter().find_map(|f| Some((f, fields.entry(f)?)));
        if let (Some((field, entry)), None, Some(init), false) =
            (past, fields.get("checkpoint"), fields.get("init"), fields.doubtful)
        {
            self.push(
                Diagnostic::error(
                    codes::MISSING_FIELD,
                    entry.span,
                    format!("`{field}` of a model without `checkpoint`"),
                    "a fresh model has seen nothing",
                )
                .label(init.span, "initialised at random")
                .help(
                    "write `checkpoint = \"DIR\"` beside `init` (it may be missing here), or take this out",
                ),
            );
            sound = false;
        }
        let config = self.config(checkpoint.as_deref(), fields.get("checkpoint").map(|e| e.span));
        let (mut theta, mut own_rope, mut architecture) = (None, None, None);
        if let Some((shape, preset_theta, preset_context)) = declared {
            theta = preset_theta;
            // A fresh model has no length before: what it is trained at is its native one.
            context = context.or(preset_context);
            architecture = Some(shape);
        }
        if let Some(config) = config {
            if let (Some(a), Some(b)) = (&architecture, &config.architecture) {
                self.compare(a, b, fields.get("init").map_or(name.span, |e| e.span));
            }
            if let (Some(a), Some(b), Some(e)) = (context, config.context, fields.get("context"))
                && a != b
            {
                self.contradiction(e.span, "context", &show::length(a), &show::length(b));
            }
            architecture = config.architecture.or(architecture);
            if let (Some((a, span)), Some(b)) = (init_theta, config.theta)
                && a != b
            {
                self.contradiction(span, "theta", &a.to_string(), &b.to_string());
            }
            theta = config.theta.or(theta);
            own_rope = config.rope;
            context = context.or(config.context);
        }
        let ground = RopeGround { theta, head_dim: architecture.as_ref().map(|a| a.head_dim), context };
        let mut rope = own_rope;
        if let Some(v) = optional(self, "rope") {
            let written = self.rope(&v, ground);
            sound &= written.as_ref().is_some_and(|rope| self.has_base(rope, &v, &name.text));
            if let (Some(a), Some(b)) = (&written, &rope)
                && a.theta.is_some()
                && b.theta.is_some()
                && a.theta != b.theta
            {
                let (a, b) = (a.theta.unwrap_or_default(), b.theta.unwrap_or_default());
                self.contradiction(v.span, "theta", &a.to_string(), &b.to_string());
            }
            if let (Kind::Call(call), Some(a), Some((b, init))) =
                (&v.kind, written.as_ref().and_then(|r| r.theta), init_theta)
                && let Some(own) = call.arg("theta").filter(|_| a != b)
            {
                self.push(
                    Diagnostic::error(
                        codes::MODEL_CONTRADICTS,
                        own.span,
                        format!(
                            "the base of `{}` is {} in `rope` and {} in `init`",
                            name.text,
                            show::base(a),
                            show::base(b)
                        ),
                        "this base",
                    )
                    .label(init, "or this one?")
                    .help("write it once, or the same number twice"),
                );
            }
            rope = written;
        }
        if rope.is_none() {
            rope = theta.map(|theta| Rope {
                method: "rope",
                theta: Some(theta),
                scaling: crate::rope::RopeScaling::Default,
            });
        }
        if !sound {
            return None;
        }
        self.out.models.push(Model {
            name: self.full_name(id),
            doc: self.program.item(id).preface.doc(),
            span: name.span,
            fresh: checkpoint.is_none(),
            checkpoint,
            architecture,
            tokenizer,
            context,
            rope,
            lr,
            seen,
            mix,
            fields: fields.spans(),
        });
        Some(self.out.models.len() - 1)
    }

    /// `llama(…)` or a preset: the shape, and base and context where the spelling says them.
    fn architecture(&mut self, value: &Val<'p>) -> Option<(Architecture, Option<f64>, Option<u64>)> {
        let preset: Option<&str> = match &value.kind {
            Kind::Word(name) => Some(name),
            Kind::Text(name, _) => Some(name),
            _ => None,
        };
        match &value.kind {
            Kind::Word(_) | Kind::Text(..) => {
                let name = preset?;
                let Some(p) = schema::preset(name) else {
                    self.unknown_architecture(value.span, name);
                    return None;
                };
                let layers = size(p.layers);
                let pattern = match (p.window, p.nope_every) {
                    (Some((window, every)), _) => LayerPattern::windows(layers, window, size(every)),
                    (None, Some(every)) => LayerPattern::without_rope(layers, size(every)),
                    (None, None) => LayerPattern::default(),
                };
                let shape = Architecture {
                    model_type: p.model_type.to_owned(),
                    layers: p.layers,
                    hidden: p.hidden,
                    heads: p.heads,
                    kv_heads: p.kv_heads,
                    head_dim: p.head_dim,
                    ffn: p.ffn,
                    active_ffn: None,
                    vocab: p.vocab,
                    tie_embeddings: p.tie_embeddings,
                    eps: p.eps,
                    init_std: 0.02,
                    pattern,
                };
                Some((shape, Some(p.theta), Some(p.context)))
            }
            Kind::Call(call) if call.function.family == Family::Init => {
                let call = call.clone();
                self.written_architecture(&call)
            }
            _ => {
                self.wrong(value, Ty::Init, "init");
                None
            }
        }
    }

    fn written_architecture(&mut self, call: &Call<'p>) -> Option<(Architecture, Option<f64>, Option<u64>)> {
        let mut whole = |name: &str, default: Option<u64>| match call.arg(name).cloned() {
            Some(v) => {
                let n = self.whole_positive(&v, name)?;
                let most = if name == "layers" { MOST_LAYERS as u64 } else { LARGEST };
                if n > most {
                    self.too_large(v.span, format!("`{name}` is {}", show::digits(n)), most);
                    return None;
                }
                Some(n)
            }
            None => default,
        };
        let (layers, hidden, heads) = (whole("layers", None)?, whole("hidden", None)?, whole("heads", None)?);
        let kv_heads = whole("kv_heads", Some(heads))?;
        let (ffn, vocab) = (whole("ffn", None)?, whole("vocab", None)?);
        let head_dim = if call.arg("head_dim").is_some() { Some(whole("head_dim", None)?) } else { None };
        let at = |name: &str| call.arg(name).map_or(call.span, |v| v.span);
        // The configurations of transformers refuse the former two whatever the width of a head.
        let always = ["llama", "gemma3"].contains(&call.function.name);
        if (head_dim.is_none() || always) && hidden % heads != 0 {
            self.push(
                Diagnostic::error(
                    codes::MODEL_SHAPE,
                    at("heads"),
                    format!("{hidden} dimensions cannot be split over {heads} heads"),
                    format!("{heads} heads"),
                )
                .label(at("hidden"), format!("{hidden} dimensions"))
                .help(if always {
                    format!(
                        "choose a number of heads that divides `hidden`: transformers loads no other `{}`",
                        call.function.name
                    )
                } else {
                    "choose a number of heads that divides `hidden`, or write `head_dim`".to_owned()
                }),
            );
            return None;
        }
        if heads % kv_heads != 0 {
            self.push(
                Diagnostic::error(
                    codes::MODEL_SHAPE,
                    at("kv_heads"),
                    format!("{heads} query heads cannot share {kv_heads} key and value heads"),
                    format!("{kv_heads} key and value heads"),
                )
                .label(at("heads"), format!("{heads} query heads"))
                .help("`kv_heads` must divide `heads`"),
            );
            return None;
        }
        let head_dim = head_dim.unwrap_or(hidden / heads);
        if head_dim % 2 != 0 || head_dim < 4 {
            self.push(Diagnostic::error(
                codes::MODEL_SHAPE,
                at("heads"),
                format!("heads of {head_dim} dimensions"),
                "RoPE turns pairs of dimensions: an even width of at least 4 is needed",
            ));
            return None;
        }
        if head_dim > WIDEST_HEAD {
            let at = if call.arg("head_dim").is_some() { at("head_dim") } else { at("heads") };
            self.too_large(at, format!("heads of {} dimensions", show::digits(head_dim)), WIDEST_HEAD);
            return None;
        }
        let gemma = call.function.name == "gemma3";
        let tie_embeddings = match call.arg("tie_embeddings").cloned() {
            Some(v) => self.yes_no(&v, "tie_embeddings")?,
            None => gemma,
        };
        let mut real = |name: &str, default: f64| match call.arg(name).cloned() {
            Some(v) => self.positive(&v, name),
            None => Some(default),
        };
        let (usual_eps, usual_theta) = if gemma { (1e-6, 1_000_000.0) } else { (1e-5, 10_000.0) };
        let eps = real("eps", usual_eps)?;
        let (init_std, theta) = (real("init_std", 0.02)?, real("theta", usual_theta)?);
        // As a `config.json` calls it: `gemma3` is the model that also sees.
        let model_type = if gemma { "gemma3_text" } else { call.function.name }.to_owned();
        let pattern = self.pattern(call, layers)?;
        let shape = Architecture {
            model_type,
            layers,
            hidden,
            heads,
            kv_heads,
            head_dim,
            ffn,
            active_ffn: None,
            vocab,
            tie_embeddings,
            eps,
            init_std,
            pattern,
        };
        Some((shape, Some(theta), None))
    }

    fn too_large(&mut self, span: Span, message: String, most: u64) {
        self.push(
            Diagnostic::error(
                codes::MODEL_SHAPE,
                span,
                message,
                format!("at most {} are computed", show::digits(most)),
            )
            .help("a magnitude may be too much: `8k` is 8 000"),
        );
    }

    /// How the layers of a written model differ.
    fn pattern(&mut self, call: &Call<'p>, layers: u64) -> Option<LayerPattern> {
        let (every, usual, usual_window) = match call.function.name {
            "olmo3" => ("full_every", 4, 4096),
            "gemma3" => ("full_every", 6, 512),
            "smollm3" => ("nope_every", 4, 0),
            _ => return Some(LayerPattern::default()),
        };
        let every = match call.arg(every).cloned() {
            Some(v) => self.whole_positive(&v, every)?,
            None => usual,
        };
        if call.function.name == "smollm3" {
            return Some(LayerPattern::without_rope(size(layers), size(every)));
        }
        let window = match call.arg("window").cloned() {
            Some(v) => self.tokens(&v, "window")?,
            None => usual_window,
        };
        Some(LayerPattern::windows(size(layers), window, size(every)))
    }

    /// `config.json` in the checkpoint's directory, or what a GGUF file has in place of one, where it is here and
    /// readable.
    fn config(&mut self, checkpoint: Option<&str>, span: Option<Span>) -> Option<Config> {
        let (checkpoint, span) = (checkpoint?, span?);
        let root = self.program.modules[0].file;
        let text = match self.files.read_beside(&format!("{checkpoint}/config.json"), root) {
            Ok(text) => text?,
            Err(why) => {
                self.push(Diagnostic::error(
                    codes::BAD_CONFIG,
                    span,
                    format!("what `{checkpoint}` is cannot be read"),
                    why,
                ));
                return None;
            }
        };
        let parsed: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&text);
        let map = match parsed {
            Ok(map) => map,
            Err(e) => {
                self.push(Diagnostic::error(
                    codes::BAD_CONFIG,
                    span,
                    "`config.json` of this checkpoint cannot be read",
                    e.to_string(),
                ));
                return None;
            }
        };
        let number = |key: &str| {
            map.get(key).and_then(serde_json::Value::as_u64).filter(|n| (1..=LARGEST).contains(n))
        };
        let real = |key: &str| map.get(key).and_then(serde_json::Value::as_f64);
        let architecture = (|| {
            let (hidden, heads) = (number("hidden_size")?, number("num_attention_heads")?);
            let layers = number("num_hidden_layers").filter(|n| size(*n) <= MOST_LAYERS)?;
            let head_dim = number("head_dim").unwrap_or(hidden / heads);
            (head_dim <= WIDEST_HEAD).then_some(())?;
            Some(Architecture {
                model_type: map.get("model_type")?.as_str()?.to_owned(),
                layers,
                hidden,
                heads,
                kv_heads: number("num_key_value_heads").unwrap_or(heads),
                head_dim,
                ffn: number("intermediate_size")?,
                active_ffn: active_ffn(&number),
                vocab: number("vocab_size")?,
                tie_embeddings: map
                    .get("tie_word_embeddings")
                    .and_then(serde_json::Value::as_bool)
                    .unwrap_or(false),
                eps: real("rms_norm_eps").unwrap_or(1e-5),
                init_std: real("initializer_range").unwrap_or(0.02),
                // Of a model that midc does not compute, whatever can be made of it.
                pattern: layers::from_hf(&map, size(layers)).unwrap_or_default(),
            })
        })();
        let mut rope = None;
        let mut theta = None;
        match crate::rope::from_hf(&map) {
            Ok(found) => {
                theta = Some(found.theta);
                rope = Some(Rope {
                    method: method_name(&found.scaling),
                    theta: Some(found.theta),
                    scaling: found.scaling,
                });
            }
            Err(e) => self.push(Diagnostic::error(
                codes::BAD_CONFIG,
                span,
                "the RoPE of this checkpoint's `config.json` cannot be read",
                e.to_string(),
            )),
        }
        Some(Config { architecture, theta, rope, context: number("max_position_embeddings") })
    }

    fn compare(&mut self, declared: &Architecture, found: &Architecture, span: Span) {
        let pairs = [
            ("layers", declared.layers, found.layers),
            ("hidden", declared.hidden, found.hidden),
            ("heads", declared.heads, found.heads),
            ("kv_heads", declared.kv_heads, found.kv_heads),
            ("head_dim", declared.head_dim, found.head_dim),
            ("ffn", declared.ffn, found.ffn),
            ("vocab", declared.vocab, found.vocab),
        ];
        for (name, a, b) in pairs {
            if a != b {
                self.contradiction(span, name, &show::digits(a), &show::digits(b));
                return;
            }
        }
        if declared.model_type != found.model_type {
            self.contradiction(span, "init", &declared.model_type, &found.model_type);
            return;
        }
        let (a, b) = (&declared.pattern, &found.pattern);
        if a.sliding_window != b.sliding_window {
            let text = |w: Option<u64>| w.map_or("none".to_owned(), show::length);
            self.contradiction(span, "window", &text(a.sliding_window), &text(b.sliding_window));
        } else if a != b {
            let text = |p: &LayerPattern| match p.describe() {
                parts if parts.is_empty() => "a model of layers that are all alike".to_owned(),
                parts => format!("one where {}", parts.join(" and ")),
            };
            self.contradiction(span, "init", &text(a), &text(b));
        }
    }

    fn contradiction(&mut self, span: Span, what: &str, declared: &str, found: &str) {
        self.push(
            Diagnostic::error(
                codes::MODEL_CONTRADICTS,
                span,
                format!("`{what}` is {declared} here and {found} in the checkpoint"),
                format!("declared as {declared}"),
            )
            .help("leave it out to take the checkpoint's"),
        );
    }
}

/// What one token goes through of the feed-forward layer in a mixture of experts: so many of them, and those that are
/// shared by all. The keys are those of Mixtral, OLMoE, Qwen and DeepSeek in transformers.
fn active_ffn(number: &impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let several = ["num_experts", "num_local_experts", "n_routed_experts"];
    several.iter().find_map(|key| number(key).filter(|n| *n > 1))?;
    let width = number("moe_intermediate_size").or_else(|| number("intermediate_size"))?;
    let shared = number("shared_expert_intermediate_size")
        .or_else(|| number("n_shared_experts")?.checked_mul(width))
        .unwrap_or(0);
    number("num_experts_per_tok")?.checked_mul(width)?.checked_add(shared)
}

fn size(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

/// The spelling of a method.
pub(crate) fn method_name(scaling: &crate::rope::RopeScaling) -> &'static str {
    use crate::rope::RopeScaling as S;
    match scaling {
        S::Default => "rope",
        S::Pi { .. } => "pi",
        S::Ntk { .. } => "ntk",
        S::DynamicNtk { .. } => "dynamic_ntk",
        S::NtkByParts { .. } => "ntk_by_parts",
        S::Yarn { .. } => "yarn",
        S::Llama3 { .. } => "llama3",
        S::Longrope { .. } => "longrope",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Widths of published models, and what their reports say a token goes through.
    #[test]
    fn experts_count_as_far_as_a_token_goes_through_them() {
        for (keys, expected) in [
            (vec![("intermediate_size", 14_336)], None),
            // Mixtral 8x7B.
            (
                vec![("intermediate_size", 14_336), ("num_local_experts", 8), ("num_experts_per_tok", 2)],
                Some(28_672),
            ),
            // OLMoE 1B-7B.
            (vec![("intermediate_size", 1024), ("num_experts", 64), ("num_experts_per_tok", 8)], Some(8192)),
            // DeepSeek-V3.
            (
                vec![
                    ("intermediate_size", 18_432),
                    ("moe_intermediate_size", 2048),
                    ("n_routed_experts", 256),
                    ("n_shared_experts", 1),
                    ("num_experts_per_tok", 8),
                ],
                Some(18_432),
            ),
            (vec![("num_experts", 1), ("intermediate_size", 8), ("num_experts_per_tok", 1)], None),
        ] {
            let number = |key: &str| keys.iter().find(|(k, _)| *k == key).map(|(_, n)| *n);
            assert_eq!(active_ffn(&number), expected, "{keys:?}");
        }
    }
}
