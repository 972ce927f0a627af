//! Plans that were written to disk: `plan.json` of a run, the output of `midc plan --format json`.

use std::path::Path;

use crate::plan::Plan;
use crate::runtime::run_dir::RunDirError;

/// Read a plan.
///
/// # Errors
/// [`RunDirError::Io`] and [`RunDirError::DamagedPlan`].
pub(crate) fn read(path: &Path) -> Result<Plan, RunDirError> {
    let text = std::fs::read(path).map_err(RunDirError::io("read", path))?;
    serde_json::from_slice(&text)
        .map_err(|source| RunDirError::DamagedPlan { path: path.to_path_buf(), source })
}
