//! A model's configuration: what midc computes with, read from and written to the `config.json` of
//! Hugging Face transformers. Settings that midc does not compute are errors here, so that no model
//! is trained as something it is not; keys that do not concern the arithmetic are kept as they are.
//!
//! Knows files' contents, not where they come from: GGUF metadata passes through here too.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::dtype::Dtype;
use crate::layers::{self, MOST_LAYERS};
use crate::plan::Architecture;
use crate::rope::{self, Rope, RopeScaling};

/// A configuration that cannot be used.
#[derive(Debug, Error, Diagnostic)]
pub enum ConfigError {
    /// Not readable.
    #[error("cannot read `{}`", file.display())]
    #[diagnostic(
        code(midc::config::read),
        help("a Hugging Face directory has a `config.json` beside its weights")
    )]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not JSON, or no object.
    #[error("`{}` is not a JSON object: {problem}", file.display())]
    #[diagnostic(code(midc::config::json))]
    Json {
        /// The file.
        file: PathBuf,
        /// Where and why.
        problem: String,
    },
    /// A setting that is missing, malformed or not supported.
    #[error("`{}`: `{key}` is {value}: {problem}", file.display())]
    #[diagnostic(code(midc::config::setting))]
    Setting {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// What is there, as JSON, or `missing`.
        value: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        #[help]
        help: Option<String>,
    },
}

/// What a model is, apart from its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Dimensions and family. A Mistral-shaped model is a `llama` here, as its arithmetic is.
    pub architecture: Architecture,
    /// Position encoding.
    pub rope: Rope,
    /// Longest context the model is meant for, in tokens (`max_position_embeddings`).
    pub context: u64,
    /// Token put before a text.
    pub bos: Option<u32>,
    /// Tokens that end a text; several in some chat models.
    pub eos: Vec<u32>,
    /// Filler.
    pub pad: Option<u32>,
    /// How the weights are stored, where the file says.
    pub dtype: Option<Dtype>,
    /// The file as it was read, so that what midc has no use for survives an export.
    pub keys: Map<String, Value>,
}

/// Settings with the only value midc computes.
const FIXED: &[(&str, Fixed, &str)] = &[
    ("hidden_act", Fixed::Text("silu"), "midc computes SwiGLU with SiLU only"),
    ("attention_bias", Fixed::False, "midc has no biases in attention but Qwen2's"),
    ("mlp_bias", Fixed::False, "midc has no biases in the feed-forward layer"),
    ("attention_dropout", Fixed::Zero, "midc trains without dropout: set it to 0.0"),
    ("clip_qkv", Fixed::Null, "midc does not clip queries, keys and values"),
    (
        "num_local_experts",
        Fixed::Null,
        "midc has no mixture of experts: train it by `midc exec --engine transformers`",
    ),
    (
        "num_experts",
        Fixed::Null,
        "midc has no mixture of experts: train it by `midc exec --engine transformers`",
    ),
    ("quantization_config", Fixed::Null, "take the checkpoint before quantisation, or its GGUF file"),
    ("attn_logit_softcapping", Fixed::Null, "midc does not cap logits"),
    ("final_logit_softcapping", Fixed::Null, "midc does not cap logits"),
];

#[derive(Clone, Copy)]
enum Fixed {
    Text(&'static str),
    False,
    Zero,
    Null,
}

impl Fixed {
    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Text(text) => value.as_str() == Some(text),
            Self::False => value.as_bool() == Some(false),
            Self::Zero => value.as_f64() == Some(0.0),
            Self::Null => false,
        }
    }
}

