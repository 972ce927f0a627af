//! GGUF, the weight format of llama.cpp, as a source of models: container, quantised blocks, metadata
//! and tokenizer, turned into what a Hugging Face directory would have held.
//!
//! Read only; nothing is written in this format.

mod container;
mod metadata;
mod quants;
#[cfg(test)]
mod tests;
mod tokenizer;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use container::{Container, Info};
use quants::Quant;

use super::config::ModelConfig;
use super::layout::layout;
use super::load::{LoadError, Loaded};
use super::tensor::{StateDict, Tensor};

/// A file that cannot be used as a model.
#[derive(Debug, Error, Diagnostic)]
pub enum GgufError {
    /// The file cannot be opened.
    #[error("cannot read `{}`", file.display())]
    #[diagnostic(code(midc::gguf::read))]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The container as a whole.
    #[error("`{}` is not a sound GGUF file: {problem}", file.display())]
    #[diagnostic(
        code(midc::gguf::container),
        help("the file is damaged or was not copied whole: compare its size and checksum with the original")
    )]
    Container {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A metadata entry.
    #[error("`{}`: metadata `{key}`: {problem}", file.display())]
    #[diagnostic(code(midc::gguf::metadata))]
    Key {
        /// The file.
        file: PathBuf,
        /// The entry.
        key: String,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        #[help]
        help: Option<String>,
    },
    /// A tensor's entry.
    #[error("`{}`: tensor `{tensor}`: {problem}", file.display())]
    #[diagnostic(
        code(midc::gguf::tensor),
        help("the file is damaged or was not copied whole: compare its size and checksum with the original")
    )]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor in a format midc does not read.
    #[error("`{}`: tensor `{tensor}` is stored as {quantisation}, which midc does not read", file.display())]
    #[diagnostic(
        code(midc::gguf::quantisation),
        help(
            "midc reads F32, F16, BF16, Q8_0, Q4_0 and Q4_1; take the model in one of them, best F16 or BF16"
        )
    )]
    Quantisation {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its format.
        quantisation: String,
    },
}

/// Load a `.gguf` file.
///
/// # Errors
/// See [`super::load`].
pub(super) fn load(file: &Path) -> Result<Loaded, LoadError> {
    let container = Container::open(file)?;
    let config = config_of(&container)?;
    let weights = weights(&container, &config)?;
    let tokenizer = tokenizer::source(&container.metadata, &config)?;
    Ok(Loaded { config, weights, tokenizer })
}

/// The configuration in a `.gguf` file, without its weights.
///
/// # Errors
/// See [`super::load`].
pub(super) fn config(file: &Path) -> Result<ModelConfig, LoadError> {
    config_of(&Container::open(file)?)
}

fn config_of(container: &Container) -> Result<ModelConfig, LoadError> {
    let tied = !container.tensors.contains_key("output.weight");
    let factors = match container.tensors.get(ROPE_FACTORS) {
        Some(info) => Some(read(container, ROPE_FACTORS, info)?),
        None => None,
    };
    let keys = metadata::config_keys(&container.metadata, tied, factors.as_deref())?;
    Ok(ModelConfig::from_keys(keys, &container.metadata.file)?)
}

/// Divisors of the RoPE frequencies, which llama.cpp stores for Llama 3 and LongRoPE models.
const ROPE_FACTORS: &str = "rope_freqs.weight";

fn weights(container: &Container, config: &ModelConfig) -> Result<StateDict, LoadError> {
    let path = || container.metadata.file.clone();
    let a = &config.architecture;
    // llama.cpp rotates pairs of neighbours in Llama-shaped models and stores q and k permuted for it.
    let permuted = ["llama", "smollm3"].contains(&metadata::architecture(&container.metadata)?);
    let mut weights = StateDict::new();
    let mut used = BTreeSet::from([ROPE_FACTORS.to_owned()]);
    for (name, expected) in layout(a)? {
        let stored = stored_name(&name, &a.model_type);
        let Some(info) = container.tensors.get(&stored) else {
            return Err(LoadError::Missing { path: path(), tensor: stored, shape: expected });
        };
        // Extents are listed innermost first.
        let found: Vec<usize> = info.extents.iter().rev().copied().collect();
        if found != expected {
            return Err(LoadError::Shape { path: path(), tensor: stored, expected, found });
        }
        let mut data = read(container, &stored, info)?;
        // Of biases only Qwen2's are computed, which are not permuted.
        let heads = match name.rsplit('.').nth(1) {
            Some("q_proj") => a.num_attention_heads,
            Some("k_proj") => a.num_key_value_heads,
            _ => 0,
        };
        // llama.cpp stores what its norms multiply by.
        if a.model_type == "gemma3_text" && name.ends_with("norm.weight") {
            data.iter_mut().for_each(|w| *w -= 1.0);
        }
        if permuted && heads > 0 {
            data = unpermute(&data, heads, a.head_dim, a.hidden_size);
        }
        weights.insert(name, Tensor { shape: expected, data });
        used.insert(stored);
    }
    match container.tensors.keys().find(|name| !used.contains(*name)) {
        Some(extra) => Err(LoadError::Extra { path: path(), tensor: extra.clone() }),
        None => Ok(weights),
    }
}

/// The name llama.cpp gives a tensor of the Hugging Face name.
fn stored_name(name: &str, model_type: &str) -> String {
    // The same name in Hugging Face's files for a norm before the feed-forward layer and, in OLMo and Gemma,
    // for one after attention.
    let behind = ["olmo2", "olmo3", "gemma3_text"].contains(&model_type);
    let after_attention = if behind { "post_attention_norm" } else { "ffn_norm" };
    let parts = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
        ("post_attention_layernorm", after_attention),
        ("pre_feedforward_layernorm", "ffn_norm"),
        ("post_feedforward_layernorm", "post_ffw_norm"),
    ];
    let (stem, kind) = name.rsplit_once('.').unwrap_or((name, "weight"));
    let (layer, part) = match stem.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, part)) => (Some(layer), part),
        None => (None, stem),
    };
    let stored = match parts.iter().find(|(ours, _)| *ours == part) {
        Some((_, stored)) => stored,
        None => part,
    };
    match layer {
        Some(layer) => format!("blk.{layer}.{stored}.{kind}"),
        None => format!("{stored}.{kind}"),
    }
}

fn read(container: &Container, name: &str, info: &Info) -> Result<Vec<f32>, GgufError> {
    let Some(quant) = Quant::from_id(info.kind) else {
        return Err(GgufError::Quantisation {
            file: container.metadata.file.clone(),
            tensor: name.to_owned(),
            quantisation: quants::name(info.kind),
        });
    };
    let mut out = vec![0.0; info.extents.iter().product()];
    quant.decode(container.bytes(info), &mut out);
    Ok(out)
}

/// Undo llama.cpp's permutation of the rows of q and k, which interleaves the halves of each head:
/// stored row `2·i + half` of a head is row `half·head_dim/2 + i` of the original.
fn unpermute(stored: &[f32], heads: usize, head_dim: usize, width: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(stored.len());
    for head in 0..heads {
        for row in 0..head_dim {
            let (half, i) = (row / (head_dim / 2), row % (head_dim / 2));
            let at = (head * head_dim + 2 * i + half) * width;
            out.extend_from_slice(&stored[at..at + width]);
        }
    }
    out
}
