//! `midc bench check`: how long `midc check` takes, from the disk to the rendered diagnostics, on one
//! thread.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use miette::{Context as _, IntoDiagnostic as _};
use serde_json::json;

use super::Format;
use super::measure::{Clock, median};
use crate::cli::files::DiskFiles;
use crate::cli::lines;
use crate::diag::LintLevels;
use crate::diag::render::{Format as DiagnosticFormat, render};
use crate::sema::{self, Options};
use crate::source::Files as _;

/// Time the checker
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Curricula to check; a made-up one when there are none
    files: Vec<PathBuf>,
    /// Lines of the made-up curriculum
    #[arg(long, default_value_t = 10_000)]
    lines: usize,
    /// Times each file is checked
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// What time is counted by
    #[arg(long, value_enum, default_value_t = Clock::Wall)]
    clock: Clock,
    /// How to write the results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(args: &Args) -> miette::Result<ExitCode> {
    let directory = tempfile::tempdir().into_diagnostic()?;
    let mut files = args.files.clone();
    if files.is_empty() {
        let path = directory.path().join("made_up.curriculum");
        std::fs::write(&path, made_up(args.lines)).into_diagnostic()?;
        files.push(path);
    }
    for path in &files {
        let text = std::fs::read_to_string(path).into_diagnostic();
        let count = text.wrap_err_with(|| format!("cannot read `{}`", path.display()))?.lines().count();
        let mut milliseconds = Vec::new();
        let mut found = 0;
        for _ in 0..args.runs.max(1) {
            let start = args.clock.now(1);
            found = check(path)?;
            milliseconds.push((args.clock.now(1) - start) * 1e3);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (middle, least) =
            (median(&milliseconds), milliseconds.iter().copied().fold(f64::INFINITY, f64::min));
        match args.format {
            Format::Json => lines::output(&format!(
                "{}\n",
                json!({ "file": name, "lines": count, "diagnostics": found, "milliseconds": milliseconds })
            ))?,
            Format::Text => lines::output(&format!(
                "{name}: {count} lines, {found} diagnostics, {middle:.2} ms (least {least:.2} ms)\n"
            ))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `midc check` does with one file; the number of diagnostics.
fn check(path: &Path) -> miette::Result<usize> {
    let mut files = DiskFiles::new();
    let shown = path.display().to_string();
    let file =
        files.load(&shown, None).map_err(|why| crate::cli::check::ReadError { path: shown.clone(), why })?;
    let (_, mut diagnostics) = sema::check(&mut files, file, &Options::default());
    LintLevels::default().apply(&mut diagnostics);
    std::hint::black_box(render(DiagnosticFormat::Text, &diagnostics, &files, false));
    Ok(diagnostics.len())
}

/// A sound curriculum of about so many lines: sources, mixtures of eight of them, and a chain of
/// stages that reads them.
fn made_up(lines: usize) -> String {
    let mut out = String::from(
        "lints {\n  missing_files = allow  # nothing is on the disk\n}\n\n\
         model base {\n  init = smollm2_135m\n}\n\n",
    );
    let mut stages = 0;
    let mut from = "base".to_owned();
    while out.lines().count() + 70 <= lines.max(80) {
        for i in 0..8 {
            let _ = write!(
                out,
                "source s{stages}_{i} {{\n  path   = \"data/{stages}/{i}/*.jsonl\"\n  kind   = web\n  tokens = 1T\n}}\n\n"
            );
        }
        let _ = writeln!(out, "mix m{stages} {{");
        for i in 0..7 {
            let _ = writeln!(out, "  s{stages}_{i} = {}%", 8 + i);
        }
        let _ = write!(out, "  s{stages}_7 = rest\n}}\n\n");
        let lr = if stages == 0 {
            "0 then linear(to: 3e-4, over: 2000 steps) then hold"
        } else {
            "inherit then hold"
        };
        let mix = match stages {
            0 => "m0".to_owned(),
            n => format!("m{} then hold(over: 5B) then linear(to: m{n})", n - 1),
        };
        let _ = write!(
            out,
            "## Stage {stages} of a long chain.\nstage t{stages} {{\n  from      = {from}\n  tokens    = 10B\n  context   = 2Ki\n  batch     = 1024 seqs\n  mix       = {mix}\n  lr        = {lr}\n  data_seed = {stages}\n}}\n\n"
        );
        from = format!("t{stages}");
        stages += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The made-up curriculum makes the checker work: it is sound, and as long as it is said to be.
    #[test]
    fn it_is_sound() {
        let text = made_up(1000);
        assert!((900..=1000).contains(&text.lines().count()), "{}", text.lines().count());
        let mut files = crate::source::MemoryFiles::new();
        let file = files.add("made_up.curriculum", text);
        let (curriculum, mut diagnostics) = sema::check(&mut files, file, &Options::default());
        LintLevels::default().apply(&mut diagnostics);
        let messages: Vec<&str> = diagnostics.iter().map(|d| d.message.as_str()).collect();
        assert!(curriculum.is_some_and(|c| c.stages.len() > 10), "{messages:?}");
        assert!(messages.is_empty(), "{messages:?}");
    }
}
