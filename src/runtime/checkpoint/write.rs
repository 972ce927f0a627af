//! Writing a checkpoint: whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::checksums::{Checksums, Summing, sum_of};
use super::{CheckpointContents, CheckpointError, State, names};
use crate::runtime::engine::Part;
use crate::runtime::model::{Dtype, ModelConfig, TokenizerSource, safetensors};
use crate::runtime::whole;

/// Write `contents` as the directory `dir`. What stood there before is replaced when the new one is
/// complete. Parent directories are made.
///
/// # Errors
/// A full disk or another failure of the machine; `dir` is then as it was.
pub fn write(contents: &CheckpointContents<'_>, dir: &Path) -> Result<(), CheckpointError> {
    whole_or_not_at_all(dir, size(contents), |aside| write_aside(contents, aside))
}

/// The bytes that a copy of the state takes.
pub(in crate::runtime) fn copy_bytes(state: &dyn State) -> u64 {
    4 * PARTS.iter().map(|part| count(state, *part)).sum::<u64>()
}

/// Write a model whose tensors are made one at a time, without an optimizer's state. `make` is called once
/// for each of `tensors`.
///
/// # Errors
/// As [`write`], and those of `make`.
pub(in crate::runtime) fn write_each(
    config: &ModelConfig,
    tokenizer: &TokenizerSource,
    dtype: Dtype,
    trainer: Option<&Value>,
    tensors: &[(String, Vec<usize>)],
    make: impl FnMut(&str) -> io::Result<Vec<f32>>,
    dir: &Path,
) -> Result<(), CheckpointError> {
    let count: usize = tensors.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    whole_or_not_at_all(dir, (count * dtype.size()) as u64, |aside| {
        let mut files = Files::begin(aside)?;
        files.model(config, tokenizer, dtype)?;
        files.write(names::WEIGHTS, |mut out| safetensors::write_each(&mut out, tensors, dtype, make))?;
        if let Some(trainer) = trainer {
            let state = aside.join("state");
            fs::create_dir_all(&state).map_err(CheckpointError::io("create", &state))?;
            files.json(names::TRAINER, trainer)?;
        }
        files.finish()
    })
}

pub(super) fn whole_or_not_at_all(
    dir: &Path,
    size: u64,
    write: impl FnOnce(&Path) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let aside = aside(dir, NEW);
    let result = write(&aside).and_then(|()| put_in_place(&aside, dir));
    result.map_err(|error| {
        // Best effort: what cannot be removed now is removed at the next start.
        let _ = fs::remove_dir_all(&aside);
        match error {
            CheckpointError::Io { source, .. } if is_full(&source) => {
                CheckpointError::Full { dir: dir.to_owned(), needed: size, source }
            }
            other => other,
        }
    })
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A name in the same directory that no reader takes for a checkpoint.
pub(super) fn aside(dir: &Path, purpose: &str) -> PathBuf {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    dir.with_file_name(format!("{}{purpose}-{}-{name}", names::ASIDE, std::process::id()))
}

/// The process that writes, or wrote, the directory `of` under this name.
fn writer(name: &str, of: &str) -> Option<u32> {
    let (purpose, rest) = name.strip_prefix(names::ASIDE)?.split_once('-')?;
    let (process, directory) = rest.split_once('-')?;
    let going = [NEW, OLD].contains(&purpose) && directory == of;
    going.then(|| whole::number(process))?
}

/// Remove what processes that are over left of writing `dir`: whole models in size. In the directory of a run, whose
/// lock says that nobody else writes, [`super::clean`] removes all of it.
///
/// # Errors
/// The directory cannot be listed, or what was found there not be removed.
pub(in crate::runtime) fn clean_beside(dir: &Path) -> Result<(), CheckpointError> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    whole::remove_beside(dir, |other| writer(other, &name), |left| fs::remove_dir_all(left))
        .map_err(CheckpointError::io("clean up beside", dir))
}

const PARTS: [Part; 3] = [Part::Weight, Part::First, Part::Second];

fn count(state: &dyn State, part: Part) -> u64 {
    state.shapes(part).iter().map(|(_, shape)| shape.iter().product::<usize>() as u64).sum()
}

/// Bytes of the large files.
fn size(contents: &CheckpointContents<'_>) -> u64 {
    let [weights, first, second] = PARTS.map(|part| count(contents.state, part));
    let master = if has_master(contents) { 4 * weights } else { 0 };
    weights * contents.dtype.size() as u64 + 4 * (first + second) + master
}

fn has_master(contents: &CheckpointContents<'_>) -> bool {
    contents.dtype != Dtype::F32 && !contents.state.shapes(Part::First).is_empty()
}

fn write_aside(contents: &CheckpointContents<'_>, aside: &Path) -> Result<(), CheckpointError> {
    let mut files = Files::begin(aside)?;
    files.model(contents.config, contents.tokenizer, contents.dtype)?;
    files.tensors(names::WEIGHTS, contents.state, &[("", Part::Weight)], contents.dtype)?;

    let has_moments = !contents.state.shapes(Part::First).is_empty();
    if has_moments || contents.trainer.is_some() {
        let state = aside.join("state");
        fs::create_dir_all(&state).map_err(CheckpointError::io("create", &state))?;
    }
    if has_moments {
        let moments = [("m.", Part::First), ("v.", Part::Second)];
        files.tensors(names::OPTIMIZER, contents.state, &moments, Dtype::F32)?;
    }
    if has_master(contents) {
        files.tensors(names::MASTER, contents.state, &[("", Part::Weight)], Dtype::F32)?;
    }
    if let Some(trainer) = contents.trainer {
        files.json(names::TRAINER, trainer)?;
    }
    files.finish()
}

