//! RoPE as a Hugging Face `config.json` spells it, both ways: transformers 5 (`rope_parameters`) and
//! before (`rope_theta` and `rope_scaling`), which vLLM and llama.cpp read too.
//!
//! Knows the keys and nothing else of a configuration file.

use serde_json::{Map, Value, json};

use super::RopeScaling;

/// A base and the scaling over it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base.
    pub theta: f64,
    /// Scaling over it.
    pub scaling: RopeScaling,
    /// Base in layers with a window, which are never scaled, of a model that has such (OLMo 3, Gemma 3), where it
    /// is not `theta`.
    pub local_theta: Option<f64>,
}

/// A setting that is missing, malformed or not supported.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("`{key}` is {value}: {problem}")]
pub struct RopeConfigError {
    /// The key, with its parents: `rope_scaling.factor`.
    pub key: String,
    /// What is there, as JSON; `missing` when nothing is.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The keys of `config.json` that describe this RoPE, to be put over those of the model:
/// `rope_theta`, `rope_scaling`, `rope_parameters`, `max_position_embeddings` and, with `longrope`
/// only, `original_max_position_embeddings`.
///
/// `context` is the length the model was trained at. `max_position_embeddings` is that length,
/// except where readers derive something from it: factor · original for `yarn`, `ntk_by_parts` and
/// `longrope`, and the original length for `dynamic_ntk`. `ntk` is written as the base it amounts
/// to, and `ntk_by_parts` as `yarn` with an attention factor of 1: no reader knows them by name.
pub fn to_hf(head_dim: usize, theta: f64, scaling: &RopeScaling, context: u64) -> Map<String, Value> {
    let mut theta = theta;
    let mut max_positions = context;
    let mut original_at_top = None;
    let stretched = |factor: f64, original: u64| (factor * original as f64).round() as u64;
    let mut dict = match scaling {
        RopeScaling::Default => Map::new(),
        RopeScaling::Ntk { factor } => {
            theta = super::ntk::stretched(super::plain::Head { dim: head_dim, theta }, *factor).theta;
            Map::new()
        }
        RopeScaling::Pi { factor } => object(json!({ "rope_type": "linear", "factor": factor })),
        RopeScaling::DynamicNtk { factor, original } => {
            max_positions = *original;
            object(json!({ "rope_type": "dynamic", "factor": factor }))
        }
        RopeScaling::NtkByParts { factor, original, beta_fast, beta_slow } => {
            max_positions = stretched(*factor, *original);
            object(json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "attention_factor": 1.0,
            }))
        }
        RopeScaling::Yarn {
            factor,
            original,
            beta_fast,
            beta_slow,
            mscale,
            mscale_all_dim,
            attention_factor,
            truncate,
        } => {
            max_positions = stretched(*factor, *original);
            let mut dict = object(json!({
                "rope_type": "yarn",
                "factor": factor,
                "original_max_position_embeddings": original,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
            }));
            for (key, value) in [
                ("mscale", mscale),
                ("mscale_all_dim", mscale_all_dim),
                ("attention_factor", attention_factor),
            ] {
                if let Some(value) = value {
                    dict.insert(key.into(), json!(value));
                }
            }
            if !truncate {
                dict.insert("truncate".into(), json!(false));
            }
            dict
        }
        RopeScaling::Llama3 { factor, low, high, original } => object(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low,
            "high_freq_factor": high,
            "original_max_position_embeddings": original,
        })),
        RopeScaling::Longrope { short, long, original, factor, attention_factor } => {
            max_positions = stretched(*factor, *original);
            // Readers before transformers 5 look for it beside the dictionary.
            original_at_top = Some(*original);
            let mut dict = object(json!({
                "rope_type": "longrope",
                "factor": factor,
                "short_factor": short,
                "long_factor": long,
                "original_max_position_embeddings": original,
            }));
            if let Some(value) = attention_factor {
                dict.insert("attention_factor".into(), json!(value));
            }
            dict
        }
    };

    let mut keys = Map::new();
    keys.insert("rope_theta".into(), json!(theta));
    keys.insert(
        "rope_scaling".into(),
        if dict.is_empty() { Value::Null } else { Value::Object(dict.clone()) },
    );
    dict.entry("rope_type").or_insert(json!("default"));
    dict.insert("rope_theta".into(), json!(theta));
    keys.insert("rope_parameters".into(), Value::Object(dict));
    keys.insert("max_position_embeddings".into(), json!(max_positions));
    if let Some(original) = original_at_top {
        keys.insert("original_max_position_embeddings".into(), json!(original));
    }
    keys
}

