//! What a planned model says about its text before it is loaded: how `midc data` and `midc emit` come to the tokens that
//! `midc exec` trains on.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::data::{DataError, TextTokenizer, eos_id};
use super::model::ModelConfig;
use crate::plan::ModelPlan;

/// What a model says about its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelText {
    /// `tokenizer.json` or the directory it lies in.
    pub tokenizer: PathBuf,
    /// Rows of the embedding, when the architecture is known.
    pub vocab_size: Option<usize>,
    /// Where the tokenizer is the checkpoint's own: the end of sequence of its `config.json`.
    own: Option<Option<u32>>,
}

impl ModelText {
    /// That of `model`, whose tokenizer is the one it names, else that of its checkpoint directory; `None` when it has
    /// neither. Paths are relative to `base_dir`.
    ///
    /// # Errors
    /// The checkpoint's `config.json` cannot be read or is not JSON.
    pub fn of(model: &ModelPlan, base_dir: &Path) -> Result<Option<Self>, DataError> {
        let checkpoint = model.checkpoint.as_ref().map(|dir| base_dir.join(dir));
        let named = model.tokenizer.as_ref().map(|path| base_dir.join(path));
        let own = checkpoint.clone().filter(|dir| named.is_none() && dir.join("tokenizer.json").is_file());
        let Some(tokenizer) = named.or_else(|| own.clone()) else { return Ok(None) };
        let config = checkpoint.map(|dir| dir.join("config.json"));
        let keys = config.as_deref().map_or(Ok(Value::Null), json)?;
        let vocab_size = keys["vocab_size"].as_u64().and_then(|size| usize::try_from(size).ok());
        // As the run reads it; of a model that midc does not compute, as it stands there.
        let eos = || match config.as_deref().map(ModelConfig::read) {
            Some(Ok(config)) => config.eos.first().copied(),
            _ => eos_id(&keys),
        };
        Ok(Some(Self {
            tokenizer,
            vocab_size: model.init.as_ref().map(|init| init.vocab_size).or(vocab_size),
            own: own.map(|_| eos()),
        }))
    }

    /// The tokenizer, as a run of the model has it.
    ///
    /// # Errors
    /// A file of it cannot be read or understood, or it has no end of sequence.
    pub fn open(&self) -> Result<TextTokenizer, DataError> {
        match self.own {
            Some(eos) => TextTokenizer::open_checkpoint(&self.tokenizer, eos),
            None => TextTokenizer::open(&self.tokenizer),
        }
    }

    /// Identifies what [`ModelText::open`] loads, without loading it.
    ///
    /// # Errors
    /// A file of it cannot be read.
    pub fn stamp(&self) -> Result<String, DataError> {
        match self.own {
            Some(eos) => TextTokenizer::stamp_of_checkpoint(&self.tokenizer, eos),
            None => TextTokenizer::stamp(&self.tokenizer),
        }
    }
}

fn json(path: &Path) -> Result<Value, DataError> {
    let content = match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        content => content.map_err(DataError::io("read", path))?,
    };
    let malformed =
        |error| DataError::Tokenizer { path: path.to_owned(), why: format!("it is not JSON: {error}") };
    serde_json::from_slice(&content).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use super::super::model::TokenizerSource;
    use super::*;

    fn model(checkpoint: Option<&str>, tokenizer: Option<&str>) -> ModelPlan {
        ModelPlan {
            name: "m".into(),
            doc: String::new(),
            checkpoint: checkpoint.map(str::to_owned),
            init: None,
            tokenizer: tokenizer.map(str::to_owned),
            context: None,
            rope: None,
            lr: None,
            seen_tokens: None,
        }
    }

    /// Ids of the example tokenizer: 0 is `<|endoftext|>`, 2 `<|im_end|>`.
    #[test]
    fn tokens_are_those_of_the_run() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::copy("examples/data/tokenizer.json", dir.path().join("tokenizer.json")).unwrap();
        write("tokenizer_config.json", r#"{"eos_token": "<|im_end|>", "chat_template": "{{ messages }}"}"#);
        let sizes = r#""model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
                       "intermediate_size": 128, "vocab_size": 4096"#;
        // The last is of a model that midc does not compute.
        for (config, eos) in [
            (format!("{{{sizes}, \"eos_token_id\": 0}}"), 0),
            (format!("{{{sizes}, \"eos_token_id\": [1, 0]}}"), 1),
            (format!("{{{sizes}, \"eos_token_id\": null}}"), 2),
            (r#"{"model_type": "of_tomorrow", "vocab_size": 4096, "eos_token_id": 1}"#.to_owned(), 1),
        ] {
            write("config.json", &config);
            let text = ModelText::of(&model(Some("."), None), dir.path()).unwrap().unwrap();
            let (counted, vocab_size) = (text.open().unwrap(), text.vocab_size);
            assert_eq!((counted.eos(), vocab_size), (eos, Some(4096)), "{config}");
            if let Ok(read) = ModelConfig::read(&dir.path().join("config.json")) {
                let source = TokenizerSource::beside(dir.path()).unwrap();
                let json = source.tokenizer_json().unwrap();
                let eos = read.eos.first().copied();
                let trained = TextTokenizer::of_checkpoint(Path::new("t"), json, &source.files, eos).unwrap();
                assert_eq!(trained.digest(), counted.digest(), "{config}");
            }
        }
        // A tokenizer that is named speaks for itself.
        let named = ModelText::of(&model(Some("."), Some("tokenizer.json")), dir.path()).unwrap().unwrap();
        assert_eq!(named.open().unwrap().eos(), 2);
        assert_eq!(ModelText::of(&model(Some("none"), None), dir.path()).unwrap(), None);
        write("config.json", "{");
        let said = ModelText::of(&model(Some("."), None), dir.path()).unwrap_err().to_string();
        assert!(said.contains("config.json"), "{said}");
    }
}
