//! Whole items and heads as other languages write them: imports, headers of TOML, loops, types. What single signs of
//! them mean stands in `mismatch.rs`.

use super::literal::SEGMENTS;
use super::mismatch::{Context, Place, Token};
use crate::diag::{Applicability, Diagnostic, codes};

/// Words that read another file elsewhere.
pub(super) const IMPORTS: [&str; 3] = ["import", "include", "require"];

/// What stands between the brackets of a header of TOML, `[stage.b]` or `[[stage]]`.
pub(super) fn table_header(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let inner = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(inner).trim();
    let words = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '"');
    (inner.starts_with(|c: char| c.is_ascii_alphabetic()) && inner.chars().all(words)).then_some(inner)
}

/// The variable of the head `stage b[seed]`, and where it stands.
pub(super) fn lone_variable(text: &str) -> Option<(usize, &str)> {
    let (before, rest) = text.split_once('[')?;
    let inner = rest.strip_suffix(']')?;
    let word = inner.trim();
    let is_word = word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    is_word.then(|| (before.len() + 1 + inner.len() - inner.trim_start().len(), word))
}

/// The head `stage b for seed in [1, 2]` with the variable where it belongs, every word where it was.
pub(super) fn loop_head(text: &str) -> Option<String> {
    let at = text.find(" for ")? + 1;
    // As many bytes as `for`.
    let head = format!("{}  [{}]", &text[..at], &text[at + "for".len()..]);
    head.contains(" in ").then_some(head)
}

