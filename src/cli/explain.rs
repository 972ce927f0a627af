//! `midc explain`: the page of a code or lint.

use std::process::ExitCode;

use super::lines;
use crate::diag::codes::{self, CODES, CodeInfo};
use crate::diag::{Level, suggest::nearest};

/// Explain a diagnostic code or lint
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A code (`E0103`), the name of a lint, or `list` for all of them
    #[arg(value_name = "CODE")]
    code: String,
}

/// A code or lint that does not exist.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("there is no code or lint called `{name}`")]
#[diagnostic(code(midc::unknown_code))]
struct UnknownCode {
    name: String,
    #[help]
    help: String,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let text = if args.code == "list" { list() } else { page(&args.code)?.text() };
    lines::output(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn page(name: &str) -> Result<&'static CodeInfo, UnknownCode> {
    // `312` and `e312` are as clear as `E0312`.
    let digits = name.trim_start_matches(['E', 'e']);
    let padded = match digits.parse::<u16>() {
        Ok(number) => format!("E{number:04}"),
        Err(_) => name.replace('-', "_"),
    };
    codes::find(&padded).ok_or_else(|| UnknownCode {
        name: name.to_owned(),
        help: match nearest(name, codes::lints()) {
            Some(lint) => format!("did you mean `{lint}`?"),
            None => "`midc explain list` names them all".to_owned(),
        },
    })
}

fn list() -> String {
    let widest = codes::lints().map(str::len).max().unwrap_or(0);
    CODES
        .iter()
        .map(|info| {
            let level = match (info.lint, info.level) {
                (None, _) => "error",
                (_, Level::Deny) => "deny",
                (_, Level::Warn) => "warn",
                (_, Level::Allow) => "allow",
            };
            let name = info.lint.unwrap_or_default();
            format!("{}  {level:<5}  {name:<widest$}  {}\n", info.code, info.title)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_lints_have_pages() {
        for name in ["E0103", "e103", "103", "orphan_doc", "orphan-doc", "E0012"] {
            assert!(page(name).is_ok_and(|p| p.text().contains("```curriculum\n")), "{name}");
        }
        assert!(page("orphan_dog").unwrap_err().help.contains("orphan_doc"));
        assert_eq!(list().lines().count(), CODES.len());
    }
}
