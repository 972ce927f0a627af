//! Holds the logs of an engine against `expected.json` and the exported rows. Pure: contents in,
//! differences out.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{ExpectedRope, ExpectedStage};
use crate::rope;

/// A line of `logs/STAGE.rankR.jsonl`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct LogLine {
    /// Step, from 0.
    pub step: u64,
    /// Learning rate the optimizer used.
    pub lr: f64,
    /// CRC-32 of each row this process read.
    pub rows: Vec<u32>,
    /// Mean loss over the targets of the step, all processes together; `null` where it is no number.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Gradient norm before clipping.
    #[serde(default)]
    pub grad_norm: Option<f64>,
    /// Wall time since the step before.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Of each row in `rows`: negative log-likelihood summed over its targets.
    #[serde(default)]
    pub nll: Vec<Option<f64>>,
    /// Of each row in `rows`: number of its targets.
    #[serde(default)]
    pub targets: Vec<u64>,
}

/// A row of the plan: CRC-32 and source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedRow {
    /// Of its bytes in `tokens.bin`.
    pub crc: u32,
    /// Name of its source.
    pub source: String,
}

/// What was compared in a stage, and what differed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Steps that were compared.
    pub steps: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// Largest relative difference of a learning rate.
    pub lr_error: f64,
    /// Sentences on what differs.
    pub problems: Vec<String>,
    /// Gates of the stage, which the engine did not judge.
    pub unjudged: Vec<String>,
}

/// Largest allowed difference of a learning rate, relative.
pub const LR_TOLERANCE: f64 = 1e-12;
/// Of a RoPE frequency, relative: readers compute in f32.
pub const ROPE_TOLERANCE: f64 = 1e-6;

/// Sentences of one sort before the rest is counted.
const SHOWN: usize = 3;

/// The rows of one step that are still to be read. Rows of the whole stage cannot be told apart by their checksums,
/// of which two are the same among some ten thousands; those of a step can.
#[derive(Debug)]
pub struct StepRows<'a>(BTreeMap<u32, Vec<&'a str>>);

impl<'a> StepRows<'a> {
    /// Those that the plan has in the step.
    pub fn new(planned: &'a [PlannedRow]) -> Self {
        let mut by_checksum: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        for row in planned {
            by_checksum.entry(row.crc).or_default().push(&row.source);
        }
        Self(by_checksum)
    }

    /// The source of a row that was read; `None` when the step has it not, or not once more.
    pub fn take(&mut self, crc: u32) -> Option<&'a str> {
        self.0.get_mut(&crc)?.pop()
    }

    /// How many are left.
    fn left(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// Compare the logs of a stage, one list of lines per process, with the plan. Without its `rows` only steps and
/// learning rates can be.
pub fn stage(expected: &ExpectedStage, ranks: &[Vec<LogLine>], rows: Option<&[PlannedRow]>) -> Report {
    let mut report = Report { unjudged: expected.gates.clone(), ..Report::default() };
    let mut problems = Problems::default();
    if ranks.is_empty() {
        report.problems.push("there are no logs".to_owned());
        return report;
    }
    let by_step: Vec<BTreeMap<u64, &LogLine>> =
        ranks.iter().map(|lines| lines.iter().map(|line| (line.step, line)).collect()).collect();
    // Where a row is from that the plan has in another step.
    let sources: BTreeMap<u32, &str> =
        rows.unwrap_or_default().iter().map(|r| (r.crc, r.source.as_str())).collect();
    let mut next = 0usize;
    for phase in &expected.phases {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for step in phase.from..phase.to {
            let mut read: Vec<u32> = Vec::new();
            for (rank, lines) in by_step.iter().enumerate() {
                let Some(line) = lines.get(&step) else {
                    // Others may come and go with the number of processes; their rows are missed below.
                    if rank == 0 {
                        problems.add("log", format!("process {rank} logged no step {step}"));
                    }
                    continue;
                };
                let wanted = expected.lr.at(step);
                let error = (line.lr - wanted).abs() / wanted.abs().max(f64::MIN_POSITIVE);
                if line.lr != wanted {
                    report.lr_error = report.lr_error.max(error);
                }
                if line.lr != wanted && (error > LR_TOLERANCE || !error.is_finite()) {
                    problems.add(
                        "learning rate",
                        format!(
                            "step {step} used the learning rate {:e} on process {rank}, not {wanted:e}",
                            line.lr
                        ),
                    );
                }
                read.extend(&line.rows);
            }
            report.steps += 1;
            let Some(rows) = rows else { continue };
            report.rows += read.len() as u64;
            let planned = rows.get(next..next + phase.rows_per_step as usize).unwrap_or_default();
            next += phase.rows_per_step as usize;
            let mut left = StepRows::new(planned);
            let mut more = 0;
            for crc in read {
                let source = left.take(crc).unwrap_or_else(|| {
                    more += 1;
                    sources.get(&crc).copied().unwrap_or("unknown rows")
                });
                *counts.entry(source).or_default() += 1;
            }
            if more > 0 || left.left() > 0 {
                let text = format!(
                    "step {step} read {more} rows that the plan has elsewhere or not at all, and left out {} of its {}",
                    left.left(),
                    planned.len()
                );
                problems.add("rows", text);
            }
        }
        if let Some(wanted) = phase.rows.as_ref().filter(|_| rows.is_some()) {
            let span = format!("steps {} to {}", phase.from, phase.to - 1);
            for (source, wanted) in wanted {
                let found = counts.remove(source.as_str()).unwrap_or_default();
                if found != *wanted {
                    let text = format!("{span} read {found} rows of `{source}`, not {wanted}");
                    problems.add("mixture", text);
                }
            }
            for (source, found) in counts.into_iter().filter(|(_, n)| *n > 0) {
                problems.add("mixture", format!("{span} read {found} rows of `{source}`, not 0"));
            }
        }
    }
    for (rank, lines) in ranks.iter().enumerate() {
        if lines.len() as u64 > expected.steps {
            let text = format!("process {rank} logged {} steps, not {}", lines.len(), expected.steps);
            problems.add("log", text);
        } else if let Some(pair) = lines.windows(2).find(|pair| pair[0].step >= pair[1].step) {
            let text = format!("process {rank} logged step {} after step {}", pair[1].step, pair[0].step);
            problems.add("log", text);
        }
    }
    report.problems = problems.into_sentences();
    report
}

/// What differs between the RoPE of an exported `config.json` and the plan's.
pub fn exported_rope(
    expected: &ExpectedRope,
    context: u64,
    head_dim: Option<usize>,
    config: &Map<String, Value>,
) -> Vec<String> {
    let whole = |key: &str| config.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let of_config = whole("head_dim")
        .or_else(|| Some(whole("hidden_size")? / whole("num_attention_heads").filter(|n| *n > 0)?));
    let found = match rope::from_hf(config) {
        Ok(found) => found,
        Err(error) => return vec![format!("the exported configuration cannot be read: {error}")],
    };
    let Some(head_dim) = of_config.or(head_dim) else {
        return vec!["the exported configuration does not say how wide a head is".to_owned()];
    };
    let found = rope::inv_freq(head_dim, found.theta, &found.scaling, context);
    let mut problems = Vec::new();
    if !expected.inv_freq.is_empty() {
        let same = expected.inv_freq.len() == found.inv_freq.len();
        let pairs = expected.inv_freq.iter().zip(&found.inv_freq);
        let worst = pairs.map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f64::max);
        if !same || worst > ROPE_TOLERANCE {
            problems.push(format!(
                "the RoPE of the exported configuration differs from the plan's by {worst:.1e} (relative)"
            ));
        }
    }
    let error = (found.attention_factor - expected.attention_factor).abs();
    if error > ROPE_TOLERANCE {
        problems.push(format!(
            "the exported configuration has the attention factor {}, not {}",
            found.attention_factor, expected.attention_factor
        ));
    }
    problems
}

