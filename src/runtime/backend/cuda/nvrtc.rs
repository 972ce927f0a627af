//! Kernel sources to machine code, by NVRTC.
//!
//! The safe call of cudarc returns PTX only and drops the log of a compilation that succeeded; this
//! wrapper asks for the cubin, so no driver has to compile anything, and keeps the log. Knows nothing
//! of what the kernels compute.

use std::ffi::{CStr, CString};
use std::ptr;

use cudarc::nvrtc::sys;

/// Machine code for one architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cubin {
    /// An ELF image.
    pub image: Vec<u8>,
    /// What the compiler said; registers and spills of each kernel are in it.
    pub log: String,
}

/// Why there is no machine code.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum NvrtcError {
    /// The library is not on this machine.
    #[error("NVRTC, the run-time compiler of CUDA, was not found")]
    #[diagnostic(
        code(cuda::nvrtc_missing),
        help("install `libnvrtc.so` of CUDA 13, for instance with `pip install nvidia-cuda-nvrtc==13.0.88`")
    )]
    Missing,
    /// The source is refused: a bug of this program, or an architecture this NVRTC does not know.
    #[error("NVRTC cannot compile `{file}` for {architecture}:\n{log}")]
    #[diagnostic(code(cuda::nvrtc_refused))]
    Refused {
        /// Name of the source.
        file: String,
        /// `sm_90a` and the like.
        architecture: String,
        /// What the compiler said.
        log: String,
    },
    /// A call failed otherwise.
    #[error("NVRTC failed: {0}")]
    #[diagnostic(code(cuda::nvrtc_failed))]
    Failed(String),
}

/// Whether the library can be loaded.
pub fn is_present() -> bool {
    // SAFETY: only tries to load a library by name.
    unsafe { sys::is_culib_present() }
}

/// (major, minor) of the library.
///
/// # Errors
/// When it is missing or does not answer.
pub fn version() -> Result<(i32, i32), NvrtcError> {
    if !is_present() {
        return Err(NvrtcError::Missing);
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is present; both pointers are to live integers.
    check(unsafe { sys::nvrtcVersion(&mut major, &mut minor) })?;
    Ok((major, minor))
}

/// The options every kernel is compiled with, besides the architecture.
pub const OPTIONS: [&str; 4] = ["--std=c++17", "--ptxas-options=-v", "-default-device", "-lineinfo"];

/// A program that is destroyed with its owner.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was created by NVRTC and is destroyed once.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

/// Compile `source` for a real architecture such as `sm_90a`. `headers` are (name, text) as included.
///
/// # Errors
/// When NVRTC is missing, fails or refuses the source.
pub fn compile(
    file: &str,
    source: &str,
    headers: &[(&str, &str)],
    architecture: &str,
) -> Result<Cubin, NvrtcError> {
    if !is_present() {
        return Err(NvrtcError::Missing);
    }
    let text = |s: &str| CString::new(s).map_err(|_| NvrtcError::Failed(format!("`{file}` contains a NUL")));
    let (source, name) = (text(source)?, text(file)?);
    let names = headers.iter().map(|h| text(h.0)).collect::<Result<Vec<_>, _>>()?;
    let texts = headers.iter().map(|h| text(h.1)).collect::<Result<Vec<_>, _>>()?;
    let name_pointers: Vec<_> = names.iter().map(|n| n.as_ptr()).collect();
    let text_pointers: Vec<_> = texts.iter().map(|t| t.as_ptr()).collect();
    let options = std::iter::once(format!("--gpu-architecture={architecture}"))
        .chain(OPTIONS.map(String::from))
        .map(|o| text(&o))
        .collect::<Result<Vec<_>, _>>()?;
    let option_pointers: Vec<_> = options.iter().map(|o| o.as_ptr()).collect();

    let mut program = Program(ptr::null_mut());
    // SAFETY: all pointers are to NUL-terminated strings and arrays that outlive the call.
    check(unsafe {
        sys::nvrtcCreateProgram(
            &mut program.0,
            source.as_ptr(),
            name.as_ptr(),
            headers.len() as i32,
            text_pointers.as_ptr(),
            name_pointers.as_ptr(),
        )
    })?;
    // SAFETY: the program lives; the options outlive the call.
    let compiled = unsafe {
        sys::nvrtcCompileProgram(program.0, option_pointers.len() as i32, option_pointers.as_ptr())
    };
    let log = log_of(&program)?;
    if compiled != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(NvrtcError::Refused {
            file: file.to_string(),
            architecture: architecture.to_string(),
            log,
        });
    }
    let mut size = 0;
    // SAFETY: the program is compiled; `size` lives.
    check(unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) })?;
    let mut image = vec![0u8; size];
    // SAFETY: the buffer has the size NVRTC asked for.
    check(unsafe { sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast()) })?;
    Ok(Cubin { image, log })
}

fn log_of(program: &Program) -> Result<String, NvrtcError> {
    let mut size = 0;
    // SAFETY: the program lives; `size` lives.
    check(unsafe { sys::nvrtcGetProgramLogSize(program.0, &mut size) })?;
    let mut log = vec![0u8; size.max(1)];
    // SAFETY: the buffer has the size NVRTC asked for.
    check(unsafe { sys::nvrtcGetProgramLog(program.0, log.as_mut_ptr().cast()) })?;
    Ok(CStr::from_bytes_until_nul(&log).map(|l| l.to_string_lossy().into_owned()).unwrap_or_default())
}

fn check(status: sys::nvrtcResult) -> Result<(), NvrtcError> {
    match status {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(NvrtcError::Failed(format!("{other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "#include \"dev/two.cuh\"\n\
        extern \"C\" __global__ void twice(float* x) { x[threadIdx.x] *= TWO; }\n";

    /// Runs wherever NVRTC is installed, with or without a GPU.
    #[test]
    fn compiles_with_headers_in_memory() {
        assert!(is_present() || std::env::var_os("MIDC_REQUIRE_NVRTC").is_none(), "NVRTC cannot be loaded");
        if !is_present() {
            assert!(matches!(compile("a.cu", SOURCE, &[], "sm_80"), Err(NvrtcError::Missing)));
            return;
        }
        let cubin = compile("a.cu", SOURCE, &[("dev/two.cuh", "#define TWO 2.0f\n")], "sm_80").unwrap();
        assert_eq!(&cubin.image[..4], b"\x7fELF");
        assert!(cubin.log.contains("registers"), "{}", cubin.log);
        let refused = compile("a.cu", "__global__ void k() { nonsense; }", &[], "sm_80").unwrap_err();
        assert!(refused.to_string().contains("nonsense"), "{refused}");
    }
}
