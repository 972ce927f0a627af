//! Why a launch under supervision cannot go on.

use std::path::{Path, PathBuf};

use miette::Diagnostic;
use thiserror::Error;

use crate::runtime::checkpoint::CheckpointError;
use crate::runtime::run_dir::RunDirError;

/// Why a launch cannot go on. What was finished stays; `--resume` continues from it.
#[derive(Debug, Error, Diagnostic)]
pub enum LaunchError {
    /// The run directory.
    #[error(transparent)]
    #[diagnostic(transparent)]
    RunDir(#[from] RunDirError),
    /// An export of the engine.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No interpreter.
    #[error("there is no Python to run the engine with")]
    #[diagnostic(
        code(midc::launch::no_python),
        help(
            "looked for {looked}; activate the engine's virtual environment, or name its interpreter with \
             `--python PATH` or MIDC_PYTHON"
        )
    )]
    NoPython {
        /// What was tried.
        looked: String,
    },
    /// The interpreter does not do what one does.
    #[error("`{}` does not work as a Python for the engine: {why}", python.display())]
    #[diagnostic(
        code(midc::launch::python),
        help("name another interpreter with `--python PATH` or MIDC_PYTHON")
    )]
    Python {
        /// The interpreter.
        python: PathBuf,
        /// What it said.
        why: String,
    },
    /// Packages are missing.
    #[error("`{}` lacks {packages}", python.display())]
    #[diagnostic(
        code(midc::launch::packages),
        help(
            "install them with `{} -m pip install {requirements}`, or name an environment that has them with \
             `--python PATH` or MIDC_PYTHON",
            python.display()
        )
    )]
    Packages {
        /// The interpreter.
        python: PathBuf,
        /// Names as pip has them.
        packages: String,
        /// All the launch needs, as arguments of pip.
        requirements: String,
    },
    /// What a stage starts from is not there.
    #[error("`{name}` starts from `{from}`, of which the engine has no checkpoint at `{}`", dir.display())]
    #[diagnostic(
        code(midc::launch::missing_start),
        help("run the earlier stage first: without `--only`, `--resume` does what is missing")
    )]
    MissingStart {
        /// The stage or soup.
        name: String,
        /// What it starts from.
        from: String,
        /// Where that was looked for.
        dir: PathBuf,
    },
    /// The child did not start.
    #[error("cannot start `{program}`")]
    #[diagnostic(code(midc::launch::start), help("name the interpreter with `--python PATH` or MIDC_PYTHON"))]
    Start {
        /// The program.
        program: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The child failed.
    #[error("the engine ended with {status} in `{name}`")]
    #[diagnostic(
        code(midc::launch::failed),
        help(
            "all it printed is in `{}`; with the cause removed, `--resume` goes on from the last checkpoint",
            log.display()
        )
    )]
    Failed {
        /// The stage or soup.
        name: String,
        /// `exit status 1`, `signal 9`.
        status: String,
        /// The last lines it printed.
        tail: String,
        /// Everything it printed.
        log: PathBuf,
    },
    /// The child ended well and left no checkpoint.
    #[error("the engine ended without an error and without the checkpoint `{}`", dir.display())]
    #[diagnostic(code(midc::launch::no_checkpoint), help("all it printed is in `{}`", log.display()))]
    NoCheckpoint {
        /// Where it should be.
        dir: PathBuf,
        /// Everything it printed.
        log: PathBuf,
    },
    /// A log line that is none.
    #[error("`{}`, line {line} is not what the runner writes there", path.display())]
    #[diagnostic(
        code(midc::launch::log),
        help("remove the file and the stage's directory in `launch/out` to train it anew")
    )]
    Log {
        /// The log.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What serde says.
        #[source]
        source: serde_json::Error,
    },
    /// Exported rows that cannot be read.
    #[error("the rows of stage `{stage}` cannot be read: {why}")]
    #[diagnostic(
        code(midc::launch::rows),
        help("remove `launch/rows` in the run directory: `--resume` writes it again")
    )]
    Rows {
        /// The stage.
        stage: String,
        /// Why not.
        why: String,
    },
    /// No port for the processes to meet at.
    #[error("no free port on 127.0.0.1 for the processes to meet at")]
    #[diagnostic(code(midc::launch::port))]
    Port {
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The machine said no.
    #[error("cannot {action} `{}`", path.display())]
    #[diagnostic(code(midc::launch::io))]
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

impl LaunchError {
    /// A [`LaunchError::Io`] maker for `map_err`.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
