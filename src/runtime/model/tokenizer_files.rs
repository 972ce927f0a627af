//! A tokenizer given as a file of its own rather than with a checkpoint.

use std::path::Path;

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
}
