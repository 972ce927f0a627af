//! What a run's journals say, in memory that does not grow with the run: every stage has a fixed
//! number of buckets of steps, each with the least, mean and greatest value, and exact totals.

use std::collections::BTreeMap;

use crate::plan::Plan;
use crate::plot::figure::{Look, looks};

/// Buckets of a whole run, about: more than a wide screen has room for.
const BUCKETS: u64 = 1200;
/// Measurements kept; those of a run are few, those of a damaged file could be any number.
const MEASUREMENTS: usize = 200_000;

/// One optimizer step. The names are those of `metrics.jsonl`.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The stage.
    pub stage: &'a str,
    /// Step in the stage, from 0.
    pub step: u64,
    /// Tokens of the stage seen before it.
    pub tokens: u64,
    /// Learning rate.
    pub lr: f64,
    /// Tokens in the step.
    pub batch_tokens: u64,
    /// Tokens per row.
    pub context: u64,
    /// Nats.
    pub loss: f64,
    /// Nats, for the rows of each source.
    pub loss_by_source: &'a BTreeMap<String, f64>,
    /// Before clipping.
    pub grad_norm: f64,
    /// Tokens over wall time.
    pub tokens_per_second: f64,
    /// Planned weights.
    pub mix: &'a BTreeMap<String, f64>,
    /// Rows read.
    pub rows: &'a BTreeMap<String, u64>,
    /// Whether the update was skipped.
    pub skipped: bool,
}

/// One measurement. The names are those of `evals.jsonl`.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The stage.
    pub stage: String,
    /// Steps of the stage done.
    pub step: u64,
    /// Tokens of the stage seen.
    pub tokens: u64,
    /// The `eval` block.
    pub eval: String,
    /// `loss`, `needle` or `choice`.
    pub measure: String,
    /// Source, length or task.
    pub subject: String,
    /// Nats, or a share.
    pub value: f64,
}

/// Least, mean and greatest of the finite values that went in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub low: f64,
    pub high: f64,
    sum: f64,
    count: u64,
}

impl Default for Range {
    fn default() -> Self {
        Self { low: f64::INFINITY, high: f64::NEG_INFINITY, sum: 0.0, count: 0 }
    }
}

impl Range {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.low = self.low.min(value);
            self.high = self.high.max(value);
            self.sum += value;
            self.count += 1;
        }
    }

    pub(crate) fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

/// Steps that are drawn as one point.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bucket {
    /// First step, last step, number of them.
    pub first: u64,
    pub last: u64,
    pub count: u64,
    /// Tokens of the stage before the first step and after the last.
    pub start: u64,
    pub end: u64,
    pub loss: Range,
    pub lr: Range,
    pub grad_norm: Range,
    pub tokens_per_second: Range,
    pub batch: Range,
    pub context: Range,
    /// Per look.
    pub source_loss: Vec<Range>,
    /// Tokens per look: planned, read.
    pub planned: Vec<f64>,
    pub read: Vec<f64>,
    /// Steps whose update was skipped or whose loss was no number.
    pub bad: u64,
}

/// One stage's part of the history.
#[derive(Debug, Default)]
pub(crate) struct StageHistory {
    pub buckets: Vec<Bucket>,
    /// Steps that should be there, and the buckets over them.
    steps: u64,
    /// Steps recorded, and one past the last.
    pub done: u64,
    pub next: u64,
    /// Steps that are done by the stage's last checkpoint, where that is known.
    saved: u64,
    /// Tokens of the recorded steps, and seconds they took.
    pub tokens: u64,
    pub seconds: f64,
    /// Tokens per source: planned, read.
    pub planned: BTreeMap<String, f64>,
    pub read: BTreeMap<String, u64>,
}

/// Everything the report says about what happened.
#[derive(Debug)]
pub struct History {
    pub(crate) looks: Vec<Look>,
    look_of: BTreeMap<String, usize>,
    index: BTreeMap<String, usize>,
    pub(crate) stages: Vec<StageHistory>,
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) log: Vec<String>,
    pub(crate) notes: Vec<String>,
    /// Records that could not be placed: of unknown stages, written twice.
    unknown: u64,
    repeated: u64,
}

impl History {
    /// An empty history of `plan`.
    pub fn new(plan: &Plan) -> Self {
        let looks = looks(plan);
        let look_of = looks
            .iter()
            .enumerate()
            .flat_map(|(i, l)| l.sources.iter().map(move |s| (s.clone(), i)))
            .collect();
        let total: f64 = plan.stages.iter().map(|s| s.steps as f64).sum::<f64>().max(1.0);
        let least = (BUCKETS / plan.stages.len().max(1) as u64).clamp(2, 100);
        let stages = plan.stages.iter().map(|s| {
            let share = (BUCKETS as f64 * s.steps as f64 / total) as u64;
            let count = share.max(least).min(s.steps).max(1) as usize;
            StageHistory {
                buckets: vec![Bucket::default(); count],
                steps: s.steps.max(1),
                ..Default::default()
            }
        });
        Self {
            look_of,
            index: plan.stages.iter().enumerate().map(|(i, s)| (s.name.clone(), i)).collect(),
            stages: stages.collect(),
            looks,
            measurements: Vec::new(),
            log: Vec::new(),
            notes: Vec::new(),
            unknown: 0,
            repeated: 0,
        }
    }

