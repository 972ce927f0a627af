//! The container: magic, metadata entries, tensor entries, aligned data (the specification in
//! ggml's `docs/gguf.md`, versions 2 and 3). Every count and offset is checked against the file before
//! it is believed.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use super::GgufError;
use super::quants::Quant;

/// An open file whose entries are sound.
#[derive(Debug)]
pub(super) struct Container {
    map: Mmap,
    pub(super) metadata: Metadata,
    pub(super) tensors: BTreeMap<String, Info>,
}

/// The entries before the tensors.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) file: PathBuf,
    pub(super) values: BTreeMap<String, Value>,
}

/// A metadata value, its width forgotten.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Whole(i128),
    /// Single precision is kept apart: 1e-5 is to be read as the decimal it was written as.
    Single(f32),
    Double(f64),
    Flag(bool),
    Text(String),
    Texts(Vec<String>),
    /// Any array of numbers or flags.
    Numbers(Vec<f64>),
}

/// A tensor's entry.
#[derive(Clone, Debug)]
pub(super) struct Info {
    /// Innermost first.
    pub(super) extents: Vec<usize>,
    /// ggml's number of the format.
    pub(super) kind: u32,
    /// Bytes of the file; empty for formats midc does not read.
    bytes: Range<usize>,
}

impl Container {
    /// Map a file and check its entries.
    ///
    /// # Errors
    /// Unreadable, or anything in it that does not fit.
    pub(super) fn open(file: &Path) -> Result<Self, GgufError> {
        let read = |source| GgufError::Read { file: file.to_owned(), source };
        let handle = File::open(file).map_err(read)?;
        // SAFETY: the map is private to this value and only read; a writer that shortens the file
        // meanwhile would end the process with SIGBUS, as with every memory-mapped checkpoint.
        let map = unsafe { Mmap::map(&handle) }.map_err(read)?;
        let (metadata, tensors) = parse(&map, file)?;
        Ok(Self { map, metadata, tensors })
    }

    /// The bytes of a tensor.
    pub(super) fn bytes(&self, info: &Info) -> &[u8] {
        &self.map[info.bytes.clone()]
    }
}

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;

fn parse(bytes: &[u8], file: &Path) -> Result<(Metadata, BTreeMap<String, Info>), GgufError> {
    let fail = |problem: String| GgufError::Container { file: file.to_owned(), problem };
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.take(4).ok_or_else(|| fail("it is too short".into()))? != MAGIC {
        return Err(fail("it does not begin with `GGUF`".into()));
    }
    let ended = || fail("it ends in the midst of its entries".into());
    match cursor.u32().ok_or_else(ended)? {
        2 | 3 => {}
        // As other machines write it, the first byte is the last.
        swapped @ (0x0200_0000 | 0x0300_0000) => {
            let version = swapped >> 24;
            return Err(fail(format!(
                "it is a big-endian file of version {version}; midc reads little-endian"
            )));
        }
        other => return Err(fail(format!("it has version {other}; midc reads 2 and 3"))),
    }
    let tensor_count = cursor.u64().ok_or_else(ended)?;
    let entry_count = cursor.u64().ok_or_else(ended)?;

    let mut metadata = Metadata { file: file.to_owned(), values: BTreeMap::new() };
    for _ in 0..entry_count {
        let key = cursor.text().ok_or_else(ended)?.map_err(|_| fail("a metadata key is not UTF-8".into()))?;
        let value = cursor.u32().ok_or_else(ended).and_then(|kind| {
            let value = cursor.value(kind).ok_or_else(ended)?;
            value.map_err(|problem| metadata.error(&key, problem, None))
        })?;
        if metadata.values.insert(key.clone(), value).is_some() {
            return Err(metadata.error(&key, "it is there twice".into(), None));
        }
    }

    let mut entries = Vec::new();
    for _ in 0..tensor_count {
        let name =
            cursor.text().ok_or_else(ended)?.map_err(|_| fail("a tensor's name is not UTF-8".into()))?;
        let wrong =
            |problem: String| GgufError::Tensor { file: file.to_owned(), tensor: name.clone(), problem };
        let dimensions = cursor.u32().ok_or_else(ended)?;
        if dimensions > 4 {
            return Err(wrong(format!("it has {dimensions} dimensions; at most 4 are possible")));
        }
        let mut extents = Vec::new();
        for _ in 0..dimensions {
            let extent = cursor.u64().ok_or_else(ended)?;
            extents
                .push(usize::try_from(extent).map_err(|_| wrong(format!("extent {extent} is too large")))?);
        }
        let kind = cursor.u32().ok_or_else(ended)?;
        let offset = cursor.u64().ok_or_else(ended)?;
        entries.push((name, extents, kind, offset));
    }

    let alignment = match metadata.whole("general.alignment")? {
        None => DEFAULT_ALIGNMENT,
        Some(a) if a.is_power_of_two() && a <= 1 << 20 => a,
        Some(a) => {
            let problem = format!("{a} is not a power of two");
            return Err(metadata.error("general.alignment", problem, None));
        }
    };
    let data_start = (cursor.at as u64).next_multiple_of(alignment);
    let tensors = place(entries, data_start, alignment, bytes.len(), file)?;
    Ok((metadata, tensors))
}

