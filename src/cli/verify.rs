//! `midc verify`: the logs of an engine against what the plan expects of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::lines;
use super::rows::{self, RowsError};
use crate::emit::verify::{LogLine, Report, exported_rope, stage as compare};
use crate::emit::{Expected, ExpectedStage};

/// Hold an engine's logs and exports against the plan it was emitted from
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory that `midc emit` wrote
    dir: PathBuf,
    /// Directory of the logs [default: DIR/logs]
    logs: Option<PathBuf>,
    /// Only these stages
    #[arg(long, value_name = "STAGE")]
    stage: Vec<String>,
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum VerifyError {
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(code(midc::verify::read), help("{help}"))]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
        help: &'static str,
    },
    #[error("`{}`, line {line} is not what midc writes there", path.display())]
    #[diagnostic(code(midc::verify::malformed))]
    Malformed {
        path: PathBuf,
        line: usize,
        #[source]
        source: serde_json::Error,
    },
}

const NO_LAUNCH: &str = "`midc emit transformers` and `midc emit olmo-core` write it; launches of other engines log nothing \
                         that could be compared";

fn text(path: &Path, help: &'static str) -> Result<String, VerifyError> {
    std::fs::read_to_string(path).map_err(|source| VerifyError::Read { path: path.to_owned(), source, help })
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let logs = args.logs.unwrap_or_else(|| args.dir.join("logs"));
    let chosen = |stage: &str| args.stage.is_empty() || args.stage.iter().any(|s| s == stage);
    let mut wrong = false;
    let reports = launch(&args.dir, &logs, chosen)?;
    if let Some(stage) = args.stage.iter().find(|stage| reports.iter().all(|(name, _)| name != *stage)) {
        return Err(miette::miette!(
            code = "midc::verify::stage",
            help = "`expected.json` there names the stages",
            "the launch in `{}` has no stage `{stage}`",
            args.dir.display()
        ));
    }
    for (stage, report) in reports {
        wrong |= !report.problems.is_empty();
        for line in verdict(&stage, &report) {
            lines::output(&format!("{line}\n"))?;
        }
    }
    Ok(ExitCode::from(if wrong { super::FOUND } else { 0 }))
}

/// The lines in which a stage's report is given.
pub(crate) fn verdict(stage: &str, report: &Report) -> Vec<String> {
    let Report { steps, rows, lr_error, problems, unjudged } = report;
    let mut lines: Vec<String> =
        problems.iter().map(|problem| format!("WRONG  {stage}: {problem}")).collect();
    if problems.is_empty() {
        lines.push(format!(
            "ok     {stage}: {steps} steps, {rows} rows, learning rates within {lr_error:.0e}"
        ));
    }
    let gates = unjudged.iter().map(|gate| format!("gate   {stage}: `{gate}` was not judged"));
    lines.extend(gates);
    lines
}

/// Hold the chosen stages of the launch in `dir` to its `expected.json`.
///
/// # Errors
/// A file that midc or the runner writes is missing or not what it should be.
pub(crate) fn launch(
    dir: &Path,
    logs: &Path,
    chosen: impl Fn(&str) -> bool,
) -> miette::Result<Vec<(String, Report)>> {
    let path = dir.join("expected.json");
    let expected: Expected = serde_json::from_str(&text(&path, NO_LAUNCH)?)
        .map_err(|source| VerifyError::Malformed { path: path.clone(), line: source.line(), source })?;
    let stages = expected.stages.iter().filter(|s| chosen(&s.stage));
    stages.map(|s| Ok((s.stage.clone(), verify(dir, logs, &expected.plan, s)?))).collect()
}

fn verify(dir: &Path, logs: &Path, plan: &str, stage: &ExpectedStage) -> miette::Result<Report> {
    let (ranks, cut) = ranks(logs, stage)?;
    let folder = dir.join("rows").join(&stage.name);
    let mut report = match rows::read(&folder) {
        Ok((set, rows)) => {
            let mut report = compare(stage, &ranks, Some(&rows));
            if set.plan != plan {
                report.problems.push(format!("`{}` holds the rows of another plan", folder.display()));
            }
            report
        }
        // An engine's logs may come without the rows, which are large: the learning rates can be held.
        Err(RowsError::Read { path, .. }) => {
            let mut report = compare(stage, &ranks, None);
            report.problems.push(format!("`{}` is missing: rows cannot be compared", path.display()));
            report
        }
        Err(other) => return Err(other.into()),
    };
    report.problems.splice(..0, cut);
    let path = dir.join("out").join(&stage.name).join(format!("step-{}", stage.steps)).join("hf/config.json");
    match std::fs::read(&path) {
        Ok(bytes) => match (serde_json::from_slice(&bytes), &stage.rope) {
            (Ok(config), Some(rope)) => {
                report.problems.extend(exported_rope(rope, stage.context, stage.head_dim, &config));
            }
            (Ok(_), None) => {}
            (Err(_), _) => report.problems.push(format!("`{}` is not a configuration", path.display())),
        },
        Err(_) => report.problems.push(format!("there is no export at `{}`", path.display())),
    }
    Ok(report)
}

/// The lines of every process, in order of its rank, and a sentence for every log whose last line is cut: a process that
/// is killed, or whose disk is full, may leave half of one.
fn ranks(logs: &Path, stage: &ExpectedStage) -> Result<(Vec<Vec<LogLine>>, Vec<String>), VerifyError> {
    let (mut ranks, mut cut) = (Vec::new(), Vec::new());
    loop {
        let path = logs.join(format!("{}.rank{}.jsonl", stage.name, ranks.len()));
        if !path.is_file() {
            return Ok((ranks, cut));
        }
        let text = text(&path, "the engine writes it")?;
        let (whole, rest) = text.split_at(text.rfind('\n').map_or(0, |end| end + 1));
        let last = serde_json::from_str(rest);
        if !rest.is_empty() && last.is_err() {
            cut.push(format!("the last line of `{}` is cut", path.display()));
        }
        let lines = whole.lines().enumerate().map(|(i, line)| {
            serde_json::from_str(line).map_err(|source| VerifyError::Malformed {
                path: path.clone(),
                line: i + 1,
                source,
            })
        });
        let mut lines = lines.collect::<Result<Vec<_>, _>>()?;
        lines.extend(last);
        ranks.push(lines);
    }
}
