//! Measurements of a model during and after training, beyond held-out loss: needle in a haystack
//! and multiple choice, both scored by the likelihood of given answers.
//!
//! Knows token ids and an engine; the caller brings the tokenizer.

pub mod choice;
pub mod needle;
pub mod score;

use choice::ChoiceError;
use score::ScoreError;

use crate::runtime::engine::EngineError;

/// Why a measurement could not be taken.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum MeasureError {
    /// The engine.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Engine(#[from] EngineError),
    /// A task file.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Choice(#[from] ChoiceError),
    /// The tokenizer.
    #[error("cannot tokenise `{text}…`: {why}")]
    #[diagnostic(code(midc::eval::encode))]
    Encode {
        /// Its beginning.
        text: String,
        /// What the tokenizer says.
        why: String,
    },
    /// It was to be given up.
    #[error("the measurement was given up when asked to")]
    #[diagnostic(code(midc::eval::stopped))]
    Stopped,
}

impl From<ScoreError> for MeasureError {
    fn from(error: ScoreError) -> Self {
        match error {
            ScoreError::Engine(error) => Self::Engine(error),
            ScoreError::Stopped => Self::Stopped,
        }
    }
}