/// Where each tensor lies; no two may share bytes.
fn place(
    entries: Vec<(String, Vec<usize>, u32, u64)>,
    data_start: u64,
    alignment: u64,
    length: usize,
    file: &Path,
) -> Result<BTreeMap<String, Info>, GgufError> {
    let wrong = |tensor: &str, problem: String| GgufError::Tensor {
        file: file.to_owned(),
        tensor: tensor.to_owned(),
        problem,
    };
    let mut tensors = BTreeMap::new();
    for (name, extents, kind, offset) in entries {
        // The size of a format midc does not read is unknown here; reading it is refused by name.
        let size = match Quant::from_id(kind) {
            Some(quant) => {
                let size = quant.bytes(&extents);
                size.ok_or_else(|| wrong(&name, format!("extents {extents:?} do not fit {}", quant.name())))?
            }
            None => 0,
        };
        let start = data_start.checked_add(offset).and_then(|s| usize::try_from(s).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(size)?));
        let bytes = match range {
            Some(range) if range.end <= length => range,
            _ => {
                let problem = format!(
                    "its {size} bytes begin {offset} bytes into the data and go past the end of the file, {length} bytes"
                );
                return Err(wrong(&name, problem));
            }
        };
        if offset % alignment != 0 {
            return Err(wrong(
                &name,
                format!("it begins at {offset}, which is not a multiple of {alignment}"),
            ));
        }
        if tensors.insert(name.clone(), Info { extents, kind, bytes }).is_some() {
            return Err(wrong(&name, "it is there twice".into()));
        }
    }
    let mut in_order: Vec<_> = tensors.iter().filter(|(_, info)| !info.bytes.is_empty()).collect();
    in_order.sort_by_key(|(_, info)| info.bytes.start);
    for pair in in_order.windows(2) {
        let ((before, first), (name, second)) = (pair[0], pair[1]);
        if second.bytes.start < first.bytes.end {
            return Err(wrong(name, format!("it shares bytes with `{before}`")));
        }
    }
    Ok(tensors)
}

