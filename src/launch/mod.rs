//! `midc exec --engine`: the launch of another engine, run on this machine under supervision into a run
//! directory like midc's own.
//!
//! ```text
//! RUN_DIR/plan.json  metrics.jsonl  tensorboard/  log.txt  report.html  lock  engine
//! RUN_DIR/checkpoints/NAME/step-N/   what the engine exported, under the name midc gives it
//! RUN_DIR/launch/                    what `midc emit` writes, with the engine's rows/, out/ and logs/
//! RUN_DIR/launch/console/NAME.log    what the engine printed
//! ```
//! What is done is seen from the engine's complete checkpoints, and `metrics.jsonl` follows its logs. Knows
//! no curriculum file and does not train: the launch's own runner is started as a user would start it.

mod error;
mod follow;
mod process;
mod python;

pub use error::LaunchError;
pub use python::{Python, find};

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::emit::Job;
use crate::emit::verify::PlannedRow;
use crate::plan::{Origin, Plan, SoupPlan, StagePlan, file_name};
use crate::runtime::checkpoint;
use crate::runtime::exec::{Event, Observer};
use crate::runtime::journal::{self, Journal, StepRecord};
use crate::runtime::run_dir::RunDir;
use crate::runtime::tensorboard::TensorBoard;
use follow::Follower;
use process::Ended;

/// The planned rows of a stage, in their order.
pub type PlannedRows<'a> = dyn Fn(&StagePlan) -> Result<Vec<PlannedRow>, LaunchError> + 'a;

/// How to run a launch.
#[derive(Clone, Debug)]
pub struct LaunchOptions {
    /// The directory of the curriculum, absolute.
    pub base_dir: PathBuf,
    /// The interpreter the engine is installed for.
    pub python: PathBuf,
    /// Processes on this machine.
    pub processes: u32,
    /// How long a child that was asked to stop may take before it is killed.
    pub grace: Duration,
}

/// How a run ended, short of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything chosen is done.
    Finished,
    /// Asked to stop.
    Stopped {
        /// The stage or soup it was in.
        name: String,
        /// Steps that are in the engine's log.
        step: u64,
    },
}

/// The launch's directory in a run directory.
pub fn directory(run_dir: &Path) -> PathBuf {
    run_dir.join("launch")
}

/// Run the chosen stages and soups of `plan` as the launch in `dir` describes them. `signal` holds the
/// number of the last signal this process was sent and nothing else; 0 for none.
///
/// # Errors
/// [`LaunchError`]; what was finished is kept, and the same call goes on from it.
pub fn run(
    plan: &Plan,
    selected: &BTreeSet<String>,
    options: &LaunchOptions,
    dir: &RunDir,
    rows: &PlannedRows<'_>,
    signal: &AtomicUsize,
    observer: &dyn Observer,
) -> Result<Outcome, LaunchError> {
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    journal::scan(&dir.metrics(), |r: StepRecord| *counted.entry(r.stage).or_default() += 1)?;
    let launch = directory(dir.root());
    let mut run = Run { plan, options, dir, launch, rows, signal, observer };
    for job in Job::all(plan) {
        let stopped = match job {
            Job::Stage(stage) if selected.contains(&stage.name) => {
                let whole = counted.get(&stage.name) == Some(&stage.steps);
                run.stage(stage, whole)?
            }
            Job::Soup(soup) if selected.contains(&soup.name) || run.needed(soup, selected) => {
                run.soup(soup)?
            }
            Job::Stage(_) | Job::Soup(_) => None,
        };
        if let Some(step) = stopped {
            return Ok(Outcome::Stopped { name: job.name().to_owned(), step });
        }
    }
    run.observer.on(Event::Finished(plan));
    Ok(Outcome::Finished)
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    options: &'a LaunchOptions,
    dir: &'a RunDir,
    launch: PathBuf,
    rows: &'a PlannedRows<'a>,
    signal: &'a AtomicUsize,
    observer: &'a dyn Observer,
}

