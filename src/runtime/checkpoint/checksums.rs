//! `checksums.json`: length and BLAKE3 hash of every other file of a checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Component, Path};

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
    /// [`CheckpointError::Damaged`] with the first file that differs.
    pub(super) fn check(dir: &Path) -> Result<Self, CheckpointError> {
        let damaged = |file: &str, problem: String| CheckpointError::Damaged {
            dir: dir.to_owned(),
            file: file.to_owned(),
            problem,
        };
        let text = std::fs::read(dir.join(names::CHECKSUMS))
            .map_err(|error| damaged(names::CHECKSUMS, format!("cannot be read: {error}")))?;
        let sums: Self = serde_json::from_slice(&text)
            .map_err(|error| damaged(names::CHECKSUMS, format!("is not a list of checksums: {error}")))?;
        if sums.v != 1 {
            return Err(damaged(names::CHECKSUMS, format!("has version {}; this midc reads 1", sums.v)));
        }
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
            let found =
                sum_of(&dir.join(file)).map_err(|error| damaged(file, format!("cannot be read: {error}")))?;
            if found.bytes != expected.bytes {
                let problem = format!("has {} bytes and was written with {}", found.bytes, expected.bytes);
                return Err(damaged(file, problem));
            }
            if found.blake3 != expected.blake3 {
                return Err(damaged(file, "does not have the checksum it was written with".into()));
            }
        }
        Ok(sums)
    }
}

/// Of a file that is there.
pub(super) fn sum_of(file: &Path) -> io::Result<Sum> {
    let mut from = File::open(file)?;
    let mut sum = Summing::new(io::sink());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(sum.finish().1),
            Ok(n) => sum.write_all(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
