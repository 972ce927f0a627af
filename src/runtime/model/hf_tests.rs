//! Hugging Face directories made here, with the `safetensors` crate as the other party; and
//! directories that lie.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use ::safetensors::tensor::{Dtype as Theirs, TensorView};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::layers::LayerPattern;
use crate::rope::RopeScaling;

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 6, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "rope_theta": 10000.0, "torch_dtype": "float32",
        "my_own_key": { "kept": [1, 2] },
    })
}

fn parse(config: Value) -> Result<ModelConfig, ConfigError> {
    let Value::Object(keys) = config else { unreachable!("tests write objects") };
    ModelConfig::from_keys(keys, Path::new("dir/config.json"))
}

fn with(key: &str, value: Value) -> Value {
    let mut config = config();
    config[key] = value;
    config
}

/// Name, shape and bytes of every tensor; each number is its index, in bf16's reach.
fn tensors(config: &ModelConfig) -> Vec<(String, Vec<usize>, Vec<u8>)> {
    layout(&config.architecture)
        .unwrap()
        .into_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<usize>();
            let bytes = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
            (name, shape, bytes)
        })
        .collect()
}

fn save(path: &Path, tensors: &[(String, Vec<usize>, Vec<u8>)], dtype: Theirs) {
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    fs::write(path, ::safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config().to_string()).unwrap();
    fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    save(&dir.path().join("model.safetensors"), &tensors(&parse(config()).unwrap()), Theirs::F32);
    dir
}

#[test]
fn reads_what_the_reference_crate_writes() {
    let dir = directory();
    let loaded = load(dir.path()).unwrap();
    assert_eq!(loaded.config.keys["my_own_key"], json!({ "kept": [1, 2] }));
    assert_eq!(loaded.tokenizer.tokenizer_json().unwrap(), b"{}");
    let q = &loaded.weights["model.layers.0.self_attn.q_proj.weight"];
    assert_eq!((q.shape.as_slice(), q.data[63]), (&[8, 8][..], 63.0));
    assert_eq!(loaded.weights.len(), 11);
}

#[test]
fn the_reference_crate_reads_what_is_written() {
    let loaded = load(directory().path()).unwrap();
    for (dtype, theirs) in [(Dtype::F32, Theirs::F32), (Dtype::F16, Theirs::F16), (Dtype::Bf16, Theirs::BF16)]
    {
        let mut bytes = Vec::new();
        let shapes: Vec<_> = loaded.weights.iter().map(|(name, t)| (name.clone(), t.shape.clone())).collect();
        let tensor = |name: &str| Ok(&loaded.weights[name].data);
        safetensors::write_each(&mut bytes, &shapes, dtype, tensor).unwrap();
        let file = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), loaded.weights.len());
        for (name, tensor) in &loaded.weights {
            let view = file.tensor(name).unwrap();
            assert_eq!((view.shape(), view.dtype()), (tensor.shape.as_slice(), theirs));
            let mut numbers = vec![0.0; tensor.data.len()];
            dtype.decode(view.data(), &mut numbers);
            assert_eq!(numbers, tensor.data, "indices below 96 are exact in every format");
        }
    }
}

#[test]
fn halves_and_shards() {
    let dir = directory();
    let whole = load(dir.path()).unwrap().weights;
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let half: Vec<_> = tensors(&parse(config()).unwrap())
        .into_iter()
        .map(|(name, shape, bytes)| {
            let bf16 = bytes.chunks(4).flat_map(|b| [b[2], b[3]]).collect::<Vec<u8>>();
            (name, shape, bf16)
        })
        .collect();
    let (first, second) = half.split_at(4);
    save(&dir.path().join("a.safetensors"), first, Theirs::BF16);
    save(&dir.path().join("b.safetensors"), second, Theirs::BF16);
    let index = |place: &dyn Fn(usize) -> String| {
        let map: serde_json::Map<String, Value> =
            half.iter().enumerate().map(|(i, (name, ..))| (name.clone(), json!(place(i)))).collect();
        let text = json!({ "metadata": {}, "weight_map": map }).to_string();
        fs::write(dir.path().join("model.safetensors.index.json"), text).unwrap();
        load(dir.path()).map(|l| l.weights).map_err(|e| e.to_string())
    };
    let right = |i: usize| if i < 4 { "a.safetensors" } else { "b.safetensors" };
    assert_eq!(index(&|i| right(i).into()).unwrap(), whole);
    let error = index(&|i| if i == 0 { "b.safetensors".into() } else { right(i).into() }).unwrap_err();
    assert!(error.contains("tensor `model.embed_tokens.weight`"), "{error}");
    let error = index(&|i| if i < 4 { "../a.safetensors".into() } else { right(i).into() }).unwrap_err();
    assert!(error.contains("is not a file name"), "{error}");
    let error = index(&|i| if i < 4 { "c.safetensors".into() } else { right(i).into() }).unwrap_err();
    assert!(error.contains("c.safetensors"), "{error}");
}