/// `keys` as [`to_hf`] gave them, for a model whose layers with a window keep plain RoPE over `local_theta`:
/// `rope_parameters` by the types of layers, which transformers before 5 does not know and some engines do not
/// read. Gemma 3 has a key of its own for the base, which they do. Where OLMo 3 has everywhere the base that all of
/// them take it is left out, as in Ai2's own files.
pub fn nested(model_type: &str, mut keys: Map<String, Value>, local_theta: f64) -> Map<String, Value> {
    let full = keys.remove("rope_parameters").unwrap_or_default();
    let usual = default_theta("olmo3");
    if model_type == GEMMA {
        keys.insert("rope_local_base_freq".into(), json!(local_theta));
    } else if local_theta == usual && keys.get("rope_theta").and_then(Value::as_f64) == Some(usual) {
        return keys;
    }
    let local = json!({ "rope_type": "default", "rope_theta": local_theta });
    keys.insert("rope_parameters".into(), json!({ "full_attention": full, "sliding_attention": local }));
    keys
}

/// Gemma 3 without its eyes.
const GEMMA: &str = "gemma3_text";

/// Model types whose layers with a window have a RoPE of their own.
const BY_LAYER_TYPES: [&str; 2] = ["olmo3", GEMMA];

/// The base in layers with a window that transformers takes for a model of this type when a configuration names
/// none, where it is not that of the others.
pub fn default_local_theta(model_type: &str) -> Option<f64> {
    (model_type == GEMMA).then_some(10_000.0)
}

/// The base transformers takes when a configuration names none.
fn default_theta(model_type: &str) -> f64 {
    match model_type {
        "olmo3" => 500_000.0,
        GEMMA => 1_000_000.0,
        "smollm3" => 2_000_000.0,
        _ => 10_000.0,
    }
}

