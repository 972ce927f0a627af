//! `checksums.json`: length and BLAKE3 hash of every other file of a checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path};

use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{CheckpointError, names};

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums {
    /// Format version, 1.
    pub(super) v: u32,
    /// Path in the checkpoint, with `/`, to the file's sum.
    pub(super) files: BTreeMap<String, Sum>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sum {
    /// Length.
    pub(super) bytes: u64,
    /// Hex.
    pub(super) blake3: String,
}

/// Passes bytes on and sums them up.
pub(super) struct Summing<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Summing<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hasher: blake3::Hasher::new(), bytes: 0 }
    }

    pub(super) fn finish(self) -> (W, Sum) {
        let sum = Sum { bytes: self.bytes, blake3: self.hasher.finalize().to_hex().to_string() };
        (self.inner, sum)
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Checksums {
    /// Read the file and compare every other file of `dir` with it.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] with the first file that differs; [`CheckpointError::Unreadable`] and
    /// [`CheckpointError::Version`] where that cannot be known.
    pub(super) fn check(dir: &Path) -> Result<Self, CheckpointError> {
        let sums = Self::lengths(dir)?;
        let found: Vec<io::Result<Sum>> =
            sums.files.par_iter().map(|(file, _)| sum_of(&dir.join(file))).collect();
        for ((file, expected), found) in sums.files.iter().zip(found) {
            let found = found.map_err(|error| unread(dir, file, error))?;
            if found != *expected {
                return Err(damaged(dir, file, "does not have the checksum it was written with".into()));
            }
        }
        Ok(sums)
    }

    /// Read the file and compare the length of every other file of `dir` with it, which takes no time.
    ///
    /// # Errors
    /// As [`Checksums::check`].
    pub(super) fn lengths(dir: &Path) -> Result<Self, CheckpointError> {
        let damaged = |file: &str, problem: String| damaged(dir, file, problem);
        let text = std::fs::read(dir.join(names::CHECKSUMS))
            .map_err(|error| unread(dir, names::CHECKSUMS, error))?;
        // First the version alone: of another one the rest may look different.
        if let Ok(Version { v: found }) = serde_json::from_slice(&text)
            && found != 1
        {
            return Err(CheckpointError::Version { path: dir.join(names::CHECKSUMS), found });
        }
        let sums: Self = serde_json::from_slice(&text)
            .map_err(|error| damaged(names::CHECKSUMS, format!("is not a list of checksums: {error}")))?;
        for required in [names::CONFIG, names::WEIGHTS] {
            // Models that other engines exported may be in parts.
            let parts = required == names::WEIGHTS && sums.files.contains_key(names::PARTS);
            if !sums.files.contains_key(required) && !parts {
                return Err(damaged(names::CHECKSUMS, format!("does not list `{required}`")));
            }
        }
        for (file, expected) in &sums.files {
            // Only files of the checkpoint, so that a list cannot make midc read elsewhere.
            if !Path::new(file).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(damaged(names::CHECKSUMS, format!("lists `{file}`, which is no name in it")));
            }
            let found = std::fs::metadata(dir.join(file)).map_err(|error| unread(dir, file, error))?;
            if found.len() != expected.bytes {
                let problem = format!("has {} bytes and was written with {}", found.len(), expected.bytes);
                return Err(damaged(file, problem));
            }
        }
        Ok(sums)
    }
}

/// The part of a list of checksums that is the same in every version.
#[derive(Deserialize)]
struct Version {
    v: u64,
}

/// What it means that a file cannot be read: one that is missing or has become shorter is damage, while permissions, a
/// failing disk or too many open files say nothing of what is in it.
fn unread(dir: &Path, file: &str, error: io::Error) -> CheckpointError {
    use io::ErrorKind::{
        InvalidFilename, InvalidInput, IsADirectory, NotADirectory, NotFound, UnexpectedEof,
    };
    match error.kind() {
        // The names that no file can have are of a damaged list.
        NotFound | NotADirectory | IsADirectory | UnexpectedEof | InvalidFilename | InvalidInput => {
            damaged(dir, file, format!("cannot be read: {error}"))
        }
        _ => CheckpointError::Unreadable { path: dir.join(file), source: error },
    }
}

fn damaged(dir: &Path, file: &str, problem: String) -> CheckpointError {
    CheckpointError::Damaged { dir: dir.to_owned(), file: file.to_owned(), problem }
}

/// What one core reads and hashes at a time; a power of two, as BLAKE3 divides its input.
const PIECE: u64 = 4 << 20;

/// Of a file that is there, on all cores. It is read rather than mapped: its pages would count as memory of midc.
pub(super) fn sum_of(file: &Path) -> io::Result<Sum> {
    let bytes = std::fs::metadata(file)?.len();
    let hash = if bytes <= PIECE {
        blake3::hash(&piece(file, 0, bytes)?)
    } else {
        let (left, right) = halves(file, 0, bytes)?;
        merge_subtrees_root(&left, &right, Mode::Hash)
    };
    Ok(Sum { bytes, blake3: hash.to_hex().to_string() })
}

/// The parts of `bytes` bytes from `start` on, as BLAKE3 divides them.
fn halves(file: &Path, start: u64, bytes: u64) -> io::Result<(ChainingValue, ChainingValue)> {
    let left = left_subtree_len(bytes);
    let (left, right) =
        rayon::join(|| subtree(file, start, left), || subtree(file, start + left, bytes - left));
    Ok((left?, right?))
}

fn subtree(file: &Path, start: u64, bytes: u64) -> io::Result<ChainingValue> {
    if bytes <= PIECE {
        let piece = piece(file, start, bytes)?;
        return Ok(blake3::Hasher::new().set_input_offset(start).update(&piece).finalize_non_root());
    }
    let (left, right) = halves(file, start, bytes)?;
    Ok(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

fn piece(file: &Path, start: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let mut from = File::open(file)?;
    from.seek(SeekFrom::Start(start))?;
    let mut piece = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    from.read_exact(&mut piece)?;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checksums are those of BLAKE3, however many cores work on them.
    #[test]
    fn pieces_make_the_hash_of_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        let piece = PIECE as usize;
        let all: Vec<u8> =
            (0..5 * piece as u32 + 7).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        for len in [0, 1, 1025, piece, piece + 1, 2 * piece, 3 * piece - 1, 4 * piece + 1024, all.len()] {
            std::fs::write(&path, &all[..len]).unwrap();
            let expected = Sum { bytes: len as u64, blake3: blake3::hash(&all[..len]).to_hex().to_string() };
            assert_eq!(sum_of(&path).unwrap(), expected, "{len}");
        }
    }
}