#[test]
fn tensors_must_be_those_of_the_model() {
    let dir = directory();
    let path = dir.path().join("model.safetensors");
    let all = tensors(&parse(config()).unwrap());
    type Tensors = Vec<(String, Vec<usize>, Vec<u8>)>;
    let load_with = |change: &dyn Fn(&mut Tensors)| {
        let mut changed = all.clone();
        change(&mut changed);
        save(&path, &changed, Theirs::F32);
        load(dir.path()).map(|l| l.weights.len()).map_err(|e| e.to_string())
    };
    let error = load_with(&|t| drop(t.remove(1))).unwrap_err();
    assert!(
        error.contains(&format!("has no tensor `{}`, {:?} in this model", all[1].0, all[1].1)),
        "{error}"
    );
    let error = load_with(&|t| t[1].1.reverse()).map(|_| ());
    assert!(error.is_ok(), "a square matrix turned over has the same shape");
    let error = load_with(&|t| t[0].1.reverse()).unwrap_err();
    assert!(error.contains("has shape [8, 6]; the configuration asks for [6, 8]"), "{error}");
    let error = load_with(&|t| t.push(("model.layers.0.self_attn.q_proj.bias".into(), vec![8], vec![0; 32])));
    assert!(error.unwrap_err().contains("`model.layers.0.self_attn.q_proj.bias`, which no layer"));
    // Left over by older files, ignored by transformers too.
    let frequencies = ("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![2], vec![0; 8]);
    assert_eq!(load_with(&|t| t.push(frequencies.clone())), Ok(11));
    let copy = ("lm_head.weight".into(), vec![6, 8], all[0].2.clone());
    assert_eq!(load_with(&|t| t.push(copy.clone())), Ok(11));
    // transformers does not tie these.
    let mut other = copy.clone();
    other.2[7] ^= 1;
    let error = load_with(&|t| t.push(other.clone())).unwrap_err();
    assert!(error.contains("`lm_head.weight` is not the embedding"), "{error}");
    save(&path, &all, Theirs::I32);
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is stored as I32, which midc does not read"), "{error}");
}

#[test]
fn what_is_no_checkpoint_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &Path| load(path).unwrap_err().to_string();
    assert!(message(&dir.path().join("nowhere")).contains("there is no such file or directory"));
    assert!(message(dir.path()).contains("has no `config.json`"));
    // A stage of a run.
    for step in ["step-9", "step-10", "step-x"] {
        fs::create_dir(dir.path().join(step)).unwrap();
        fs::write(dir.path().join(step).join("config.json"), "{}").unwrap();
    }
    assert!(message(dir.path()).contains("step-10` in it has one"), "{}", message(dir.path()));
    fs::write(dir.path().join("config.json"), config().to_string()).unwrap();
    assert!(message(dir.path()).contains("neither `model.safetensors` nor"));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(message(dir.path()).contains("pickle"));
    fs::write(dir.path().join("config.json"), "[1]").unwrap();
    assert!(message(dir.path()).contains("is not a JSON object"));
    fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(message(dir.path()).contains("config.json"));
}

