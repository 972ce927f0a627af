//! Text to syntax tree. Knows nothing of training.

pub mod ast;