/// What transformers takes for an absent key, where it depends on the family.
struct Family {
    /// `model_type` in the file.
    name: &'static str,
    /// `Architecture::model_type`.
    arithmetic: &'static str,
    class: &'static str,
    rms_norm_eps: f64,
    context: u64,
    /// Absent `head_dim`; `None` is hidden / heads.
    head_dim: Option<u64>,
    /// Absent `num_key_value_heads`; `None` is as many as there are query heads.
    kv_heads: Option<u64>,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    /// Absent `tie_word_embeddings`.
    tied: bool,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "llama",
        arithmetic: "llama",
        class: "LlamaForCausalLM",
        rms_norm_eps: 1e-6,
        context: 2048,
        head_dim: None,
        kv_heads: None,
        bos: Some(1),
        eos: Some(2),
        pad: None,
        tied: false,
    },
    Family {
        name: "mistral",
        arithmetic: "llama",
        class: "MistralForCausalLM",
        rms_norm_eps: 1e-6,
        context: 131_072,
        head_dim: None,
        kv_heads: Some(8),
        bos: Some(1),
        eos: Some(2),
        pad: None,
        tied: false,
    },
    Family {
        name: "qwen2",
        arithmetic: "qwen2",
        class: "Qwen2ForCausalLM",
        rms_norm_eps: 1e-6,
        context: 32768,
        head_dim: None,
        kv_heads: Some(32),
        bos: None,
        eos: None,
        pad: None,
        tied: false,
    },
    Family {
        name: "qwen3",
        arithmetic: "qwen3",
        class: "Qwen3ForCausalLM",
        rms_norm_eps: 1e-6,
        context: 32768,
        head_dim: Some(128),
        kv_heads: Some(32),
        bos: None,
        eos: None,
        pad: None,
        tied: false,
    },
    Family {
        name: "olmo2",
        arithmetic: "olmo2",
        class: "Olmo2ForCausalLM",
        rms_norm_eps: 1e-5,
        context: 2048,
        head_dim: None,
        kv_heads: None,
        bos: None,
        eos: Some(50279),
        pad: Some(1),
        tied: false,
    },
    Family {
        name: "olmo3",
        arithmetic: "olmo3",
        class: "Olmo3ForCausalLM",
        rms_norm_eps: 1e-5,
        context: 2048,
        head_dim: None,
        kv_heads: None,
        bos: None,
        eos: Some(50279),
        pad: Some(1),
        tied: false,
    },
    Family {
        name: "smollm3",
        arithmetic: "smollm3",
        class: "SmolLM3ForCausalLM",
        rms_norm_eps: 1e-6,
        context: 32768,
        head_dim: None,
        kv_heads: Some(4),
        bos: Some(128_000),
        eos: Some(128_001),
        pad: Some(128_004),
        tied: true,
    },
    Family {
        name: "gemma3_text",
        arithmetic: "gemma3_text",
        class: "Gemma3ForCausalLM",
        rms_norm_eps: 1e-6,
        context: 131_072,
        head_dim: Some(GEMMA_HEAD),
        kv_heads: Some(4),
        bos: Some(2),
        eos: Some(1),
        pad: Some(0),
        tied: true,
    },
];

/// Width of Gemma 3's heads where the file is silent.
const GEMMA_HEAD: u64 = 256;
/// What transformers calls GELU by a hyperbolic tangent.
const GELU: &str = "gelu_pytorch_tanh";

/// More than any model has, so that the product of two dimensions cannot overflow.
const LARGEST: u64 = 1 << 27;

