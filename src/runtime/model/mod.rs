//! The decoder: configuration, weights, forward and backward pass.

pub mod tensor;
