//! `midc new`: a starter file to change.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::FAILED;
use super::lines::tell;

/// What is written.
const STARTER: &str = include_str!("starter.curriculum");

/// Write a commented starter file
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the run: `midc new anneal` writes `anneal.curriculum`
    name: PathBuf,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let path = match args.name.extension() {
        Some(extension) if extension == "curriculum" => args.name,
        _ => {
            let mut name = args.name.into_os_string();
            name.push(".curriculum");
            name.into()
        }
    };
    Ok(match write(&path) {
        Ok(()) => {
            let shown = path.display();
            tell!("wrote {shown}; look at it with `midc check {shown}` and `midc plan {shown}`");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell!("cannot write `{}`: {}", path.display(), why(&error, &path));
            ExitCode::from(FAILED)
        }
    })
}

/// The reason, with what to do about it.
fn why(error: &std::io::Error, path: &Path) -> String {
    use std::io::ErrorKind;
    match (error.kind(), path.parent()) {
        (ErrorKind::AlreadyExists, _) => "it is there already; give another name, or move it away".to_owned(),
        (ErrorKind::NotFound, Some(dir)) => {
            format!("there is no directory `{0}`; `mkdir -p {0}` makes it", dir.display())
        }
        _ => error.to_string(),
    }
}

/// Never over a file that is there.
fn write(path: &Path) -> std::io::Result<()> {
    std::fs::File::create_new(path)?.write_all(STARTER.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryFiles;

    #[test]
    fn the_starter_is_sound_and_formatted() {
        let mut files = MemoryFiles::new();
        let file = files.add("starter.curriculum", STARTER);
        let (curriculum, diagnostics) = crate::sema::check(&mut files, file, &Default::default());
        assert!(curriculum.is_some(), "{diagnostics:#?}");
        // Its files are not here, and nothing else is wrong with it.
        assert!(diagnostics.iter().all(|d| d.lint == Some("missing_files")), "{diagnostics:#?}");
        assert_eq!(crate::fmt::format(STARTER), STARTER);
    }

    #[test]
    fn a_file_that_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.curriculum");
        write(&path).unwrap();
        let error = write(&path).unwrap_err();
        assert!(why(&error, &path).contains("move it away"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), STARTER);
    }
}
