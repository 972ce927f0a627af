//! Files to raw records, one reader per file of this directory. A reader streams, holds one record
//! at a time and does no parsing that could be done on another thread; hostile bytes are errors.
//! Readers know nothing of tokenizers or templates.

mod json;
mod jsonl;
mod megatron;
mod npy;
mod parquet;
mod parquet_footer;
mod parquet_pages;
mod text;

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::DataError;

/// The longest record in bytes. Nothing real comes near; a file without line ends stops here.
const MAX_RECORD: u64 = 1 << 30;

/// One record, unparsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Line of a text format, row of a table, document of a token file; from 1.
    pub record: u64,
    /// Its content.
    pub body: Body,
}

/// The content of a record.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A line that should be a JSON object.
    Json(Vec<u8>),
    /// Plain text that should be UTF-8.
    Text(Vec<u8>),
    /// A row of a table.
    Row(serde_json::Map<String, serde_json::Value>),
    /// Token ids, made with the tokenizer of the model.
    Tokens(Vec<u32>),
}

impl Body {
    /// Size in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Json(b) | Self::Text(b) => b.len(),
            Self::Row(row) => {
                row.values().map(|v| v.as_str().map_or_else(|| v.to_string().len(), str::len)).sum()
            }
            Self::Tokens(t) => 4 * t.len(),
        }
    }
}

/// The records of a file, in order.
pub type Items = Box<dyn Iterator<Item = Result<Item, DataError>> + Send>;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object per line.
    Jsonl(Compression),
    /// A JSON array, of which each element is a record.
    Array(Compression),
    /// One document.
    Text(Compression),
    /// A row per record.
    Parquet,
    /// Raw tokens: NumPy `.npy`, headerless `.npy` (OLMo), `.bin` (nanoGPT, llm.c).
    Tokens,
    /// Tokens in `.bin` with their document bounds in `.idx`.
    Megatron,
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not.
    None,
    /// gzip, of any number of members.
    Gzip,
    /// Zstandard, of any number of frames.
    Zstd,
}

impl Format {
    /// By the name of the file, and of a `.json` by its first character; `None` for those no reader takes (archives,
    /// pictures, tables whose columns have no types).
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let (name, compression) = match name.rsplit_once('.') {
            Some((stem, "gz")) => (stem, Compression::Gzip),
            Some((stem, "zst" | "zstd")) => (stem, Compression::Zstd),
            _ => (name.as_str(), Compression::None),
        };
        let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
        match extension {
            "json" if json::is_array(path, compression) => Some(Self::Array(compression)),
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl(compression)),
            "parquet" | "npy" | "bin" if compression != Compression::None => None,
            "parquet" => Some(Self::Parquet),
            "npy" => Some(Self::Tokens),
            "bin" if path.with_extension("idx").is_file() => Some(Self::Megatron),
            "bin" => Some(Self::Tokens),
            "zip" | "tar" | "tgz" | "7z" | "rar" | "xz" | "bz2" | "lz4" | "lzma" | "br" | "arrow"
            | "feather" | "avro" | "orc" | "lance" | "npz" | "h5" | "hdf5" | "idx" | "pdf" | "png"
            | "jpg" | "jpeg" | "gif" | "safetensors" | "gguf" | "pt" | "pth" | "so" | "o" | "a" | "exe"
            | "dll" | "db" | "sqlite" | "csv" | "tsv" | "xlsx" => None,
            _ => Some(Self::Text(compression)),
        }
    }

    /// Whether the file can be read from the middle, at a line start.
    pub(crate) fn has_ranges(self) -> bool {
        self == Self::Jsonl(Compression::None)
    }

    /// A name for cache keys, with a number where it was once read otherwise.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jsonl(_) => "jsonl 2",
            Self::Array(_) => "array 2",
            Self::Text(_) => "text",
            Self::Parquet => "parquet 2",
            Self::Tokens => "tokens 2",
            Self::Megatron => "megatron",
        }
    }
}

/// A stretch of a file: all of it, or the lines in some bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The file.
    pub path: PathBuf,
    /// What it holds.
    pub format: Format,
    /// First byte and one past the last, at line starts; for formats that have ranges.
    pub range: Option<(u64, u64)>,
    /// Records before it.
    pub records_before: u64,
}

/// What a reader must know to make records of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Ids in token files are below it.
    pub vocab_size: usize,
    /// Ends the documents of token files.
    pub eos: u32,
    /// The only columns of a table that matter; `None` means all do.
    pub fields: Option<Vec<String>>,
    /// A table must have one of the columns of each list; without it no row of it is a document.
    pub needed: Vec<Vec<String>>,
}

/// The records of `stretch`.
///
/// # Errors
/// The file cannot be opened or its header is damaged.
pub fn open(stretch: &Stretch, view: &View) -> Result<Items, DataError> {
    let path = &stretch.path;
    let View { vocab_size, eos, .. } = *view;
    match stretch.format {
        Format::Jsonl(compression) => {
            Ok(Box::new(jsonl::Lines::new(path, stretch.records_before, bytes(stretch, compression)?)))
        }
        Format::Array(compression) => Ok(Box::new(json::Elements::new(path, bytes(stretch, compression)?))),
        Format::Text(compression) => text::whole(path, bytes(stretch, compression)?),
        Format::Parquet => parquet::open(path, view),
        Format::Tokens => npy::open(path, vocab_size, eos),
        Format::Megatron => megatron::open(path, vocab_size),
    }
}

fn bytes(stretch: &Stretch, compression: Compression) -> Result<Box<dyn Read + Send>, DataError> {
    let path = &stretch.path;
    let mut file = File::open(path).map_err(DataError::io("open", path))?;
    if let Some((start, end)) = stretch.range {
        file.seek(SeekFrom::Start(start)).map_err(DataError::io("read", path))?;
        return Ok(Box::new(file.take(end - start)));
    }
    decoded(file, compression).map_err(DataError::io("read", path))
}

fn decoded(file: File, compression: Compression) -> std::io::Result<Box<dyn Read + Send>> {
    Ok(match compression {
        Compression::None => Box::new(file),
        Compression::Gzip => {
            Box::new(flate2::read::MultiGzDecoder::new(BufReader::with_capacity(1 << 18, file)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::new(file)?;
            // `zstd --long=31` makes windows above the default limit.
            decoder.window_log_max(31)?;
            Box::new(decoder)
        }
    })
}

/// What a failed read means: compressed data that ends early or does not decode is damage, the
/// rest is the machine.
fn read_error(path: &Path, error: std::io::Error) -> DataError {
    use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match error.kind() {
        UnexpectedEof | InvalidData | InvalidInput | Other => {
            DataError::Damaged { path: path.to_owned(), what: error.to_string() }
        }
        _ => DataError::io("read", path)(error),
    }
}

#[cfg(test)]
mod tests;
