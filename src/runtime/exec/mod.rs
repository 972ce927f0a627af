//! `midc exec`: walks the stages of a plan, from what the run directory already holds to the end.
//!
//! A step is a pure function of the plan, the starting weights and the position in the run, so a
//! run that was killed continues from its last checkpoint as if nothing had happened; the journals
//! are cut back to that point first.

mod error;
mod gate;
mod measure;
mod memory;
mod noise;
mod not_finite;
mod observer;
mod selection;
mod soup;
mod spike;
mod stage;
mod start;
mod survey;
mod writer;

pub use error::ExecError;
pub use memory::{StageMemory, memory};
pub use observer::{Event, Observer};
pub use selection::Selection;
pub use survey::Progress;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::plan::{ModelPlan, Plan, Precision, StagePlan};
use crate::runtime::backend::cuda;
use crate::runtime::checkpoint;
use crate::runtime::data::{Corpus, OnBad};
use crate::runtime::engine::Device;
use crate::runtime::exec::writer::Writing;
use crate::runtime::journal::{self, EvalRecord, Journal, StepRecord};
use crate::runtime::run_dir::RunDir;

/// How to run a plan, beside what the plan says.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// Relative paths of the plan start here: the directory of the curriculum.
    pub base_dir: PathBuf,
    /// Where the run is kept.
    pub run_dir: PathBuf,
    /// Where tokenised text is kept between runs.
    pub cache_dir: PathBuf,
    /// Continue a run that is there.
    pub resume: bool,
    /// Where to train.
    pub device: Device,
    /// Arithmetic for stages that leave it to the device.
    pub precision: Precision,
    /// Worker threads; all cores when absent.
    pub threads: Option<usize>,
    /// Memory in bytes; when absent, what a GPU has free, and no limit on the CPU.
    pub memory: Option<u64>,
    /// What a malformed line of a data file is.
    pub on_bad: OnBad,
    /// What of the plan to run.
    pub selection: Selection,
    /// Estimate the gradient noise scale in every so many steps; never when absent. Those steps send
    /// their rows through the model in two parts, which rounds otherwise: runs compare bit for bit
    /// only with the same value.
    pub noise_every: Option<u64>,
    /// What to do about a step whose loss or gradient is not finite.
    pub on_not_finite: NotFinite,
    /// Whether a gate that does not hold ends the run; otherwise it is noted.
    pub gates_halt: bool,
}

/// What to do about a step whose loss or gradient is not finite. The update is never applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotFinite {
    /// Go on with the next step; give up after ten in a row.
    #[default]
    Skip,
    /// Go back to the last checkpoint and go on from it with the data after the step (PaLM,
    /// arXiv:2204.02311, section 5.1); give up after three times in a stage.
    Rewind,
    /// End the run.
    Stop,
}

/// How a run ended, short of an error.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// All stages are done.
    Finished(Summary),
    /// A gate did not hold; the stage's last checkpoint is kept.
    GateFailed {
        /// The stage.
        stage: String,
        /// The gate as written.
        gate: String,
        /// What was measured.
        value: f64,
        /// What it was held against.
        bound: f64,
    },
    /// Asked to stop; a checkpoint holds everything.
    Stopped {
        /// The stage it was in.
        stage: String,
        /// Steps of it that are done.
        step: u64,
    },
}

/// Held-out losses at the edges of the stages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// In order of the plan.
    pub stages: Vec<StageSummary>,
}

/// One stage's part of [`Summary`].
#[derive(Clone, Debug, PartialEq)]
pub struct StageSummary {
    /// The stage.
    pub stage: String,
    /// Steps done.
    pub steps: u64,
    /// Per source: held-out loss before and after the stage, nats per token.
    pub heldout: BTreeMap<String, (f64, f64)>,
}