impl Place<'_> {
    /// An item of another language.
    pub(super) fn foreign_item(&self) -> Option<Diagnostic> {
        if self.context != Context::Item {
            return None;
        }
        self.table_header().or_else(|| self.import()).or_else(|| self.typed_let())
    }

    fn table_header(&self) -> Option<Diagnostic> {
        let header = table_header(self.text.trim_end())?;
        let mut words = header.split(['.', '-', '"']).filter(|word| !word.is_empty());
        let (kind, name) = (words.next()?, words.next().map_or(String::new(), |name| format!(" {name}")));
        let span = self.span(0, self.text.trim_end().len());
        Some(
            Diagnostic::error(codes::UNEXPECTED, span, "a table of another notation", "opens no block here")
                .help(format!("a block has its fields in braces: `{kind}{name} {{ … }}`")),
        )
    }

    /// `import "x.curriculum" as s`, `use x.curriculum as s`.
    fn import(&self) -> Option<Diagnostic> {
        let (first, path) = (self.tokens.first()?, self.tokens.get(1)?);
        let alias = self.tokens.iter().position(|t| t.text == "as").filter(|at| *at > 1);
        if IMPORTS.contains(&first.text) && path.text.starts_with('"') {
            let message = format!("`{}` where `use` is meant", first.text);
            let d =
                Diagnostic::error(codes::UNEXPECTED, self.of(*first), message, "a word of another language")
                    .fix("write `use`", Applicability::MachineApplicable, self.of(*first), "use");
            return Some(match alias {
                Some(_) => d,
                None => d.help(format!("its names are reached through one: `use {} as s`", path.text)),
            });
        }
        if first.text != "use" || !path.is_word() {
            return None;
        }
        let last = alias.and_then(|at| self.tokens.get(at - 1)).or(self.tokens.last())?;
        let written = self.text.get(path.start..last.end())?;
        if !written.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)) {
            return None;
        }
        let file = if written.ends_with(".curriculum") { "" } else { ".curriculum" };
        let span = self.span(path.start, last.end());
        Some(
            Diagnostic::error(
                codes::UNEXPECTED,
                span,
                "a file without quotes",
                "the path of a file is a string",
            )
            .fix(
                format!("write `\"{written}{file}\"`"),
                Applicability::MaybeIncorrect,
                span,
                format!("\"{written}{file}\""),
            ),
        )
    }

    /// `let n: tokens = 5B`.
    fn typed_let(&self) -> Option<Diagnostic> {
        let [first, name, colon, ty, sign, ..] = self.tokens else { return None };
        if first.text != "let" || colon.text != ":" || !ty.is_word() || sign.text != "=" {
            return None;
        }
        let value = self.text.get(sign.end()..)?.trim();
        Some(
            Diagnostic::error(
                codes::UNEXPECTED,
                self.span(colon.start, ty.end()),
                "a `let` with a type",
                "a value says itself what it is",
            )
            .help(format!(
                "write `let {0} = {value}`; what `--set` is to change is a `param {0}: {1} = {value}`",
                name.text, ty.text
            ))
            .fix(
                "remove it",
                Applicability::MachineApplicable,
                self.span(name.end(), ty.end()),
                "",
            ),
        )
    }

    /// The variable of a fan-out as it is written elsewhere, or not at all: `stage b[1, 2]`, `stage b for k in [1, 2]`.
    pub(super) fn foreign_head(&self) -> Option<Diagnostic> {
        let (first, name, third) = (self.tokens.first()?, self.tokens.get(1)?, self.tokens.get(2)?);
        if self.context != Context::Head || !first.is_word() || !name.is_word() || self.index < 2 {
            return None;
        }
        let end = self.tokens.last()?.end();
        let head = |each: &str| format!("{} {}{each} {{ … }}", first.text, name.text);
        let (label, each) = match third.text {
            "for" if loop_head(self.text).is_some() => {
                ("a fan-out has no `for`", format!("[{}]", self.text.get(third.end()..end)?.trim()))
            }
            "[" if !self.tokens.iter().any(|t| t.text == "in") => {
                let values = self.text.get(third.start..end).filter(|v| v.ends_with(']'))?;
                let first = self.tokens.get(3)?;
                let each = match first.text.starts_with(|c: char| c.is_ascii_digit() || c == '"') {
                    true => format!("[x in {values}]"),
                    false if first.is_word() => format!("[{} in [1, 2]]", first.text),
                    false => return None,
                };
                ("a variable and its values stand here", each)
            }
            _ => return None,
        };
        let span = self.span(third.start, end);
        let d = Diagnostic::error(codes::UNEXPECTED, span, "a fan-out as it is not written here", label)
            .help(format!("write `{}`: one member for each value", head(&each)));
        // A name alone in the brackets says nothing of the values.
        let whole = third.text == "for" || each.starts_with("[x in");
        let from = self.span(name.end(), end);
        Some(if whole {
            d.fix(format!("write `{each}`"), Applicability::MaybeIncorrect, from, each)
        } else {
            d
        })
    }

    /// `inherit | linear(to: 0)`: what pipes have in the place of `then`.
    pub(super) fn pipe(&self, next: Token<'_>) -> Option<Diagnostic> {
        if next.text != "|" {
            return None;
        }
        let word = match self.tokens.get(self.index + 1) {
            Some(after) if SEGMENTS.contains(&after.text) => "then",
            _ => "or",
        };
        let message = format!("`|` where `{word}` is meant");
        Some(Diagnostic::error(codes::WRONG_SIGN, self.of(next), message, "a sign of another language").fix(
            format!("write `{word}`"),
            Applicability::MachineApplicable,
            self.of(next),
            word,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_of_toml_says() {
        for (text, inner) in [
            ("[stage.b]", Some("stage.b")),
            ("[[stage]]", Some("stage")),
            ("[lints]", Some("lints")),
            ("[1, 2]", None),
            ("[a, b]", None),
            ("stage", None),
        ] {
            assert_eq!(table_header(text), inner, "{text}");
        }
    }

    #[test]
    fn words_stay_where_they_were() {
        let text = "stage b for seed in [1, 2]";
        let head = loop_head(text).unwrap();
        assert_eq!(head, "stage b   [ seed in [1, 2]]");
        assert_eq!(head.find("seed"), text.find("seed"));
        assert_eq!(loop_head("stage b for seed"), None);
        assert_eq!(lone_variable("stage b[ seed ]"), Some((9, "seed")));
        assert_eq!(lone_variable("stage b[1]"), None);
    }
}
