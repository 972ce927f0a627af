//! The safetensors file format: a JSON header and the numbers, read through a memory map and
//! written as a stream. Knows names, shapes and number formats, not models.
//!
//! The header is checked here and not by the `safetensors` crate, whose errors do not name the
//! tensor; the tests read and write against that crate.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use miette::Diagnostic;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::dtype::Dtype;
use super::tensor::Tensor;

/// A file that is no sound safetensors file. Every message names the file, and the tensor if it is
/// about one.
#[derive(Debug, Error, Diagnostic)]
pub enum SafetensorsError {
    /// The file cannot be opened.
    #[error("cannot read `{}`", file.display())]
    #[diagnostic(code(midc::safetensors::read))]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The header as a whole.
    #[error("`{}` is not a sound safetensors file: {problem}", file.display())]
    #[diagnostic(
        code(midc::safetensors::header),
        help("the file is damaged or was not copied whole: compare its size and checksum with the original")
    )]
    Header {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// One entry of the header.
    #[error("`{}`: tensor `{tensor}`: {problem}", file.display())]
    #[diagnostic(
        code(midc::safetensors::entry),
        help("the file is damaged or was not copied whole: compare its size and checksum with the original")
    )]
    Entry {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor in a format midc does not read.
    #[error("`{}`: tensor `{tensor}` is stored as {dtype}, which midc does not read", file.display())]
    #[diagnostic(
        code(midc::safetensors::dtype),
        help("midc reads F32, F16 and BF16; save the model in one of them")
    )]
    Dtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its format.
        dtype: String,
    },
}

/// The format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// An open file whose header is sound: every tensor lies inside the file and has as many bytes as
/// its shape asks for.
#[derive(Debug)]
pub(in crate::runtime) struct Safetensors {
    file: PathBuf,
    map: Mmap,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// As in the header; `None` when midc cannot read it.
    dtype: Option<Dtype>,
    tag: String,
    shape: Vec<usize>,
    /// Bytes of the file.
    bytes: Range<usize>,
}

#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Bytes per number of the formats midc does not read, to check their entries all the same.
fn foreign_size(tag: &str) -> Option<usize> {
    match tag {
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" => Some(1),
        "U16" | "I16" => Some(2),
        "U32" | "I32" => Some(4),
        "U64" | "I64" | "F64" | "C64" => Some(8),
        _ => None,
    }
}

impl Safetensors {
    /// Map a file and check its header.
    ///
    /// # Errors
    /// Unreadable, or anything in the header that does not fit the file.
    pub(in crate::runtime) fn open(file: &Path) -> Result<Self, SafetensorsError> {
        let read = |source| SafetensorsError::Read { file: file.to_owned(), source };
        let handle = File::open(file).map_err(read)?;
        // SAFETY: the map is private to this value and only read; a writer that shortens the file
        // meanwhile would end the process with SIGBUS, as with every memory-mapped checkpoint.
        let map = unsafe { Mmap::map(&handle) }.map_err(read)?;
        let entries = header(&map, file)?;
        Ok(Self { file: file.to_owned(), map, entries })
    }

    /// The names in the file, in order.
    pub(in crate::runtime) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor, if it is there.
    pub(in crate::runtime) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// The format of a tensor, if it is there and midc reads it.
    pub(in crate::runtime) fn dtype(&self, name: &str) -> Option<Dtype> {
        self.entries.get(name)?.dtype
    }

    /// Read a tensor into f32, on all cores when it is large.
    ///
    /// # Errors
    /// Not there, or in a format midc does not read.
    pub(in crate::runtime) fn read(&self, name: &str) -> Result<Tensor, SafetensorsError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(SafetensorsError::Entry {
                file: self.file.clone(),
                tensor: name.to_owned(),
                problem: "it is not in the file".into(),
            });
        };
        let Some(dtype) = entry.dtype else {
            return Err(SafetensorsError::Dtype {
                file: self.file.clone(),
                tensor: name.to_owned(),
                dtype: entry.tag.clone(),
            });
        };
        const CHUNK: usize = 1 << 18;
        let bytes = &self.map[entry.bytes.clone()];
        let mut data = vec![0.0; entry.shape.iter().product()];
        data.par_chunks_mut(CHUNK)
            .zip(bytes.par_chunks(CHUNK * dtype.size()))
            .for_each(|(numbers, bytes)| dtype.decode(bytes, numbers));
        Ok(Tensor { shape: entry.shape.clone(), data })
    }
}

