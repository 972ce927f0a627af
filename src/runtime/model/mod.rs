//! The decoder: configuration, weights, forward and backward pass.

mod backward;
pub(crate) mod decoder;
#[cfg(test)]
mod finite_differences;
mod forward;
pub mod init;
mod parameters;
pub mod rope_table;
pub mod tensor;
mod workspace;
