//! Diagnostics as data: what is wrong, where, and how to mend it. Renderers live in `render/`.

pub mod codes;
pub mod fix;
mod levels;
pub mod render;
pub mod suggest;

pub use codes::{CODES, Code, CodeInfo};
pub use levels::{LintLevels, UnknownLint};

use crate::source::Span;

/// How serious a diagnostic is, after lint levels were applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Recorded and not shown.
    Allow,
    /// Shown; does not fail the check.
    Warn,
    /// Fails the check.
    Deny,
}

/// One message about one mistake.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    /// The code, `E0312`-like.
    pub code: Code,
    /// Severity.
    pub level: Level,
    /// The lint's name, when this is a lint.
    pub lint: Option<&'static str>,
    /// Lower-case headline without a full stop.
    pub message: String,
    /// Where; makes sense without the headline.
    pub primary: Label,
    /// Other places that explain it.
    pub labels: Vec<Label>,
    /// Facts: resolved values, distances.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Vec<String>,
    /// Edits that mend it.
    pub fixes: Vec<Fix>,
}

/// A span with a remark.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What is to be seen there; may be empty.
    pub text: String,
}

/// A mend, as edits of the text.
#[derive(Clone, Debug, PartialEq)]
pub struct Fix {
    /// What it does, imperative.
    pub title: String,
    /// Whether `--fix` may apply it unasked.
    pub applicability: Applicability,
    /// Non-overlapping replacements.
    pub edits: Vec<Edit>,
}

/// Replace the text of `span` by `text`.
#[derive(Clone, Debug, PartialEq)]
pub struct Edit {
    /// What is replaced.
    pub span: Span,
    /// By what.
    pub text: String,
}

/// How sure a fix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applicability {
    /// Applied by `--fix`.
    MachineApplicable,
    /// Offered, never applied unasked.
    MaybeIncorrect,
    /// Has parts the author must fill in.
    HasPlaceholders,
}

impl Diagnostic {
    /// An error at `span`; `label` says what is to be seen there.
    pub fn error(code: Code, span: Span, message: impl Into<String>, label: impl Into<String>) -> Self {
        Self {
            code,
            level: Level::Deny,
            lint: None,
            message: message.into(),
            primary: Label { span, text: label.into() },
            labels: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
            fixes: Vec::new(),
        }
    }

    /// A finding of the lint `lint`, at its built-in level.
    pub fn lint(
        code: Code,
        lint: &'static str,
        level: Level,
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Self {
        Self { level, lint: Some(lint), ..Self::error(code, span, message, label) }
    }

    /// Add a second place.
    #[must_use]
    pub fn label(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Add a fact.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Self {
        self.notes.push(text.into());
        self
    }

    /// Add advice.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help.push(text.into());
        self
    }

    /// Add a fix that replaces `span` by `text`.
    #[must_use]
    pub fn fix(
        mut self,
        title: impl Into<String>,
        applicability: Applicability,
        span: Span,
        text: impl Into<String>,
    ) -> Self {
        self.fixes.push(Fix {
            title: title.into(),
            applicability,
            edits: vec![Edit { span, text: text.into() }],
        });
        self
    }
}
