//! Pre-tokenised files: NumPy `.npy` with its header (u8, u16, u32, i32, i64; rows one after the other), the
//! headerless arrays OLMo also calls `.npy`, nanoGPT's raw `.bin`, and llm.c's `.bin` with a header
//! of 256 integers. Documents end at the end-of-sequence token.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use super::{Body, DataError, Item, Items};

/// A document longer than this many tokens is given in parts.
const MAX_TOKENS: usize = 1 << 24;
/// Tokens looked at to tell the width of a headerless file.
const SAMPLE: usize = 1 << 16;
/// Fewer integers of 64 bits in a headerless file may as well be tokens of 32, every second of which is 0.
const FEW_PAIRS: usize = 8;
/// llm.c: magic of GPT-2 files (u16) and of Llama 3 files (u32).
const LLMC_U16: u32 = 20_240_520;
const LLMC_U32: u32 = 20_240_801;
const LLMC_HEADER: usize = 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    U8,
    U16,
    U32,
    I64,
}

impl Width {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::I64 => 8,
        }
    }

    /// The token at `at` (counted in tokens) of `data`, which has it. Negative ones are large.
    pub(super) fn get(self, data: &[u8], at: usize) -> u64 {
        let n = self.bytes();
        let mut raw = [0u8; 8];
        raw[..n].copy_from_slice(&data[at * n..(at + 1) * n]);
        u64::from_le_bytes(raw)
    }
}

pub(super) fn open(path: &Path, vocab_size: usize, eos: u32) -> Result<Items, DataError> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let map = map(path, &file)?;
    let data: &[u8] = &map;
    let damaged = |what: String| DataError::Damaged { path: path.to_owned(), what };
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(data.get(4 * at..4 * at + 4)?.try_into().ok()?))
    };
    let (start, width) = if data.starts_with(b"\x93NUMPY") {
        numpy_header(data).map_err(damaged)?
    } else if data.len() >= LLMC_HEADER && matches!(word(0), Some(LLMC_U16 | LLMC_U32)) {
        let width = if word(0) == Some(LLMC_U16) { Width::U16 } else { Width::U32 };
        let tokens = word(2).unwrap_or(0) as usize;
        let have = (data.len() - LLMC_HEADER) / width.bytes();
        if have != tokens {
            return Err(damaged(format!("its header promises {tokens} tokens and it holds {have}")));
        }
        (LLMC_HEADER, width)
    } else if !data.len().is_multiple_of(Width::U16.bytes()) {
        return Err(damaged(format!("{} bytes are no whole number of tokens", data.len())));
    } else {
        (0, guess(data, vocab_size).map_err(|why| DataError::Width { path: path.to_owned(), why })?)
    };
    if !(data.len() - start).is_multiple_of(width.bytes()) {
        return Err(damaged(format!(
            "{} bytes of tokens are no multiple of {}",
            data.len() - start,
            width.bytes()
        )));
    }
    let total = (data.len() - start) / width.bytes();
    let path = path.to_owned();
    let (mut at, mut record) = (0, 0);
    Ok(Box::new(std::iter::from_fn(move || {
        if at >= total {
            return None;
        }
        let data = &map[start..];
        let mut tokens = Vec::new();
        while at < total && tokens.len() < MAX_TOKENS {
            let token = width.get(data, at);
            if token >= vocab_size as u64 {
                let position = at as u64;
                at = total;
                return Some(Err(DataError::TokenRange { path: path.clone(), token, position, vocab_size }));
            }
            at += 1;
            tokens.push(token as u32);
            if token == u64::from(eos) {
                break;
            }
        }
        record += 1;
        Some(Ok(Item { record, body: Body::Tokens(tokens) }))
    })))
}

/// Map a file that others must not shorten meanwhile.
pub(super) fn map(path: &Path, file: &File) -> Result<Mmap, DataError> {
    // SAFETY: the map is read only. Were the file shortened by another process, reads past its
    // end would stop this one with SIGBUS, as any memory-mapped input does.
    unsafe { Mmap::map(file) }.map_err(DataError::io("map", path))
}

