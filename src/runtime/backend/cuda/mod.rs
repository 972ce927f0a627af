//! NVIDIA GPUs. The only place that names cudarc; builds and answers without CUDA on the machine.
//!
//! ```text
//! probe     what there is         backend   operations of a step ─▶ product, norm, attention, loss
//! sources   embedded kernels              ╲                       memory: buffers
//! nvrtc     source to cubin                 device   a trait: recorder ─▶ arena ─▶ gpu or host model
//! cache     cubins on disk
//! ```

pub mod arena;
mod attention;
pub mod backend;
pub mod cache;
pub mod device;
pub mod gpu;
#[cfg(test)]
mod host_model;
mod loss;
mod memory;
mod norm;
pub mod nvrtc;
pub mod probe;
mod product;
pub mod recorder;
pub mod sources;
mod staging;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::arena::Arena;
use self::backend::Cuda;
use self::cache::KernelCache;
use self::device::{Device, DeviceFailure};
use self::gpu::Gpu;
use self::recorder::Recorder;
use crate::runtime::engine::EngineError;

/// Left to the driver: the kernels' code and what it allocates for them.
const RESERVE: u64 = 256 << 20;

fn failed(ordinal: usize) -> impl Fn(DeviceFailure) -> EngineError {
    move |f| EngineError::Device {
        device: format!("cuda:{ordinal}"),
        reason: format!("{}: {}", f.what, f.reason),
    }
}

/// Bytes that a run can have on the GPU of this number: what is free, less a reserve.
///
/// # Errors
/// When the GPU cannot be used; [`probe`](probe::probe) says why in more words.
pub fn available(ordinal: usize) -> Result<u64, EngineError> {
    let gpu = Gpu::new(ordinal, KernelCache::of_user()).map_err(failed(ordinal))?;
    Ok(gpu.free_bytes().map_err(failed(ordinal))?.saturating_sub(RESERVE))
}

/// The backend on the GPU of this number, within `bytes` of its memory, all of which are reserved at once.
///
/// # Errors
/// As [`available`], and when the GPU has less.
pub fn open(ordinal: usize, bytes: u64) -> Result<Cuda, EngineError> {
    let gpu = Gpu::new(ordinal, KernelCache::of_user()).map_err(failed(ordinal))?;
    let arena = Arena::new(Arc::new(gpu), bytes).map_err(failed(ordinal))?;
    Ok(Cuda::new(Arc::new(Recorder::new(Arc::new(arena)))))
}
