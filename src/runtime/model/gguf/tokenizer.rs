//! The tokenizer in a GGUF file to `tokenizer.json` and `tokenizer_config.json`.
//!
//! Byte-level BPE only. llama.cpp stores the vocabulary and the merges but only the *name* of how text is
//! split before merging; the names known here stand for the splitting of the tokenizers they are named
//! after.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::GgufError;
use super::container::Metadata;
use crate::runtime::model::{ModelConfig, TokenizerSource};

/// Splits of GPT-4's kind, which differ in how many digits stay together (`cl100k`, Llama 3: three;
/// Qwen 2: one).
fn gpt4_split(digits: &str) -> Value {
    let pattern = [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        digits,
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
    .join("|");
    json!({ "type": "Sequence", "pretokenizers": [
        { "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false },
        byte_level(false),
    ] })
}

fn byte_level(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

/// How text is handled before the merges.
struct Splitting {
    normalizer: Value,
    pre_tokenizer: Value,
    /// Whether a piece that is a token stays whole although the merges would not make it.
    ignore_merges: bool,
    /// Whether a text begins with BOS when the file does not say.
    add_bos: bool,
}

/// By llama.cpp's name, `tokenizer.ggml.pre`.
fn splitting(name: &str) -> Option<Splitting> {
    let plain = |pre_tokenizer| Splitting {
        normalizer: Value::Null,
        pre_tokenizer,
        ignore_merges: false,
        add_bos: false,
    };
    match name {
        "gpt-2" | "gpt2" | "phi-2" | "olmo" => Some(plain(byte_level(true))),
        "smollm" => Some(plain(json!({ "type": "Sequence", "pretokenizers": [
            { "type": "Digits", "individual_digits": true },
            byte_level(true),
        ] }))),
        "llama-bpe" | "llama3" | "llama-v3" => {
            Some(Splitting { ignore_merges: true, add_bos: true, ..plain(gpt4_split(r"\p{N}{1,3}")) })
        }
        // OLMo 2's files bear the name of DBRX, whose splitting it shares.
        "dbrx" => Some(plain(gpt4_split(r"\p{N}{1,3}"))),
        "qwen2" => Some(Splitting { normalizer: json!({ "type": "NFC" }), ..plain(gpt4_split(r"\p{N}")) }),
        _ => None,
    }
}

/// ggml's kinds of token.
const UNKNOWN: f64 = 2.0;
const CONTROL: f64 = 3.0;
const USER_DEFINED: f64 = 4.0;

/// The tokenizer's files. A tokenizer that cannot be converted is no error yet, as the user may name
/// another; the reason is kept for the message.
///
/// # Errors
/// Entries that contradict each other.
pub(super) fn source(metadata: &Metadata, config: &ModelConfig) -> Result<TokenizerSource, GgufError> {
    let without = |problem: String| {
        Ok(TokenizerSource {
            problem: Some(format!("`{}` {problem}", metadata.file.display())),
            ..Default::default()
        })
    };
    let Some(kind) = metadata.text("tokenizer.ggml.model")? else {
        return without("comes without a tokenizer".into());
    };
    if kind != "gpt2" {
        return without(format!(
            "has a tokenizer of the kind `{kind}`, and midc converts only byte-level BPE (`gpt2`)"
        ));
    }
    let pre = metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let Some(splitting) = splitting(pre) else {
        return without(format!("splits text as `{pre}`, which midc does not know"));
    };
    let need = |key: &str| metadata.error(key, "it is missing".into(), None);
    let tokens_key = "tokenizer.ggml.tokens";
    let tokens = metadata.texts(tokens_key)?.ok_or_else(|| need(tokens_key))?;
    let merges_key = "tokenizer.ggml.merges";
    let merges = metadata.texts(merges_key)?.ok_or_else(|| need(merges_key))?;
    let kinds_key = "tokenizer.ggml.token_type";
    let kinds = metadata.numbers(kinds_key)?.unwrap_or_default();
    if !kinds.is_empty() && kinds.len() != tokens.len() {
        let problem = format!("{} kinds for {} tokens", kinds.len(), tokens.len());
        return Err(metadata.error(kinds_key, problem, None));
    }
    if tokens.len() > config.architecture.vocab_size {
        let problem =
            format!("{} tokens; the model has {} embeddings", tokens.len(), config.architecture.vocab_size);
        return Err(metadata.error(tokens_key, problem, None));
    }
    let mut vocabulary = BTreeMap::new();
    for (id, token) in tokens.iter().enumerate() {
        if let Some(first) = vocabulary.insert(token, id) {
            let problem = format!("tokens {first} and {id} are both {token:?}");
            return Err(metadata.error(tokens_key, problem, None));
        }
    }

    let token = |id: Option<u32>, key: &str| match id {
        None => Ok(None),
        Some(id) => match tokens.get(id as usize) {
            Some(token) => Ok(Some((id, token.as_str()))),
            None => Err(metadata.error(key, format!("token {id} of {}", tokens.len()), None)),
        },
    };
    let bos = token(config.bos, "tokenizer.ggml.bos_token_id")?;
    let eos = token(config.eos.first().copied(), "tokenizer.ggml.eos_token_id")?;
    let pad = token(config.pad, "tokenizer.ggml.padding_token_id")?;
    let unknown_key = "tokenizer.ggml.unknown_token_id";
    let unknown = metadata.whole(unknown_key)?.map(|id| u32::try_from(id).unwrap_or(u32::MAX));
    let unknown = token(unknown, unknown_key)?;
    let add_bos = metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(splitting.add_bos);

    let added: Vec<Value> = kinds
        .iter()
        .zip(tokens)
        .enumerate()
        .filter(|(_, (kind, _))| [UNKNOWN, CONTROL, USER_DEFINED].contains(kind))
        .map(|(id, (kind, content))| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": *kind != USER_DEFINED,
            })
        })
        .collect();
    let post_processor = match bos.filter(|_| add_bos) {
        None => Value::Null,
        Some((id, token)) => {
            let begin = json!({ "SpecialToken": { "id": token, "type_id": 0 } });
            let text = |name: &str, type_id: u32| json!({ "Sequence": { "id": name, "type_id": type_id } });
            json!({
                "type": "TemplateProcessing",
                "single": [begin, text("A", 0)],
                "pair": [begin, text("A", 0), begin, text("B", 1)],
                "special_tokens": { token: { "id": token, "ids": [id], "tokens": [token] } },
            })
        }
    };
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": splitting.normalizer,
        "pre_tokenizer": splitting.pre_tokenizer,
        "post_processor": post_processor,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": splitting.ignore_merges,
            "vocab": vocabulary,
            "merges": merges,
        },
    });

    let mut settings = Map::new();
    let mut generation = Map::new();
    settings.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
    settings.insert("model_max_length".into(), json!(config.context));
    settings.insert("clean_up_tokenization_spaces".into(), json!(false));
    settings.insert("add_bos_token".into(), json!(add_bos && bos.is_some()));
    for (name, token) in [("bos", bos), ("eos", eos), ("pad", pad), ("unk", unknown)] {
        if let Some((id, text)) = token {
            settings.insert(format!("{name}_token"), json!(text));
            if name != "unk" {
                generation.insert(format!("{name}_token_id"), json!(id));
            }
        }
    }
    if let Some(template) = metadata.text("tokenizer.chat_template")? {
        settings.insert("chat_template".into(), json!(template));
    }
    let files = BTreeMap::from([
        ("tokenizer.json".to_owned(), tokenizer.to_string().into_bytes()),
        ("tokenizer_config.json".to_owned(), format!("{:#}\n", Value::Object(settings)).into_bytes()),
    ]);
    Ok(TokenizerSource { files, generation: Some(generation), problem: None })
}
