//! A checkpoint as it comes from elsewhere, a Hugging Face directory or a GGUF file, into memory:
//! configuration, weights and tokenizer, with every tensor accounted for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use serde_json::{Map, Value};
use thiserror::Error;

use super::config::{ConfigError, ModelConfig};
use super::gguf::GgufError;
use super::safetensors::SafetensorsError;
use super::tensor::StateDict;
use super::{gguf, hf};
use crate::runtime::engine::EngineError;

/// A model in memory.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it is.
    pub config: ModelConfig,
    /// Every tensor of [`super::layout`], in f32.
    pub weights: StateDict,
    /// Its tokenizer's files, empty if it comes without one.
    pub tokenizer: TokenizerSource,
}

/// The files of a tokenizer as Hugging Face lays them beside the weights, and the settings for
/// generation, which travel with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerSource {
    /// File name and content: `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja`, …
    pub files: BTreeMap<String, Vec<u8>>,
    /// `generation_config.json`.
    pub generation: Option<Map<String, Value>>,
    /// Why there is no `tokenizer.json`, a sentence about where it was looked for.
    pub problem: Option<String>,
}

impl TokenizerSource {
    /// The content of `tokenizer.json`.
    ///
    /// # Errors
    /// There is none; the message says why and what to do.
    pub fn tokenizer_json(&self) -> Result<&[u8], LoadError> {
        self.files.get("tokenizer.json").map(Vec::as_slice).ok_or_else(|| LoadError::NoTokenizer {
            problem: self.problem.clone().unwrap_or_else(|| "the model comes without a tokenizer".into()),
        })
    }
}

/// Why a model could not be loaded.
#[derive(Debug, Error, Diagnostic)]
pub enum LoadError {
    /// Nothing there that midc knows.
    #[error("`{}` is no checkpoint: {problem}", path.display())]
    #[diagnostic(
        code(midc::load::no_checkpoint),
        help("name a Hugging Face directory (`config.json` and safetensors) or a `.gguf` file")
    )]
    NoCheckpoint {
        /// The path.
        path: PathBuf,
        /// What is missing.
        problem: String,
    },
    /// The model has no tokenizer midc can use.
    #[error("no tokenizer: {problem}")]
    #[diagnostic(
        code(midc::load::no_tokenizer),
        help("name a Hugging Face `tokenizer.json` as the model's `tokenizer`")
    )]
    NoTokenizer {
        /// Why.
        problem: String,
    },
    /// A file that should be there cannot be read.
    #[error("cannot read `{}`", file.display())]
    #[diagnostic(code(midc::load::read))]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A JSON file beside the weights.
    #[error("`{}`: {problem}", file.display())]
    #[diagnostic(code(midc::load::json))]
    Json {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The configuration.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] ConfigError),
    /// Dimensions that do not fit together.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Architecture(#[from] EngineError),
    /// A safetensors file.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Safetensors(#[from] SafetensorsError),
    /// A GGUF file.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Gguf(#[from] GgufError),
    /// A tensor of the model is not there.
    #[error("`{}` has no tensor `{tensor}`, {shape:?} in this model", path.display())]
    #[diagnostic(
        code(midc::load::missing_tensor),
        help("the configuration and the weights are of different models, or a shard is missing")
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// Its name there.
        tensor: String,
        /// The shape it should have.
        shape: Vec<usize>,
    },
    /// A tensor no layer of the model uses.
    #[error("`{}` has tensor `{tensor}`, which no layer of this model uses", path.display())]
    #[diagnostic(
        code(midc::load::extra_tensor),
        help("the model has parts that midc does not compute, or its configuration is of another model")
    )]
    Extra {
        /// Where it is.
        path: PathBuf,
        /// Its name.
        tensor: String,
    },
    /// An output layer of its own in a model that is said to have none.
    #[error("`{}`: `lm_head.weight` is not the embedding, which `tie_word_embeddings` says it is", path.display())]
    #[diagnostic(
        code(midc::load::untied),
        help(
            "set `tie_word_embeddings` to false in `config.json`, as transformers takes it, or remove the tensor"
        )
    )]
    Untied {
        /// Where it is.
        path: PathBuf,
    },
    /// A tensor of the wrong shape.
    #[error("`{}`: tensor `{tensor}` has shape {found:?}; the configuration asks for {expected:?}", path.display())]
    #[diagnostic(code(midc::load::shape), help("the configuration and the weights are of different models"))]
    Shape {
        /// Where it is.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// What the configuration asks for.
        expected: Vec<usize>,
        /// What is there.
        found: Vec<usize>,
    },
}

/// Load a Hugging Face directory or a `.gguf` file.
///
/// # Errors
/// Every message names the file, and the tensor or setting it is about.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    if path.is_dir() {
        hf::load(path)
    } else if path.is_file() {
        gguf::load(path)
    } else {
        Err(LoadError::NoCheckpoint {
            path: path.to_owned(),
            problem: "there is no such file or directory".into(),
        })
    }
}

/// The configuration of a Hugging Face directory or a `.gguf` file, without its weights.
///
/// # Errors
/// Every message names the file and the setting it is about.
pub fn load_config(path: &Path) -> Result<ModelConfig, LoadError> {
    if path.is_file() { gguf::config(path) } else { hf::config(path) }
}
