//! `midc exec`: walks the stages of a plan, from what the run directory already holds to the end.
//!
//! A step is a pure function of the plan, the starting weights and the position in the run, so a
//! run that was killed continues from its last checkpoint as if nothing had happened; the journals
//! are cut back to that point first.

mod error;
mod gate;
mod inputs;
mod jobs;
mod journals;
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
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::plan::{ModelPlan, Plan, Precision, StagePlan};
use crate::runtime::backend::cuda;
use crate::runtime::checkpoint::Sound;
use crate::runtime::data::{Corpus, DataError, OnBad};
use crate::runtime::engine::Device;
use crate::runtime::eval::MeasureError;
use crate::runtime::exec::jobs::{Claim, Queue};
use crate::runtime::journal::{self, EvalRecord, Journal};
use crate::runtime::run_dir::{Resume, RunDir};

/// How to run a plan, beside what the plan says.
#[derive(Clone, Debug)]
pub struct ExecOptions {
    /// Relative paths of the plan start here: the directory of the curriculum.
    pub base_dir: PathBuf,
    /// Where the run is kept.
    pub run_dir: PathBuf,
    /// Where tokenised text is kept between runs.
    pub cache_dir: PathBuf,
    /// Whether to continue a run that is there.
    pub resume: Resume,
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
    /// Most stages that train at the same time. Those of which neither descends from the other do, each
    /// with its share of the threads and of the memory; results do not depend on it. At least 1, and 1
    /// on a GPU.
    pub jobs: usize,
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

impl fmt::Display for Outcome {
    /// A sentence for people, as on the terminal and in `log.txt`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished(_) => write!(f, "finished"),
            Self::GateFailed { stage, gate, value, bound } => {
                write!(f, "the gate `{gate}` of stage `{stage}` does not hold: {value:.4} against {bound:.4}")
            }
            Self::Stopped { stage, step } => write!(f, "stopped in stage `{stage}` after step {step}"),
        }
    }
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
    observer: &dyn Observer,
) -> Result<Outcome, ExecError> {
    if let Device::Cuda(ordinal) = options.device
        && options.jobs > 1
    {
        return Err(ExecError::JobsOnGpu { jobs: options.jobs, ordinal });
    }
    let selected = options.selection.names(plan)?;
    let dir = RunDir::open(&options.run_dir, plan, options.resume)?;
    let sound = Sound::default();
    let (mut progress, passed_over) = survey::progress(plan, &selected, &dir, &sound)?;
    let again = survey::take_up_again(plan, &selected, &mut progress, &dir, &sound)?;
    for note in dir.notes().iter().chain(&passed_over).chain(&again) {
        dir.log(note);
        observer.on(Event::Note(note));
    }
    let over = |stage: &StagePlan| progress.get(&stage.name).is_some_and(|p| p.finished(stage));
    let ahead: Vec<&StagePlan> =
        plan.stages.iter().filter(|stage| selected.contains(&stage.name) && !over(stage)).collect();
    inputs::are_there(plan, &ahead, &options.base_dir)?;
    let queue = Queue::new(plan, &selected, options.jobs, over)?;
    fits(plan, options, &ahead, &queue)?;
    let (metrics, evals, lacking) = journals::open(plan, &dir, &progress)?;
    for note in lacking {
        dir.log(&note);
        observer.on(Event::Note(&note));
    }
    let run = Run {
        plan,
        options,
        stop,
        observer,
        dir,
        queue,
        sound,
        progress: Mutex::new(progress),
        metrics: Mutex::new(metrics),
        evals: Mutex::new(evals),
        corpora: Mutex::default(),
        peaks: Mutex::default(),
        cooking: Mutex::default(),
    };
    run.walk(&selected)
}

/// That each stage `ahead` can be trained in its part of the memory there is: refused here, not after the stages before
/// it.
fn fits(
    plan: &Plan,
    options: &ExecOptions,
    ahead: &[&StagePlan],
    queue: &Queue<'_>,
) -> Result<(), ExecError> {
    let budget = match (options.device, options.memory) {
        (_, Some(bytes)) => bytes,
        (Device::Cuda(ordinal), None) => cuda::available(ordinal)?,
        (Device::Cpu, None) => return Ok(()),
    };
    for stage in ahead {
        let parts = queue.parts(&stage.name);
        let part = Some(budget / parts as u64);
        memory::memory_of(plan, &[*stage], &options.base_dir, options.device, options.precision, part)
            .map_err(|error| match error {
                ExecError::TooLarge { stage, source, .. } => ExecError::TooLarge { stage, parts, source },
                other => other,
            })?;
    }
    Ok(())
}

