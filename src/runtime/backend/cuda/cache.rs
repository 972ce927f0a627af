//! Compiled kernels on disk, named by the hash of everything that went into them.

use std::fs;
use std::path::{Path, PathBuf};

use super::nvrtc::{self, NvrtcError};
use super::sources::{HEADERS, Source};

/// A folder of cubins; works without one.
#[derive(Clone, Debug)]
pub struct KernelCache {
    folder: Option<PathBuf>,
}

impl KernelCache {
    /// In `folder`, made when first needed.
    pub fn new(folder: Option<PathBuf>) -> Self {
        KernelCache { folder }
    }

    /// In the user's cache folder: `$XDG_CACHE_HOME/midc/kernels` or `~/.cache/midc/kernels`.
    pub fn of_user() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        KernelCache { folder: base.map(|b| b.join("midc/kernels")) }
    }

    /// The machine code of a source: from the cache, or compiled and kept. A cache that cannot be read
    /// or written costs time only.
    ///
    /// # Errors
    /// As [`nvrtc::compile`].
    pub fn cubin(&self, source: &Source, architecture: &str) -> Result<Vec<u8>, NvrtcError> {
        let headers: Vec<(&str, &str)> = HEADERS.iter().map(|h| (h.file, h.text)).collect();
        let path = match &self.folder {
            Some(folder) => Some(folder.join(key(source, &headers, architecture, nvrtc::version()?))),
            None => None,
        };
        if let Some(image) = path.as_deref().and_then(|p| fs::read(p).ok())
            && image.starts_with(b"\x7fELF")
        {
            return Ok(image);
        }
        let cubin = nvrtc::compile(source.file, source.text, &headers, architecture)?;
        if let Some(path) = path {
            keep(&path, &cubin.image);
        }
        Ok(cubin.image)
    }
}

fn key(source: &Source, headers: &[(&str, &str)], architecture: &str, version: (i32, i32)) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut part = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    part(source.file.as_bytes());
    part(source.text.as_bytes());
    for (name, text) in headers {
        part(name.as_bytes());
        part(text.as_bytes());
    }
    for option in nvrtc::OPTIONS {
        part(option.as_bytes());
    }
    part(architecture.as_bytes());
    part(format!("{}.{}", version.0, version.1).as_bytes());
    let stem = source.file.trim_end_matches(".cu");
    format!("{stem}-{architecture}-{}.cubin", &hasher.finalize().to_hex()[..32])
}

/// Written aside and renamed, so that no reader sees half a file.
fn keep(path: &Path, image: &[u8]) {
    let Some(folder) = path.parent() else { return };
    let aside = path.with_extension(format!("{}.part", std::process::id()));
    let written = fs::create_dir_all(folder).and_then(|()| fs::write(&aside, image));
    if written.and_then(|()| fs::rename(&aside, path)).is_err() {
        // Nobody misses what could not be kept.
        let _ = fs::remove_file(&aside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::backend::cuda::sources::SOURCES;

    #[test]
    fn the_key_covers_everything() {
        let headers = [("dev/base.cuh", "text")];
        let base = key(&SOURCES[0], &headers, "sm_80", (13, 0));
        assert_eq!(base, key(&SOURCES[0], &headers, "sm_80", (13, 0)));
        let changed = Source { text: "other", ..SOURCES[0] };
        for other in [
            key(&changed, &headers, "sm_80", (13, 0)),
            key(&SOURCES[0], &[("dev/base.cuh", "texu")], "sm_80", (13, 0)),
            key(&SOURCES[0], &headers, "sm_90a", (13, 0)),
            key(&SOURCES[0], &headers, "sm_80", (13, 1)),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn compiles_once() {
        if !nvrtc::is_present() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(Some(folder.path().join("deep")));
        let source = SOURCES.iter().find(|s| s.file == "rope.cu").unwrap();
        let first = cache.cubin(source, "sm_80").unwrap();
        let files: Vec<_> =
            fs::read_dir(folder.path().join("deep")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        // A damaged file is compiled again.
        fs::write(&files[0], b"damaged").unwrap();
        assert_eq!(cache.cubin(source, "sm_80").unwrap(), first);
        assert_eq!(fs::read(&files[0]).unwrap(), first);
    }
}
