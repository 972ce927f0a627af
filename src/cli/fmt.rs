//! `midc fmt`: files in the one style.

use std::process::ExitCode;

use super::check::ReadError;
use super::files::DiskFiles;
use super::lines::{self, tell};
use super::{FOUND, write};
use crate::fmt::{format, unified_diff};
use crate::source::Files as _;
use crate::syntax;

/// Format curriculum files
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files to format in place; `-` formats standard input to standard output
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Change nothing; name the files that are not formatted and exit with 1 if there are any
    #[arg(long)]
    check: bool,
    /// Change nothing; show what would change and exit with 1 if anything would
    #[arg(long)]
    diff: bool,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let mut files = DiskFiles::new();
    let mut unformatted = 0;
    for path in &args.files {
        let stdin = path == "-";
        let loaded = if stdin { files.load_stdin() } else { files.load(path, None) };
        let file = loaded.map_err(|why| ReadError { path: path.clone(), why })?;
        let (name, text) = (files.name(file), files.text(file));
        let formatted = format(text);
        if let [first, ..] = syntax::parse(file, text).1.as_slice() {
            let line = text[..first.primary.span.start as usize].matches('\n').count() + 1;
            tell!("{name}:{line}: what cannot be read is left as it stands; `midc check` says why");
        }
        let same = formatted == text;
        unformatted += usize::from(!same);
        if args.diff {
            lines::output(&unified_diff(name, text, &formatted))?;
        } else if args.check {
            if !same {
                lines::output(&format!("{name}\n"))?;
            }
        } else if stdin || files.is_piped(file) {
            lines::output(&formatted)?;
        } else if !same && let Some(path) = files.path(file) {
            write::replace(path, &formatted)?;
            tell!("formatted {name}");
        }
    }
    let failed = (args.check || args.diff) && unformatted > 0;
    Ok(if failed { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}
