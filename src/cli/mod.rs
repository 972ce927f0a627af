//! The command line, one file per subcommand.

use std::process::ExitCode;

/// Parse the arguments and run the subcommand.
pub fn run() -> ExitCode {
    ExitCode::SUCCESS
}
