//! The planned rows of stages as files, for engines other than midc's own: every row of every step
//! in order, so that reading them from the front is following the plan.
//!
//! ```text
//! DIR/STAGE/tokens.bin   the rows end to end, u16 or u32 little-endian
//!           targets.bin  a byte per token: 1 where it is predicted by the one before it
//!           starts.bin   a byte per token: 1 where a document begins that sees nothing before it
//!           index.bin    per row two u32: CRC-32 of its bytes in tokens.bin, number of its source
//!           rows.json    what the others hold; written last
//! ```
//! `targets.bin` and `starts.bin` are there only where some row differs from one document whose every
//! token but the first is predicted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Corpus, DataError, Mixer, Progress, SamplerState, StageSampler, quantise};
use crate::plan::{FromKind, Plan, StagePlan, file_name, first_version};
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::whole;

/// `rows.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowSet {
    /// Format version, 1.
    #[serde(deserialize_with = "first_version")]
    pub v: u32,
    /// Hash of the plan the rows are of.
    pub plan: String,
    /// The stage.
    pub stage: String,
    /// `uint16` or `uint32`.
    pub dtype: String,
    /// Rows in the files.
    pub rows: u64,
    /// Tokens in the files.
    pub tokens: u64,
    /// End-of-sequence token.
    pub eos: u32,
    /// Names behind the numbers of `index.bin`.
    pub sources: Vec<String>,
    /// Whether there are `targets.bin` and `starts.bin`.
    pub marks: bool,
}

/// The source of every row of every step of `stage`, in order, as numbers of its mixture: what the
/// sampler will draw, which depends on the plan alone.
///
/// # Errors
/// Weights that are no shares.
pub fn planned_rows(stage: &StagePlan) -> Result<Vec<Vec<u32>>, DataError> {
    let shape = |step: u64| {
        let point = stage.step_point(step);
        let weights: Vec<f64> = stage.mix.iter().map(|m| m.weight.value(point.tokens)).collect();
        Ok((point, quantise(&weights)?))
    };
    let mut mixer = Mixer::new(stage.mix.len());
    (0..stage.steps)
        .map(|step| {
            let (point, weights) = shape(step)?;
            let mut later =
                |n: u64| if step + n < stage.steps { shape(step + n).map(Some) } else { Ok(None) };
            mixer.assign(point, &weights, &mut later)
        })
        .collect()
}

/// Write the rows of every stage of `plan` below `dir`. `corpora` are the sources per root model.
///
/// # Errors
/// A source is used up, or the machine refuses.
pub fn export(
    plan: &Plan,
    corpora: &BTreeMap<String, Corpus>,
    dir: &Path,
    progress: &dyn Progress,
) -> Result<Vec<RowSet>, DataError> {
    let broken = |stage: &StagePlan| {
        DataError::Request(format!("the plan does not hold what stage `{}` starts from", stage.name))
    };
    // Where the reading stands after a stage, or at a point that others start from.
    let mut states: BTreeMap<String, SamplerState> = BTreeMap::new();
    let mut sets = Vec::with_capacity(plan.stages.len());
    for stage in &plan.stages {
        let (root, _) = plan.lineage(stage).ok_or_else(|| broken(stage))?;
        let corpus = corpora.get(&root.name).ok_or_else(|| broken(stage))?;
        let start = match stage.from_kind {
            FromKind::Model => Some(SamplerState::default()),
            FromKind::Stage | FromKind::Checkpoint => states.get(&stage.from).cloned(),
            FromKind::Soup => plan.soups.iter().find(|s| s.name == stage.from).and_then(|soup| {
                let mut parts = soup.ingredients.iter().map(|name| states.get(name).cloned());
                let first = parts.next()??;
                parts.try_fold(first, |merged, part| Some(merged.merged(part?)))
            }),
        };
        let mut sampler = StageSampler::new(stage, corpus, start.ok_or_else(|| broken(stage))?)?;
        let mut files = RowFiles::create(&dir.join(file_name(&stage.name)), corpus)?;
        let end = stage.step_point(stage.steps).tokens;
        progress.begin(&format!("writing the rows of `{}`", stage.name), end * files.width() as u64);
        for step in 0..stage.steps {
            let point = stage.step_point(step);
            let weights: Vec<f64> = stage.mix.iter().map(|m| m.weight.value(point.tokens)).collect();
            let batch = sampler.next(point, &weights)?;
            files.write(&batch)?;
            for checkpoint in stage.checkpoints.iter().filter(|c| c.step == step + 1) {
                states.insert(format!("{}.{}", stage.name, checkpoint.name), sampler.state());
            }
            progress.advance((batch.tokens.len() * files.width()) as u64);
        }
        states.insert(stage.name.clone(), sampler.state());
        sets.push(files.finish(plan, stage, corpus.tokenizer().eos())?);
        progress.end();
    }
    Ok(sets)
}

