//! `midc exec`: train, with a progress bar on a terminal and plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use miette::IntoDiagnostic;

use crate::cli::compile::{self, CompileArgs};
use crate::cli::device::{DeviceArg, precision};
use crate::cli::exec_engine::{self, EngineArgs, Request};
use crate::cli::lines::{self, tell};
use crate::cli::progress::Bar;
use crate::cli::report;
use crate::plan::StagePlan;
use crate::runtime::data::{OnBad, Progress};
use crate::runtime::exec::{
    Event, ExecError, ExecOptions, NotFinite, Observer, Outcome, Selection, Summary, exec,
};
use crate::runtime::journal::StepRecord;
use crate::runtime::run_dir::Resume;

/// Exit code of a run stopped by ctrl-C or SIGTERM, as shells report it.
pub(super) const INTERRUPTED: u8 = 130;

/// Train what a curriculum describes
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    compile: CompileArgs,
    /// Where the run is kept [default: runs/NAME]
    #[arg(short = 'o', long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Where tokenised text is kept between runs
    #[arg(long, value_name = "DIR", default_value = ".midc-cache")]
    cache_dir: PathBuf,
    /// Continue the run in the run directory from its last checkpoint
    #[arg(long)]
    resume: bool,
    /// With `--resume`: go on with a curriculum that was edited since, where all that is done stays as it is
    #[arg(long, requires = "resume", conflicts_with = "engine")]
    edited: bool,
    /// `auto`, `cpu`, `cuda` or `cuda:N`
    #[arg(long, default_value = "auto", conflicts_with = "engine")]
    device: DeviceArg,
    /// Arithmetic of stages that name none [default: f32 on the CPU, bf16 on a GPU]
    #[arg(long, value_parser = ["f32", "bf16"], conflicts_with = "engine")]
    precision: Option<String>,
    /// Worker threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = compile::threads, conflicts_with = "engine")]
    threads: Option<usize>,
    /// Train up to N stages at once where neither descends from the other, such as the members of a fan-out; they share the threads and the memory
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..), conflicts_with = "engine")]
    jobs: u16,
    /// Memory to train in, such as 4GiB: weights, moments and all; layers beyond it are recomputed
    #[arg(long, value_name = "SIZE", value_parser = compile::bytes, conflicts_with = "engine")]
    memory: Option<u64>,
    /// Run only this stage or soup; what it starts from must be done. May be repeated
    #[arg(long, value_name = "STAGE", conflicts_with = "until")]
    only: Vec<String>,
    /// Run this stage or soup and what leads to it, and nothing else
    #[arg(long, value_name = "STAGE")]
    until: Option<String>,
    /// Estimate the gradient noise scale every N steps (`gns` in the metrics)
    #[arg(long, value_name = "N", conflicts_with = "engine")]
    noise_every: Option<u64>,
    /// After a step whose loss or gradient is not finite: go on, return to the last checkpoint and go on with the data that follows, or end
    #[arg(long, value_enum, default_value_t = OnNonfinite::Skip, conflicts_with = "engine")]
    on_nonfinite: OnNonfinite,
    /// Stop at a malformed line of a data file instead of counting and skipping it
    #[arg(long)]
    strict_data: bool,
    /// Print nothing but errors and warnings
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    other: EngineArgs,
}

