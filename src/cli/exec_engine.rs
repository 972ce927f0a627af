//! `midc exec --engine`: a curriculum lowered to the launch of another engine and run here: emit, rows,
//! supervision, then `midc verify` over the logs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use miette::IntoDiagnostic as _;

use super::compile::{self, CompileArgs};
#[cfg(unix)]
use super::exec::hears_of_hangup;
use super::exec::{INTERRUPTED, Screen, default_run_dir};
use super::lines::tell;
use super::{emit, launch_files, report, rows, verify};
use crate::emit::Engine;
use crate::emit::verify::PlannedRow;
use crate::launch::{self, LaunchError, LaunchOptions, Outcome};
use crate::plan::{Plan, StagePlan, file_name};
use crate::runtime::exec::{Event, Observer as _, Selection};
use crate::runtime::run_dir::{Resume, RunDir};

/// Which engine trains, and how it is run.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Another engine")]
pub(super) struct EngineArgs {
    /// Train with this engine instead of midc's own: what `midc emit` writes is run here, supervised and verified
    #[arg(long, value_enum)]
    engine: Option<Supervised>,
    /// Processes of the engine [default: one per GPU that its PyTorch sees, or one]
    #[arg(long, value_name = "N", requires = "engine", value_parser = clap::value_parser!(u32).range(1..))]
    nproc: Option<u32>,
    /// Interpreter with the engine installed [default: $MIDC_PYTHON, the active virtual environment, python3]
    #[arg(long, value_name = "PATH", requires = "engine")]
    python: Option<PathBuf>,
    /// Seconds in which the engine may write a checkpoint after ctrl-C or SIGTERM before it is killed
    #[arg(long, value_name = "SECONDS", requires = "engine", default_value_t = 60)]
    grace: u64,
}

/// The engines whose launches are run here.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Supervised {
    Transformers,
    OlmoCore,
}

impl EngineArgs {
    /// The engine asked for, unless it is midc's own.
    pub(super) fn engine(&self) -> Option<Engine> {
        self.engine.map(|engine| match engine {
            Supervised::Transformers => Engine::Transformers,
            Supervised::OlmoCore => Engine::OlmoCore,
        })
    }
}

/// What `midc exec` was asked for, as far as it matters here.
pub(super) struct Request<'a> {
    pub(super) compile: &'a CompileArgs,
    pub(super) run_dir: Option<PathBuf>,
    pub(super) cache_dir: &'a Path,
    pub(super) resume: Resume,
    pub(super) selection: Selection,
    pub(super) strict_data: bool,
    pub(super) quiet: bool,
}

pub(super) fn run(engine: Engine, args: &EngineArgs, request: &Request<'_>) -> miette::Result<ExitCode> {
    let Some(mut found) = compile::plan_and_file(request.compile)? else {
        return Ok(ExitCode::from(super::FOUND));
    };
    let Some((launch, base_dir)) = emit::lower(engine, &mut found, &request.compile.levels()?) else {
        return Ok(ExitCode::from(super::FOUND));
    };
    let plan = &found.compiled.plan;
    let selected = request.selection.names(plan)?;
    let requirements = launch.files.iter().find(|f| f.path == "requirements.txt");
    let requirements = requirements.map_or("", |f| f.text.as_str());
    let python = launch::find(engine, args.python.as_deref(), requirements).inspect_err(unwrapped)?;
    let run_dir = request.run_dir.clone().unwrap_or_else(|| default_run_dir(&plan.curriculum));
    let signal = heard()?;
    let dir = RunDir::open_for(engine.name(), &run_dir, plan, request.resume)?;
    let screen = Screen::new(request.quiet);
    let processes = args.nproc.unwrap_or(python.gpus.max(1));
    let note = format!("{} on {processes} processes: {}", engine.name(), python.versions);
    dir.log(&note);
    screen.on(Event::Note(&note));
    let folder = std::path::absolute(launch::directory(&run_dir)).into_diagnostic()?;
    launch_files::put(&launch, plan, &folder, &[])?;
    if !exported(plan, &folder) {
        let from = rows::From {
            base_dir: &found.compiled.base_dir,
            cache_dir: request.cache_dir,
            strict: request.strict_data,
            quiet: request.quiet,
        };
        rows::write(plan, &from, &folder.join("rows"))?;
    }
    let options =
        LaunchOptions { base_dir, python: python.path, processes, grace: Duration::from_secs(args.grace) };
    let planned = |stage: &StagePlan| planned_rows(&folder, stage);
    let outcome = launch::run(plan, &selected, &options, &dir, &planned, &signal, &screen);
    screen.clear();
    let code = match &outcome {
        Ok(Outcome::Finished) => verified(&folder, &dir, |stage| selected.contains(stage), request.quiet),
        Ok(Outcome::Stopped { .. }) => Ok(ExitCode::from(INTERRUPTED)),
        Err(_) => Ok(ExitCode::from(super::FAILED)),
    };
    report::after_run(&run_dir);
    match outcome {
        Ok(Outcome::Finished) if !request.quiet => {
            tell!("finished; checkpoints are in {}", run_dir.join("checkpoints").display());
        }
        Ok(Outcome::Finished) => {}
        Ok(Outcome::Stopped { name, step }) => {
            tell!("stopped in `{name}` after step {step}; `--resume` continues from its last checkpoint");
        }
        Err(error) => {
            if let LaunchError::Failed { tail, log, .. } = &error {
                tell!("{tail}\n(the end of {})", log.display());
            }
            return Err(error.into());
        }
    }
    code
}