#[test]
fn settings_midc_does_not_compute_are_errors() {
    for (key, value, expected) in [
        ("hidden_act", json!("gelu"), "`hidden_act` is \"gelu\": this is not supported"),
        ("attention_bias", json!(true), "`attention_bias` is true"),
        ("mlp_bias", json!(true), "`mlp_bias` is true"),
        ("attention_dropout", json!(0.1), "`attention_dropout` is 0.1"),
        ("use_sliding_window", json!(true), "`use_sliding_window` is true"),
        ("layer_types", json!(["sliding_attention"]), "`layer_types` is"),
        ("num_local_experts", json!(8), "`num_local_experts` is 8"),
        ("quantization_config", json!({ "bits": 4 }), "`quantization_config` is {\"bits\":4}"),
        (
            "model_type",
            json!("gemma3"),
            "`model_type` is \"gemma3\": not one of llama, mistral, qwen2, qwen3, olmo2, olmo3, smollm3, gemma3_text",
        ),
        ("model_type", Value::Null, "`model_type` is null: expected a string"),
        ("hidden_size", json!(9), "`hidden_size` is 9: not a multiple of `num_attention_heads`, 2"),
        ("hidden_size", json!(-8), "`hidden_size` is -8: expected a whole number from 1"),
        ("hidden_size", json!(1u64 << 40), "expected a whole number from 1 to 134217728"),
        ("num_hidden_layers", json!(0), "`num_hidden_layers` is 0"),
        ("num_hidden_layers", json!(1u64 << 20), "expected a whole number from 1 to 4096"),
        ("num_key_value_heads", json!(3), "`num_attention_heads`, 2, is not a multiple of it"),
        ("head_dim", json!(3), "RoPE needs an even head dimension"),
        ("rms_norm_eps", json!(0), "`rms_norm_eps` is 0: expected a number greater than 0"),
        ("rope_scaling", json!({ "rope_type": "mrope" }), "`rope_scaling.rope_type` is \"mrope\""),
        ("eos_token_id", json!("</s>"), "`eos_token_id` is \"</s>\": expected a token id"),
        ("tie_word_embeddings", json!("yes"), "`tie_word_embeddings` is \"yes\": expected true or false"),
    ] {
        let error = parse(with(key, value)).expect_err(key).to_string();
        assert!(error.starts_with("`dir/config.json`: "), "{error}");
        assert!(error.contains(expected), "expected {expected:?} in {error}");
    }
    // Harmless values of the same keys.
    for (key, value) in [
        ("attention_bias", json!(false)),
        ("sliding_window", json!(4096)),
        ("quantization_config", Value::Null),
        ("layer_types", json!(["full_attention"])),
        ("attention_dropout", json!(0)),
    ] {
        parse(with(key, value)).expect(key);
    }
}

#[test]
fn absent_keys_take_the_defaults_of_transformers() {
    let mut mistral = with("model_type", json!("mistral"));
    assert_eq!(parse(mistral.clone()).unwrap().architecture.pattern.window(0), Some(4096));
    mistral["sliding_window"] = Value::Null;
    mistral["num_attention_heads"] = json!(8);
    mistral["hidden_size"] = json!(64);
    mistral["num_key_value_heads"] = Value::Null;
    let config = parse(mistral).unwrap();
    assert_eq!(config.architecture.model_type, "llama");
    assert_eq!(config.architecture.num_key_value_heads, 8);
    assert_eq!(config.architecture.pattern, LayerPattern::default());
    assert_eq!(config.to_keys()["model_type"], "mistral");
    assert_eq!(config.to_keys()["sliding_window"], Value::Null);

    let mut qwen = with("model_type", json!("qwen3"));
    qwen["num_attention_heads"] = json!(32);
    qwen["num_key_value_heads"] = Value::Null;
    let config = parse(qwen).unwrap();
    assert_eq!((config.architecture.head_dim, config.architecture.num_key_value_heads), (128, 32));
    assert_eq!((config.bos, config.eos), (None, vec![]));

    let olmo = parse(with("model_type", json!("olmo2"))).unwrap();
    assert_eq!((olmo.pad, olmo.eos), (Some(1), vec![50279]));
    let olmo3 = parse(with("model_type", json!("olmo3"))).unwrap();
    assert_eq!(olmo3.architecture.pattern, LayerPattern::windows(1, 4096, 4));
    let mut smollm3 = with("model_type", json!("smollm3"));
    smollm3.as_object_mut().unwrap().remove("tie_word_embeddings");
    smollm3["hidden_size"] = json!(16);
    smollm3["num_attention_heads"] = json!(4);
    smollm3["num_key_value_heads"] = Value::Null;
    let smollm3 = parse(smollm3).unwrap();
    assert!(smollm3.architecture.tie_word_embeddings && smollm3.architecture.num_key_value_heads == 4);
    let mut gemma = with("model_type", json!("gemma3_text"));
    gemma.as_object_mut().unwrap().remove("tie_word_embeddings");
    gemma["rope_theta"] = Value::Null;
    gemma["num_attention_heads"] = json!(4);
    gemma["num_key_value_heads"] = Value::Null;
    gemma["num_hidden_layers"] = json!(7);
    // What it does not look at.
    gemma["hidden_act"] = json!("relu");
    let refused = |key: &str, value: Value| {
        let mut config = gemma.clone();
        config[key] = value;
        parse(config).unwrap_err().to_string()
    };
    assert!(
        refused("head_dim", json!(4)).contains("`query_pre_attn_scalar` is missing: midc divides scores by")
    );
    assert!(refused("query_pre_attn_scalar", json!(168)).contains("the root of `head_dim`, 256"));
    assert!(refused("hidden_activation", json!("gelu")).contains("this is not supported"));
    assert!(refused("use_bidirectional_attention", json!(true)).contains("this is not supported"));
    let gemma = parse(gemma).unwrap();
    let a = &gemma.architecture;
    assert!(a.tie_word_embeddings && (a.num_key_value_heads, a.head_dim) == (4, 256));
    assert_eq!(a.pattern, LayerPattern::windows(7, 4096, 6));
    assert_eq!((gemma.rope.theta, gemma.rope.local_theta), (1e6, Some(1e4)));
    assert_eq!((gemma.bos, gemma.eos.as_slice(), gemma.pad), (Some(2), &[1][..], Some(0)));
    let several = parse(with("eos_token_id", json!([1, 2]))).unwrap();
    assert_eq!(several.eos, [1, 2]);
    assert_eq!(parse(with("pad_token_id", json!(-1))).unwrap().pad, None);
}

