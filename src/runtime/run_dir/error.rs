//! Why a run directory cannot be used.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::plan::ReadError;
use crate::runtime::checkpoint::CheckpointError;

/// Why a run directory cannot be used.
#[derive(Debug, Error, Diagnostic)]
pub enum RunDirError {
    /// Another run is there.
    #[error("`{}` already holds a run of `{curriculum}`", dir.display())]
    #[diagnostic(
        code(midc::run_dir::occupied),
        help("continue it with `--resume`, or name a new directory with `--run-dir DIR`")
    )]
    Occupied {
        /// The directory.
        dir: PathBuf,
        /// The curriculum of the run that is there.
        curriculum: String,
    },
    /// `--resume` with another plan.
    #[error("`{}` holds a run of another plan: {found} there, {wanted} now", dir.display())]
    #[diagnostic(code(midc::run_dir::other_plan))]
    OtherPlan {
        /// The directory.
        dir: PathBuf,
        /// Hash of the plan that is there.
        found: String,
        /// Hash of the plan to be run.
        wanted: String,
        /// What to do.
        #[help]
        help: String,
    },
    /// `--resume` with a plan by which what is done would have been done otherwise.
    #[error("`{}` holds a run of another plan, which does not go on with this one: {}", dir.display(), why.join("; "))]
    #[diagnostic(
        code(midc::run_dir::stale),
        help(
            "`midc plan FILE --diff {}/plan.json` shows what changed; undo it, or start a new run with `--run-dir DIR`",
            dir.display()
        )
    )]
    Stale {
        /// The directory.
        dir: PathBuf,
        /// What of that which is done would differ, half a sentence each.
        why: Vec<String>,
    },
    /// Checkpoints that no plan speaks of.
    #[error("`{}` holds checkpoints, and its `plan.json` is gone", dir.display())]
    #[diagnostic(
        code(midc::run_dir::plan_gone),
        help(
            "`--resume` writes it anew where the checkpoints are of this very plan; otherwise bring the file back, or name \
             a new directory with `--run-dir DIR`"
        )
    )]
    PlanGone {
        /// The directory.
        dir: PathBuf,
    },
    /// Checkpoints cannot be looked through.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] Box<CheckpointError>),
    /// `--resume` with another engine.
    #[error("`{}` holds a run of {found}, not of {wanted}", dir.display())]
    #[diagnostic(
        code(midc::run_dir::other_engine),
        help(
            "name the same engine with `--engine`, or none for midc's own; a new run goes elsewhere with `--run-dir DIR`"
        )
    )]
    OtherEngine {
        /// The directory.
        dir: PathBuf,
        /// The engine that trained there.
        found: String,
        /// The one asked for.
        wanted: String,
    },
    /// Something else than a run is there.
    #[error("`{}` is not empty and holds no run", dir.display())]
    #[diagnostic(code(midc::run_dir::foreign), help("name an empty or new directory with `--run-dir DIR`"))]
    Foreign {
        /// The directory.
        dir: PathBuf,
    },
    /// The plan that is there cannot be read.
    #[error("`{}` is not a plan", path.display())]
    #[diagnostic(
        code(midc::run_dir::damaged_plan),
        help(
            "the file was written by another version of midc or damaged; `--resume` writes it anew where the checkpoints are \
             of this very plan, a new run starts with `--run-dir DIR`"
        )
    )]
    DamagedPlan {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<ReadError>,
    },
    /// Another process runs in it.
    #[error("another process is running in `{}`", dir.display())]
    #[diagnostic(code(midc::run_dir::locked), help("wait for it to end, or stop it"))]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// It is no longer where it was.
    #[error("`{}` is no longer the run directory this run began in: it was moved or removed", dir.display())]
    #[diagnostic(code(midc::run_dir::moved), help("nothing was written in its place; {now}"))]
    Moved {
        /// Where it was.
        dir: PathBuf,
        /// Where its checkpoints are, and how to go on.
        now: String,
    },
    /// The machine said no.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(code(midc::run_dir::io))]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl RunDirError {
    /// An [`RunDirError::Io`] maker for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
