//! A Hugging Face directory: `config.json`, safetensors in one file or in shards, tokenizer files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::ModelConfig;
use super::dtype::Dtype;
use super::layout::layout;
use super::load::{LoadError, Loaded, TokenizerSource};
use super::safetensors::Safetensors;
use super::tensor::{StateDict, Tensor};

/// Files that make up a tokenizer, where they are there.
const TOKENIZER_FILES: &[&str] = &[
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
];

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// Load a directory.
///
/// # Errors
/// See [`super::load`].
pub(super) fn load(dir: &Path) -> Result<Loaded, LoadError> {
    let mut config = config(dir)?;
    let shards = Shards::open(dir)?;
    let mut weights = StateDict::new();
    for (name, _) in shards.check(&config)? {
        let tensor = shards.tensor(&name)?;
        weights.insert(name, tensor);
    }
    config.dtype = config.dtype.or(shards.dtype());
    Ok(Loaded { config, weights, tokenizer: tokenizer(dir)? })
}

/// The configuration in a directory.
///
/// # Errors
/// See [`super::load`].
pub(super) fn config(dir: &Path) -> Result<ModelConfig, LoadError> {
    let file = dir.join("config.json");
    let problem = match (dir.is_dir(), file.exists()) {
        (true, true) => return Ok(ModelConfig::read(&file)?),
        (true, false) => match newest(dir) {
            Some(within) => {
                format!("the directory has no `config.json`; `{}` in it has one", within.display())
            }
            None => "the directory has no `config.json`".to_owned(),
        },
        (false, _) => "there is no such file or directory".to_owned(),
    };
    Err(LoadError::NoCheckpoint { path: dir.to_owned(), problem })
}

/// The checkpoint of the most steps directly in `dir`: a stage may have been named where one of its
/// checkpoints was meant.
fn newest(dir: &Path) -> Option<PathBuf> {
    // Of a directory that is not seen in full, the newest is not known; then the message does without.
    let names: std::io::Result<Vec<_>> =
        std::fs::read_dir(dir).ok()?.map(|entry| Ok(entry?.file_name())).collect();
    let names = names.ok()?;
    let steps = names.iter().filter_map(|name| name.to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
    let path = dir.join(format!("step-{}", steps.max()?));
    path.join("config.json").is_file().then_some(path)
}

/// The tokenizer files in a directory.
///
/// # Errors
/// One that is there and cannot be read.
pub(in crate::runtime) fn tokenizer(dir: &Path) -> Result<TokenizerSource, LoadError> {
    let mut source = TokenizerSource::default();
    for name in TOKENIZER_FILES {
        if let Some(content) = read_if_there(&dir.join(name))? {
            source.files.insert((*name).to_owned(), content);
        }
    }
    if !source.files.contains_key("tokenizer.json") {
        source.problem = Some(format!("`{}` has no `tokenizer.json`", dir.display()));
    }
    let file = dir.join("generation_config.json");
    if let Some(content) = read_if_there(&file)? {
        source.generation = Some(
            serde_json::from_slice(&content)
                .map_err(|error| LoadError::Json { file, problem: format!("not a JSON object: {error}") })?,
        );
    }
    Ok(source)
}

fn read_if_there(file: &Path) -> Result<Option<Vec<u8>>, LoadError> {
    match std::fs::read(file) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LoadError::Read { file: file.to_owned(), source }),
    }
}

