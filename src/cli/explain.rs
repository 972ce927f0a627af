//! `midc explain`: the page of a code or lint, or what a word of the language means.

use std::process::ExitCode;

use super::{lines, vocabulary};
use crate::diag::codes::{self, CODES, CodeInfo};
use crate::diag::{Level, suggest::nearest};

/// Explain a diagnostic code, a lint or a word of the language
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A code (`E0103`), the name of a lint, a word (`yarn`, `lr`, `stage`), or `list` for all codes and lints
    #[arg(value_name = "CODE")]
    code: String,
}

/// A code or lint that does not exist.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("there is no code, lint or word called `{name}`")]
#[diagnostic(code(midc::unknown_code))]
struct UnknownCode {
    name: String,
    #[help]
    help: String,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let text = match args.code.as_str() {
        "list" => list(),
        // No code or lint is a word of the language, too.
        name => match vocabulary::explain(name) {
            Some(text) => text,
            None => page(name)?.text(),
        },
    };
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
        help: match nearest(name, codes::lints().chain(vocabulary::names())) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`midc explain list` names codes and lints; the words are in the manual".to_owned(),
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
    fn no_lint_is_a_word_of_the_language() {
        for name in codes::lints() {
            assert_eq!(vocabulary::explain(name), None);
        }
    }

    #[test]
    fn codes_and_lints_have_pages() {
        for name in ["E0103", "e103", "103", "orphan_doc", "orphan-doc", "E0012"] {
            assert!(page(name).is_ok_and(|p| p.text().contains("```curriculum\n")), "{name}");
        }
        assert!(page("orphan_dog").unwrap_err().help.contains("orphan_doc"));
        assert_eq!(list().lines().count(), CODES.len());
    }
}
