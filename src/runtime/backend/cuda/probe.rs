//! What CUDA finds on this machine, without needing any of it: the driver and NVRTC are looked up
//! at run time, and each missing part is named with what to install.

use cudarc::driver::sys::CUdevice_attribute as Attribute;
use cudarc::driver::{result, sys};
use cudarc::nvrtc::sys as nvrtc;

/// The state of CUDA here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaReport {
    /// CUDA version the driver speaks, as (major, minor); `None` without a driver.
    pub driver: Option<(i32, i32)>,
    /// NVRTC version; `None` when the library is not there.
    pub nvrtc: Option<(i32, i32)>,
    /// GPUs the driver shows.
    pub devices: Vec<CudaDevice>,
    /// Why no device can be used, if so.
    pub problem: Option<String>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CudaDevice {
    /// As the driver names it.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Total memory in bytes.
    pub memory: usize,
    /// Streaming multiprocessors.
    pub multiprocessors: i32,
}

impl CudaDevice {
    /// Why the kernels cannot run on it, if so.
    pub fn problem(&self) -> Option<String> {
        let (major, minor) = self.capability;
        (major < 8).then(|| {
            format!(
                "the {} has compute capability {major}.{minor}; the kernels need 8.0 (Ampere) or later",
                self.name
            )
        })
    }
}

/// Look at the machine. Never fails: what is missing is part of the answer.
pub fn probe() -> CudaReport {
    // SAFETY: both calls only try to load a library by name.
    let (has_driver, has_nvrtc) = unsafe { (sys::is_culib_present(), nvrtc::is_culib_present()) };
    let nvrtc = has_nvrtc.then(nvrtc_version).flatten();
    if !has_driver {
        let problem = "no NVIDIA driver: `libcuda.so.1` was not found".to_string();
        return CudaReport { driver: None, nvrtc, devices: Vec::new(), problem: Some(problem) };
    }
    let driver = driver_version();
    match devices() {
        Ok(devices) => {
            let problem = match (devices.is_empty(), nvrtc) {
                (true, _) => Some("the NVIDIA driver shows no GPU".to_string()),
                (false, None) => Some("NVRTC, which compiles the kernels, was not found".to_string()),
                (false, Some(_)) => None,
            };
            CudaReport { driver, nvrtc, devices, problem }
        }
        Err(e) => CudaReport {
            driver,
            nvrtc,
            devices: Vec::new(),
            problem: Some(format!("the NVIDIA driver does not start: {e}")),
        },
    }
}

fn nvrtc_version() -> Option<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is present; both pointers are to live integers.
    let status = unsafe { nvrtc::nvrtcVersion(&mut major, &mut minor) };
    (status == nvrtc::nvrtcResult::NVRTC_SUCCESS).then_some((major, minor))
}

fn driver_version() -> Option<(i32, i32)> {
    let mut version = 0;
    // SAFETY: the library is present; the pointer is to a live integer.
    let status = unsafe { sys::cuDriverGetVersion(&mut version) };
    (status == sys::CUresult::CUDA_SUCCESS).then_some((version / 1000, version % 1000 / 10))
}

fn devices() -> Result<Vec<CudaDevice>, result::DriverError> {
    result::init()?;
    (0..result::device::get_count()?)
        .map(|ordinal| {
            let device = result::device::get(ordinal)?;
            // SAFETY: `device` was just given by the driver.
            let attribute = |a| unsafe { result::device::get_attribute(device, a) };
            Ok(CudaDevice {
                name: result::device::get_name(device)?,
                capability: (
                    attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                    attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
                ),
                // SAFETY: as above.
                memory: unsafe { result::device::total_mem(device)? },
                multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            })
        })
        .collect()
}
