//! Metadata entries to the keys of a `config.json`, so that one reader checks both.

use serde_json::{Map, Value, json};

use super::GgufError;
use super::container::Metadata;
use crate::rope::{self, RopeScaling};

/// `general.architecture`.
///
/// # Errors
/// Not there, or no text.
pub(super) fn architecture(metadata: &Metadata) -> Result<&str, GgufError> {
    let key = "general.architecture";
    metadata.text(key)?.ok_or_else(|| metadata.error(key, "it is missing".into(), None))
}

/// What a `config.json` of this model would say. `tied` is whether the file has no output layer of its
/// own, `rope_factors` the divisors of the frequencies, if the file has them.
///
/// # Errors
/// An entry that is missing, malformed or stands for something midc does not compute.
pub(super) fn config_keys(
    metadata: &Metadata,
    tied: bool,
    rope_factors: Option<&[f32]>,
) -> Result<Map<String, Value>, GgufError> {
    let family = architecture(metadata)?;
    let named = |key: &str| format!("{family}.{key}");
    let whole = |key: &str| metadata.whole(&named(key));
    let need = |key: &str| match whole(key)? {
        Some(value) => Ok(value),
        None => Err(metadata.error(&named(key), "it is missing".into(), None)),
    };
    for (key, help) in [
        ("expert_count", "midc has no mixture of experts"),
        ("attention.clamp_kqv", "midc does not clip queries, keys and values"),
        ("logit_scale", "midc does not scale logits"),
        ("attn_logit_softcapping", "midc does not cap logits"),
        ("final_logit_softcapping", "midc does not cap logits"),
    ] {
        if let Some(value) = metadata.number(&named(key))?
            && value != 0.0
        {
            return Err(metadata.error(&named(key), format!("{value} is not supported"), Some(help)));
        }
    }

    // llama.cpp has no name of its own for OLMo 3: an OLMo 2 with windows in three of four layers.
    let window = whole("attention.sliding_window")?.filter(|window| *window > 0);
    let model_type = match (family, window) {
        ("olmo2", Some(_)) => "olmo3",
        ("gemma3", _) => "gemma3_text",
        (_, None) => family,
        (_, Some(window)) => {
            let help = "midc attends to the whole context in this family";
            let problem = format!("{window} is not supported");
            return Err(metadata.error(&named("attention.sliding_window"), problem, Some(help)));
        }
    };
    let heads = need("attention.head_count")?;
    let hidden = need("embedding_length")?;
    let head_dim = match whole("attention.key_length")? {
        Some(length) => length,
        None => hidden / heads.max(1),
    };
    for key in ["attention.value_length", "rope.dimension_count"] {
        if let Some(other) = whole(key)?
            && other != head_dim
        {
            let problem =
                format!("{other} differs from the width of a head, {head_dim}, which is not supported");
            return Err(metadata.error(&named(key), problem, None));
        }
    }
    let vocabulary = match whole("vocab_size")? {
        Some(size) => size,
        None => match metadata.texts("tokenizer.ggml.tokens")? {
            Some(tokens) => tokens.len() as u64,
            None => need("vocab_size")?,
        },
    };
    let epsilon = named("attention.layer_norm_rms_epsilon");
    let context = need("context_length")?;
    let layers = need("block_count")?;
    // llama.cpp knows Gemma 3 27B, whose scores are scaled otherwise, by its layers.
    let gemma_scale = if layers == 62 { hidden / heads.max(1) } else { head_dim };
    let mut keys = Map::new();
    for (key, value) in [
        ("model_type", json!(model_type)),
        ("architectures", json!([class(model_type)])),
        ("sliding_window", json!(window)),
        // Each is looked at by the families that have it.
        ("hidden_act", json!("silu")),
        ("hidden_activation", json!("gelu_pytorch_tanh")),
        ("query_pre_attn_scalar", json!(gemma_scale)),
        ("attention_bias", json!(false)),
        ("attention_dropout", json!(0.0)),
        ("use_cache", json!(true)),
        ("num_hidden_layers", json!(layers)),
        ("hidden_size", json!(hidden)),
        ("num_attention_heads", json!(heads)),
        ("num_key_value_heads", json!(whole("attention.head_count_kv")?.unwrap_or(heads))),
        ("head_dim", json!(head_dim)),
        ("intermediate_size", json!(need("feed_forward_length")?)),
        ("vocab_size", json!(vocabulary)),
        ("max_position_embeddings", json!(context)),
        ("rms_norm_eps", json!(metadata.number(&epsilon)?)),
        ("tie_word_embeddings", json!(tied)),
        ("bos_token_id", json!(metadata.whole("tokenizer.ggml.bos_token_id")?)),
        ("eos_token_id", json!(metadata.whole("tokenizer.ggml.eos_token_id")?)),
        ("pad_token_id", json!(metadata.whole("tokenizer.ggml.padding_token_id")?)),
    ] {
        keys.insert(key.into(), value);
    }
    let theta = metadata.number(&named("rope.freq_base"))?.unwrap_or(10_000.0);
    let scaling = scaling(metadata, family, context, head_dim, theta, rope_factors)?;
    let rope = rope::to_hf(head_dim as usize, theta, &scaling, context);
    keys.extend(match model_type {
        "olmo3" => rope::nested(model_type, rope, theta),
        "gemma3_text" => {
            let local = metadata.number(&named("rope.freq_base_swa"))?;
            rope::nested(model_type, rope, local.unwrap_or(10_000.0))
        }
        _ => rope,
    });
    // What the file says, whatever length the method would suggest.
    if !matches!(scaling, RopeScaling::Longrope { .. }) {
        keys.insert("max_position_embeddings".into(), json!(context));
    }
    Ok(keys)
}