impl ModelConfig {
    /// Read `config.json`.
    ///
    /// # Errors
    /// Unreadable, not JSON, or a setting midc does not compute; all name the file.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        let json = |problem: String| ConfigError::Json { file: file.to_owned(), problem };
        match serde_json::from_slice(&text) {
            Ok(Value::Object(keys)) => Self::from_keys(keys, file),
            Ok(_) => Err(json("it holds something else".into())),
            Err(error) => Err(json(error.to_string())),
        }
    }

    /// Make sense of the keys of a `config.json`; `file` is where they came from, for messages.
    ///
    /// # Errors
    /// The first setting that is missing, malformed or not computed by midc.
    pub fn from_keys(keys: Map<String, Value>, file: &Path) -> Result<Self, ConfigError> {
        let reader = Reader { keys: &keys, file };
        let name = match reader.present("model_type").map(Value::as_str) {
            Some(Some(name)) => name,
            _ => return Err(reader.error("model_type", "expected a string", None)),
        };
        let Some(family) = FAMILIES.iter().find(|f| f.name == name) else {
            let known = FAMILIES.iter().map(|f| f.name).collect::<Vec<_>>().join(", ");
            let help = match name {
                "gemma3" => {
                    "of Gemma 3 midc computes the text model. With transformers: make \
                     `Gemma3ForCausalLM(config.text_config)`, load the weights of the whole model's \
                     `model.language_model` into its `model`, `save_pretrained` it, and name that directory"
                }
                _ => {
                    "midc computes Llama-shaped models, Qwen2, Qwen3, OLMo 2, OLMo 3, SmolLM3 and Gemma 3; what else \
                     transformers loads is trained by `midc exec --engine transformers`"
                }
            };
            return Err(reader.error("model_type", &format!("not one of {known}"), Some(help)));
        };
        reader.check_fixed(family)?;
        if family.name == "gemma3_text" {
            reader.check_gemma()?;
        }

        let hidden = reader.dimension("hidden_size")?;
        let heads = reader.dimension("num_attention_heads")?;
        let kv_heads = reader.dimension_or("num_key_value_heads", family.kv_heads.unwrap_or(heads))?;
        let head_dim = reader.dimension_or("head_dim", family.head_dim.unwrap_or(hidden / heads))?;
        if reader.present("head_dim").is_none() && family.head_dim.is_none() && hidden % heads != 0 {
            let problem =
                format!("not a multiple of `num_attention_heads`, {heads}, and `head_dim` is absent");
            return Err(reader.error("hidden_size", &problem, None));
        }
        if heads % kv_heads != 0 {
            let problem = format!("`num_attention_heads`, {heads}, is not a multiple of it");
            return Err(reader.error("num_key_value_heads", &problem, None));
        }

        let rope = rope::from_hf(&keys).map_err(|error| ConfigError::Setting {
            file: file.to_owned(),
            key: error.key,
            value: error.value,
            problem: error.problem,
            help: None,
        })?;
        rope::check(Some(head_dim as usize), rope.theta, &rope.scaling)
            .map_err(|error| reader.error("head_dim", &error.to_string(), None))?;

        let layers = reader.whole("num_hidden_layers", MOST_LAYERS as u64)? as usize;
        let pattern = layers::from_hf(&keys, layers).map_err(|error| ConfigError::Setting {
            file: file.to_owned(),
            key: error.key,
            value: error.value,
            problem: error.problem,
            help: None,
        })?;
        let architecture = Architecture {
            model_type: family.arithmetic.to_owned(),
            num_hidden_layers: layers,
            hidden_size: hidden as usize,
            num_attention_heads: heads as usize,
            num_key_value_heads: kv_heads as usize,
            head_dim: head_dim as usize,
            intermediate_size: reader.dimension("intermediate_size")? as usize,
            vocab_size: reader.dimension("vocab_size")? as usize,
            tie_word_embeddings: reader.flag("tie_word_embeddings", family.tied)?,
            rms_norm_eps: reader.positive("rms_norm_eps", family.rms_norm_eps)?,
            initializer_range: reader.positive("initializer_range", 0.02)?,
            pattern,
        };
        Ok(Self {
            architecture,
            rope,
            context: reader.dimension_or("max_position_embeddings", family.context)?,
            bos: reader.tokens("bos_token_id", family.bos)?.first().copied(),
            eos: reader.tokens("eos_token_id", family.eos)?,
            pad: reader.tokens("pad_token_id", family.pad)?.first().copied(),
            dtype: reader.dtype()?,
            keys,
        })
    }

    /// A model that does not exist yet. `architecture.model_type` is one that has a class in transformers.
    pub fn fresh(architecture: Architecture, rope: Rope, context: u64) -> Self {
        let family = FAMILIES.iter().find(|f| f.name == architecture.model_type);
        let mut keys = Map::new();
        keys.insert("architectures".into(), json!([family.map_or("LlamaForCausalLM", |f| f.class)]));
        keys.insert("model_type".into(), json!(architecture.model_type));
        if architecture.model_type != "qwen2" {
            keys.insert("attention_bias".into(), json!(false));
        }
        keys.insert("attention_dropout".into(), json!(0.0));
        if architecture.model_type == "gemma3_text" {
            keys.insert("hidden_activation".into(), json!(GELU));
            keys.insert("query_pre_attn_scalar".into(), json!(architecture.head_dim));
        } else {
            keys.insert("hidden_act".into(), json!("silu"));
        }
        if ["llama", "smollm3"].contains(&architecture.model_type.as_str()) {
            keys.insert("mlp_bias".into(), json!(false));
        }
        keys.insert("use_cache".into(), json!(true));
        let local = rope.local_theta.or(rope::default_local_theta(&architecture.model_type));
        let rope = Rope { local_theta: local.filter(|local| *local != rope.theta), ..rope };
        Self { architecture, rope, context, bos: None, eos: Vec::new(), pad: None, dtype: None, keys }
    }

    /// Another RoPE. Layers that take no part in its scaling keep the base they have.
    pub fn stretch(&mut self, theta: f64, scaling: RopeScaling) {
        let local = self.rope.local_theta.unwrap_or(self.rope.theta);
        let another = self.architecture.has_plain_rope() && local != theta;
        self.rope = Rope { theta, scaling, local_theta: another.then_some(local) };
    }

    /// The `config.json` of this model: what was read, with everything midc knows put over it.
    /// RoPE and the data type are written as transformers 5 and its predecessors spell them.
    pub fn to_keys(&self) -> Map<String, Value> {
        let mut keys = self.keys.clone();
        let a = &self.architecture;
        let tokens = |ids: &[u32]| match ids {
            [] => Value::Null,
            [one] => json!(one),
            several => json!(several),
        };
        for (key, value) in [
            ("vocab_size", json!(a.vocab_size)),
            ("hidden_size", json!(a.hidden_size)),
            ("intermediate_size", json!(a.intermediate_size)),
            ("num_hidden_layers", json!(a.num_hidden_layers)),
            ("num_attention_heads", json!(a.num_attention_heads)),
            ("num_key_value_heads", json!(a.num_key_value_heads)),
            ("head_dim", json!(a.head_dim)),
            ("tie_word_embeddings", json!(a.tie_word_embeddings)),
            ("rms_norm_eps", json!(a.rms_norm_eps)),
            ("initializer_range", json!(a.initializer_range)),
            ("bos_token_id", self.bos.map_or(Value::Null, |id| json!(id))),
            ("eos_token_id", tokens(&self.eos)),
            ("pad_token_id", self.pad.map_or(Value::Null, |id| json!(id))),
        ] {
            keys.insert(key.into(), value);
        }
        if let Some(dtype) = self.dtype {
            keys.insert("dtype".into(), json!(dtype.name()));
            keys.insert("torch_dtype".into(), json!(dtype.name()));
        }
        keys.remove("original_max_position_embeddings");
        keys.remove("rope_parameters");
        let rope = rope::to_hf(a.head_dim, self.rope.theta, &self.rope.scaling, self.context);
        if a.has_plain_rope() {
            let local = self.rope.local_theta.unwrap_or(self.rope.theta);
            keys.extend(rope::nested(&a.model_type, rope, local));
        } else {
            keys.extend(rope);
        }
        // A Mistral-shaped model is a `llama` here.
        let written = keys.get("model_type").and_then(Value::as_str).unwrap_or(&a.model_type).to_owned();
        keys.extend(layers::to_hf(&written, &a.pattern, a.num_hidden_layers));
        // In an order that does not depend on where they came from.
        keys.sort_keys();
        keys
    }
}

