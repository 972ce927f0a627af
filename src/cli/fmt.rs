//! `midc fmt`: files in the one style.

use std::io::Write as _;
use std::process::ExitCode;

use super::check::ReadError;
use super::files::DiskFiles;
use super::{FOUND, write};
use crate::fmt::{format, unified_diff};
use crate::source::Files as _;

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
    let mut out = std::io::stdout();
    let mut unformatted = 0;
    for path in &args.files {
        let stdin = path == "-";
        let loaded = if stdin { files.load_stdin() } else { files.load(path, None) };
        let file = loaded.map_err(|why| ReadError { path: path.clone(), why })?;
        let (name, text) = (files.name(file), files.text(file));
        let formatted = format(text);
        let same = formatted == text;
        unformatted += usize::from(!same);
        // A closed pipe is no mistake of the file.
        if args.diff {
            let _ = out.write_all(unified_diff(name, text, &formatted).as_bytes());
        } else if args.check {
            if !same {
                let _ = writeln!(out, "{name}");
            }
        } else if stdin {
            let _ = out.write_all(formatted.as_bytes());
        } else if !same && let Some(path) = files.path(file) {
            write::replace(path, &formatted)?;
            eprintln!("formatted {name}");
        }
    }
    let failed = (args.check || args.diff) && unformatted > 0;
    Ok(if failed { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}