impl Run<'_> {
    /// Whether a chosen stage that is not done starts from `soup`: like midc's own runs, a launch makes it then.
    fn needed(&self, soup: &SoupPlan, selected: &BTreeSet<String>) -> bool {
        let stages = self.plan.stages.iter().filter(|s| selected.contains(&s.name));
        stages
            .filter(|s| matches!(self.plan.origin(s), Some(Origin::Soup(from)) if from.name == soup.name))
            .any(|s| !self.there(&s.name, s.steps))
    }

    /// The engine's checkpoint of a stage or soup.
    fn out(&self, name: &str, step: u64) -> PathBuf {
        self.launch.join("out").join(file_name(name)).join(format!("step-{step}"))
    }

    /// Whether that checkpoint is complete: the runner writes `step.json` last and then renames.
    fn there(&self, name: &str, step: u64) -> bool {
        is_told(&self.out(name, step).join("step.json"))
    }

    /// Steps at the engine's last checkpoint of a stage, which its runner goes on from.
    fn reached(&self, stage: &StagePlan) -> u64 {
        let out = self.launch.join("out").join(file_name(&stage.name));
        let steps = |dir: &Path, prefix: &'static str, complete: &'static str| {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let whole = entries.filter(move |e| is_told(&e.path().join(complete)));
            whole.filter_map(move |e| e.file_name().to_str()?.strip_prefix(prefix)?.parse::<u64>().ok()).max()
        };
        // OLMo-core keeps its own beside the exports.
        let own = steps(&out.join("olmo"), "step", ".metadata.json");
        steps(&out, "step-", "step.json").max(own).unwrap_or_default()
    }

    fn require(&self, name: &str, from: &str, step: u64) -> Result<(), LaunchError> {
        if self.there(from, step) {
            return Ok(());
        }
        let dir = self.out(from, step);
        Err(LaunchError::MissingStart { name: name.to_owned(), from: from.to_owned(), dir })
    }

    /// Train a stage unless that is done. `whole`: whether `metrics.jsonl` has all of it. The steps in
    /// its log when it was stopped.
    fn stage(&mut self, stage: &StagePlan, whole: bool) -> Result<Option<u64>, LaunchError> {
        let lasting = || stage.checkpoints.iter().map(|c| c.step).chain([stage.steps]);
        let done = lasting().all(|step| self.there(&stage.name, step));
        if done && whole {
            self.observer.on(Event::Skipped(stage));
            self.publish(&stage.name, lasting())?;
            return Ok(None);
        }
        match self.plan.origin(stage) {
            Some(Origin::Stage(from, step)) => self.require(&stage.name, &from.name, step)?,
            Some(Origin::Soup(soup)) => self.require(&stage.name, &soup.name, 0)?,
            Some(Origin::Model(_)) | None => {}
        }
        // The engine's logs are what a stage's metrics are made of, from the start.
        let mut metrics = Journal::open::<StepRecord>(&self.dir.metrics(), |name, _| name != stage.name)?;
        let mut board = TensorBoard::open(&self.dir.tensorboard(&stage.name), 0)?;
        let rows = (self.rows)(stage)?;
        let mut follower = Follower::new(stage, rows, &self.launch.join("logs"));
        if done {
            let mut append = |record: StepRecord| -> Result<(), LaunchError> {
                metrics.append(&record)?;
                Ok(board.step(&record)?)
            };
            follower.finish(&mut append)?;
            self.observer.on(Event::Skipped(stage));
            self.publish(&stage.name, lasting())?;
            return Ok(None);
        }
        self.observer.on(Event::Stage { stage, step: self.reached(stage) });
        let (dir, observer) = (self.dir, self.observer);
        let mut append = |record: StepRecord| -> Result<(), LaunchError> {
            metrics.append(&record)?;
            board.step(&record)?;
            observer.on(Event::Step { stage, record: &record });
            Ok(())
        };
        let mut command = self.options.torchrun()?;
        command.arg("--base").arg(&self.options.base_dir).arg(Job::Stage(stage).file());
        let console = console(&self.launch, &stage.name);
        dir.log(&format!("stage `{}`: {command:?}", stage.name));
        let grace = self.options.grace;
        let child = process::Child::start(command, &self.launch, &console, dir.lock_handle()?)?;
        let ended = child.supervise(self.signal, grace, &mut || follower.poll(&mut append));
        // Also of a stage that failed: the report then shows how far it came.
        let followed = follower.finish(&mut append);
        metrics.sync()?;
        let ended = ended?;
        followed?;
        match ended {
            Ended::Stopped => return Ok(Some(follower.next())),
            Ended::Failed(status, tail) => return Err(self.failed(&stage.name, &status, tail, console)),
            Ended::Done => {}
        }
        for step in lasting() {
            if !self.there(&stage.name, step) {
                return Err(LaunchError::NoCheckpoint { dir: self.out(&stage.name, step), log: console });
            }
        }
        self.publish(&stage.name, lasting())?;
        Ok(None)
    }

    /// Average a soup's ingredients unless that is done.
    fn soup(&mut self, soup: &SoupPlan) -> Result<Option<u64>, LaunchError> {
        if !self.there(&soup.name, 0) {
            for ingredient in &soup.ingredients {
                if let Some((stage, step)) = self.plan.stage_point(ingredient) {
                    self.require(&soup.name, &stage.name, step)?;
                }
            }
            let mut command = Command::new(&self.options.python);
            command.arg("train.py").arg("--base").arg(&self.options.base_dir).arg(Job::Soup(soup).file());
            let console = console(&self.launch, &soup.name);
            let child = process::Child::start(command, &self.launch, &console, self.dir.lock_handle()?)?;
            match child.supervise(self.signal, self.options.grace, &mut || Ok(()))? {
                Ended::Stopped => return Ok(Some(0)),
                Ended::Failed(status, tail) => return Err(self.failed(&soup.name, &status, tail, console)),
                Ended::Done if !self.there(&soup.name, 0) => {
                    return Err(LaunchError::NoCheckpoint { dir: self.out(&soup.name, 0), log: console });
                }
                Ended::Done => self.observer.on(Event::Soup(soup)),
            }
        }
        self.publish(&soup.name, [0])?;
        Ok(None)
    }

    fn failed(&self, name: &str, status: &str, tail: String, log: PathBuf) -> LaunchError {
        self.dir.log(&format!("`{name}` failed: {status}; see {}", log.display()));
        LaunchError::Failed { name: name.to_owned(), status: status.to_owned(), tail, log }
    }

    /// Give exports their names in the run directory.
    fn publish(&mut self, name: &str, steps: impl IntoIterator<Item = u64>) -> Result<(), LaunchError> {
        self.dir.is_in_place()?;
        let series = self.dir.checkpoints(name);
        checkpoint::clean(&series)?;
        for step in steps {
            let target = checkpoint::step_dir(&series, step);
            if !target.is_dir() {
                fs::create_dir_all(&series).map_err(LaunchError::io("create", &series))?;
                checkpoint::adopt(&self.out(name, step).join("hf"), &target)?;
                self.observer.on(Event::Checkpoint(&target));
            }
        }
        Ok(())
    }
}

