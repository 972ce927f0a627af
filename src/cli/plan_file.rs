//! Plans that were written to disk: `plan.json` of a run, the output of `midc plan --format json`.

use std::path::Path;

use miette::{IntoDiagnostic as _, WrapErr as _};

use super::input::InputArgs;
use crate::plan::Plan;

/// Whether `path` is read as a plan where a curriculum may be given as well.
pub(crate) fn is_named_so(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "json")
}

/// Refuse a plan where a curriculum is needed.
///
/// # Errors
/// When `path` is named as a plan is.
pub(crate) fn refuse(path: &str) -> miette::Result<()> {
    if !is_named_so(Path::new(path)) {
        return Ok(());
    }
    Err(miette::miette!(
        code = "midc::plan::not_a_curriculum",
        help = "give the curriculum it was made from; `midc exec`, `midc graph` and `midc plan --diff` read plans",
        "`{path}` is named as a plan is, and a curriculum is needed here"
    ))
}

/// Read a plan.
///
/// # Errors
/// When the file cannot be read or is no plan of this version.
pub(crate) fn read(path: &Path) -> miette::Result<Plan> {
    let text = std::fs::read(path)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read `{}`", path.display()))?;
    Plan::read(&text).map_err(|why| {
        miette::miette!(
            code = "midc::plan::damaged",
            help =
                "`midc plan FILE -o plan.json` writes one; a plan that was edited, or that another version of midc wrote, is written anew",
            "`{}` is not a plan: {why}",
            path.display()
        )
    })
}

/// Read the plan that was given in place of a curriculum.
///
/// # Errors
/// As [`read`]; when `input` would change something.
pub(crate) fn in_place_of_curriculum(path: &Path, input: &InputArgs) -> miette::Result<Plan> {
    if let Some(option) = input.given() {
        return Err(miette::miette!(
            code = "midc::plan::settled",
            help = "give it to the curriculum that the plan was made from",
            "`{option}` changes a curriculum; `{}` is a plan, in which everything is settled",
            path.display()
        ));
    }
    read(path)
}
