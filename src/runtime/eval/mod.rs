//! Measurements of a model during and after training, beyond held-out loss: needle in a haystack
//! and multiple choice, both scored by the likelihood of given answers.
//!
//! Knows token ids and an engine; the caller brings the tokenizer.

pub mod choice;
pub mod needle;
pub mod score;
