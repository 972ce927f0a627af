//! `metrics.jsonl` and `evals.jsonl`: append-only files of one JSON object a line that can be cut
//! back to a checkpoint, so that a resumed run writes what the uninterrupted run would have.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize};

use crate::runtime::run_dir::{RunDirError, write_whole};

/// One optimizer step, as written to `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The stage.
    pub stage: String,
    /// Step in the stage, from 0.
    pub step: u64,
    /// Tokens of the stage seen before the step.
    pub tokens: u64,
    /// Learning rate of the step.
    #[serde(deserialize_with = "null_is_nan")]
    pub lr: f64,
    /// Tokens in the step.
    pub batch_tokens: u64,
    /// Tokens per row.
    pub context: u64,
    /// Mean negative log-likelihood over predicted positions, nats; `null` where there are none.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// The same for the rows of each source; absent sources had no row in the step.
    #[serde(deserialize_with = "nulls_are_nan")]
    pub loss_by_source: BTreeMap<String, f64>,
    /// Global gradient norm before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Gradient noise scale in tokens, in the steps where it was estimated.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gns: Option<f64>,
    /// Tokens of the step over its wall time.
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_second: f64,
    /// Of the step's wall time, seconds in which its rows were drawn and packed and nothing trained; absent
    /// where another engine reads the rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data_seconds: Option<f64>,
    /// Model FLOPs over the peak of the device; `null` where no peak is known.
    pub mfu: Option<f64>,
    /// Planned weights at the step.
    #[serde(deserialize_with = "nulls_are_nan")]
    pub mix: BTreeMap<String, f64>,
    /// Rows of the step by source.
    pub rows: BTreeMap<String, u64>,
    /// Whether the update was skipped: loss or gradient were not finite, or no token carried loss.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub skipped: bool,
}

/// One measurement, as written to `evals.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// The stage.
    pub stage: String,
    /// Steps of the stage done when it was taken.
    pub step: u64,
    /// Tokens of the stage seen.
    pub tokens: u64,
    /// Name of the `eval` block.
    pub eval: String,
    /// `loss`, `position`, `needle`, `choice` or `choice_norm`, the accuracy by log-likelihood per character.
    pub measure: String,
    /// Source, range of positions, length or task it speaks of.
    pub subject: String,
    /// The value: nats, or a share.
    #[serde(deserialize_with = "null_is_nan")]
    pub value: f64,
    /// Positions, needles or questions it was taken over.
    pub count: u64,
}

/// JSON has no NaN; serde_json writes `null` for it.
fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// [`null_is_nan`] for each value of a map.
fn nulls_are_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let values = BTreeMap::<String, Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|(name, value)| (name, value.unwrap_or(f64::NAN))).collect())
}

/// What places a record in the run.
pub trait Placed: Serialize + for<'a> Deserialize<'a> {
    /// Stage, and steps of it that must be done for the record to exist.
    fn place(&self) -> (&str, u64);
}

impl Placed for StepRecord {
    fn place(&self) -> (&str, u64) {
        (&self.stage, self.step + 1)
    }
}

impl Placed for EvalRecord {
    fn place(&self) -> (&str, u64) {
        (&self.stage, self.step)
    }
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    damaged: u64,
}

