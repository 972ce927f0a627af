//! `midc verify`: the logs of an engine against what the plan expects of it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

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

fn text(path: &Path, help: &'static str) -> Result<String, VerifyError> {
    std::fs::read_to_string(path).map_err(|source| VerifyError::Read { path: path.to_owned(), source, help })
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let path = args.dir.join("expected.json");
    let expected: Expected = serde_json::from_str(&text(&path, "`midc emit` writes it")?)
        .map_err(|source| VerifyError::Malformed { path: path.clone(), line: source.line(), source })?;
    let logs = args.logs.unwrap_or_else(|| args.dir.join("logs"));
    let mut wrong = 0;
    for stage in &expected.stages {
        if !args.stage.is_empty() && !args.stage.contains(&stage.stage) {
            continue;
        }
        let report = verify(&args.dir, &logs, &expected.plan, stage)?;
        let name = &stage.stage;
        if report.problems.is_empty() {
            println!(
                "ok     {name}: {} steps, {} rows, learning rates within {:.0e}",
                report.steps, report.rows, report.lr_error
            );
        }
        for problem in &report.problems {
            println!("WRONG  {name}: {problem}");
        }
        wrong += report.problems.len();
    }
    Ok(ExitCode::from(if wrong == 0 { 0 } else { super::FOUND }))
}

fn verify(dir: &Path, logs: &Path, plan: &str, stage: &ExpectedStage) -> miette::Result<Report> {
    let ranks = ranks(logs, stage)?;
    let folder = dir.join("rows").join(&stage.name);
    let mut report = match rows::read(&folder) {
        Ok((set, rows)) => {
            let mut report = compare(stage, &ranks, &rows);
            if set.plan != plan {
                report.problems.push(format!("`{}` holds the rows of another plan", folder.display()));
            }
            report
        }
        // An engine's logs may come without the rows, which are large: the learning rates can be held.
        Err(RowsError::Read { path, .. }) => {
            let mut report = compare(stage, &ranks, &[]);
            report.problems = vec![format!("`{}` is missing: rows cannot be compared", path.display())];
            report
        }
        Err(other) => return Err(other.into()),
    };
    if let Some(rope) = &stage.rope {
        let path =
            dir.join("out").join(&stage.name).join(format!("step-{}", stage.steps)).join("hf/config.json");
        match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(config) => {
                    report.problems.extend(exported_rope(rope, stage.context, stage.head_dim, &config));
                }
                Err(_) => report.problems.push(format!("`{}` is not a configuration", path.display())),
            },
            Err(_) => report.problems.push(format!("there is no export at `{}`", path.display())),
        }
    }
    Ok(report)
}

/// The lines of every process, in order of its rank.
fn ranks(logs: &Path, stage: &ExpectedStage) -> Result<Vec<Vec<LogLine>>, VerifyError> {
    let mut ranks = Vec::new();
    loop {
        let path = logs.join(format!("{}.rank{}.jsonl", stage.name, ranks.len()));
        if !path.is_file() {
            return Ok(ranks);
        }
        let text = text(&path, "the engine writes it")?;
        let lines = text.lines().enumerate().map(|(i, line)| {
            serde_json::from_str(line).map_err(|source| VerifyError::Malformed {
                path: path.clone(),
                line: i + 1,
                source,
            })
        });
        ranks.push(lines.collect::<Result<_, _>>()?);
    }
}