/// What came with the model, or the special tokens, so that generation stops where it should.
fn generation(config: &ModelConfig, tokenizer: &TokenizerSource) -> Map<String, Value> {
    if let Some(generation) = &tokenizer.generation {
        return generation.clone();
    }
    let keys = config.to_keys();
    let mut generation = Map::new();
    generation.insert("_from_model_config".into(), json!(true));
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(value) = keys.get(key).filter(|v| !v.is_null()) {
            generation.insert(key.into(), value.clone());
        }
    }
    generation
}

/// The files of one checkpoint under way.
pub(super) struct Files<'a> {
    root: &'a Path,
    sums: Checksums,
}

impl<'a> Files<'a> {
    pub(super) fn begin(root: &'a Path) -> Result<Self, CheckpointError> {
        if root.exists() {
            fs::remove_dir_all(root).map_err(CheckpointError::io("remove", root))?;
        }
        fs::create_dir_all(root).map_err(CheckpointError::io("create", root))?;
        Ok(Self { root, sums: Checksums { v: 1, ..Checksums::default() } })
    }

    /// Everything beside the weights that makes a directory a model.
    fn model(
        &mut self,
        config: &ModelConfig,
        tokenizer: &TokenizerSource,
        dtype: Dtype,
    ) -> Result<(), CheckpointError> {
        let config = ModelConfig { dtype: Some(dtype), ..config.clone() };
        self.json(names::CONFIG, &config.to_keys())?;
        for (name, content) in &tokenizer.files {
            self.write(name, |out| out.write_all(content))?;
        }
        self.json(names::GENERATION, &generation(&config, tokenizer))
    }

    fn write(
        &mut self,
        name: &str,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), CheckpointError> {
        let path = self.root.join(name);
        let write = || {
            let mut out = Summing::new(BufWriter::with_capacity(1 << 20, File::create(&path)?));
            content(&mut out)?;
            let (buffer, sum) = out.finish();
            let file = buffer.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            Ok(sum)
        };
        let sum = write().map_err(CheckpointError::io("write", &path))?;
        self.sums.files.insert(name.to_owned(), sum);
        Ok(())
    }

    /// The file `from` under `name`, as a second name where it can be and as a copy elsewhere.
    pub(super) fn link(&mut self, from: &Path, name: &str) -> Result<(), CheckpointError> {
        let path = self.root.join(name);
        let link = || {
            if fs::hard_link(from, &path).is_err() {
                fs::copy(from, &path)?;
            }
            whole::sync_file(&path)?;
            sum_of(&path)
        };
        let sum = link().map_err(CheckpointError::io("write", &path))?;
        self.sums.files.insert(name.to_owned(), sum);
        Ok(())
    }

    fn json(&mut self, name: &str, value: &impl serde::Serialize) -> Result<(), CheckpointError> {
        self.write(name, |out| {
            serde_json::to_writer_pretty(&mut *out, value)?;
            out.write_all(b"\n")
        })
    }

    /// The tensors of these parts of the state, one at a time, their names behind a prefix.
    fn tensors(
        &mut self,
        name: &str,
        state: &dyn State,
        parts: &[(&str, Part)],
        dtype: Dtype,
    ) -> Result<(), CheckpointError> {
        let named = |(prefix, part): &(&str, Part)| {
            let name = |(name, shape)| (format!("{prefix}{name}"), shape);
            state.shapes(*part).into_iter().map(name).collect::<Vec<_>>()
        };
        let shapes: Vec<_> = parts.iter().flat_map(named).collect();
        let make = |name: &str| {
            for (prefix, part) in parts {
                if let Some(name) = name.strip_prefix(prefix)
                    && let Some(found) = state.tensor(*part, name).map_err(io::Error::other)?
                {
                    return Ok(found);
                }
            }
            Err(io::Error::other(format!("there is no tensor `{name}`")))
        };
        self.write(name, |mut out| safetensors::write_each(&mut out, &shapes, dtype, make))
    }

    /// The checksums go last; then the directories' own entries are synced.
    pub(super) fn finish(mut self) -> Result<(), CheckpointError> {
        let sums = std::mem::take(&mut self.sums);
        self.json(names::CHECKSUMS, &sums)?;
        let state = self.root.join("state");
        if state.is_dir() {
            sync_dir(&state)?;
        }
        sync_dir(self.root)
    }
}

fn sync_dir(dir: &Path) -> Result<(), CheckpointError> {
    whole::sync_dir(dir).map_err(CheckpointError::io("sync", dir))
}

/// What is in the name of a checkpoint that is being written, of one that goes, and of one that steps aside for another.
const NEW: &str = "new";
pub(super) const OLD: &str = "old";
pub(super) const REPLACED: &str = "was";

/// Give a finished directory its name. A directory cannot be renamed over a full one, so that one
/// steps aside first; killed in between, it is put back by [`super::clean`].
fn put_in_place(aside_path: &Path, dir: &Path) -> Result<(), CheckpointError> {
    let old = aside(dir, REPLACED);
    if dir.exists() {
        fs::rename(dir, &old).map_err(CheckpointError::io("replace", dir))?;
    }
    if let Err(error) = fs::rename(aside_path, dir) {
        let _ = fs::rename(&old, dir);
        return Err(CheckpointError::io("rename", aside_path)(error));
    }
    if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        sync_dir(parent)?;
        // The series directory may be new as well.
        if let Some(above) = parent.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(above)?;
        }
    }
    if old.exists() {
        fs::remove_dir_all(&old).map_err(CheckpointError::io("remove", &old))?;
    }
    Ok(())
}
