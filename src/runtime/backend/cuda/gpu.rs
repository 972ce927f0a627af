//! A GPU through its driver: one context, one stream, kernels compiled when first launched.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{result, sys};
use sys::CUdevice_attribute as Attribute;

use super::cache::KernelCache;
use super::device::{Argument, Device, DeviceFailure, Launch, Matrix, Operation, TensorMap};
use super::nvrtc::NvrtcError;
use super::recorder;
use super::sources::source_of;
use super::staging::Staging;

/// A GPU in use, with a stream of its own: two that are one GPU do not wait for each other.
#[derive(Debug)]
pub struct Gpu {
    name: String,
    capability: (i32, i32),
    multiprocessors: u32,
    shared_limit: usize,
    context: Handle<sys::CUctx_st>,
    stream: Handle<sys::CUstream_st>,
    loaded: Mutex<Loaded>,
    staging: Mutex<Option<Staging>>,
    graphs: Mutex<Vec<Option<Handle<sys::CUgraphExec_st>>>>,
}

/// A handle of the driver, which may be used from any thread.
#[derive(Clone, Copy, Debug)]
struct Handle<T>(*mut T);
// SAFETY: contexts, streams and functions of the driver API belong to no thread.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above; the driver locks.
unsafe impl<T> Sync for Handle<T> {}

#[derive(Debug)]
struct Loaded {
    cache: KernelCache,
    modules: HashMap<&'static str, Handle<sys::CUmod_st>>,
    functions: HashMap<&'static str, Handle<sys::CUfunc_st>>,
}

fn failure(what: impl Into<String>) -> impl FnOnce(result::DriverError) -> DeviceFailure {
    let what = what.into();
    move |e| DeviceFailure { what, reason: e.to_string() }
}

impl Gpu {
    /// The GPU of this number, with kernels kept in `cache`.
    ///
    /// # Errors
    /// When there is no driver, no such GPU, or one older than Ampere.
    pub fn new(ordinal: usize, cache: KernelCache) -> Result<Self, DeviceFailure> {
        // SAFETY: only tries to load a library by name.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceFailure {
                what: "the NVIDIA driver".into(),
                reason: "`libcuda.so.1` was not found".into(),
            });
        }
        result::init().map_err(failure("starting the driver"))?;
        let device =
            result::device::get(ordinal as i32).map_err(failure(format!("opening GPU {ordinal}")))?;
        let name = result::device::get_name(device).map_err(failure("asking for the GPU's name"))?;
        // SAFETY: `device` was just given by the driver.
        let ask =
            |a| unsafe { result::device::get_attribute(device, a) }.map_err(failure("asking about the GPU"));
        let capability = (
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if capability.0 < 8 {
            return Err(DeviceFailure {
                what: format!("opening the {name}"),
                reason: format!(
                    "its compute capability is {}.{}; the kernels need 8.0 (Ampere) or later",
                    capability.0, capability.1
                ),
            });
        }
        let multiprocessors = ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32;
        let shared = ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        // SAFETY: `device` is valid; the primary context is made current before the stream is created in it.
        let context = unsafe {
            let context = result::primary_ctx::retain(device).map_err(failure("creating a context"))?;
            result::ctx::set_current(context).map_err(failure("entering the context"))?;
            context
        };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(failure("creating a stream"))?;
        Ok(Gpu {
            name,
            capability,
            multiprocessors,
            shared_limit: usize::try_from(shared).unwrap_or(49_152),
            context: Handle(context),
            stream: Handle(stream),
            loaded: Mutex::new(Loaded { cache, modules: HashMap::new(), functions: HashMap::new() }),
            staging: Mutex::default(),
            graphs: Mutex::default(),
        })
    }

    /// `sm_90a` on Hopper, whose own instructions need the `a`; the plain architecture elsewhere.
    fn architecture(&self) -> String {
        match self.capability {
            (9, 0) => "sm_90a".to_string(),
            (major, minor) => format!("sm_{major}{minor}"),
        }
    }

    fn enter(&self) -> Result<(), DeviceFailure> {
        // SAFETY: the context lives as long as the process.
        unsafe { result::ctx::set_current(self.context.0) }.map_err(failure("entering the context"))
    }

    fn function(&self, launch: &Launch) -> Result<sys::CUfunction, DeviceFailure> {
        let kernel = launch.kernel;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = loaded.functions.get(kernel) {
            return Ok(function.0);
        }
        let source = source_of(kernel).ok_or_else(|| DeviceFailure {
            what: format!("launching `{kernel}`"),
            reason: "no such kernel".into(),
        })?;
        let module = match loaded.modules.get(source.file) {
            Some(module) => *module,
            None => {
                let failed = |e: NvrtcError| DeviceFailure {
                    what: format!("compiling `{}`", source.file),
                    reason: e.to_string(),
                };
                let load = |image: &[u8]| {
                    // SAFETY: the image is a complete cubin and outlives the call.
                    unsafe { result::module::load_data(image.as_ptr().cast()) }
                        .map_err(failure(format!("loading `{}`", source.file)))
                };
                let module = loaded.cache.module(source, &self.architecture(), failed, load)?;
                loaded.modules.insert(source.file, Handle(module));
                Handle(module)
            }
        };
        let name = CString::new(kernel).unwrap_or_default();
        // SAFETY: the module is loaded, and unloaded when nothing is launched any more.
        let function = unsafe { result::module::get_function(module.0, name) }
            .map_err(failure(format!("finding `{kernel}`")))?;
        // SAFETY: the function is of a loaded module.
        unsafe {
            result::function::set_function_attribute(
                function,
                sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                launch.shared.max(self.shared_limit - 8192) as i32,
            )
        }
        .map_err(failure(format!("giving `{kernel}` {} bytes of shared memory", launch.shared)))?;
        loaded.functions.insert(kernel, Handle(function));
        Ok(function)
    }
}