impl Journal {
    /// Open for appending, keeping of what is there the records for which `keep(stage, steps)` holds. A
    /// half-written last line, as a kill leaves it, is dropped. So are lines that are damaged otherwise;
    /// [`Journal::damaged`] counts them.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn open<R: Placed>(
        path: &Path,
        mut keep: impl FnMut(&str, u64) -> bool,
    ) -> Result<Self, RunDirError> {
        let mut damaged = 0;
        if path.exists() {
            let mut kept = Vec::new();
            damaged = lines(path, |line, record: R| {
                let (stage, steps) = record.place();
                if keep(stage, steps) {
                    kept.extend_from_slice(line.trim_ascii_end());
                    kept.push(b'\n');
                }
            })?;
            write_whole(path, &kept)?;
        }
        let file =
            OpenOptions::new().create(true).append(true).open(path).map_err(RunDirError::io("open", path))?;
        Ok(Self { path: path.to_path_buf(), file, damaged })
    }

    /// How many lines were no records when it was opened; they are gone.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Append one record as one write.
    ///
    /// # Errors
    /// [`RunDirError::Io`], on a full disk for example.
    pub fn append<R: Placed>(&mut self, record: &R) -> Result<(), RunDirError> {
        let write = || -> std::io::Result<Vec<u8>> {
            let mut line = serde_json::to_vec(record)?;
            line.push(b'\n');
            Ok(line)
        };
        let line = write().map_err(RunDirError::io("write", &self.path))?;
        self.file.write_all(&line).map_err(RunDirError::io("write", &self.path))
    }

    /// Force what was appended to the disk; called before a checkpoint that implies it.
    ///
    /// # Errors
    /// [`RunDirError::Io`].
    pub fn sync(&self) -> Result<(), RunDirError> {
        self.file.sync_data().map_err(RunDirError::io("write", &self.path))
    }
}

/// Which steps of the stages have records, seen one after the other.
#[derive(Debug, Default)]
pub struct Recorded(BTreeMap<String, (u64, u64)>);

impl Recorded {
    /// There is a record of `step`.
    pub fn see(&mut self, stage: &str, step: u64) {
        let (next, missing) = self.0.entry(stage.to_owned()).or_default();
        *missing += step.saturating_sub(*next);
        *next = (step + 1).max(*next);
    }

    /// How many of the first `steps` steps of a stage have none.
    pub fn missing(&self, stage: &str, steps: u64) -> u64 {
        let (next, missing) = self.0.get(stage).copied().unwrap_or_default();
        missing + steps.saturating_sub(next)
    }
}

/// Hand every readable record of a journal to `each`, one at a time, and give the number of lines
/// that are no record. None and 0 if the file does not exist. A last line without its end is a record
/// still being written and does not count as damage.
///
/// # Errors
/// [`RunDirError::Io`].
pub fn scan<R: Placed>(path: &Path, mut each: impl FnMut(R)) -> Result<u64, RunDirError> {
    lines(path, |_, record| each(record))
}

/// [`scan`] with the line of each record.
fn lines<R: Placed>(path: &Path, mut each: impl FnMut(&[u8], R)) -> Result<u64, RunDirError> {
    if !path.exists() {
        return Ok(0);
    }
    let mut file = BufReader::new(File::open(path).map_err(RunDirError::io("read", path))?);
    let (mut line, mut damaged) = (Vec::new(), 0);
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line).map_err(RunDirError::io("read", path))? == 0 {
            return Ok(damaged);
        }
        match serde_json::from_slice(&line) {
            Ok(record) => each(&line, record),
            Err(_) if !line.ends_with(b"\n") || line.trim_ascii().is_empty() => {}
            Err(_) => damaged += 1,
        }
    }
}