/// The width of a file without a header, by a sample. i64, which NumPy makes of a list, if every second word of 32 bits
/// is zero; u32 if every word is in the vocabulary, which words made of two u16 tokens are not; u16 if all of those are.
fn guess(data: &[u8], vocab_size: usize) -> Result<Width, String> {
    let fits = |width: Width| {
        let n = data.len() / width.bytes();
        data.len().is_multiple_of(width.bytes())
            && (0..n.min(SAMPLE)).all(|at| width.get(data, at) < vocab_size as u64)
    };
    // Whether the upper halves of what would be integers of twice the width are as small as those of tokens are.
    let uppers = |width: Width, most: u64| {
        let n = (data.len() / width.bytes()).min(SAMPLE) / 2;
        (n, (0..n).filter(|at| width.get(data, 2 * at + 1) <= most).count())
    };
    if fits(Width::U32) {
        let (pairs, zeros) = uppers(Width::U32, 0);
        let wide = data.len().is_multiple_of(Width::I64.bytes()) && pairs == zeros;
        return match pairs {
            // All zeros so far: padding, in either width.
            _ if !wide || (0..pairs).all(|at| Width::U32.get(data, 2 * at) == 0) => Ok(Width::U32),
            FEW_PAIRS.. => Ok(Width::I64),
            _ => Err("it may hold tokens of 32 bits or of 64".to_owned()),
        };
    }
    let (pairs, small) = uppers(Width::U16, vocab_size as u64 >> 16);
    if fits(Width::U16) && 4 * small <= 3 * pairs {
        return Ok(Width::U16);
    }
    Err(format!("as u16, u32 and i64 it holds tokens beyond the vocabulary of {vocab_size}"))
}

/// Where the data of a NumPy file starts and its type
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).
fn numpy_header(data: &[u8]) -> Result<(usize, Width), String> {
    let short = || "its NumPy header is cut off".to_owned();
    let (length, start) = match data.get(6).ok_or_else(short)? {
        1 => (data.get(8..10).map(|b| u16::from_le_bytes([b[0], b[1]]) as usize), 10),
        2 | 3 => (data.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize), 12),
        v => return Err(format!("NumPy format version {v} is unknown")),
    };
    let end = start + length.ok_or_else(short)?;
    let header = data.get(start..end).ok_or_else(short)?;
    let header = String::from_utf8_lossy(header);
    let value = |key: &str| -> Option<String> {
        let rest = header.split(&format!("'{key}':")).nth(1)?.trim_start();
        Some(rest.to_owned())
    };
    let descr = value("descr").ok_or("its NumPy header has no `descr`")?;
    let quoted = descr.split('\'').nth(1).unwrap_or_default();
    let width = match quoted {
        "|u1" | "u1" => Width::U8,
        "<u2" | "|u2" => Width::U16,
        "<u4" | "<i4" => Width::U32,
        "<u8" | "<i8" => Width::I64,
        other => return Err(format!("its element type `{other}` is none of <u2, <u4, <i4, <i8, <u8, |u1")),
    };
    let shape = value("shape").ok_or("its NumPy header has no `shape`")?;
    let inner = shape.split(['(', ')']).nth(1).unwrap_or_default();
    let (mut count, mut above) = (1usize, 0);
    for n in inner.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        let n: usize = n.parse().map_err(|_| format!("its shape `({inner})` cannot be read"))?;
        count = count.checked_mul(n).ok_or_else(|| format!("its shape `({inner})` overflows"))?;
        above += usize::from(n > 1);
    }
    let have = (data.len() - end) / width.bytes();
    if have != count {
        return Err(format!("its header promises {count} tokens and it holds {have}"));
    }
    // Column by column; where one dimension alone is above 1 there is but one order.
    if above > 1 && value("fortran_order").is_some_and(|v| v.starts_with("True")) {
        return Err("its array stands column by column (`fortran_order`), which is not the order of its tokens; save \
                    `numpy.ascontiguousarray(a)`"
            .to_owned());
    }
    Ok((end, width))
}
