//! Lint levels from the command line, the last word after built-in levels, `lints { }` and
//! `@allow`. The file's own part is applied by `sema`.

use std::collections::BTreeMap;

use super::{Diagnostic, Level, codes, suggest::nearest};

/// The lint levels of `-A`, `-W` and `-D`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LintLevels {
    by_lint: BTreeMap<&'static str, Level>,
    /// What `warnings` stands for: everything that would only warn.
    warnings: Option<Level>,
}

/// A lint name that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no lint called `{name}`")]
pub struct UnknownLint {
    /// As given.
    pub name: String,
    /// The lint that was probably meant.
    pub meant: Option<&'static str>,
}

impl LintLevels {
    /// Set the level of a lint (by name or code), or of the group `warnings`. Later calls win.
    ///
    /// # Errors
    /// When no lint has that name.
    pub fn set(&mut self, name: &str, level: Level) -> Result<(), UnknownLint> {
        if name == "warnings" {
            self.warnings = Some(level);
            return Ok(());
        }
        match codes::find(name).and_then(|info| info.lint) {
            Some(lint) => {
                self.by_lint.insert(lint, level);
                Ok(())
            }
            None => Err(UnknownLint { name: name.to_owned(), meant: nearest(name, codes::lints()) }),
        }
    }

    /// The level of a diagnostic whose level so far (built-in, `lints`, `@allow`) is `so_far`.
    /// Errors that are no lints keep theirs.
    pub fn level(&self, lint: Option<&str>, so_far: Level) -> Level {
        let level = lint.and_then(|lint| self.by_lint.get(lint).copied()).unwrap_or(so_far);
        match (level, self.warnings) {
            (Level::Warn, Some(group)) => group,
            _ => level,
        }
    }

    /// Give every diagnostic its final level and drop those that end up allowed.
    pub fn apply(&self, diagnostics: &mut Vec<Diagnostic>) {
        for diagnostic in diagnostics.iter_mut() {
            diagnostic.level = self.level(diagnostic.lint, diagnostic.level);
        }
        diagnostics.retain(|diagnostic| diagnostic.level != Level::Allow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_has_the_last_word() {
        let mut levels = LintLevels::default();
        levels.set("warnings", Level::Deny).unwrap();
        assert_eq!(levels.level(Some("orphan_doc"), Level::Warn), Level::Deny);
        assert_eq!(levels.level(Some("orphan_doc"), Level::Allow), Level::Allow);
        levels.set("E0012", Level::Allow).unwrap();
        assert_eq!(levels.level(Some("orphan_doc"), Level::Warn), Level::Allow);
        assert_eq!(levels.level(None, Level::Deny), Level::Deny);
    }

    #[test]
    fn an_unknown_lint_is_refused() {
        let unknown = LintLevels::default().set("orphan_docs", Level::Warn).unwrap_err();
        assert_eq!(unknown.meant, Some("orphan_doc"));
        assert!(LintLevels::default().set("E0001", Level::Allow).is_err(), "an error is no lint");
    }
}
