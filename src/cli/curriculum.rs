//! From a path on the command line to a checked curriculum and its plan, for every command that
//! needs one. Diagnostics go to stderr.

use std::io::IsTerminal as _;
use std::path::Path;

use super::check::ReadError;
use super::files::DiskFiles;
use super::input::InputArgs;
use super::lines::tell;
use super::{counts, plan_file};
use crate::diag::render::{Format, render, summary};
use crate::diag::{Diagnostic, Level};
use crate::plan::{self, Plan};
use crate::sema::{self, Curriculum};
use crate::source::{FileId, Files as _};

/// A file that was read and checked.
pub(crate) struct Checked {
    pub(crate) files: DiskFiles,
    /// The one that was named.
    pub(crate) file: FileId,
    /// There unless some error stands in the way.
    pub(crate) curriculum: Option<Curriculum>,
    /// At their final levels.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Read and check `path`.
///
/// # Errors
/// When a file cannot be read or an option names no lint. Mistakes of the curriculum are in the
/// diagnostics.
pub(crate) fn check(path: &str, input: &InputArgs) -> miette::Result<Checked> {
    let levels = input.levels()?;
    plan_file::refuse(path)?;
    let mut files = DiskFiles::new();
    let (options, mut wrong) = input.options(&mut files)?;
    let loaded = if path == "-" { files.load_stdin() } else { files.load(path, None) };
    let file = loaded.map_err(|why| ReadError { path: path.to_owned(), why })?;
    let (curriculum, mut diagnostics) = sema::check(&mut files, file, &options);
    diagnostics.append(&mut wrong);
    levels.apply(&mut diagnostics);
    Ok(Checked { files, file, curriculum, diagnostics })
}

/// The plan of `path`, after its diagnostics were written to stderr; `None` when one of them
/// denies it.
///
/// # Errors
/// As [`check`].
pub(crate) fn plan(path: &str, input: &InputArgs) -> miette::Result<Option<(Plan, Checked)>> {
    let checked = check(path, input)?;
    print(&checked.diagnostics, &checked.files);
    let denied = checked.diagnostics.iter().any(|d| d.level == Level::Deny);
    match &checked.curriculum {
        Some(curriculum) if !denied => {
            let plan = plan::build(curriculum);
            if plan.stages.is_empty() {
                return Err(miette::miette!(
                    code = "midc::plan::empty",
                    help = "a file that only gives names to others is checked with `midc check`",
                    "`{path}` has no stage: there is nothing to plan"
                ));
            }
            counts::tell_of_stale(Path::new(path), &plan);
            Ok(Some((plan, checked)))
        }
        _ => Ok(None),
    }
}

/// A plan of all sources of `path` and of whatever else could be resolved, for a file with mistakes: what they
/// ask for may be in the sources.
///
/// # Errors
/// As [`check`].
pub(crate) fn sources(path: &str, input: &InputArgs) -> miette::Result<Plan> {
    let mut files = DiskFiles::new();
    let (options, _) = input.options(&mut files)?;
    let file = files.load(path, None).map_err(|why| ReadError { path: path.to_owned(), why })?;
    Ok(plan::sources(&sema::resolved(&mut files, file, &options)))
}

/// Write diagnostics to stderr, for people.
pub(crate) fn print(diagnostics: &[Diagnostic], files: &DiskFiles) {
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    tell!("{}", render(Format::Text, diagnostics, files, color).trim_end_matches('\n'));
    if let Some(summary) = summary(diagnostics) {
        tell!("{summary}");
    }
}