/// Reads on from a place; `None` where the file ends.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<Result<String, std::string::FromUtf8Error>> {
        let length = usize::try_from(self.u64()?).ok()?;
        Some(String::from_utf8(self.take(length)?.to_vec()))
    }

    /// A number or flag of ggml's metadata type `kind`.
    fn number(&mut self, kind: u32) -> Option<Result<Value, String>> {
        let whole = |v: i128| Ok(Value::Whole(v));
        Some(match kind {
            0 => whole(u8::from_le_bytes(self.array()?).into()),
            1 => whole(i8::from_le_bytes(self.array()?).into()),
            2 => whole(u16::from_le_bytes(self.array()?).into()),
            3 => whole(i16::from_le_bytes(self.array()?).into()),
            4 => whole(self.u32()?.into()),
            5 => whole(i32::from_le_bytes(self.array()?).into()),
            6 => Ok(Value::Single(f32::from_le_bytes(self.array()?))),
            7 => match self.array::<1>()? {
                [0] => Ok(Value::Flag(false)),
                [1] => Ok(Value::Flag(true)),
                [other] => Err(format!("a flag is {other}, not 0 or 1")),
            },
            10 => whole(self.u64()?.into()),
            11 => whole(i64::from_le_bytes(self.array()?).into()),
            12 => Ok(Value::Double(f64::from_le_bytes(self.array()?))),
            other => Err(format!("it has the unknown type {other}")),
        })
    }

    fn value(&mut self, kind: u32) -> Option<Result<Value, String>> {
        const TEXT: u32 = 8;
        const ARRAY: u32 = 9;
        match kind {
            TEXT => Some(self.text()?.map(Value::Text).map_err(|_| "it is not UTF-8".into())),
            ARRAY => {
                let element = self.u32()?;
                let count = self.u64()?;
                match element {
                    ARRAY => Some(Err("arrays of arrays are not supported".into())),
                    TEXT => {
                        let mut texts = Vec::new();
                        for at in 0..count {
                            match self.text()? {
                                Ok(text) => texts.push(text),
                                Err(_) => return Some(Err(format!("element {at} is not UTF-8"))),
                            }
                        }
                        Some(Ok(Value::Texts(texts)))
                    }
                    _ => {
                        let mut numbers = Vec::new();
                        for _ in 0..count {
                            match self.number(element)? {
                                Ok(value) => numbers.extend(value.as_number()),
                                Err(problem) => return Some(Err(problem)),
                            }
                        }
                        Some(Ok(Value::Numbers(numbers)))
                    }
                }
            }
            _ => self.number(kind),
        }
    }
}

impl Value {
    fn as_number(&self) -> Option<f64> {
        match self {
            Self::Whole(v) => Some(*v as f64),
            // The shortest decimal that is this single: 1e-5 and not 9.999999747378752e-6.
            Self::Single(v) => v.to_string().parse().ok(),
            Self::Double(v) => Some(*v),
            Self::Flag(v) => Some(f64::from(u8::from(*v))),
            Self::Text(_) | Self::Texts(_) | Self::Numbers(_) => None,
        }
    }
}

/// Typed access; `None` for an absent key, an error for one of another type.
impl Metadata {
    pub(super) fn error(&self, key: &str, problem: String, help: Option<&str>) -> GgufError {
        GgufError::Key {
            file: self.file.clone(),
            key: key.to_owned(),
            problem,
            help: help.map(str::to_owned),
        }
    }

    fn read<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => Err(self.error(key, format!("expected {what}"), None)),
            },
        }
    }

    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.read(key, "a whole number", |v| match v {
            Value::Whole(v) => u64::try_from(*v).ok(),
            // Some models give one number per layer; one for all is the same.
            Value::Numbers(all) => {
                let first = *all.first()?;
                let same = all.iter().all(|v| *v == first) && first.fract() == 0.0;
                (same && (0.0..1e15).contains(&first)).then_some(first as u64)
            }
            _ => None,
        })
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        // JSON has no NaN and no infinity: they would turn into an absent setting on the way.
        self.read(key, "a finite number", |v| v.as_number().filter(|n| n.is_finite()))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.read(key, "true or false", |v| match v {
            Value::Flag(v) => Some(*v),
            _ => None,
        })
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.read(key, "a text", |v| match v {
            Value::Text(v) => Some(v.as_str()),
            _ => None,
        })
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.read(key, "a list of texts", |v| match v {
            Value::Texts(v) => Some(v.as_slice()),
            _ => None,
        })
    }

    pub(super) fn numbers(&self, key: &str) -> Result<Option<&[f64]>, GgufError> {
        self.read(key, "a list of numbers", |v| match v {
            Value::Numbers(v) => Some(v.as_slice()),
            _ => None,
        })
    }
}