/// Read all readable records of a journal; none if the file does not exist.
///
/// # Errors
/// [`RunDirError::Io`].
pub fn read<R: Placed>(path: &Path) -> Result<Vec<R>, RunDirError> {
    let mut records = Vec::new();
    scan(path, |record| records.push(record))?;
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(stage: &str, step: u64) -> EvalRecord {
        EvalRecord {
            stage: stage.into(),
            step,
            tokens: step * 10,
            eval: "e".into(),
            measure: "loss".into(),
            subject: "web".into(),
            value: 1.5,
            count: 3,
        }
    }

    /// A skipped step is read back as it was written, and its line stays as it is.
    #[test]
    fn numbers_that_are_none_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let skipped = StepRecord {
            stage: "a".into(),
            step: 3,
            tokens: 30,
            lr: f64::NAN,
            batch_tokens: 10,
            context: 5,
            loss: f64::NAN,
            loss_by_source: BTreeMap::from([("web".into(), f64::NAN), ("code".into(), 1.5)]),
            grad_norm: f64::INFINITY,
            gns: Some(f64::NAN),
            tokens_per_second: f64::INFINITY,
            data_seconds: Some(f64::NAN),
            mfu: Some(f64::NAN),
            mix: BTreeMap::from([("web".into(), f64::NAN)]),
            rows: BTreeMap::from([("web".into(), 2)]),
            skipped: true,
        };
        let mut journal = Journal::open::<StepRecord>(&path, |_, _| true).unwrap();
        journal.append(&skipped).unwrap();
        let written = std::fs::read(&path).unwrap();
        assert_eq!(Journal::open::<StepRecord>(&path, |_, _| true).unwrap().damaged(), 0);
        assert_eq!(std::fs::read(&path).unwrap(), written);
        let back = read::<StepRecord>(&path).unwrap().remove(0);
        assert!(back.loss_by_source["web"].is_nan() && back.mix["web"].is_nan() && back.lr.is_nan());
        assert_eq!((back.loss_by_source["code"], back.skipped, back.step), (1.5, true, 3));
    }

    #[test]
    fn reopening_cuts_back_and_drops_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evals.jsonl");
        let mut journal = Journal::open::<EvalRecord>(&path, |_, _| true).unwrap();
        for step in 0..5 {
            journal.append(&record("a", step)).unwrap();
        }
        drop(journal);
        let mut torn = std::fs::read(&path).unwrap();
        torn.truncate(torn.len() - 7);
        std::fs::write(&path, torn).unwrap();
        let mut journal = Journal::open::<EvalRecord>(&path, |_, steps| steps <= 2).unwrap();
        journal.append(&record("a", 3)).unwrap();
        let mut scanned = Vec::new();
        assert_eq!(scan(&path, |r: EvalRecord| scanned.push(r.step)).unwrap(), 0);
        assert_eq!(scanned, [0, 1, 2, 3]);
        let steps: Vec<u64> = read::<EvalRecord>(&path).unwrap().iter().map(|r| r.step).collect();
        assert_eq!(steps, [0, 1, 2, 3]);
    }

    #[test]
    fn reopening_keeps_what_follows_a_damaged_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evals.jsonl");
        let line = |step| serde_json::to_string(&record("a", step)).unwrap();
        std::fs::write(&path, format!("{}\n{{\"stage\":\n\n{}\n{}\n", line(1), line(2), line(9))).unwrap();
        let mut journal = Journal::open::<EvalRecord>(&path, |_, steps| steps <= 3).unwrap();
        assert_eq!(journal.damaged(), 1);
        journal.append(&record("a", 3)).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            [line(1), line(2), line(3), String::new()].join("\n")
        );
        let steps: Vec<u64> = read::<EvalRecord>(&path).unwrap().iter().map(|r| r.step).collect();
        assert_eq!(steps, [1, 2, 3]);
    }

    #[test]
    fn steps_without_a_record_are_counted() {
        let mut recorded = Recorded::default();
        assert_eq!((recorded.missing("a", 0), recorded.missing("a", 24)), (0, 24));
        for step in [0, 1, 4, 5, 9, 9] {
            recorded.see("a", step);
        }
        recorded.see("b", 0);
        assert_eq!((recorded.missing("a", 10), recorded.missing("a", 12)), (5, 7));
        assert_eq!(recorded.missing("b", 1), 0);
    }

    #[test]
    fn scanning_goes_on_after_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evals.jsonl");
        let line = |step| serde_json::to_string(&record("a", step)).unwrap();
        let half = &line(2)[..20];
        std::fs::write(&path, format!("{}\n{half}\n\u{0}\u{0}\n\n{}\n{half}", line(1), line(3))).unwrap();
        let mut steps = Vec::new();
        assert_eq!(scan(&path, |r: EvalRecord| steps.push(r.step)).unwrap(), 2);
        assert_eq!(steps, [1, 3]);
        assert_eq!(scan(&dir.path().join("none"), |_: EvalRecord| ()).unwrap(), 0);
    }
}