/// The weight files of a directory and which tensor lies in which.
pub(in crate::runtime) struct Shards {
    /// What to name when a tensor is in none: the file, or the index.
    listing: PathBuf,
    files: BTreeMap<PathBuf, Safetensors>,
    place: BTreeMap<String, PathBuf>,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Shards {
    /// Open every weight file of a directory.
    ///
    /// # Errors
    /// None there, one that is damaged, or an index that contradicts them.
    pub(in crate::runtime) fn open(dir: &Path) -> Result<Self, LoadError> {
        let single = dir.join("model.safetensors");
        let index_file = dir.join("model.safetensors.index.json");
        if single.exists() {
            let file = Safetensors::open(&single)?;
            let place = file.names().map(|name| (name.to_owned(), single.clone())).collect();
            return Ok(Self { listing: single.clone(), files: BTreeMap::from([(single, file)]), place });
        }
        let Some(content) = read_if_there(&index_file)? else {
            let problem = if dir.join("pytorch_model.bin").exists() {
                "its weights are in PyTorch's pickle format, which can run code; \
                 load it with transformers and save it again as safetensors"
            } else {
                "the directory has neither `model.safetensors` nor `model.safetensors.index.json`"
            };
            return Err(LoadError::NoCheckpoint { path: dir.to_owned(), problem: problem.into() });
        };
        let json = |problem: String| LoadError::Json { file: index_file.clone(), problem };
        let index: Index =
            serde_json::from_slice(&content).map_err(|error| json(format!("not a weight index: {error}")))?;

        let mut files = BTreeMap::new();
        let mut place = BTreeMap::new();
        for (tensor, name) in index.weight_map {
            // Only names, so that an index cannot make midc read elsewhere.
            if name.contains(['/', '\\']) || name.starts_with('.') {
                return Err(json(format!("tensor `{tensor}` lies in `{name}`, which is not a file name")));
            }
            let path = dir.join(name);
            if !files.contains_key(&path) {
                files.insert(path.clone(), Safetensors::open(&path)?);
            }
            place.insert(tensor, path);
        }
        for (path, file) in &files {
            for tensor in file.names() {
                if place.get(tensor) != Some(path) {
                    let problem = format!("tensor `{tensor}` of `{}` is not listed here", path.display());
                    return Err(json(problem));
                }
            }
        }
        Ok(Self { listing: index_file, files, place })
    }

    /// The tensors of the model, all of which are there in their shapes, and no others.
    ///
    /// # Errors
    /// One that is missing, superfluous or of another shape.
    pub(in crate::runtime) fn check(
        &self,
        config: &ModelConfig,
    ) -> Result<Vec<(String, Vec<usize>)>, LoadError> {
        let tensors = layout(&config.architecture)?;
        for (tensor, expected) in &tensors {
            let missing = |path: &Path| LoadError::Missing {
                path: path.to_owned(),
                tensor: tensor.clone(),
                shape: expected.clone(),
            };
            let path = self.place.get(tensor).ok_or_else(|| missing(&self.listing))?;
            let found = self.files.get(path).and_then(|file| file.shape(tensor));
            let found = found.ok_or_else(|| missing(path))?;
            if found != expected {
                return Err(LoadError::Shape {
                    path: path.clone(),
                    tensor: tensor.clone(),
                    expected: expected.clone(),
                    found: found.to_vec(),
                });
            }
        }
        let used: BTreeSet<&String> = tensors.iter().map(|(name, _)| name).collect();
        for (tensor, path) in &self.place {
            if !used.contains(tensor) && !ignored(tensor, config) {
                return Err(LoadError::Extra { path: path.clone(), tensor: tensor.clone() });
            }
        }
        let head = self.place.get(HEAD).filter(|_| config.architecture.tie_word_embeddings);
        if let Some(path) = head
            && self.tensor(HEAD)? != self.tensor(EMBEDDING)?
        {
            return Err(LoadError::Untied { path: path.clone() });
        }
        Ok(tensors)
    }

    /// Read one tensor.
    ///
    /// # Errors
    /// Not there, or in a format midc does not read.
    pub(in crate::runtime) fn tensor(&self, name: &str) -> Result<Tensor, LoadError> {
        let file = self.place.get(name).and_then(|path| self.files.get(path));
        match file {
            Some(file) => Ok(file.read(name)?),
            None => Err(LoadError::Missing {
                path: self.listing.clone(),
                tensor: name.to_owned(),
                shape: Vec::new(),
            }),
        }
    }

    /// How the weights are stored, judged by the embedding.
    pub(in crate::runtime) fn dtype(&self) -> Option<Dtype> {
        self.files.values().find_map(|f| f.dtype(EMBEDDING))
    }
}

/// Tensors that some files have and transformers ignores as well: the frequencies that Llama files
/// of 2023 saved, and a copy of the embedding under the output layer's name.
fn ignored(tensor: &str, config: &ModelConfig) -> bool {
    tensor.ends_with("rotary_emb.inv_freq") || (tensor == HEAD && config.architecture.tie_word_embeddings)
}