/// All but the context, which is the process's: another engine may be in it, or be the next.
impl Drop for Gpu {
    fn drop(&mut self) {
        if self.enter().is_err() {
            return;
        }
        let graphs = self.graphs.get_mut().unwrap_or_else(PoisonError::into_inner);
        let loaded = self.loaded.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: each was made in this context by this `Gpu`, which alone has it, and nothing of it runs any more
        // once the stream was waited for. A failure means that the context is lost, and they with it.
        unsafe {
            let _ = result::stream::synchronize(self.stream.0);
            for graph in graphs.drain(..).flatten() {
                let _ = result::graph::exec_destroy(graph.0);
            }
            loaded.functions.clear();
            loaded.modules.drain().for_each(|(_, module)| {
                let _ = result::module::unload(module.0);
            });
            let _ = result::stream::destroy(self.stream.0);
        }
    }
}

impl Device for Gpu {
    fn describe(&self) -> String {
        format!("{}, {}", self.name, self.architecture())
    }

    fn multiprocessors(&self) -> u32 {
        self.multiprocessors
    }

    fn hopper(&self) -> bool {
        self.capability == (9, 0)
    }

    fn shared_limit(&self) -> usize {
        self.shared_limit
    }

    fn free_bytes(&self) -> Result<u64, DeviceFailure> {
        self.enter()?;
        let (free, _) = result::mem_get_info().map_err(failure("asking for free memory"))?;
        Ok(free as u64)
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceFailure> {
        self.enter()?;
        // SAFETY: the context is current.
        unsafe { result::malloc_sync(bytes.max(1)) }.map_err(failure(format!("allocating {bytes} bytes")))
    }

    fn release(&self, at: u64) {
        if self.enter().is_ok() {
            // SAFETY: `at` came from `allocate` and is released once; the call waits for its users. A
            // failure here means the context is lost, which the next operation reports.
            let _ = unsafe { result::free_sync(at) };
        }
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceFailure> {
        self.enter()?;
        if from.is_empty() {
            return Ok(());
        }
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let slots = match staging.take() {
            Some(slots) => slots,
            None => Staging::new().map_err(failure("allocating page-locked memory"))?,
        };
        // SAFETY: the caller's range is within its allocation.
        unsafe { staging.insert(slots).upload(to, from, self.stream.0) }
            .map_err(failure("copying to the GPU"))
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceFailure> {
        self.enter()?;
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: as above; the stream is waited for before `to` is read.
        unsafe { result::memcpy_dtoh_async(to, from, self.stream.0) }
            .map_err(failure("copying from the GPU"))?;
        self.wait()
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceFailure> {
        self.enter()?;
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the caller's range is within its allocation.
        unsafe { result::memset_d8_async(at, 0, bytes, self.stream.0) }.map_err(failure("clearing memory"))
    }

    fn launch(&self, launch: Launch, arguments: &mut [Argument]) -> Result<(), DeviceFailure> {
        self.enter()?;
        let function = self.function(&launch)?;
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(Argument::address).collect();
        let [x, y, z] = launch.grid;
        // SAFETY: the arguments have the types of the kernel's parameters (held to by the tests on the
        // host model, which checks their sizes) and outlive the call, which copies them.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.threads, 1, 1),
                launch.shared as u32,
                self.stream.0,
                &mut pointers,
            )
        }
        .map_err(failure(format!("launching `{}`", launch.kernel)))
    }

    fn tensor_map(&self, m: Matrix) -> Result<TensorMap, DeviceFailure> {
        self.enter()?;
        let mut map = TensorMap([0; 128]);
        let (size, pitch) = ([m.width as u64, m.height as u64], [m.pitch as u64]);
        let (boxes, steps) = ([m.box_width, m.box_height], [1u32, 1]);
        // SAFETY: a CUtensorMap is 128 bytes aligned to 64, and all arrays have as many entries as the rank
        // asks for.
        let status = unsafe {
            sys::cuTensorMapEncodeTiled(
                ptr::from_mut(&mut map).cast(),
                sys::CUtensorMapDataType_enum::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                2,
                m.at as *mut c_void,
                size.as_ptr(),
                pitch.as_ptr(),
                boxes.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle_enum::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        status.result().map_err(failure(format!("describing a {}x{} matrix to TMA", m.height, m.width)))?;
        Ok(map)
    }

    fn wait(&self) -> Result<(), DeviceFailure> {
        self.enter()?;
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream.0) }.map_err(failure("waiting for the GPU"))
    }

    fn capture(&self, operations: &mut [Operation]) -> Result<Option<u64>, DeviceFailure> {
        self.enter()?;
        // Loading a kernel is no part of a graph.
        for operation in operations.iter() {
            if let Operation::Launch(launch, _) = operation {
                self.function(launch)?;
            }
        }
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        let flags = sys::CUgraphInstantiate_flags(0);
        // SAFETY: the stream is valid and captures until `end_capture`, whatever happens between; the graph is
        // destroyed once, after it was instantiated.
        let graph = unsafe {
            result::stream::begin_capture(self.stream.0, mode).map_err(failure("capturing a graph"))?;
            let started = recorder::start(self, operations);
            let graph = result::stream::end_capture(self.stream.0).map_err(failure("capturing a graph"));
            let graph = graph?;
            let made = started
                .and_then(|()| result::graph::instantiate(graph, flags).map_err(failure("making a graph")));
            result::graph::destroy(graph).map_err(failure("destroying a graph"))?;
            made?
        };
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        graphs.push(Some(Handle(graph)));
        Ok(Some(graphs.len() as u64 - 1))
    }

    fn replay(&self, graph: u64) -> Result<(), DeviceFailure> {
        self.enter()?;
        let graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Some(made)) = graphs.get(graph as usize) else {
            return Err(DeviceFailure {
                what: format!("replaying graph {graph}"),
                reason: "there is none".into(),
            });
        };
        // SAFETY: the graph was instantiated in this context and lives until it is forgotten.
        unsafe { result::graph::launch(made.0, self.stream.0) }.map_err(failure("launching a graph"))
    }

    fn forget(&self, graph: u64) {
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        let made = graphs.get_mut(graph as usize).and_then(Option::take);
        if let (Some(made), Ok(())) = (made, self.enter()) {
            // SAFETY: taken out of the list, so destroyed once; the driver lets a running launch finish.
            let _ = unsafe { result::graph::exec_destroy(made.0) };
        }
    }
}
