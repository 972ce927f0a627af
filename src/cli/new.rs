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
    if args.name.file_name().is_none() || args.name.as_os_str().is_empty() {
        tell!("`{}` names no file: `midc new anneal` writes `anneal.curriculum`", args.name.display());
        return Ok(ExitCode::from(FAILED));
    }
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
            let shown = quoted(&path);
            tell!("wrote {}; look at it with `midc check {shown}` and `midc plan {shown}`", path.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell!("cannot write `{}`: {}", path.display(), why(&error, &path));
            ExitCode::from(FAILED)
        }
    })
}

/// As a shell takes it for one word, and midc for no option.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let text = if text.starts_with('-') { format!("./{text}") } else { text };
    let plain = |c: char| c.is_alphanumeric() || "./_-+,:@%".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
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
    fn names_are_told_as_a_shell_takes_them() {
        let shown = ["a.curriculum", "-x.curriculum", "my run.curriculum", "it's.curriculum"];
        let shown = shown.map(|name| quoted(Path::new(name)));
        assert_eq!(
            shown,
            ["a.curriculum", "./-x.curriculum", "'my run.curriculum'", "'it'\\''s.curriculum'"]
        );
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
