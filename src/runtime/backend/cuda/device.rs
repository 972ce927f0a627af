//! What the backend asks of a device: memory, copies, launches by kernel name.
//!
//! A GPU answers through its driver (`gpu`); in tests the host model of the device does (`host_model`), so
//! that the backend's own order of launches is checked without a GPU.

use std::ffi::c_void;
use std::fmt::Debug;

/// What a device said when it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFailure {
    /// What was asked of it.
    pub what: String,
    /// Its answer.
    pub reason: String,
}

/// A tensor map in the 128 bytes a kernel takes it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u8; 128]);

/// Row-major bf16 `[height, width]`, read by TMA in boxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// Address of the first value, a multiple of 16.
    pub at: u64,
    /// Values per row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from one row to the next, a multiple of 16.
    pub pitch: usize,
    /// Values of a box, at most 64 for the 128-byte swizzle.
    pub box_width: u32,
    /// Rows of a box, at most 256.
    pub box_height: u32,
}

/// One argument of a kernel, with the size its parameter has.
#[derive(Clone, Copy, Debug)]
pub enum Argument {
    /// Device memory; 0 for null.
    Pointer(u64),
    /// `int`.
    Int(i32),
    /// `long long`.
    Long(i64),
    /// `float`.
    Float(f32),
    /// `TensorMap`.
    Map(TensorMap),
}

/// Equal to the bit.
impl PartialEq for Argument {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pointer(a), Self::Pointer(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Long(a), Self::Long(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits(),
            (Self::Map(a), Self::Map(b)) => a == b,
            _ => false,
        }
    }
}

impl Argument {
    /// Where its value lies.
    pub fn address(&mut self) -> *mut c_void {
        match self {
            Self::Pointer(v) => ptr(v),
            Self::Int(v) => ptr(v),
            Self::Long(v) => ptr(v),
            Self::Float(v) => ptr(v),
            Self::Map(v) => ptr(v),
        }
    }
}

fn ptr<T>(value: &mut T) -> *mut c_void {
    std::ptr::from_mut(value).cast()
}

/// One launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads per block.
    pub threads: u32,
    /// Dynamic shared memory in bytes.
    pub shared: usize,
}

/// What a graph is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// A kernel.
    Launch(Launch, Vec<Argument>),
    /// Bytes set to zero.
    Clear {
        /// The first.
        at: u64,
        /// How many.
        bytes: usize,
    },
}

/// A device with one stream: everything happens in the order it was asked for.
pub trait Device: Send + Sync + Debug {
    /// Name for logs.
    fn describe(&self) -> String;
    /// Multiprocessors: how many persistent blocks to launch.
    fn multiprocessors(&self) -> u32;
    /// Whether kernels that need sm_90a can run.
    fn hopper(&self) -> bool;
    /// Dynamic shared memory one block may have, in bytes.
    fn shared_limit(&self) -> usize;
    /// Bytes that can still be allocated.
    fn free_bytes(&self) -> Result<u64, DeviceFailure>;
    /// Memory aligned to 256 bytes, contents undefined.
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceFailure>;
    /// Give memory back.
    fn release(&self, at: u64);
    /// Copy from the host; the host's memory may change when the call returns.
    fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceFailure>;
    /// Copy to the host, after everything asked for so far.
    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceFailure>;
    /// Set bytes to zero.
    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceFailure>;
    /// Start a kernel.
    fn launch(&self, launch: Launch, arguments: &mut [Argument]) -> Result<(), DeviceFailure>;
    /// Describe a matrix to TMA.
    fn tensor_map(&self, matrix: Matrix) -> Result<TensorMap, DeviceFailure>;
    /// Wait for everything asked for so far.
    fn wait(&self) -> Result<(), DeviceFailure>;
    /// What follows until [`end`](Device::end) may come again: a device may keep it and start it late.
    fn begin(&self) -> Result<(), DeviceFailure> {
        Ok(())
    }
    /// Start what was kept.
    fn end(&self) -> Result<(), DeviceFailure> {
        Ok(())
    }
    /// Make one graph of a sequence; `None` when the device has no graphs.
    fn capture(&self, _operations: &mut [Operation]) -> Result<Option<u64>, DeviceFailure> {
        Ok(None)
    }
    /// Start a captured graph.
    fn replay(&self, graph: u64) -> Result<(), DeviceFailure> {
        Err(DeviceFailure { what: format!("replaying graph {graph}"), reason: "it was not captured".into() })
    }
    /// Give a captured graph up.
    fn forget(&self, _graph: u64) {}
}