/// Whether the file that makes a checkpoint complete is there and whole: a power cut may have left its name only.
fn is_told(file: &Path) -> bool {
    fs::read(file).is_ok_and(|text| serde_json::from_slice::<serde_json::Value>(&text).is_ok())
}

fn console(launch: &Path, name: &str) -> PathBuf {
    launch.join("console").join(format!("{}.log", file_name(name)))
}

impl LaunchOptions {
    /// The launcher's command up to the runner's own arguments.
    fn torchrun(&self) -> Result<Command, LaunchError> {
        // As good as a port can be chosen: another program may take it before the launcher does, which then says so.
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(|source| LaunchError::Port { source })?;
        let port = listener.local_addr().map_err(|source| LaunchError::Port { source })?.port();
        drop(listener);
        let mut command = Command::new(&self.python);
        let processes = self.processes.to_string();
        command
            .args(["-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", &processes])
            .args(["--master-addr", "127.0.0.1", "--master-port", &port.to_string(), "train.py"])
            .env("TOKENIZERS_PARALLELISM", "false");
        Ok(command)
    }
}

/// Open a console log for appending and mark where this attempt begins.
fn open_console(path: &Path, command: &Command) -> Result<(fs::File, u64), LaunchError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(LaunchError::io("create", parent))?;
    let open = OpenOptions::new().create(true).append(true).open(path);
    let mut file = open.map_err(LaunchError::io("open", path))?;
    writeln!(file, "$ {command:?}").map_err(LaunchError::io("write", path))?;
    let begin = file.metadata().map_err(LaunchError::io("read", path))?.len();
    Ok((file, begin))
}
