//! Megatron's indexed data sets: tokens in `NAME.bin`, in `NAME.idx` the bounds of sequences and of
//! documents (Megatron-LM, `megatron/core/datasets/indexed_dataset.py`).

use std::fs::File;
use std::path::Path;

use super::npy::{Width, map};
use super::{Body, DataError, Item, Items};

const MAGIC: &[u8; 9] = b"MMIDIDX\x00\x00";
const HEADER: usize = 34;

pub(super) fn open(path: &Path, vocab_size: usize) -> Result<Items, DataError> {
    let index_path = path.with_extension("idx");
    let open = |p: &Path| File::open(p).map_err(DataError::io("open", p));
    let index = map(&index_path, &open(&index_path)?)?;
    let tokens = map(path, &open(path)?)?;
    let damaged = |what: &str| DataError::Damaged { path: index_path.clone(), what: what.to_owned() };
    if !index.starts_with(MAGIC) || index.len() < HEADER {
        return Err(damaged("it does not start as a Megatron index"));
    }
    let u64_at = |at: usize| Width::I64.get(&index[at..], 0);
    if u64_at(9) != 1 {
        return Err(damaged("its version is not 1"));
    }
    let width = match index[17] {
        1 => Width::U8,
        3 | 8 => Width::U16,
        4 => Width::U32,
        5 => Width::I64,
        _ => return Err(damaged("its tokens are not of type u8, u16, i16, i32 or i64")),
    };
    let as_len = |n: u64| usize::try_from(n).ok().filter(|n| *n <= index.len());
    let (Some(sequences), Some(documents)) = (as_len(u64_at(18)), as_len(u64_at(26))) else {
        return Err(damaged("it promises more sequences than it has bytes"));
    };
    let lengths = HEADER;
    let pointers = lengths + 4 * sequences;
    let bounds = pointers + 8 * sequences;
    // Indices of several modalities have a byte more for every sequence.
    let end = bounds + 8 * documents;
    if index.len() < end {
        return Err(damaged("it is cut off"));
    }
    if index.len() != end && index.len() != end + sequences {
        return Err(damaged("it has bytes to spare"));
    }
    // The writer lays one sequence after the other. An index of anything else is damaged, and one
    // whose sequences overlapped could make a little file of any number of tokens.
    let mut laid = 0u64;
    for s in 0..sequences {
        let pointer = Width::I64.get(&index[pointers..], s);
        if pointer != laid {
            let path = path.display();
            let what = format!("sequence {} begins at byte {pointer} of `{path}`, not at {laid}", s + 1);
            return Err(damaged(&what));
        }
        laid += Width::U32.get(&index[lengths..], s) * width.bytes() as u64;
    }
    if laid != tokens.len() as u64 {
        let what = format!(
            "its sequences end at byte {laid} of `{}`, which has {} bytes",
            path.display(),
            tokens.len()
        );
        return Err(damaged(&what));
    }
    // `bounds` has the first sequence of each document and, last, the number of sequences.
    let edge = |i: usize| Width::I64.get(&index[bounds..], i);
    if documents == 0 || edge(0) != 0 || edge(documents - 1) != sequences as u64 {
        return Err(damaged("its documents do not cover its sequences"));
    }
    let path = path.to_owned();
    let (mut document, mut failed) = (0usize, false);
    Ok(Box::new(std::iter::from_fn(move || {
        if failed || document + 1 >= documents {
            return None;
        }
        let bound = |i: usize| Width::I64.get(&index[bounds..], i);
        let (first, last) = (bound(document), bound(document + 1));
        let read = || -> Result<Vec<u32>, DataError> {
            let damaged = |what: String| DataError::Damaged { path: index_path.clone(), what };
            if first > last || last > sequences as u64 {
                return Err(damaged(format!("document {} spans no sequences of the file", document + 1)));
            }
            let mut out = Vec::new();
            for s in first as usize..last as usize {
                let length = Width::U32.get(&index[lengths..], s) as usize;
                let pointer = Width::I64.get(&index[pointers..], s);
                let data = usize::try_from(pointer)
                    .ok()
                    .and_then(|p| tokens.get(p..)?.get(..length.checked_mul(width.bytes())?))
                    .ok_or_else(|| {
                        damaged(format!("sequence {} lies outside `{}`", s + 1, path.display()))
                    })?;
                for at in 0..length {
                    let token = width.get(data, at);
                    if token >= vocab_size as u64 {
                        let position = pointer / width.bytes() as u64 + at as u64;
                        let path = path.clone();
                        return Err(DataError::TokenRange { path, token, position, vocab_size });
                    }
                    out.push(token as u32);
                }
            }
            Ok(out)
        };
        let outcome = read();
        failed = outcome.is_err();
        document += 1;
        Some(outcome.map(|tokens| Item { record: document as u64, body: Body::Tokens(tokens) }))
    })))
}
