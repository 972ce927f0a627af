//! The command line, one file per subcommand.

mod bench;
mod check;
mod compile;
mod completions;
mod counts;
mod curriculum;
mod data;
mod device;
mod doctor;
mod emit;
mod eval;
mod exec;
mod exec_engine;
mod explain;
mod files;
mod fmt;
mod graph;
mod input;
mod launch_files;
mod lines;
mod lsp;
mod new;
mod plan;
mod plan_diff;
mod plan_file;
mod plan_memory;
mod progress;
mod rehearse;
mod report;
mod rows;
mod settings;
mod soup;
mod verify;
mod vocabulary;
mod write;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The compiler for training curricula: check, plan and run mid-training recipes.
#[derive(Debug, Parser)]
#[command(name = "midc", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(new::Args),
    Check(check::Args),
    Plan(plan::Args),
    Graph(graph::Args),
    Exec(exec::Args),
    Rehearse(rehearse::Args),
    Data(data::Args),
    Eval(eval::Args),
    Report(report::Args),
    Soup(soup::Args),
    Emit(emit::Args),
    Verify(verify::Args),
    Fmt(fmt::Args),
    Explain(explain::Args),
    Lsp(lsp::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
}

/// Exit code of a run that found what it looks for: diagnostics at deny level, a failed gate.
pub(crate) const FOUND: u8 = 1;
/// Exit code of wrong usage and of failures of the machine: files, devices, memory.
pub(crate) const FAILED: u8 = 2;

/// Parse the arguments and run the subcommand.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    // A file that may not grow is to be an error of writing, not the end of the process. Where the signal cannot be
    // listened to, it is.
    #[cfg(unix)]
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default());
    let outcome = match cli.command {
        Command::New(args) => new::run(args),
        Command::Check(args) => check::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Graph(args) => graph::run(args),
        Command::Exec(args) => exec::run(args),
        Command::Rehearse(args) => rehearse::run(args),
        Command::Data(args) => data::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Report(args) => report::run(args),
        Command::Soup(args) => soup::run(args),
        Command::Emit(args) => emit::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Fmt(args) => fmt::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Lsp(args) => lsp::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
    };
    match outcome {
        Ok(code) => code,
        Err(report) => {
            lines::tell!("{report:?}");
            ExitCode::from(FAILED)
        }
    }
}
