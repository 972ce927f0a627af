//! Soups of real checkpoint directories: what goes in must be one model, and nothing half-made stays.

use std::path::{Path, PathBuf};

use midc::plan::Architecture;
use midc::rope::{Rope, RopeScaling};
use midc::runtime::checkpoint::{self, CheckpointContents, OptimizerState, WithMoments};
use midc::runtime::model::tensor::{StateDict, Tensor};
use midc::runtime::model::{Dtype, ModelConfig, TokenizerSource, layout};
use midc::runtime::soup::{Recipe, soup};

fn config(hidden: usize, theta: f64) -> ModelConfig {
    let architecture = Architecture {
        model_type: "llama".into(),
        num_hidden_layers: 1,
        hidden_size: hidden,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        intermediate_size: 12,
        vocab_size: 16,
        tie_word_embeddings: true,
        rms_norm_eps: 1e-5,
        initializer_range: 0.02,
        pattern: Default::default(),
    };
    ModelConfig::fresh(architecture, Rope { theta, scaling: RopeScaling::Default, local_theta: None }, 64)
}

/// A checkpoint whose every weight is `value`; with an optimizer state when stored below f32.
fn write(dir: &Path, config: &ModelConfig, value: f32, dtype: Dtype) -> PathBuf {
    let weights: StateDict = layout(&config.architecture)
        .unwrap()
        .into_iter()
        .map(|(name, shape)| {
            let data = vec![value; shape.iter().product()];
            (name, Tensor { shape, data })
        })
        .collect();
    let optimizer = OptimizerState { first: weights.clone(), second: weights.clone() };
    let tokenizer = TokenizerSource::default();
    let contents = CheckpointContents {
        config,
        state: &WithMoments { weights: &weights, moments: Some(&optimizer) },
        dtype,
        tokenizer: &tokenizer,
        trainer: None,
    };
    checkpoint::write(&contents, dir).unwrap();
    dir.to_owned()
}

#[test]
fn averages_into_a_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let model = config(8, 1e4);
    // Stored in bf16, 1.001 is 1; a soup takes the exact weights.
    let a = write(&root.path().join("a"), &model, 1.001, Dtype::Bf16);
    let b = write(&root.path().join("b"), &model, 2.0, Dtype::F32);
    let out = root.path().join("out");
    soup(&[a.clone(), b.clone()], &Recipe::Uniform, Dtype::F32, &out).unwrap();
    let made = checkpoint::read(&out).unwrap();
    assert!(made.weights.values().flat_map(|t| &t.data).all(|v| *v == (1.001f32 + 2.0) / 2.0));
    assert_eq!((made.config.architecture, made.optimizer), (model.architecture, None));
    let message = soup(&[a, b], &Recipe::Uniform, Dtype::F32, &out).unwrap_err().to_string();
    assert!(message.contains("out` is there already"), "{message}");
}

#[test]
fn ingredients_must_be_one_whole_model() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let a = write(&at("a"), &config(8, 1e4), 1.0, Dtype::F32);
    let wide = write(&at("wide"), &config(16, 1e4), 1.0, Dtype::F32);
    let stretched = write(&at("stretched"), &config(8, 1e6), 1.0, Dtype::F32);
    let damaged = write(&at("damaged"), &config(8, 1e4), 1.0, Dtype::F32);
    std::fs::write(damaged.join("config.json"), "{}").unwrap();
    let diverged = write(&at("diverged"), &config(8, 1e4), f32::NAN, Dtype::F32);
    let other_tokenizer = write(&at("tokenizer"), &config(8, 1e4), 1.0, Dtype::F32);
    std::fs::write(other_tokenizer.join("tokenizer.json"), "{}").unwrap();
    for (other, expected) in [
        (wide, "`hidden_size` is 8 in the one and 16 in the other"),
        (stretched, "RoPE is"),
        (damaged, "damaged` is damaged: `config.json` has 2 bytes"),
        (diverged, "diverged` cannot be averaged: 128 values of `model.embed_tokens.weight` are not finite"),
        (other_tokenizer, "their `tokenizer.json` differ"),
        (at("nowhere"), "there is no such file or directory"),
    ] {
        let out = at("out");
        let message = soup(&[a.clone(), other], &Recipe::Uniform, Dtype::F32, &out).unwrap_err().to_string();
        assert!(message.contains(expected), "expected {expected:?} in {message}");
        assert!(!out.exists());
    }
    assert!(soup(&[], &Recipe::Uniform, Dtype::F32, &at("out")).is_err());
}

#[test]
fn an_average_must_fit_how_it_is_stored() {
    let root = tempfile::tempdir().unwrap();
    let large = write(&root.path().join("large"), &config(8, 1e4), 1e6, Dtype::F32);
    let out = root.path().join("soup");
    let error = soup(&[large.clone(), large.clone()], &Recipe::Uniform, Dtype::F16, &out).unwrap_err();
    assert!(error.to_string().ends_with("are too large for float16"), "{error}");
    assert!(!out.exists());
    soup(&[large.clone(), large.clone()], &Recipe::Uniform, Dtype::Bf16, &out).unwrap();
    let file = root.path().join("a.gguf");
    std::fs::write(&file, "GGUF").unwrap();
    let error = soup(&[large, file], &Recipe::Uniform, Dtype::F32, &root.path().join("other")).unwrap_err();
    assert!(error.to_string().contains("is a file"), "{error}");
}