/// Read RoPE from the keys of a `config.json`. What is absent takes transformers' defaults; where
/// both spellings are present `rope_scaling` wins, as it does there.
///
/// # Errors
/// A method or a setting that midc does not have (`partial_rotary_factor`, per-layer dictionaries of anything
/// but OLMo 3 and Gemma 3), a number that is none, or parameters out of range.
pub fn from_hf(config: &Map<String, Value>) -> Result<Rope, RopeConfigError> {
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if BY_LAYER_TYPES.contains(&model_type)
        && let Some(Value::Object(entries)) = config.get("rope_parameters")
        && entries.values().any(Value::is_object)
    {
        return by_layer_types(config, entries);
    }
    let present = |key: &str| config.get(key).filter(|v| !v.is_null());
    let (name, dict) = ["rope_scaling", "rope_parameters"]
        .into_iter()
        .find_map(|key| present(key).map(|v| (key, v)))
        .unwrap_or(("rope_parameters", &Value::Null));
    let empty = Map::new();
    let entries = match dict {
        Value::Null => &empty,
        Value::Object(entries) => entries,
        other => return Err(wrong(name, other, "expected a dictionary")),
    };
    if let Some((layer, value)) = entries.iter().find(|(_, v)| v.is_object()) {
        let problem = "a RoPE of its own per layer type is not supported";
        return Err(wrong(&format!("{name}.{layer}"), value, problem));
    }
    let dict = Dict { name, entries };
    let beside = Dict { name: "", entries: config };

    for part in [&dict, &beside] {
        if part.number("partial_rotary_factor")?.is_some_and(|share| share != 1.0) {
            return Err(part.error("partial_rotary_factor", "rotating part of a head is not supported"));
        }
    }
    let theta = match dict.number("rope_theta")? {
        Some(theta) => theta,
        None => beside.number("rope_theta")?.unwrap_or_else(|| default_theta(model_type)),
    };
    let max_positions = beside.length("max_position_embeddings")?;
    let method = match dict.text("rope_type")? {
        Some(method) => method,
        None => dict.text("type")?.unwrap_or("default"),
    };

    let factor = || dict.number("factor")?.ok_or_else(|| dict.error("factor", "this method needs it"));
    // Phi-3's place outside the dictionary goes first, the full length last: as transformers does.
    let original = || match beside.length("original_max_position_embeddings")? {
        Some(length) => Ok(length),
        None => match dict.length("original_max_position_embeddings")?.or(max_positions) {
            Some(length) => Ok(length),
            None => Err(dict.error("original_max_position_embeddings", "this method needs it")),
        },
    };
    // DeepSeek and Phi-3 leave the factor to the two lengths.
    let factor_or_ratio = |original: u64| match (dict.number("factor")?, max_positions) {
        (Some(factor), _) => Ok(factor),
        (None, Some(length)) => Ok(length as f64 / original.max(1) as f64),
        (None, None) => Err(dict.error("factor", "this method needs it")),
    };

    let scaling = match method {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Pi { factor: factor()? },
        "dynamic" => RopeScaling::DynamicNtk {
            factor: factor()?,
            original: max_positions
                .ok_or_else(|| beside.error("max_position_embeddings", "dynamic RoPE needs it"))?,
        },
        "yarn" => {
            let original = original()?;
            // 0 means absent to transformers (`or 32`).
            let beta = |key, default| Ok(dict.number(key)?.filter(|b| *b != 0.0).unwrap_or(default));
            RopeScaling::Yarn {
                factor: factor_or_ratio(original)?,
                original,
                beta_fast: beta("beta_fast", 32.0)?,
                beta_slow: beta("beta_slow", 1.0)?,
                mscale: dict.number("mscale")?,
                mscale_all_dim: dict.number("mscale_all_dim")?,
                attention_factor: dict.number("attention_factor")?,
                truncate: dict.flag("truncate")?.unwrap_or(true),
            }
        }
        "llama3" => {
            let need = |key| dict.number(key)?.ok_or_else(|| dict.error(key, "llama3 RoPE needs it"));
            RopeScaling::Llama3 {
                factor: factor()?,
                low: need("low_freq_factor")?,
                high: need("high_freq_factor")?,
                original: original()?,
            }
        }
        // `su` is what the first Phi-3 files call it.
        "longrope" | "su" => {
            let original = original()?;
            RopeScaling::Longrope {
                short: dict.numbers("short_factor")?,
                long: dict.numbers("long_factor")?,
                original,
                factor: factor_or_ratio(original)?,
                attention_factor: dict.number("attention_factor")?,
            }
        }
        other => {
            let key = if dict.entries.contains_key("rope_type") { "rope_type" } else { "type" };
            let problem = "not one of default, linear, dynamic, yarn, llama3, longrope";
            return Err(wrong(&dict.path(key), &json!(other), problem));
        }
    };
    super::check(None, theta, &scaling).map_err(|error| RopeConfigError {
        key: name.into(),
        value: dict_text(entries, theta),
        problem: error.to_string(),
    })?;
    let local_theta = match default_local_theta(model_type) {
        Some(usual) => Some(beside.number("rope_local_base_freq")?.unwrap_or(usual)),
        None => None,
    };
    Ok(Rope { theta, scaling, local_theta: local_theta.filter(|local| *local != theta) })
}

