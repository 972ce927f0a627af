//! What every command that takes a curriculum file shares: `--set`, `--params`, lint levels, and
//! the way from a path to diagnostics.

use std::path::PathBuf;

use crate::diag::{Level, LintLevels};

/// Options of every command that reads a curriculum.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct InputArgs {
    /// Change a `param` of the file, as in `--set budget=10B`
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub(crate) set: Vec<Setting>,
    /// Read values of params from a file of `name = value` lines
    #[arg(long, value_name = "FILE")]
    pub(crate) params: Option<PathBuf>,
    /// Silence a lint
    #[arg(short = 'A', long, value_name = "LINT")]
    allow: Vec<String>,
    /// Report a lint as a warning
    #[arg(short = 'W', long, value_name = "LINT")]
    warn: Vec<String>,
    /// Report a lint as an error; `warnings` stands for all of them
    #[arg(short = 'D', long, value_name = "LINT")]
    deny: Vec<String>,
}

/// One `--set`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// The param.
    pub(crate) name: String,
    /// An expression of the language.
    pub(crate) value: String,
}

impl std::str::FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
                Ok(Self { name: name.trim().to_owned(), value: value.trim().to_owned() })
            }
            _ => Err("a setting is `name=value`".to_owned()),
        }
    }
}

/// A lint name on the command line that does not exist.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("there is no lint called `{name}`")]
#[diagnostic(code(midc::unknown_lint))]
struct UnknownLint {
    name: String,
    #[help]
    help: String,
}

impl InputArgs {
    /// An option that was given, as it is spelled.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            ("--set", !self.set.is_empty()),
            ("--params", self.params.is_some()),
            ("--allow", !self.allow.is_empty()),
            ("--warn", !self.warn.is_empty()),
            ("--deny", !self.deny.is_empty()),
        ]
        .into_iter()
        .find_map(|(option, given)| given.then_some(option))
    }

    /// The lint levels of the command line. A stricter level given for the same lint wins, whatever
    /// the order of the options.
    ///
    /// # Errors
    /// When a name is no lint.
    pub(crate) fn levels(&self) -> miette::Result<LintLevels> {
        let mut levels = LintLevels::default();
        for (names, level) in
            [(&self.allow, Level::Allow), (&self.warn, Level::Warn), (&self.deny, Level::Deny)]
        {
            for name in names {
                levels.set(name, level).map_err(|unknown| UnknownLint {
                    help: match unknown.meant {
                        Some(meant) => format!("did you mean `{meant}`?"),
                        None => "`midc explain list` names all lints".to_owned(),
                    },
                    name: unknown.name,
                })?;
            }
        }
        Ok(levels)
    }
}
