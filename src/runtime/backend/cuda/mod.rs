//! NVIDIA GPUs. The only place that names cudarc; builds and answers without CUDA on the machine.

pub mod probe;
