//! Compiled kernels on disk, named by the hash of everything that went into them.

use std::fs;
use std::path::{Path, PathBuf};

use super::nvrtc::{self, NvrtcError};
use super::sources::{HEADERS, Source};
use crate::runtime::whole;

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

    /// The machine code of a source, as `load` takes it: from the cache, or compiled and kept. A cache that cannot be
    /// read or written costs time only; so does an image in it that `load` refuses.
    ///
    /// # Errors
    /// `failed` of those of [`nvrtc::compile`], and those of `load`.
    pub fn module<T, E>(
        &self,
        source: &Source,
        architecture: &str,
        failed: impl Fn(NvrtcError) -> E,
        load: impl Fn(&[u8]) -> Result<T, E>,
    ) -> Result<T, E> {
        let headers: Vec<(&str, &str)> = HEADERS.iter().map(|h| (h.file, h.text)).collect();
        let path = match &self.folder {
            Some(folder) => {
                let version = nvrtc::version().map_err(&failed)?;
                Some(folder.join(key(source, &headers, architecture, version)))
            }
            None => None,
        };
        let compile = || {
            let cubin = nvrtc::compile(source.file, source.text, &headers, architecture);
            cubin.map(|cubin| cubin.image).map_err(&failed)
        };
        kept_or_made(path.as_deref(), compile, load)
    }
}

fn kept_or_made<T, E>(
    path: Option<&Path>,
    compile: impl FnOnce() -> Result<Vec<u8>, E>,
    load: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<T, E> {
    if let Some(image) = path.and_then(|p| fs::read(p).ok())
        && is_complete(&image)
        // Damaged within, perhaps.
        && let Ok(loaded) = load(&image)
    {
        return Ok(loaded);
    }
    let image = compile()?;
    if let Some(path) = path {
        keep(path, &image);
    }
    load(&image)
}

/// Whether all that the ELF headers speak of is there: the driver is not told how long an image is.
fn is_complete(image: &[u8]) -> bool {
    const HEADER: usize = 64;
    const NO_BITS: u64 = 8;
    let number = |at: usize, bytes: usize| {
        let field = image.get(at..at.checked_add(bytes)?)?;
        Some(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let within = |at: u64, bytes: u64| at.checked_add(bytes).is_some_and(|end| end <= image.len() as u64);
    let complete = || {
        let (programs, sections) = (number(32, 8)?, number(40, 8)?);
        let (program, programs_are, section, sections_are) =
            (number(54, 2)?, number(56, 2)?, number(58, 2)?, number(60, 2)?);
        let tables = within(programs, program * programs_are) && within(sections, section * sections_are);
        let is_there = |i: u64| {
            let at = usize::try_from(sections + i * section).ok()?;
            Some(number(at + 4, 4)? == NO_BITS || within(number(at + 24, 8)?, number(at + 32, 8)?))
        };
        Some(tables && (0..sections_are).all(|i| is_there(i) == Some(true)))
    };
    image.len() >= HEADER && image.starts_with(b"\x7fELF") && complete() == Some(true)
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

/// Nobody misses what cannot be kept.
fn keep(path: &Path, image: &[u8]) {
    let Some(folder) = path.parent() else { return };
    let _ = fs::create_dir_all(folder).and_then(|()| whole::write(path, image));
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
        let cubin = || cache.module(source, "sm_80", |e| e, |image| Ok(image.to_vec())).unwrap();
        let first = cubin();
        let files: Vec<_> =
            fs::read_dir(folder.path().join("deep")).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert!(is_complete(&first) && !is_complete(&first[..first.len() - 1]));
        // A damaged file is compiled again.
        fs::write(&files[0], &first[..first.len() / 2]).unwrap();
        assert_eq!(cubin(), first);
        assert_eq!(fs::read(&files[0]).unwrap(), first);
    }

    /// A header, one section of four bytes, and its entry in the table behind it.
    fn elf() -> Vec<u8> {
        let mut image = vec![0; 64 + 4 + 64];
        image[..4].copy_from_slice(b"\x7fELF");
        image[40] = 68;
        (image[58], image[60]) = (64, 1);
        (image[68 + 24], image[68 + 32]) = (64, 4);
        image
    }

    #[test]
    fn an_image_that_is_cut_off_is_not_complete() {
        let whole = elf();
        assert!(is_complete(&whole));
        for len in 0..whole.len() {
            assert!(!is_complete(&whole[..len]), "{len}");
        }
        for at in [39, 47, 61, 68 + 31, 68 + 39] {
            let mut wild = whole.clone();
            wild[at] = 0xff;
            assert!(!is_complete(&wild), "{at}");
        }
    }

    /// As a power cut leaves a file: cut off, or with a part that no driver loads.
    #[test]
    fn a_torn_file_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.cubin");
        let whole = elf();
        let mut holed = whole.clone();
        holed[64] = 1;
        let load = |image: &[u8]| if *image == *whole { Ok("module") } else { Err("invalid image") };
        for torn in [&holed, &whole[..100]] {
            let compiled = std::cell::Cell::new(0);
            let compile = || {
                compiled.set(compiled.get() + 1);
                Ok(whole.clone())
            };
            fs::write(&path, torn).unwrap();
            for _ in 0..2 {
                assert_eq!(kept_or_made(Some(&path), compile, load), Ok("module"));
            }
            assert_eq!((compiled.get(), fs::read(&path).unwrap()), (1, whole.clone()));
            // What a driver cannot load from anywhere is no fault of the cache.
            let refuse = |_: &[u8]| Err::<(), _>("no memory");
            assert_eq!(kept_or_made(Some(&path), compile, refuse), Err("no memory"));
        }
    }
}