/// Lets the lines of an error that names a command be as long as they are: wrapping would break the command at a hyphen.
fn unwrapped(error: &LaunchError) {
    if matches!(error, LaunchError::Packages { .. }) {
        let options = || miette::MietteHandlerOpts::new().wrap_lines(false).build();
        // Where another has been set, that one stays.
        miette::set_hook(Box::new(move |_| Box::new(options()))).ok();
    }
}

/// Holds the number of the last signal by which the user, or who runs the machine, asks for the end. A terminal that
/// is gone is one of them: the engine runs in a process group of its own and would train on by itself.
fn heard() -> miette::Result<Arc<AtomicUsize>> {
    let mut numbers = vec![signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM];
    #[cfg(unix)]
    if hears_of_hangup() {
        numbers.push(signal_hook::consts::SIGHUP);
    }
    let signal = Arc::new(AtomicUsize::new(0));
    for number in numbers {
        signal_hook::flag::register_usize(number, Arc::clone(&signal), number.unsigned_abs() as usize)
            .into_diagnostic()?;
    }
    Ok(signal)
}

/// Whether the rows of every stage are there.
fn exported(plan: &Plan, launch: &Path) -> bool {
    plan.stages.iter().all(|stage| {
        let path = rows_of(launch, stage).join("rows.json");
        rows::about(&path).is_some_and(|set| set.plan == plan.hash)
    })
}

fn rows_of(launch: &Path, stage: &StagePlan) -> PathBuf {
    launch.join("rows").join(file_name(&stage.name))
}

fn planned_rows(launch: &Path, stage: &StagePlan) -> Result<Vec<PlannedRow>, LaunchError> {
    let (_, rows) = rows::read(&rows_of(launch, stage))
        .map_err(|error| LaunchError::Rows { stage: stage.name.clone(), why: error.to_string() })?;
    Ok(rows)
}

/// `midc verify` over the stages of the run; its verdict is part of the run's outcome.
fn verified(
    launch: &Path,
    dir: &RunDir,
    chosen: impl Fn(&str) -> bool,
    quiet: bool,
) -> miette::Result<ExitCode> {
    let mut wrong = false;
    for (stage, report) in verify::launch(launch, &launch.join("logs"), chosen)? {
        let differs = !report.problems.is_empty();
        wrong |= differs;
        for line in verify::verdict(&stage, &report) {
            dir.log(&format!("verify: {line}"));
            if differs || !quiet {
                tell!("{line}");
            }
        }
    }
    if wrong {
        tell!("the run is not the planned one: see the lines above and {}", launch.join("logs").display());
    }
    Ok(ExitCode::from(if wrong { super::FOUND } else { 0 }))
}