/// `--on-nonfinite`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum OnNonfinite {
    Skip,
    Rewind,
    Stop,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let resume = match (args.resume, args.edited) {
        (false, _) => Resume::No,
        (true, false) => Resume::Same,
        (true, true) => Resume::Edited,
    };
    let selection = match args.until {
        Some(stage) => Selection::Until(stage),
        None if args.only.is_empty() => Selection::All,
        None => Selection::Only(args.only),
    };
    if let Some(engine) = args.other.engine() {
        let request = Request {
            compile: &args.compile,
            run_dir: args.run_dir,
            cache_dir: &args.cache_dir,
            resume,
            selection,
            strict_data: args.strict_data,
            quiet: args.quiet,
        };
        return exec_engine::run(engine, &args.other, &request);
    }
    let Some(compiled) = compile::plan(&args.compile)? else { return Ok(ExitCode::from(super::FOUND)) };
    let device = args.device.choose()?;
    let run_dir = args.run_dir.unwrap_or_else(|| default_run_dir(&compiled.plan.curriculum));
    let options = ExecOptions {
        base_dir: compiled.base_dir,
        run_dir: run_dir.clone(),
        cache_dir: args.cache_dir,
        resume,
        device,
        precision: precision(args.precision.as_deref(), device),
        threads: args.threads,
        memory: args.memory,
        on_bad: if args.strict_data { OnBad::Fail } else { OnBad::Skip },
        selection,
        jobs: usize::from(args.jobs),
        noise_every: args.noise_every,
        on_not_finite: match args.on_nonfinite {
            OnNonfinite::Skip => NotFinite::Skip,
            OnNonfinite::Rewind => NotFinite::Rewind,
            OnNonfinite::Stop => NotFinite::Stop,
        },
        gates_halt: true,
    };
    let stop = asked_to_stop()?;
    let screen = Screen::new(args.quiet);
    let outcome = exec(&compiled.plan, &options, &stop, &screen);
    screen.clear();
    // A run that was given up is the one whose report is wanted most.
    if matches!(outcome, Ok(_) | Err(ExecError::NotFinite { .. })) {
        report::after_run(&run_dir);
    }
    let outcome = outcome?;
    match &outcome {
        Outcome::Finished(summary) => {
            if !args.quiet {
                print_summary(summary);
                tell!("finished; checkpoints are in {}", run_dir.join("checkpoints").display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Outcome::GateFailed { stage, .. } => {
            tell!("halted: {outcome}");
            tell!("the stage's checkpoint is kept in {}", run_dir.join("checkpoints").join(stage).display());
            Ok(ExitCode::from(super::FOUND))
        }
        Outcome::Stopped { .. } => {
            tell!("{outcome}; `--resume` continues from there");
            Ok(ExitCode::from(INTERRUPTED))
        }
    }
}

/// `runs/NAME`; a curriculum from standard input is called `<stdin>`, which shells take for something else.
pub(super) fn default_run_dir(curriculum: &str) -> PathBuf {
    PathBuf::from("runs").join(curriculum.trim_matches(['<', '>']))
}

/// Becomes true when the user, or who runs the machine, asks for the end.
///
/// # Errors
/// The signals cannot be listened to.
pub(super) fn asked_to_stop() -> miette::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    if hears_of_hangup() {
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&stop)).into_diagnostic()?;
    }
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second ctrl-C ends the process at once; the first only asks.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(INTERRUPTED), Arc::clone(&stop))
            .into_diagnostic()?;
        signal_hook::flag::register(signal, Arc::clone(&stop)).into_diagnostic()?;
    }
    Ok(stop)
}

/// Whether it matters to this process that its terminal is gone. `nohup` sees to it that it does not.
#[cfg(unix)]
pub(super) fn hears_of_hangup() -> bool {
    !is_ignored(signal_hook::consts::SIGHUP)
}

/// Whether this process was started with `signal` ignored; `true` where that cannot be known.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_none_or(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The progress bars of the stages under way.
pub(super) struct Screen {
    quiet: bool,
    terminal: bool,
    bars: MultiProgress,
    stages: Mutex<BTreeMap<String, Lane>>,
    reading: Bar,
}

/// One stage under way.
#[derive(Default)]
struct Lane {
    /// On a terminal.
    bar: Option<ProgressBar>,
    /// Smoothed tokens per second.
    rate: f64,
}

impl Screen {
    pub(super) fn new(quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self {
            quiet,
            terminal,
            bars: MultiProgress::new(),
            stages: Mutex::default(),
            reading: Bar::new(quiet || !terminal),
        }
    }