/// `rope_parameters` with one dictionary for layers of full attention and one for those with a window.
fn by_layer_types(
    config: &Map<String, Value>,
    entries: &Map<String, Value>,
) -> Result<Rope, RopeConfigError> {
    let path = |key: &str| format!("rope_parameters.{key}");
    let [full, local] = ["full_attention", "sliding_attention"].map(|key| match entries.get(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(entries)) => Ok(entries.clone()),
        Some(other) => Err(wrong(&path(key), other, "expected a dictionary")),
    });
    if let Some((key, value)) =
        entries.iter().find(|(key, _)| !["full_attention", "sliding_attention"].contains(&key.as_str()))
    {
        let problem = "expected nothing beside `full_attention` and `sliding_attention`";
        return Err(wrong(&path(key), value, problem));
    }
    let (mut full, mut local) = (full?, local?);
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    if let Some(usual) = default_local_theta(model_type)
        && local.get("rope_theta").is_none_or(Value::is_null)
    {
        let beside = config.get("rope_local_base_freq").filter(|v| !v.is_null());
        local.insert("rope_theta".into(), beside.cloned().unwrap_or(json!(usual)));
    }
    // transformers lays `rope_scaling` over the one for full attention.
    let mut flat = config.clone();
    if let Some(Value::Object(over)) = flat.remove("rope_scaling") {
        full.extend(over);
    }
    let local_value = Value::Object(local.clone());
    let mut read = |dict: Map<String, Value>| {
        flat.insert("rope_parameters".into(), Value::Object(dict));
        from_hf(&flat)
    };
    let (full, local) = (read(full)?, read(local)?);
    if local.scaling != RopeScaling::Default {
        let problem = "midc scales RoPE in layers of full attention only";
        return Err(wrong(&path("sliding_attention"), &local_value, problem));
    }
    Ok(Rope { local_theta: (local.theta != full.theta).then_some(local.theta), ..full })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn dict_text(entries: &Map<String, Value>, theta: f64) -> String {
    if entries.is_empty() {
        format!("rope_theta {theta}")
    } else {
        Value::Object(entries.clone()).to_string()
    }
}

fn wrong(key: &str, value: &Value, problem: &str) -> RopeConfigError {
    RopeConfigError { key: key.into(), value: value.to_string(), problem: problem.into() }
}

/// A dictionary and the key it stands under.
struct Dict<'a> {
    name: &'a str,
    entries: &'a Map<String, Value>,
}

impl<'a> Dict<'a> {
    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.into() } else { format!("{}.{key}", self.name) }
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.entries.get(key).filter(|v| !v.is_null())
    }

    fn error(&self, key: &str, problem: &str) -> RopeConfigError {
        let value = self.entries.get(key).map_or_else(|| "missing".into(), Value::to_string);
        RopeConfigError { key: self.path(key), value, problem: problem.into() }
    }

    fn read<T>(
        &self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, RopeConfigError> {
        self.get(key).map(|v| read(v).ok_or_else(|| self.error(key, what))).transpose()
    }

    fn number(&self, key: &str) -> Result<Option<f64>, RopeConfigError> {
        self.read(key, "expected a number", Value::as_f64)
    }

    /// Some files write lengths as `8192.0`.
    fn length(&self, key: &str) -> Result<Option<u64>, RopeConfigError> {
        self.read(key, "expected a whole number of tokens", |v| {
            v.as_u64().or_else(|| {
                v.as_f64().filter(|f| f.fract() == 0.0 && (0.0..1e15).contains(f)).map(|f| f as u64)
            })
        })
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, RopeConfigError> {
        self.read(key, "expected true or false", Value::as_bool)
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, RopeConfigError> {
        self.read(key, "expected a string", Value::as_str)
    }

    fn numbers(&self, key: &str) -> Result<Vec<f64>, RopeConfigError> {
        self.read(key, "expected a list of numbers", |v| {
            v.as_array()?.iter().map(Value::as_f64).collect::<Option<Vec<_>>>()
        })?
        .ok_or_else(|| self.error(key, "this method needs it"))
    }
}
