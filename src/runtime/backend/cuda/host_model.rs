//! The host model of the device, for tests: the kernels as C++, loaded as a shared library that
//! `tests/kernels_host.sh` builds. Knows nothing of what the kernels compute.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use libloading::Library;

use super::device::{Argument, Device, DeviceFailure, Launch, Matrix, Operation, TensorMap};
use super::recorder;

type LaunchFn = unsafe extern "C" fn(
    *const c_char,
    *const c_uint,
    *const c_uint,
    usize,
    *mut *mut c_void,
    c_int,
) -> *const c_char;
type MapFn = unsafe extern "C" fn(*mut c_void, *const c_void, u64, u64, u64, u32, u32);
type SeedFn = unsafe extern "C" fn(u64);

/// The model; one launch at a time in the whole process.
#[derive(Debug)]
pub(super) struct HostModel {
    library: Library,
    hopper: bool,
    live: Mutex<HashMap<u64, usize>>,
    graphs: Mutex<Vec<Vec<Operation>>>,
    /// Whether copies to the host fail.
    pub(super) mute: AtomicBool,
    /// Bytes copied from the host so far.
    pub(super) uploaded: AtomicUsize,
}

static RUNNING: Mutex<()> = Mutex::new(());

impl HostModel {
    /// `$MIDC_DEVICE_MODEL`, or where the build script puts it; `None` when it is not built.
    pub(super) fn path() -> Option<PathBuf> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kernels/o2/libmidc_device_model.so");
        let path = std::env::var_os("MIDC_DEVICE_MODEL").map_or(built, PathBuf::from);
        path.is_file().then_some(path)
    }

    /// A device that runs kernels of both tiers, or, without `hopper`, of the mma.sync tier alone.
    pub(super) fn open(path: &Path, hopper: bool, seed: u64) -> HostModel {
        // SAFETY: the library only registers kernels when it is loaded.
        let library = unsafe { Library::new(path) }.expect("the device model loads");
        // SAFETY: the symbol has this type in kernels/host/shared_library.cpp.
        unsafe { library.get::<SeedFn>(b"midc_model_seed").expect("symbol")(seed) };
        HostModel {
            library,
            hopper,
            live: Mutex::default(),
            graphs: Mutex::default(),
            mute: AtomicBool::new(false),
            uploaded: AtomicUsize::new(0),
        }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), 256).expect("a layout")
}

impl Device for HostModel {
    fn describe(&self) -> String {
        format!("host model, {}", if self.hopper { "sm_90a" } else { "sm_80" })
    }

    fn multiprocessors(&self) -> u32 {
        3
    }

    fn hopper(&self) -> bool {
        self.hopper
    }

    fn shared_limit(&self) -> usize {
        if self.hopper { 232_448 } else { 101_376 }
    }

    fn free_bytes(&self) -> Result<u64, DeviceFailure> {
        Ok(1 << 32)
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceFailure> {
        // SAFETY: the size is not 0.
        let at = unsafe { alloc(layout(bytes)) };
        // SAFETY: the block has `bytes` bytes. Undefined contents are NaN.
        unsafe { std::ptr::write_bytes(at, 0xff, bytes) };
        self.live.lock().unwrap_or_else(PoisonError::into_inner).insert(at as u64, bytes);
        Ok(at as u64)
    }

    fn release(&self, at: u64) {
        let bytes = self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&at);
        if let Some(bytes) = bytes {
            // SAFETY: allocated above with this layout, released once.
            unsafe { dealloc(at as *mut u8, layout(bytes)) };
        }
    }

    fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceFailure> {
        // SAFETY: the caller's range is within its allocation.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to as *mut u8, from.len()) };
        self.uploaded.fetch_add(from.len(), Ordering::Relaxed);
        Ok(())
    }

    fn download(&self, from: u64, to: &mut [u8]) -> Result<(), DeviceFailure> {
        if self.mute.load(Ordering::Relaxed) {
            return Err(DeviceFailure { what: "copying from the model".into(), reason: "it is mute".into() });
        }
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to.as_mut_ptr(), to.len()) };
        Ok(())
    }

    fn clear(&self, at: u64, bytes: usize) -> Result<(), DeviceFailure> {
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(at as *mut u8, 0, bytes) };
        Ok(())
    }

    fn launch(&self, launch: Launch, arguments: &mut [Argument]) -> Result<(), DeviceFailure> {
        assert!(launch.shared <= self.shared_limit(), "{launch:?}");
        let _one = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let name = CString::new(launch.kernel).expect("a name");
        let mut pointers: Vec<*mut c_void> = arguments.iter_mut().map(Argument::address).collect();
        // SAFETY: the symbol has this type; the model checks how many arguments there are.
        let wrong = unsafe {
            let run = self.library.get::<LaunchFn>(b"midc_model_launch").expect("symbol");
            run(
                name.as_ptr(),
                launch.grid.as_ptr(),
                [launch.threads, 1, 1].as_ptr(),
                launch.shared,
                pointers.as_mut_ptr(),
                pointers.len() as c_int,
            )
        };
        if wrong.is_null() {
            return Ok(());
        }
        // SAFETY: a static string of the library.
        let reason = unsafe { CStr::from_ptr(wrong) }.to_string_lossy().into_owned();
        Err(DeviceFailure { what: format!("launching `{}`", launch.kernel), reason })
    }

    fn tensor_map(&self, m: Matrix) -> Result<TensorMap, DeviceFailure> {
        let mut map = TensorMap([0; 128]);
        // SAFETY: the symbol has this type and writes 128 bytes.
        unsafe {
            self.library.get::<MapFn>(b"midc_model_map_2d").expect("symbol")(
                std::ptr::from_mut(&mut map).cast(),
                m.at as *const c_void,
                m.width as u64,
                m.height as u64,
                m.pitch as u64,
                m.box_width,
                m.box_height,
            );
        }
        Ok(map)
    }

    fn wait(&self) -> Result<(), DeviceFailure> {
        Ok(())
    }

    fn capture(&self, operations: &mut [Operation]) -> Result<Option<u64>, DeviceFailure> {
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        graphs.push(operations.to_vec());
        Ok(Some(graphs.len() as u64 - 1))
    }

    fn replay(&self, graph: u64) -> Result<(), DeviceFailure> {
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        recorder::start(self, &mut graphs[graph as usize])
    }
}
