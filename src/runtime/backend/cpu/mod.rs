//! The CPU.

#[allow(dead_code)] // until the backends call it
pub(crate) mod simd;
