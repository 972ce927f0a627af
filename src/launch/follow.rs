//! The logs an engine's processes write, step by step, as records of `metrics.jsonl`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::LaunchError;
use crate::emit::verify::{LogLine, PlannedRow, StepRows};
use crate::plan::{StagePlan, file_name};
use crate::runtime::journal::StepRecord;

/// Takes each record as it becomes complete.
type Append<'a> = dyn FnMut(StepRecord) -> Result<(), LaunchError> + 'a;

/// Reads the logs of one stage.
pub(super) struct Follower<'a> {
    stage: &'a StagePlan,
    rows: Vec<PlannedRow>,
    folder: PathBuf,
    /// The files that were there before; a runner that starts puts new ones in their place.
    before: Vec<u64>,
    ranks: Vec<RankLog>,
    /// Lines that wait for those of other processes.
    waiting: BTreeMap<u64, Vec<LogLine>>,
    /// The first step that has no record yet.
    next: u64,
}

/// One process's log, read as far as it goes.
struct RankLog {
    path: PathBuf,
    file: File,
    /// The beginning of a line.
    rest: Vec<u8>,
    lines: u64,
}

impl<'a> Follower<'a> {
    /// `rows` are the stage's in their order; `folder` is the launch's `logs`.
    pub(super) fn new(stage: &'a StagePlan, rows: Vec<PlannedRow>, folder: &Path) -> Self {
        let mut follower = Self {
            stage,
            rows,
            folder: folder.to_owned(),
            before: Vec::new(),
            ranks: Vec::new(),
            waiting: BTreeMap::new(),
            next: 0,
        };
        follower.before = (0..).map_while(|rank| identity(&follower.path(rank))).collect();
        follower
    }

    fn path(&self, rank: usize) -> PathBuf {
        self.folder.join(format!("{}.rank{rank}.jsonl", file_name(&self.stage.name)))
    }

    /// Steps with records so far.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Read what is new and hand on the steps it completes.
    pub(super) fn poll(&mut self, append: &mut Append<'_>) -> Result<(), LaunchError> {
        self.open(false)?;
        self.read()?;
        while self.waiting.get(&self.next).is_some_and(|lines| self.complete(lines)) {
            self.hand_on(append)?;
        }
        Ok(())
    }

    /// Read to the end and hand on what there is: after the processes, nothing more comes.
    pub(super) fn finish(&mut self, append: &mut Append<'_>) -> Result<(), LaunchError> {
        self.poll(append)?;
        // A runner that ended before it began a log leaves the earlier one as the truth.
        self.open(true)?;
        self.read()?;
        while self.waiting.contains_key(&self.next) {
            self.hand_on(append)?;
        }
        Ok(())
    }

    /// Take up logs that have appeared; also those of an earlier attempt with `earlier`, unless this one
    /// has begun its own.
    fn open(&mut self, earlier: bool) -> Result<(), LaunchError> {
        loop {
            let rank = self.ranks.len();
            let path = self.path(rank);
            let Some(found) = identity(&path) else { return Ok(()) };
            if !earlier && self.before.get(rank) == Some(&found) {
                return Ok(());
            }
            let file = File::open(&path).map_err(LaunchError::io("open", &path))?;
            self.ranks.push(RankLog { path, file, rest: Vec::new(), lines: 0 });
        }
    }

    fn read(&mut self) -> Result<(), LaunchError> {
        for log in &mut self.ranks {
            log.file.read_to_end(&mut log.rest).map_err(LaunchError::io("read", &log.path))?;
            let Some(end) = log.rest.iter().rposition(|b| *b == b'\n') else { continue };
            let rest = log.rest.split_off(end + 1);
            let whole = std::mem::replace(&mut log.rest, rest);
            for line in whole.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
                log.lines += 1;
                let (path, number) = (log.path.clone(), log.lines);
                let line: LogLine = serde_json::from_slice(line).map_err(|source| LaunchError::Log {
                    path,
                    line: number,
                    source,
                })?;
                if line.step >= self.next {
                    self.waiting.entry(line.step).or_default().push(line);
                }
            }
        }
        Ok(())
    }

    /// Whether every row of the step has been logged, by however many processes.
    fn complete(&self, lines: &[LogLine]) -> bool {
        let rows: usize = lines.iter().map(|l| l.rows.len()).sum();
        rows as u64 >= self.stage.step_point(self.next).sequences
    }

    fn hand_on(&mut self, append: &mut Append<'_>) -> Result<(), LaunchError> {
        let lines = self.waiting.remove(&self.next).unwrap_or_default();
        let from = self.stage.rows_before(self.next) as usize;
        let to = self.stage.rows_before(self.next + 1) as usize;
        let record = record(self.stage, self.rows.get(from..to).unwrap_or_default(), self.next, &lines);
        self.next += 1;
        append(record)
    }
}

/// Which file it is; `None` where there is none.
fn identity(path: &Path) -> Option<u64> {
    let about = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let number = std::os::unix::fs::MetadataExt::ino(&about);
    #[cfg(not(unix))]
    let number = about.len();
    Some(number)
}

/// One step from the lines of all processes and the rows that the plan has in it.
fn record(stage: &StagePlan, planned: &[PlannedRow], step: u64, lines: &[LogLine]) -> StepRecord {
    let point = stage.step_point(step);
    let batch_tokens = point.sequences * point.context;
    let mut rows: BTreeMap<String, u64> = stage.mix.iter().map(|m| (m.source.clone(), 0)).collect();
    let mut sums: BTreeMap<String, (f64, u64)> = BTreeMap::new();
    let mut left = StepRows::new(planned);
    for line in lines {
        for (i, crc) in line.rows.iter().enumerate() {
            // Rows of no plan are for `midc verify` to name.
            let Some(source) = left.take(*crc) else { continue };
            *rows.entry(source.to_owned()).or_default() += 1;
            if let (Some(nll), Some(targets)) = (line.nll.get(i), line.targets.get(i)) {
                let sum = sums.entry(source.to_owned()).or_default();
                sum.0 += nll.unwrap_or(f64::NAN);
                sum.1 += targets;
            }
        }
    }
    let first = lines.first();
    let of = |value: fn(&LogLine) -> Option<f64>| first.and_then(value).unwrap_or(f64::NAN);
    let (loss, grad_norm) = (of(|l| l.loss), of(|l| l.grad_norm));
    let seconds = lines.iter().filter_map(|l| l.seconds).fold(0.0, f64::max);
    StepRecord {
        stage: stage.name.clone(),
        step,
        tokens: point.tokens,
        lr: first.map_or(f64::NAN, |l| l.lr),
        batch_tokens,
        context: point.context,
        loss,
        loss_by_source: sums
            .into_iter()
            .filter(|(_, s)| s.1 > 0)
            .map(|(n, s)| (n, s.0 / s.1 as f64))
            .collect(),
        grad_norm,
        gns: None,
        tokens_per_second: if seconds > 0.0 { batch_tokens as f64 / seconds } else { 0.0 },
        data_seconds: None,
        mfu: None,
        mix: stage.mix.iter().map(|m| (m.source.clone(), m.weight.value(point.tokens))).collect(),
        rows,
        skipped: !loss.is_finite(),
    }
}