#[test]
fn written_configurations_are_read_as_they_were() {
    for (model_type, pattern) in [
        ("llama", LayerPattern::default()),
        ("qwen2", LayerPattern::default()),
        ("qwen3", LayerPattern::default()),
        ("qwen3", LayerPattern::windows(1, 5, 2)),
        ("olmo2", LayerPattern::default()),
        ("olmo3", LayerPattern::windows(1, 7, 4)),
        ("smollm3", LayerPattern::without_rope(1, 1)),
        ("gemma3_text", LayerPattern::windows(1, 7, 6)),
    ] {
        let architecture = crate::plan::Architecture {
            model_type: model_type.into(),
            pattern,
            ..parse(config()).unwrap().architecture
        };
        let scaling = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192 };
        let rope = crate::rope::Rope { theta: 5e5, scaling, local_theta: None };
        let mut fresh = ModelConfig::fresh(architecture, rope, 16384);
        fresh.stretch(7e5, fresh.rope.scaling.clone());
        let local = match model_type {
            "olmo3" => Some(5e5),
            "gemma3_text" => Some(1e4),
            _ => None,
        };
        assert_eq!(fresh.rope.local_theta, local);
        fresh.eos = vec![3];
        fresh.dtype = Some(Dtype::Bf16);
        let back = parse(Value::Object(fresh.to_keys())).unwrap();
        assert_eq!(ModelConfig { keys: fresh.keys.clone(), ..back }, fresh);
    }
    let kept = parse(config()).unwrap().to_keys();
    assert_eq!(kept["my_own_key"], json!({ "kept": [1, 2] }));
    assert_eq!((&kept["torch_dtype"], &kept["dtype"]), (&json!("float32"), &json!("float32")));
}

/// Either refused or right.
fn sound_or_refused(dir: &Path) {
    if let Ok(loaded) = load(dir) {
        for (name, shape) in layout(&loaded.config.architecture).unwrap() {
            let tensor = &loaded.weights[&name];
            assert_eq!(tensor.shape, shape);
            assert_eq!(tensor.data.len(), shape.iter().product::<usize>());
        }
    }
}

#[test]
fn truncated_weights_are_refused() {
    let dir = directory();
    let path = dir.path().join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(7) {
        fs::write(&path, &whole[..length]).unwrap();
        let error = load(dir.path()).expect_err("truncated").to_string();
        assert!(error.contains("model.safetensors"), "{error}");
    }
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    assert!(
        load(dir.path()).unwrap_err().to_string().contains("4 bytes after the last tensor belong to none")
    );
}

#[test]
fn overlapping_tensors_are_refused() {
    let dir = directory();
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let (one, other) = ("model.layers.0.mlp.gate_proj.weight", "model.layers.0.mlp.up_proj.weight");
    header[one]["data_offsets"] = header[other]["data_offsets"].clone();
    let text = header.to_string();
    let out = [&(text.len() as u64).to_le_bytes(), text.as_bytes(), &bytes[8 + length..]].concat();
    fs::write(&path, out).unwrap();
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(error.contains("it begins at byte"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Flips in the header: the first 1,200 bytes, where the structure is.
    #[test]
    fn flipped_bits_never_panic(
        file in 0usize..2,
        flips in prop::collection::vec((0usize..1200, 0u8..8), 1..5),
    ) {
        let dir = directory();
        let path = dir.path().join(["model.safetensors", "config.json"][file]);
        let mut bytes = fs::read(&path).unwrap();
        let length = bytes.len();
        for (at, bit) in flips {
            bytes[at % length] ^= 1 << bit;
        }
        fs::write(&path, bytes).unwrap();
        sound_or_refused(dir.path());
    }
}
