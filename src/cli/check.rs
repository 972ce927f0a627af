//! `midc check`: diagnostics of curriculum files, and their fixes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::IsTerminal as _;
use std::process::ExitCode;

use super::files::DiskFiles;
use super::input::InputArgs;
use super::lines::{self, tell};
use super::{FOUND, plan_file, write};
use crate::diag::render::{Format, render, summary};
use crate::diag::{Diagnostic, Level, LintLevels, fix};
use crate::fmt;
use crate::sema;
use crate::source::{FileId, Files as _};

/// Most rounds of fixing; each round that changes anything removes at least one diagnostic.
const MAX_ROUNDS: usize = 16;

/// Report what is wrong in curriculum files
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files to check; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// How to write diagnostics
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Apply the fixes that are sure, then check again
    #[arg(long)]
    fix: bool,
    #[command(flatten)]
    input: InputArgs,
}

impl clap::ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Concise, Self::Json, Self::Sarif, Self::Github]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let name = Self::ALL.iter().find(|(format, _)| format == self).map(|(_, name)| *name)?;
        Some(clap::builder::PossibleValue::new(name))
    }
}

/// A file given on the command line that could not be read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("cannot read `{path}`: {why}")]
#[diagnostic(code(midc::read))]
pub(crate) struct ReadError {
    pub(crate) path: String,
    pub(crate) why: String,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let levels = args.input.levels()?;
    args.files.iter().try_for_each(|path| plan_file::refuse(path))?;
    let (mut files, mut diagnostics) = check(&args.files, &levels, &args.input)?;
    let mut fixed = BTreeMap::new();
    if args.fix {
        if args.files.iter().any(|path| path == "-") {
            return Err(miette::miette!(
                code = "midc::check::fix",
                help = "save it to a file, or leave `--fix` out",
                "`--fix` changes files, and `-` is standard input"
            ));
        }
        for _ in 0..MAX_ROUNDS {
            if !apply(&files, &diagnostics, &mut fixed)? {
                break;
            }
            (files, diagnostics) = check(&args.files, &levels, &args.input)?;
        }
    }
    let color = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let text = render(args.format, &diagnostics, &files, color);
    lines::output(&text)?;
    // By file: an import may be changed that nobody named.
    for (file, fixes) in fixed {
        tell!("applied {fixes} fix{} to {file}", if fixes == 1 { "" } else { "es" });
    }
    if args.format == Format::Text
        && let Some(summary) = summary(&diagnostics)
    {
        tell!("{summary}");
    }
    let failed = diagnostics.iter().any(|d| d.level == Level::Deny);
    Ok(if failed { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

/// Check every file. What two of them import is reported once.
fn check(
    paths: &[String],
    levels: &LintLevels,
    input: &InputArgs,
) -> Result<(DiskFiles, Vec<Diagnostic>), ReadError> {
    let mut files = DiskFiles::new();
    let (options, mut all) = input.options(&mut files)?;
    let mut seen = HashSet::new();
    for path in paths {
        let loaded = if path == "-" { files.load_stdin() } else { files.load(path, None) };
        let file = loaded.map_err(|why| ReadError { path: path.clone(), why })?;
        let (_, diagnostics) = sema::check(&mut files, file, &options);
        all.extend(
            diagnostics.into_iter().filter(|d| seen.insert((d.code, d.primary.span, d.message.clone()))),
        );
    }
    levels.apply(&mut all);
    Ok((files, all))
}

/// Write the sure fixes of `diagnostics` into their files and add how many there were to `fixed`;
/// whether there were any.
fn apply(
    files: &DiskFiles,
    diagnostics: &[Diagnostic],
    fixed: &mut BTreeMap<String, usize>,
) -> miette::Result<bool> {
    let touched: BTreeSet<FileId> = diagnostics
        .iter()
        .flat_map(|d| d.fixes.iter().flat_map(|f| f.edits.iter().map(|e| e.span.file)))
        .collect();
    let mut any = false;
    for file in touched {
        // The command line has no place to write to.
        let Some(path) = files.path(file).filter(|path| path.is_file()) else { continue };
        if let Some(new) = fix::apply(diagnostics, file, files.text(file)) {
            write::replace(path, &fmt::follow(files.text(file), new.text))?;
            *fixed.entry(files.name(file).to_owned()).or_default() += new.applied;
            any = true;
        }
    }
    Ok(any)
}