/// A run under way, shared by the threads that train its stages.
struct Run<'a> {
    plan: &'a Plan,
    options: &'a ExecOptions,
    stop: &'a AtomicBool,
    observer: &'a dyn Observer,
    dir: RunDir,
    queue: Queue<'a>,
    /// Checkpoints that need not be read through again.
    sound: Sound,
    progress: Mutex<BTreeMap<String, Progress>>,
    metrics: Mutex<Journal>,
    evals: Mutex<Journal>,
    /// Tokenised sources by root model: another root may bring another tokenizer.
    corpora: Mutex<BTreeMap<String, Arc<Corpus>>>,
    /// FLOP/s of the best product by kind of engine; `None` where none is known.
    peaks: Mutex<BTreeMap<String, Option<f64>>>,
    /// Held while a soup is made: two stages may start from the same one.
    cooking: Mutex<()>,
}

/// What `mutex` guards. A panic in another thread ends the run, but not before what others have
/// trained is saved.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_> {
    /// Do what is not done of the chosen stages and soups: one job in the plan's order, several as soon
    /// as what a stage starts from is there.
    fn walk(&self, selected: &BTreeSet<String>) -> Result<Outcome, ExecError> {
        if let Some(ended) = self.stages()? {
            return Ok(ended);
        }
        for soup in self.plan.soups.iter().filter(|s| selected.contains(&s.name)) {
            self.cook(soup)?;
        }
        self.observer.on(Event::Finished(self.plan));
        let records = journal::read::<EvalRecord>(&self.dir.evals())?;
        Ok(Outcome::Finished(summary(self.plan, &records)))
    }

    /// Do the chosen stages. `Some` when the run ends before its end: a gate that failed comes before
    /// the stages that were stopped for it, and an error before both.
    fn stages(&self) -> Result<Option<Outcome>, ExecError> {
        let all = std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.queue.jobs()).map(|_| scope.spawn(|| self.job())).collect();
            let mut all = vec![self.job()];
            for other in others {
                all.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            all
        });
        let mut ended = None;
        for outcome in all {
            ended = match (outcome?, ended) {
                (Some(Outcome::Stopped { .. }) | None, Some(known)) => Some(known),
                (outcome, _) => outcome,
            };
        }
        Ok(ended)
    }

    /// Do stages until none is left or the run ends.
    fn job(&self) -> Result<Option<Outcome>, ExecError> {
        while let Some(claim) = self.queue.next() {
            let ended = self.one(&claim)?;
            if ended.is_some() {
                return Ok(ended);
            }
            claim.done();
        }
        Ok(None)
    }

    fn one(&self, claim: &Claim<'_>) -> Result<Option<Outcome>, ExecError> {
        let stage = claim.stage;
        if lock(&self.progress).get(&stage.name).is_some_and(|p| p.finished(stage)) {
            self.observer.on(Event::Skipped(stage));
        } else if let Some(step) = self.stage(stage, claim.share)? {
            return Ok(Some(Outcome::Stopped { stage: stage.name.clone(), step }));
        }
        match self.measure_gates(stage, claim.share) {
            Err(ExecError::Data(DataError::Stopped) | ExecError::Measure(MeasureError::Stopped)) => {
                return Ok(Some(Outcome::Stopped { stage: stage.name.clone(), step: stage.steps }));
            }
            taken => taken?,
        }
        // From the journal, so that a gate that failed keeps failing when the run is resumed.
        if let Some(failed) = self.failed_gate(stage)? {
            if self.options.gates_halt {
                return Ok(Some(failed));
            }
            self.note(&failed.to_string());
        }
        Ok(None)
    }

    /// Whether to save and end: the user asks for it, or another job of the run has ended it.
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.queue.closed()
    }

    fn note(&self, text: &str) {
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