fn class(model_type: &str) -> &'static str {
    match model_type {
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        "olmo2" => "Olmo2ForCausalLM",
        "olmo3" => "Olmo3ForCausalLM",
        "smollm3" => "SmolLM3ForCausalLM",
        "gemma3_text" => "Gemma3ForCausalLM",
        _ => "LlamaForCausalLM",
    }
}

fn scaling(
    metadata: &Metadata,
    family: &str,
    context: u64,
    head_dim: u64,
    theta: f64,
    divisors: Option<&[f32]>,
) -> Result<RopeScaling, GgufError> {
    let named = |key: &str| format!("{family}.rope.scaling.{key}");
    let kind = metadata.text(&named("type"))?.unwrap_or("none");
    let factor = || {
        let value = metadata.number(&named("factor"))?;
        value.ok_or_else(|| metadata.error(&named("factor"), "it is missing".into(), None))
    };
    let original = metadata.whole(&named("original_context_length"))?;
    match (kind, divisors) {
        ("none", None) => Ok(RopeScaling::Default),
        ("none", Some(divisors)) => Ok(by_divisors(divisors, context, head_dim, theta)),
        ("linear", None) => Ok(RopeScaling::Pi { factor: factor()? }),
        ("yarn", None) => {
            let factor = factor()?;
            // llama.cpp multiplies the paper's temperature by this one.
            let attention = metadata.number(&named("attn_factor"))?;
            Ok(RopeScaling::Yarn {
                factor,
                original: original.unwrap_or(context),
                beta_fast: metadata.number(&named("yarn_beta_fast"))?.unwrap_or(32.0),
                beta_slow: metadata.number(&named("yarn_beta_slow"))?.unwrap_or(1.0),
                mscale: None,
                mscale_all_dim: None,
                attention_factor: attention.map(|a| a * (0.1 * factor.max(1.0).ln() + 1.0)),
                truncate: true,
            })
        }
        (other, _) => {
            let help = "midc reads no scaling, linear, yarn and Llama 3 frequency factors from GGUF; \
                        take the model as a Hugging Face directory";
            Err(metadata.error(&named("type"), format!("`{other}` is not supported here"), Some(help)))
        }
    }
}

/// llama.cpp keeps Llama 3's scaling as one divisor per frequency and forgets its parameters. The
/// published ones are tried; if none gives these divisors, they are kept as they are.
fn by_divisors(divisors: &[f32], context: u64, head_dim: u64, theta: f64) -> RopeScaling {
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    let llama3 = RopeScaling::Llama3 { factor, low: 1.0, high: 4.0, original: 8192 };
    let dim = 2 * divisors.len();
    let plain = rope::inv_freq(dim, theta, &RopeScaling::Default, 0).inv_freq;
    let scaled = rope::inv_freq(dim, theta, &llama3, 0).inv_freq;
    let matches = dim as u64 == head_dim
        && plain
            .iter()
            .zip(&scaled)
            .zip(divisors)
            .all(|((plain, scaled), divisor)| (plain / scaled / f64::from(*divisor) - 1.0).abs() < 1e-4);
    if matches {
        return llama3;
    }
    let factors: Vec<f64> = divisors.iter().map(|d| f64::from(*d)).collect();
    RopeScaling::Longrope {
        short: factors.clone(),
        long: factors,
        original: context,
        factor: 1.0,
        attention_factor: Some(1.0),
    }
}
