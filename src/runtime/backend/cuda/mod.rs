//! NVIDIA GPUs. The only place that names cudarc; builds and answers without CUDA on the machine.
//!
//! ```text
//! probe     what there is         backend   operations of a step ─▶ product, attention, loss
//! sources   embedded kernels              ╲                       memory: buffers
//! nvrtc     source to cubin                 device   a trait: gpu, and in tests the host model
//! cache     cubins on disk
//! ```

mod attention;
pub mod backend;
pub mod cache;
pub mod device;
pub mod gpu;
#[cfg(test)]
mod host_model;
mod loss;
mod memory;
pub mod nvrtc;
pub mod probe;
mod product;
pub mod sources;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::backend::Cuda;
use self::cache::KernelCache;
use self::gpu::Gpu;
use crate::runtime::engine::EngineError;

/// The backend on the GPU of this number.
///
/// # Errors
/// When the GPU cannot be used; [`probe`](probe::probe) says why in more words.
pub fn open(ordinal: usize) -> Result<Cuda, EngineError> {
    let gpu = Gpu::new(ordinal, KernelCache::of_user()).map_err(|f| EngineError::Device {
        device: format!("cuda:{ordinal}"),
        reason: format!("{}: {}", f.what, f.reason),
    })?;
    Ok(Cuda::new(Arc::new(gpu)))
}