/// The keys of one file, with errors that name it.
struct Reader<'a> {
    keys: &'a Map<String, Value>,
    file: &'a Path,
}

impl<'a> Reader<'a> {
    fn present(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(key).filter(|v| !v.is_null())
    }

    fn error(&self, key: &str, problem: &str, help: Option<&str>) -> ConfigError {
        ConfigError::Setting {
            file: self.file.to_owned(),
            key: key.to_owned(),
            value: self.keys.get(key).map_or_else(|| "missing".into(), Value::to_string),
            problem: problem.to_owned(),
            help: help.map(str::to_owned),
        }
    }

    fn check_fixed(&self, family: &Family) -> Result<(), ConfigError> {
        for (key, fixed, help) in FIXED {
            // transformers does not look at them there: queries, keys and values have their biases, Gemma's
            // activation another key.
            if [("qwen2", "attention_bias"), ("gemma3_text", "hidden_act")].contains(&(family.name, *key)) {
                continue;
            }
            if let Some(value) = self.present(key)
                && !fixed.holds(value)
            {
                return Err(self.error(key, "this is not supported", Some(help)));
            }
        }
        Ok(())
    }

    /// What of Gemma 3's own settings midc computes.
    fn check_gemma(&self) -> Result<(), ConfigError> {
        let width = self.dimension_or("head_dim", GEMMA_HEAD)?;
        let scale = self.positive("query_pre_attn_scalar", GEMMA_HEAD as f64)?;
        if scale != width as f64 {
            let problem = format!("midc divides scores by the root of `head_dim`, {width}");
            return Err(self.error("query_pre_attn_scalar", &problem, None));
        }
        for (key, fixed, help) in [
            (
                "hidden_activation",
                Fixed::Text(GELU),
                "midc computes GeGLU with GELU by its hyperbolic tangent only",
            ),
            ("use_bidirectional_attention", Fixed::False, "midc attends to what is before a token only"),
        ] {
            if let Some(value) = self.present(key)
                && !fixed.holds(value)
            {
                return Err(self.error(key, "this is not supported", Some(help)));
            }
        }
        Ok(())
    }