    pub(super) fn clear(&self) {
        for lane in self.stages().values() {
            lane.clear();
        }
        self.stages().clear();
    }

    fn stages(&self) -> MutexGuard<'_, BTreeMap<String, Lane>> {
        // Whatever a panic left there can still be drawn.
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: &str) {
        // A terminal that cannot be written to is no reason to stop.
        if !self.terminal || self.bars.println(line).is_err() {
            tell!("{line}");
        }
    }

    fn begin(&self, stage: &StagePlan, step: u64) {
        self.say(&format!(
            "stage `{}`: {} steps, {} tokens, context {}{}",
            stage.name,
            stage.steps,
            stage.tokens,
            stage.phases.last().map_or(0, |p| p.context),
            if step > 0 { format!(", from step {step}") } else { String::new() }
        ));
        let mut lane = Lane::default();
        if self.terminal {
            let bar = self.bars.add(ProgressBar::new(stage.steps));
            bar.set_style(style("{prefix} {wide_bar} {pos}/{len}  {msg}"));
            bar.set_prefix(stage.name.clone());
            bar.set_position(step);
            lane.bar = Some(bar);
        }
        self.stages().insert(stage.name.clone(), lane);
    }

    fn step(&self, stage: &StagePlan, record: &StepRecord) {
        let mut stages = self.stages();
        let lane = stages.entry(stage.name.clone()).or_default();
        let rate = record.tokens_per_second;
        lane.rate = if lane.rate == 0.0 { rate } else { 0.95 * lane.rate + 0.05 * rate };
        let left = stage.tokens.saturating_sub(record.tokens + record.batch_tokens);
        let eta = Duration::from_secs_f64(left as f64 / lane.rate.max(1e-9));
        let line = format!(
            "loss {:.4}  lr {:.2e}  {:.0} tokens/s  eta {}",
            record.loss,
            record.lr,
            lane.rate,
            indicatif::HumanDuration(eta)
        );
        if let Some(bar) = &lane.bar {
            bar.set_position(record.step + 1);
            bar.set_message(line);
        } else if (record.step + 1).is_multiple_of((stage.steps / 20).max(1)) {
            tell!("{} {}/{}  {line}", stage.name, record.step + 1, stage.steps);
        }
        if record.step + 1 == stage.steps {
            lane.clear();
            stages.remove(&stage.name);
        }
    }
}

impl Lane {
    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Observer for Screen {
    fn reading(&self) -> &dyn Progress {
        &self.reading
    }

    fn on(&self, event: Event<'_>) {
        if self.quiet {
            return;
        }
        match event {
            Event::Note(text) => self.say(&format!("note: {text}")),
            Event::Skipped(stage) => {
                self.say(&format!("stage `{}` is done ({} steps)", stage.name, stage.steps));
            }
            Event::Stage { stage, step } => self.begin(stage, step),
            Event::Step { stage, record } => self.step(stage, record),
            Event::Soup(soup) => {
                self.say(&format!("soup `{}` of {}", soup.name, soup.ingredients.join(", ")))
            }
            Event::Eval(_) | Event::Checkpoint(_) | Event::Finished(_) => {}
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Held-out loss per source before and after each stage.
fn print_summary(summary: &Summary) {
    for stage in &summary.stages {
        if stage.heldout.is_empty() {
            continue;
        }
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY);
        table.set_header([
            format!("held-out loss, stage `{}`", stage.stage),
            "before".to_string(),
            "after".to_string(),
            "change".to_string(),
        ]);
        for (source, (before, after)) in &stage.heldout {
            table.add_row([
                source.clone(),
                format!("{before:.4}"),
                format!("{after:.4}"),
                format!("{:+.4}", after - before),
            ]);
        }
        // Said in passing: the numbers stand in `evals.jsonl`.
        let _ = lines::output(&format!("{table}\n"));
    }
}