fn header(map: &[u8], file: &Path) -> Result<BTreeMap<String, Entry>, SafetensorsError> {
    let fail = |problem: String| SafetensorsError::Header { file: file.to_owned(), problem };
    let Some((length, rest)) = map.split_first_chunk::<8>() else {
        return Err(fail(format!("it has {} bytes, fewer than the 8 of the header's length", map.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || length > rest.len() as u64 {
        return Err(fail(format!(
            "its header should have {length} bytes and the file has {} after the length",
            rest.len()
        )));
    }
    let (text, data) = rest.split_at(length as usize);
    let map: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| fail(format!("its header is not JSON: {error}")))?;

    let mut entries = BTreeMap::new();
    for (name, value) in map {
        if name == "__metadata__" {
            continue;
        }
        let wrong = |problem: String| SafetensorsError::Entry {
            file: file.to_owned(),
            tensor: name.clone(),
            problem,
        };
        let raw =
            RawEntry::deserialize(&value).map_err(|error| wrong(format!("malformed entry: {error}")))?;
        let (start, end) = raw.data_offsets;
        if start > end || end > data.len() {
            return Err(wrong(format!(
                "its bytes are {start}..{end} of {}; the file is too short or the entry is wrong",
                data.len()
            )));
        }
        let dtype = Dtype::from_tag(&raw.dtype);
        // Packed formats narrower than a byte have sizes of their own; midc reads none of them.
        if let Some(size) = dtype.map(Dtype::size).or_else(|| foreign_size(&raw.dtype)) {
            let wanted = raw.shape.iter().try_fold(size, |product, extent| product.checked_mul(*extent));
            if wanted != Some(end - start) {
                return Err(wrong(format!(
                    "shape {:?} of {} does not fit its {} bytes",
                    raw.shape,
                    raw.dtype,
                    end - start
                )));
            }
        }
        let offset = 8 + length as usize;
        entries.insert(
            name,
            Entry { dtype, tag: raw.dtype, shape: raw.shape, bytes: offset + start..offset + end },
        );
    }
    no_gaps(&entries, 8 + length as usize, 8 + length as usize + data.len(), file)?;
    Ok(entries)
}

/// The format wants the tensors to cover the data without overlap or gap: a flipped offset that
/// still points into the file would otherwise read a neighbour's numbers.
fn no_gaps(
    entries: &BTreeMap<String, Entry>,
    start: usize,
    end: usize,
    file: &Path,
) -> Result<(), SafetensorsError> {
    let mut in_order: Vec<_> = entries.iter().collect();
    in_order.sort_by_key(|(_, entry)| (entry.bytes.start, entry.bytes.end));
    let mut covered = start;
    for (name, entry) in in_order {
        if entry.bytes.start != covered {
            return Err(SafetensorsError::Entry {
                file: file.to_owned(),
                tensor: name.clone(),
                problem: format!(
                    "it begins at byte {} of the file and the tensor before it ends at {covered}",
                    entry.bytes.start
                ),
            });
        }
        covered = entry.bytes.end;
    }
    if covered != end {
        let problem = format!("{} bytes after the last tensor belong to none", end - covered);
        return Err(SafetensorsError::Header { file: file.to_owned(), problem });
    }
    Ok(())
}

/// Write tensors that are made one at a time, so that never more than one is in memory.
/// `make` is called once for each name and returns as many numbers as its shape asks for.
///
/// # Errors
/// Those of `out` and of `make`.
pub(in crate::runtime) fn write_each<N: AsRef<[f32]>>(
    out: &mut impl Write,
    tensors: &[(String, Vec<usize>)],
    dtype: Dtype,
    mut make: impl FnMut(&str) -> io::Result<N>,
) -> io::Result<()> {
    header_of(out, tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())), dtype)?;
    for (name, shape) in tensors {
        let data = make(name)?;
        let data = data.as_ref();
        if data.len() != shape.iter().product::<usize>() {
            let problem = format!("tensor `{name}` of shape {shape:?} was made with {} numbers", data.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        numbers(out, data, dtype)?;
    }
    Ok(())
}

fn header_of<'a>(
    out: &mut impl Write,
    tensors: impl Iterator<Item = (&'a str, &'a [usize])>,
    dtype: Dtype,
) -> io::Result<()> {
    let mut header = Map::new();
    // transformers refuses files that do not say which framework's layout they have.
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut start = 0;
    for (name, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * dtype.size();
        let entry = json!({ "dtype": dtype.tag(), "shape": shape, "data_offsets": [start, end] });
        header.insert(name.to_owned(), entry);
        start = end;
    }
    let mut text = serde_json::to_vec(&header)?;
    // Spaces to the next multiple of 8, so that the numbers are aligned.
    text.resize(text.len().next_multiple_of(8), b' ');
    out.write_all(&(text.len() as u64).to_le_bytes())?;
    out.write_all(&text)
}

fn numbers(out: &mut impl Write, numbers: &[f32], dtype: Dtype) -> io::Result<()> {
    const CHUNK: usize = 1 << 18;
    let mut bytes = Vec::with_capacity(CHUNK.min(numbers.len()) * dtype.size());
    for numbers in numbers.chunks(CHUNK) {
        bytes.clear();
        dtype.encode(numbers, &mut bytes);
        out.write_all(&bytes)?;
    }
    Ok(())
}
