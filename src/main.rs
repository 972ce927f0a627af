//! Parse the arguments, run, exit with the code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    midc::cli::run()
}
