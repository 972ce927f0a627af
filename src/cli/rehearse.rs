//! `midc rehearse`: run a whole curriculum at toy scale.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use miette::IntoDiagnostic;

use super::compile::{self, CompileArgs};
use super::exec::{INTERRUPTED, asked_to_stop};
use super::lines::{self, tell};
use crate::plan::{FromKind, Plan, Precision};
use crate::runtime::data::{OnBad, Progress, Quiet};
use crate::runtime::engine::Device;
use crate::runtime::exec::{Event, ExecOptions, NotFinite, Observer, Outcome, Selection, exec};
use crate::runtime::rehearse::{shrink, write_props};
use crate::runtime::run_dir::Resume;

/// Run the whole graph at toy scale: every stage, edge, branch and soup
///
/// The model's family is kept and shrunk; tokens, batch and context are scaled with the schedules in
/// proportion; missing sources are replaced by bundled text of their kind. Gates are measured and
/// reported, and do not halt.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    compile: CompileArgs,
    /// About how long it may take on this machine
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// Keep the toy run here [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
}

/// Toy steps of one minute on two slow cores.
const STEPS_PER_MINUTE: f64 = 400.0;

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    if !(args.minutes > 0.0 && args.minutes.is_finite()) {
        return Err(miette::miette!("`--minutes {}` is no time", args.minutes));
    }
    if let Some(dir) = args.run_dir.as_ref().filter(|dir| dir.join("plan.json").exists()) {
        return Err(miette::miette!(
            help = "a rehearsal begins anew: name another directory, or leave `--run-dir` out",
            "`{}` already holds a run",
            dir.display()
        ));
    }
    let Some(compiled) = compile::plan(&args.compile)? else { return Ok(ExitCode::from(super::FOUND)) };
    let rehearsal = shrink(&compiled.plan, (args.minutes * STEPS_PER_MINUTE).ceil() as u64);
    let scratch = tempfile::tempdir().into_diagnostic()?;
    let props = scratch.path().join("props");
    write_props(&props)?;
    let options = ExecOptions {
        base_dir: props,
        run_dir: args.run_dir.unwrap_or_else(|| scratch.path().join("run")),
        cache_dir: scratch.path().join("cache"),
        resume: Resume::No,
        device: Device::Cpu,
        precision: Precision::F32,
        threads: None,
        memory: None,
        on_bad: OnBad::Skip,
        selection: Selection::All,
        noise_every: None,
        on_not_finite: NotFinite::Skip,
        jobs: 1,
        gates_halt: false,
    };
    let watch = Watch::default();
    let stop = asked_to_stop()?;
    let outcome = exec(&rehearsal.plan, &options, &stop, &watch)?;
    let counts = watch.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    if matches!(outcome, Outcome::Stopped { .. }) {
        // Not at once, so that the temporary directory goes too.
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if !matches!(outcome, Outcome::Finished(_)) {
        return Err(miette::miette!("the rehearsal ended early: {outcome}"));
    }
    print(&compiled.plan, &counts, &rehearsal.left_out)?;
    Ok(ExitCode::SUCCESS)
}

/// What really ran.
#[derive(Debug, Default)]
struct Counts {
    stages: usize,
    steps: usize,
    measurements: usize,
    checkpoints: usize,
    soups: usize,
    notes: Vec<String>,
}

/// Counts what happens.
#[derive(Debug, Default)]
struct Watch(Mutex<Counts>);

impl Observer for Watch {
    fn reading(&self) -> &dyn Progress {
        &Quiet
    }

    fn on(&self, event: Event<'_>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Stage { stage, .. } => {
                counts.stages += 1;
                tell!("stage `{}`: {} steps", stage.name, stage.steps);
            }
            Event::Step { .. } => counts.steps += 1,
            Event::Eval(_) => counts.measurements += 1,
            Event::Checkpoint(_) => counts.checkpoints += 1,
            Event::Soup(_) => counts.soups += 1,
            Event::Note(text) => counts.notes.push(text.to_string()),
            Event::Skipped(_) | Event::Finished(_) => {}
        }
    }
}

fn print(plan: &Plan, counts: &Counts, left_out: &[String]) -> miette::Result<()> {
    let edges = plan.stages.iter().filter(|s| s.from_kind != FromKind::Model).count();
    let branches = plan.stages.iter().filter(|s| s.from_kind == FromKind::Checkpoint).count();
    let rope = plan.stages.iter().filter(|s| s.rope.is_some()).count();
    let contexts = plan.stages.iter().filter(|s| s.context.len() > 1).count();
    let gates: usize = plan.stages.iter().map(|s| s.gates.len()).sum();
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["exercised", "count"]);
    let rows: [(&str, usize); 10] = [
        ("stages", counts.stages),
        ("optimizer steps", counts.steps),
        ("stage edges", edges),
        ("branches from named checkpoints", branches),
        ("stages with a RoPE of their own", rope),
        ("context changes inside a stage", contexts),
        ("soups", counts.soups),
        ("checkpoints written", counts.checkpoints),
        ("measurements", counts.measurements),
        ("gates measured", gates),
    ];
    for (what, count) in rows.into_iter().filter(|(_, count)| *count > 0) {
        table.add_row([what.to_string(), count.to_string()]);
    }
    let mut text = format!("{table}\n");
    for (title, lines) in [("not exercised:", left_out), ("notes:", &counts.notes)] {
        if !lines.is_empty() {
            text.push_str(&format!("\n{title}\n"));
            for line in lines {
                text.push_str(&format!("  {line}\n"));
            }
        }
    }
    lines::output(&text)
}