/// The files of one stage under way.
struct RowFiles {
    dir: PathBuf,
    wide: bool,
    tokens: BufWriter<File>,
    targets: BufWriter<File>,
    starts: BufWriter<File>,
    index: BufWriter<File>,
    rows: u64,
    written: u64,
    /// Whether some row is not one document with every target.
    marked: bool,
}

impl RowFiles {
    fn create(dir: &Path, corpus: &Corpus) -> Result<Self, DataError> {
        fs::create_dir_all(dir).map_err(DataError::io("create", dir))?;
        let manifest = dir.join("rows.json");
        if manifest.exists() {
            // What it says would not be true of half-written files.
            fs::remove_file(&manifest).map_err(DataError::io("remove", &manifest))?;
        }
        let open = |name: &str| {
            let path = dir.join(name);
            File::create(&path).map(BufWriter::new).map_err(DataError::io("create", &path))
        };
        Ok(Self {
            dir: dir.to_owned(),
            // Token files may hold ids that the tokenizer does not make.
            wide: corpus.vocab_size() > 1 << 16,
            tokens: open("tokens.bin")?,
            targets: open("targets.bin")?,
            starts: open("starts.bin")?,
            index: open("index.bin")?,
            rows: 0,
            written: 0,
            marked: false,
        })
    }

    /// Bytes of a token.
    fn width(&self) -> usize {
        if self.wide { 4 } else { 2 }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), DataError> {
        let context = batch.context;
        let mut bytes = Vec::with_capacity(context * 4);
        for (row, source) in batch.source.iter().enumerate() {
            let at = row * context..(row + 1) * context;
            bytes.clear();
            for token in &batch.tokens[at.clone()] {
                let le = token.to_le_bytes();
                bytes.extend_from_slice(if self.wide { &le } else { &le[..2] });
            }
            let of_row = &batch.targets[at.clone()];
            // A token is a target of the position before it.
            let targets: Vec<u8> = (0..context).map(|i| u8::from(i > 0 && of_row[i - 1] != IGNORE)).collect();
            let starts: Vec<u8> =
                batch.attend_from[at].iter().zip(0u32..).map(|(begin, i)| u8::from(*begin == i)).collect();
            self.marked |= targets[1..].contains(&0) || starts[1..].contains(&1);
            let mut crc = flate2::Crc::new();
            crc.update(&bytes);
            let mut entry = [0; 8];
            entry[..4].copy_from_slice(&crc.sum().to_le_bytes());
            entry[4..].copy_from_slice(&source.to_le_bytes());
            for (file, name, part) in [
                (&mut self.tokens, "tokens.bin", &bytes[..]),
                (&mut self.targets, "targets.bin", &targets[..]),
                (&mut self.starts, "starts.bin", &starts[..]),
                (&mut self.index, "index.bin", &entry[..]),
            ] {
                file.write_all(part).map_err(DataError::io("write", &self.dir.join(name)))?;
            }
            self.rows += 1;
            self.written += context as u64;
        }
        Ok(())
    }

    fn finish(self, plan: &Plan, stage: &StagePlan, eos: u32) -> Result<RowSet, DataError> {
        let Self { dir, wide, tokens, targets, starts, index, rows, written, marked } = self;
        for (mut file, name) in
            [(tokens, "tokens.bin"), (targets, "targets.bin"), (starts, "starts.bin"), (index, "index.bin")]
        {
            let path = dir.join(name);
            file.flush().and_then(|()| file.get_ref().sync_all()).map_err(DataError::io("write", &path))?;
        }
        if !marked {
            for name in ["targets.bin", "starts.bin"] {
                let path = dir.join(name);
                fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
            }
        }
        let set = RowSet {
            v: 1,
            plan: plan.hash.clone(),
            stage: stage.name.clone(),
            dtype: if wide { "uint32" } else { "uint16" }.to_owned(),
            rows,
            tokens: written,
            eos,
            sources: stage.mix.iter().map(|m| m.source.clone()).collect(),
            marks: marked,
        };
        let path = dir.join("rows.json");
        let json = serde_json::to_string_pretty(&set).map_err(|e| DataError::Request(e.to_string()))?;
        whole::write(&path, (json + "\n").as_bytes()).map_err(DataError::io("write", &path))?;
        Ok(set)
    }
}
