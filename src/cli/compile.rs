//! From a curriculum on the command line to its plan: what every command that runs or shows one
//! shares.

use std::path::{Path, PathBuf};

use super::input::InputArgs;
use super::plan_file;
use crate::plan::Plan;

/// A curriculum, or a plan made of one earlier, and how to read it.
#[derive(Debug, clap::Args)]
pub(crate) struct CompileArgs {
    /// A .curriculum file, or a plan that `midc plan -o plan.json` wrote beside it
    pub(super) file: PathBuf,
    #[command(flatten)]
    input: InputArgs,
}

impl CompileArgs {
    /// The lint levels of the command line.
    ///
    /// # Errors
    /// When a name is no lint.
    pub(crate) fn levels(&self) -> miette::Result<crate::diag::LintLevels> {
        self.input.levels()
    }
}

/// A plan and the directory its relative paths start from.
pub(crate) struct Compiled {
    pub(crate) plan: Plan,
    pub(crate) base_dir: PathBuf,
}

/// A plan, and the checked file it was made from unless it was read as a plan.
pub(crate) struct Found {
    pub(crate) compiled: Compiled,
    pub(crate) checked: Option<super::curriculum::Checked>,
}

/// The plan of `args`; `None` when there are errors in the curriculum, which are then printed.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn plan(args: &CompileArgs) -> miette::Result<Option<Compiled>> {
    Ok(plan_and_file(args)?.map(|found| found.compiled))
}

/// The plan of `args` with what it came from; `None` when there are errors in the curriculum, which are then printed.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn plan_and_file(args: &CompileArgs) -> miette::Result<Option<Found>> {
    let base_dir = args.file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    if plan_file::is_named_so(&args.file) {
        let plan = plan_file::in_place_of_curriculum(&args.file, &args.input)?;
        return Ok(Some(Found { compiled: Compiled { plan, base_dir }, checked: None }));
    }
    let Some(path) = args.file.to_str() else {
        return Err(miette::miette!(
            help = "go to its directory and name it from there, or rename what is not",
            "the path `{}` is not UTF-8",
            args.file.display()
        ));
    };
    let plan = super::curriculum::plan(path, &args.input)?;
    Ok(plan.map(|(plan, checked)| Found { compiled: Compiled { plan, base_dir }, checked: Some(checked) }))
}

/// All sources of the curriculum of `args`, which has mistakes.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn sources(args: &CompileArgs) -> miette::Result<Compiled> {
    let base_dir = args.file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let plan = super::curriculum::sources(&args.file.to_string_lossy(), &args.input)?;
    Ok(Compiled { plan, base_dir })
}

/// A size such as `4GiB`, `512MiB` or plain bytes.
///
/// # Errors
/// A sentence on what a size looks like.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| text.strip_suffix(unit).map(|d| (d, *shift)))
        .unwrap_or((text, 0));
    let wrong = || format!("`{text}` is no size; write 512MiB, 4GiB or a number of bytes");
    let number: f64 = digits.trim().parse().map_err(|_| wrong())?;
    let bytes = number * (1u64 << shift) as f64;
    if bytes.is_finite() && bytes >= 1.0 && bytes < 2f64.powi(63) { Ok(bytes as u64) } else { Err(wrong()) }
}

/// A number of worker threads.
///
/// # Errors
/// A sentence on which numbers there are.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    // More than any machine has cores; each costs memory and a share of every small task.
    const MOST: usize = 1024;
    match text.parse() {
        Ok(n) if (1..=MOST).contains(&n) => Ok(n),
        _ => Err(format!("`{text}` is no number from 1 to {MOST}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, threads};

    #[test]
    fn numbers_of_threads() {
        assert_eq!(threads("1"), Ok(1));
        assert_eq!(threads("1024"), Ok(1024));
        for wrong in ["0", "-1", "1025", "1000000000", "99999999999999999999", "two", ""] {
            assert!(threads(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("1.5 KiB"), Ok(1536));
        assert_eq!(bytes("100"), Ok(100));
        for wrong in ["", "GiB", "4GB", "-1", "0", "1e30TiB", "nan"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
