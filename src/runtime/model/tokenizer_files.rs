//! A tokenizer given as a file of its own rather than with a checkpoint.

use std::path::Path;

use serde_json::Value;

use super::{LoadError, TokenizerSource, hf};

impl TokenizerSource {
    /// `path`, a `tokenizer.json` under any name or the directory that holds one, with the tokenizer
    /// files that lie beside it.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn beside(path: &Path) -> Result<Self, LoadError> {
        if path.is_dir() {
            return hf::tokenizer(path);
        }
        let mut source = hf::tokenizer(path.parent().unwrap_or(Path::new("")))?;
        let json =
            std::fs::read(path).map_err(|source| LoadError::Read { file: path.to_path_buf(), source })?;
        source.files.insert("tokenizer.json".to_string(), json);
        source.generation = None;
        Ok(source)
    }

    /// What may hold a chat template: `tokenizer_config.json` (null where there is none) and
    /// `chat_template.jinja`.
    pub fn chat_files(&self) -> (Value, Option<String>) {
        let file = |name: &str| self.files.get(name).map(Vec::as_slice);
        let config = file("tokenizer_config.json").and_then(|json| serde_json::from_slice(json).ok());
        let jinja = file("chat_template.jinja").map(|text| String::from_utf8_lossy(text).into_owned());
        (config.unwrap_or(Value::Null), jinja)
    }
}