/// Run `plan`. Sets nothing in the environment and writes nothing outside the run directory and
/// the cache.
///
/// # Errors
/// [`ExecError`]; what was finished is kept and `resume` continues from it.
pub fn exec(
    plan: &Plan,
    options: &ExecOptions,
    stop: &AtomicBool,
    observer: &mut dyn Observer,
) -> Result<Outcome, ExecError> {
    if let Device::Cuda(ordinal) = options.device {
        // Refused here, not after hours.
        let budget = match options.memory {
            Some(bytes) => bytes,
            None => cuda::available(ordinal)?,
        };
        memory(plan, &options.base_dir, options.device, options.precision, Some(budget))?;
    }
    let selected = options.selection.names(plan)?;
    let dir = RunDir::open(&options.run_dir, plan, options.resume)?;
    let mut progress = BTreeMap::new();
    for stage in &plan.stages {
        let stage_dir = dir.checkpoints(&stage.name);
        checkpoint::clean(&stage_dir)?;
        let latest = checkpoint::latest_valid(&stage_dir)?;
        for damaged in latest.damaged {
            let note = format!("passed over a damaged checkpoint: {damaged}");
            dir.log(&note);
            observer.on(Event::Note(&note));
        }
        let checkpoint = latest.entry.map(|e| (e.step, e.path));
        progress.insert(stage.name.clone(), Progress { checkpoint });
    }
    let done = |stage: &str, steps: u64| {
        progress.get(stage).is_some_and(|p: &Progress| p.checkpoint.is_some() && steps <= p.steps())
    };
    let metrics = Journal::open::<StepRecord>(&dir.metrics(), done)?;
    let evals = Journal::open::<EvalRecord>(&dir.evals(), done)?;
    let mut run = Run {
        plan,
        options,
        stop,
        observer,
        dir,
        progress,
        metrics,
        evals,
        corpora: BTreeMap::new(),
        peaks: BTreeMap::new(),
        writing: None,
    };
    let outcome = run.walk(&selected);
    // Whatever happened, a checkpoint under way is worth its completion.
    let settled = run.settle();
    let outcome = outcome?;
    settled?;
    Ok(outcome)
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    options: &'a ExecOptions,
    stop: &'a AtomicBool,
    observer: &'a mut dyn Observer,
    dir: RunDir,
    progress: BTreeMap<String, Progress>,
    metrics: Journal,
    evals: Journal,
    /// Tokenised sources by root model: another root may bring another tokenizer.
    corpora: BTreeMap<String, Arc<Corpus>>,
    /// FLOP/s of the best product by kind of engine; `None` where none is known.
    peaks: BTreeMap<String, Option<f64>>,
    /// The checkpoint under way.
    writing: Option<Writing>,
}

impl Run<'_> {
    /// Do what is not done of the chosen stages and soups, in the plan's order.
    fn walk(&mut self, selected: &BTreeSet<String>) -> Result<Outcome, ExecError> {
        for stage in self.plan.stages.iter().filter(|s| selected.contains(&s.name)) {
            if self.progress.get(&stage.name).is_some_and(|p| p.finished(stage)) {
                self.observer.on(Event::Skipped(stage));
            } else if let Some(step) = self.stage(stage)? {
                return Ok(Outcome::Stopped { stage: stage.name.clone(), step });
            }
            // From the journal, so that a gate that failed keeps failing when the run is resumed.
            if let Some(failed) = self.failed_gate(stage)? {
                if self.options.gates_halt {
                    return Ok(failed);
                }
                self.note(&format!("a gate does not hold: {failed:?}"));
            }
        }
        for soup in self.plan.soups.iter().filter(|s| selected.contains(&s.name)) {
            self.cook(soup)?;
        }
        self.observer.on(Event::Finished(self.plan));
        let records = journal::read::<EvalRecord>(&self.dir.evals())?;
        Ok(Outcome::Finished(summary(self.plan, &records)))
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn note(&mut self, text: &str) {
        self.dir.log(text);
        self.observer.on(Event::Note(text));
    }
}

/// The model a stage's weights descend from.
fn root<'a>(plan: &'a Plan, stage: &'a StagePlan) -> Result<&'a ModelPlan, ExecError> {
    survey::root(plan, stage)
}

fn summary(plan: &Plan, records: &[EvalRecord]) -> Summary {
    let stages = plan
        .stages
        .iter()
        .map(|stage| {
            let at = |step: u64| {
                records
                    .iter()
                    .filter(move |r| r.stage == stage.name && r.measure == "loss" && r.step == step)
                    .map(|r| (r.subject.clone(), r.value))
                    .collect::<BTreeMap<_, _>>()
            };
            let (before, after) = (at(0), at(stage.steps));
            let heldout = before
                .into_iter()
                .filter_map(|(source, loss)| after.get(&source).map(|end| (source, (loss, *end))))
                .collect();
            StageSummary { stage: stage.name.clone(), steps: stage.steps, heldout }
        })
        .collect();
    Summary { stages }
}