    /// Take in the next line of `metrics.jsonl`.
    pub fn step(&mut self, step: Step<'_>) {
        let Some(stage) = self.index.get(step.stage).and_then(|i| self.stages.get_mut(*i)) else {
            self.unknown += 1;
            return;
        };
        if step.step < stage.next {
            self.repeated += 1;
            return;
        }
        let count = stage.buckets.len();
        let at = (u128::from(step.step) * count as u128 / u128::from(stage.steps)) as usize;
        let bucket = &mut stage.buckets[at.min(count - 1)];
        if bucket.count == 0 {
            bucket.first = step.step;
            bucket.start = step.tokens;
            bucket.source_loss = vec![Range::default(); self.looks.len()];
            bucket.planned = vec![0.0; self.looks.len()];
            bucket.read = vec![0.0; self.looks.len()];
        }
        bucket.last = step.step;
        bucket.count += 1;
        bucket.end = step.tokens.saturating_add(step.batch_tokens);
        bucket.loss.add(step.loss);
        bucket.lr.add(step.lr);
        bucket.grad_norm.add(step.grad_norm);
        bucket.tokens_per_second.add(step.tokens_per_second);
        bucket.batch.add(step.batch_tokens as f64);
        bucket.context.add(step.context as f64);
        bucket.bad += u64::from(step.skipped || !step.loss.is_finite());
        for (source, loss) in step.loss_by_source {
            if let Some(look) = self.look_of.get(source) {
                bucket.source_loss[*look].add(*loss);
            }
        }
        for (source, weight) in step.mix {
            let tokens = weight * step.batch_tokens as f64;
            if let Some(look) = self.look_of.get(source)
                && tokens.is_finite()
            {
                bucket.planned[*look] += tokens;
                *stage.planned.entry(source.clone()).or_default() += tokens;
            }
        }
        for (source, rows) in step.rows {
            let tokens = rows.saturating_mul(step.context);
            if let Some(look) = self.look_of.get(source) {
                bucket.read[*look] += tokens as f64;
                let sum = stage.read.entry(source.clone()).or_default();
                *sum = sum.saturating_add(tokens);
            }
        }
        stage.done += 1;
        stage.next = step.step.saturating_add(1);
        stage.tokens = stage.tokens.saturating_add(step.batch_tokens);
        if step.tokens_per_second > 0.0 && step.tokens_per_second.is_finite() {
            stage.seconds += step.batch_tokens as f64 / step.tokens_per_second;
        }
    }

    /// Take in the next line of `evals.jsonl`.
    pub fn measure(&mut self, measurement: Measurement) {
        if !self.index.contains_key(&measurement.stage) {
            self.unknown += 1;
        } else if self.measurements.len() < MEASUREMENTS {
            self.measurements.push(measurement);
        }
    }

    /// Take in the next line of `log.txt`.
    pub fn log(&mut self, line: String) {
        self.log.push(line);
    }

    /// The last checkpoint of a stage was written after so many steps.
    pub fn saved(&mut self, stage: &str, steps: u64) {
        if let Some(stage) = self.index.get(stage).and_then(|i| self.stages.get_mut(*i)) {
            stage.saved = stage.saved.max(steps);
        }
    }

    /// Something the reader of the report must know about its sources.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// What is odd about the records, in sentences.
    pub(crate) fn oddities(&self) -> Vec<String> {
        let mut odd = self.notes.clone();
        let say = |n: u64, one: &str, many: &str| match n {
            0 => None,
            1 => Some(format!("1 record {one}.")),
            n => Some(format!("{n} records {many}.")),
        };
        odd.extend(say(
            self.unknown,
            "names a stage that the plan has not, and is left out",
            "name stages that the plan has not, and are left out",
        ));
        odd.extend(say(
            self.repeated,
            "is of a step that was recorded before, and is left out",
            "are of steps that were recorded before, and are left out",
        ));
        let missing: u64 = self.stages.iter().map(|s| s.next.saturating_sub(s.done)).sum();
        if missing > 0 {
            odd.push(format!("{missing} steps between recorded ones have no record."));
        }
        let lost: u64 = self.stages.iter().map(|s| s.saved.saturating_sub(s.next)).sum();
        if lost > 0 {
            odd.push(format!(
                "{lost} steps before the last checkpoints, behind the recorded ones, have no record."
            ));
        }
        odd
    }

    /// Steps with a skipped update or a loss that is no number.
    pub(crate) fn bad(&self) -> u64 {
        self.stages.iter().flat_map(|s| &s.buckets).map(|b| b.bad).sum()
    }

    /// Measurements of a stage, in the order taken.
    pub(crate) fn of<'a>(
        &'a self,
        stage: &'a str,
        measure: &'a str,
    ) -> impl Iterator<Item = &'a Measurement> {
        self.measurements.iter().filter(move |m| m.stage == stage && m.measure == measure)
    }
}