/// Sentences by sort, the first few of each and how many more.
#[derive(Default)]
struct Problems(BTreeMap<&'static str, (Vec<String>, usize)>);

impl Problems {
    fn add(&mut self, sort: &'static str, text: String) {
        let (shown, more) = self.0.entry(sort).or_default();
        if shown.len() < SHOWN { shown.push(text) } else { *more += 1 }
    }

    fn into_sentences(self) -> Vec<String> {
        let mut out = Vec::new();
        for (sort, (shown, more)) in self.0 {
            out.extend(shown);
            if more > 0 {
                out.push(format!("… and {more} more about the {sort}"));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::{ExpectedPhase, Runs};

    fn row(crc: u32, source: &str) -> PlannedRow {
        PlannedRow { crc, source: source.into() }
    }

    fn line(step: u64, lr: f64, rows: &[u32]) -> LogLine {
        let rows = rows.to_vec();
        LogLine {
            step,
            lr,
            rows,
            loss: None,
            grad_norm: None,
            seconds: None,
            nll: Vec::new(),
            targets: Vec::new(),
        }
    }

    fn expected() -> ExpectedStage {
        ExpectedStage {
            stage: "main".into(),
            name: "main".into(),
            steps: 2,
            lr: Runs(vec![(0, 1e-3)]),
            phases: vec![ExpectedPhase {
                from: 0,
                to: 2,
                rows_per_step: 2,
                context: 8,
                rows: Some(BTreeMap::from([("code".into(), 2), ("web".into(), 2)])),
            }],
            rope: None,
            context: 8,
            head_dim: None,
            gates: Vec::new(),
        }
    }

    #[test]
    fn rows_of_two_sources_may_have_one_checksum() {
        let rows = [row(7, "web"), row(1, "code"), row(7, "code"), row(2, "web")];
        let logs = |last: u32| vec![vec![line(0, 1e-3, &[1, 7]), line(1, 1e-3, &[7, last])]];
        assert_eq!(stage(&expected(), &logs(2), Some(&rows)).problems, Vec::<String>::new());
        // The last row of the stage read as the first one again, which a step before it has.
        let found = stage(&expected(), &logs(7), Some(&rows)).problems;
        assert!(found.iter().any(|p| p.contains("read 1 rows that the plan has elsewhere")), "{found:?}");
    }

    #[test]
    fn learning_rates_are_held_without_the_rows() {
        let logs = |lr: f64| vec![vec![line(0, 1e-3, &[1, 7]), line(1, lr, &[3, 2])]];
        assert_eq!(stage(&expected(), &logs(1e-3), None).problems, Vec::<String>::new());
        let found = stage(&expected(), &logs(2e-3), None).problems;
        assert_eq!(found, ["step 1 used the learning rate 2e-3 on process 0, not 1e-3"]);
    }
}