    fn dimension(&self, key: &str) -> Result<u64, ConfigError> {
        self.whole(key, LARGEST)
    }

    fn whole(&self, key: &str, most: u64) -> Result<u64, ConfigError> {
        let value = self.present(key).and_then(Value::as_u64);
        value
            .filter(|v| (1..=most).contains(v))
            .ok_or_else(|| self.error(key, &format!("expected a whole number from 1 to {most}"), None))
    }

    fn dimension_or(&self, key: &str, default: u64) -> Result<u64, ConfigError> {
        if self.present(key).is_none() { Ok(default) } else { self.dimension(key) }
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.present(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(key, "expected true or false", None)),
        }
    }

    fn positive(&self, key: &str, default: f64) -> Result<f64, ConfigError> {
        match self.present(key) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|v| v.is_finite() && *v > 0.0)
                .ok_or_else(|| self.error(key, "expected a number greater than 0", None)),
        }
    }

    /// A token id, a list of them, or -1 and `null` for none. An absent key takes the default.
    fn tokens(&self, key: &str, default: Option<u32>) -> Result<Vec<u32>, ConfigError> {
        let wrong = || self.error(key, "expected a token id", None);
        let id = |value: &Value| match value.as_i64() {
            Some(-1) => Ok(None),
            Some(id) => u32::try_from(id).map(Some).map_err(|_| wrong()),
            None => Err(wrong()),
        };
        match self.keys.get(key) {
            None => Ok(default.into_iter().collect()),
            Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(ids)) => {
                Ok(ids.iter().map(id).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
            }
            Some(one) => Ok(id(one)?.into_iter().collect()),
        }
    }

    /// `dtype` since transformers 5, `torch_dtype` before; what midc cannot store is `None`.
    fn dtype(&self) -> Result<Option<Dtype>, ConfigError> {
        for key in ["dtype", "torch_dtype"] {
            if let Some(value) = self.present(key) {
                let name = value.as_str().ok_or_else(|| self.error(key, "expected a string", None))?;
                return Ok(Dtype::from_name(name));
            }
        }
        Ok(None)
    }
}
