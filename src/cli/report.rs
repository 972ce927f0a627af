//! `midc report`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::lines::{self, tell};
use crate::cli::{plan_file, write};
use crate::plot::{History, Measurement, Step, report_html};
use crate::runtime::checkpoint;
use crate::runtime::journal::{self, EvalRecord, StepRecord};
use crate::runtime::run_dir::RunDirError;
use crate::runtime::whole;

/// Write one self-contained HTML page of a run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory of a run, finished or not
    run_dir: PathBuf,
    /// Where to write the page instead of RUN_DIR/report.html; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let page = page(&args.run_dir)?;
    let path = args.output.unwrap_or_else(|| args.run_dir.join("report.html"));
    if path.as_os_str() == "-" {
        lines::output(&page)?;
        return Ok(ExitCode::SUCCESS);
    }
    replace(&path, &page)?;
    lines::output(&format!("{}\n", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Write the report of a run that has just ended; what cannot be written is a warning, because the run
/// itself is safe.
pub(crate) fn after_run(dir: &Path) {
    let written = || -> miette::Result<()> {
        replace(&dir.join("report.html"), &page(dir)?)?;
        Ok(())
    };
    if let Err(error) = written() {
        tell!("the report could not be written: {error}; `midc report {}` tries again", dir.display());
    }
}

/// Write the page, and remove what a process that was killed left of doing so. Any may write it, while a run goes on
/// too: the run does not remove it by its name alone.
fn replace(path: &Path, page: &str) -> Result<(), write::WriteError> {
    // Best effort: it takes room and does no other harm.
    let _ = whole::clean_beside(path);
    write::replace(path, page)
}

/// The report of the run in `dir`.
///
/// # Errors
/// When there is no readable plan, or a file cannot be read.
pub(crate) fn page(dir: &Path) -> miette::Result<String> {
    let plan = plan_file::read(&dir.join("plan.json"))?;
    let mut history = History::new(&plan);
    let unread = journal::scan(&dir.join("metrics.jsonl"), |r: StepRecord| {
        history.step(Step {
            stage: &r.stage,
            step: r.step,
            tokens: r.tokens,
            lr: r.lr,
            batch_tokens: r.batch_tokens,
            context: r.context,
            loss: r.loss,
            loss_by_source: &r.loss_by_source,
            grad_norm: r.grad_norm,
            tokens_per_second: r.tokens_per_second,
            mix: &r.mix,
            rows: &r.rows,
            skipped: r.skipped,
        });
    })?;
    note(&mut history, "metrics.jsonl", unread);
    let unread = journal::scan(&dir.join("evals.jsonl"), |r: EvalRecord| {
        history.measure(Measurement {
            stage: r.stage,
            step: r.step,
            tokens: r.tokens,
            eval: r.eval,
            measure: r.measure,
            subject: r.subject,
            value: r.value,
        });
    })?;
    note(&mut history, "evals.jsonl", unread);
    for stage in &plan.stages {
        // Where it cannot be listed, no more is known than the journals say.
        let saved = checkpoint::list(&dir.join("checkpoints").join(&stage.name)).unwrap_or_default();
        history.saved(&stage.name, saved.last().map_or(0, |entry| entry.step));
    }
    let log = dir.join("log.txt");
    if log.exists() {
        let file = std::fs::File::open(&log).map_err(RunDirError::io("open", &log))?;
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(RunDirError::io("read", &log))?;
            history.log(String::from_utf8_lossy(&line).into_owned());
        }
    }
    Ok(report_html(&plan, &history))
}

fn note(history: &mut History, file: &str, unread: u64) {
    match unread {
        0 => {}
        1 => history.note(format!("1 line of {file} is damaged and left out.")),
        n => history.note(format!("{n} lines of {file} are damaged and left out.")),
    }
}
