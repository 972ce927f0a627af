//! The decoder: configuration, weights, forward and backward pass.

mod backward;
pub mod config;
pub(crate) mod decoder;
pub mod dtype;
#[cfg(test)]
pub(in crate::runtime) mod finite_differences;
mod forward;
mod gguf;
pub(in crate::runtime) mod hf;
#[cfg(test)]
mod hf_tests;
pub mod init;
mod layout;
mod load;
pub mod memory;
pub(in crate::runtime) mod parameters;
pub mod rope_table;
pub(in crate::runtime) mod safetensors;
pub mod tensor;
mod tokenizer_files;
mod workspace;

pub use config::{ConfigError, ModelConfig};
pub use dtype::Dtype;
pub use gguf::GgufError;
pub use layout::layout;
pub use load::{LoadError, Loaded, TokenizerSource, load, load_config};
pub use safetensors::SafetensorsError;
