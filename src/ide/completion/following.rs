//! What may follow a value that is written already: units, `of`, `then`, comparisons.

use super::{COMPARISONS, CompletionKind, List};
use crate::ide::context::{Token, TokenKind};
use crate::schema::{self, Family, Ty};
use crate::sema::program::DefKind;

impl List<'_> {
    /// What may follow the tokens of a value; whether anything but a fresh value may.
    pub(super) fn after(&mut self, value: &[Token<'_>], ty: Option<Ty>) -> bool {
        let Some(last) = value.last() else { return false };
        if matches!(ty, Some(Ty::Condition | Ty::Predicate)) {
            return self.after_operand(value, *last);
        }
        let curve = ty.is_none_or(|t| matches!(t, Ty::Lr | Ty::Batch | Ty::Context | Ty::Mix | Ty::Share));
        match (last.kind, last.text) {
            (TokenKind::Word, "then") => {
                self.functions(&[Family::Segment]);
                true
            }
            (TokenKind::Word, "of") => {
                self.wholes(match ty {
                    Some(Ty::Span | Ty::Tokens | Ty::Steps) => &["stage", "total"],
                    Some(Ty::Lr | Ty::Target) => &["peak", "inherit"],
                    _ => &["stage", "total", "peak", "inherit", "from"],
                });
                self.definitions(&[DefKind::Param, DefKind::Let], "");
                true
            }
            (TokenKind::Number, _) => {
                let units: &[&str] = match ty {
                    Some(Ty::Batch) => &["seqs", "tokens"],
                    Some(Ty::Tokens) => &["tokens"],
                    Some(Ty::Steps) => &["steps"],
                    Some(Ty::Span) => &["tokens", "steps"],
                    Some(Ty::Lr | Ty::Target | Ty::Number | Ty::Whole | Ty::Context) => &[],
                    _ => &["tokens", "seqs", "steps", "epochs", "gpu_hours", "flops"],
                };
                for unit in schema::UNITS.iter().filter(|u| units.contains(&u.name)) {
                    self.push(unit.name, CompletionKind::Unit, unit.doc, "");
                }
                if curve {
                    self.then();
                }
                true
            }
            (TokenKind::Sign, "%") => {
                self.push("of", CompletionKind::Keyword, "a share of something", "");
                if curve {
                    self.then();
                }
                true
            }
            (TokenKind::Word | TokenKind::Text, _) | (TokenKind::Sign, ")" | "]") => {
                if curve {
                    self.then();
                }
                if ty.is_none_or(|t| t == Ty::Mix) {
                    self.push("where", CompletionKind::Keyword, "only records that satisfy a condition", "");
                }
                true
            }
            _ => false,
        }
    }

    /// What may follow the tokens of a condition that end in an operand; whether they do.
    pub(super) fn after_operand(&mut self, tokens: &[Token<'_>], last: Token<'_>) -> bool {
        let joins = |t: &Token<'_>| matches!(t.text, "and" | "or");
        let clause = tokens.iter().rposition(joins).map_or(tokens, |i| &tokens[i + 1..]);
        let compared = clause.iter().any(|t| COMPARISONS.iter().any(|(sign, _)| *sign == t.text));
        match (last.kind, last.text) {
            (TokenKind::Word, "of") => {
                self.wholes(&["from", "peak", "stage", "total"]);
                return true;
            }
            (TokenKind::Word, "and" | "or" | "not") => return false,
            (TokenKind::Sign, "%") => {
                self.push("of", CompletionKind::Keyword, "a share of something", "");
            }
            (TokenKind::Word | TokenKind::Text, _) | (TokenKind::Sign, ")" | "]") => {}
            (TokenKind::Number, _) => {
                for unit in schema::UNITS {
                    self.push(unit.name, CompletionKind::Unit, unit.doc, "");
                }
            }
            _ => return false,
        }
        if compared {
            self.push("and", CompletionKind::Keyword, "both", "");
            self.push("or", CompletionKind::Keyword, "either", "");
        } else {
            for (sign, doc) in COMPARISONS {
                self.push(sign, CompletionKind::Keyword, doc, "");
            }
        }
        true
    }

    /// What a share may be a share of.
    pub(super) fn wholes(&mut self, words: &[&str]) {
        for (word, doc) in [
            ("stage", "the tokens of the stage"),
            ("total", "the tokens of the longest line through the graph"),
            ("peak", "the curve's own maximum"),
            ("inherit", "the value at the end of `from`"),
            ("from", "the value at what the stage starts from"),
        ] {
            if words.contains(&word) {
                self.push(word, CompletionKind::Word, doc, "");
            }
        }
    }

    pub(super) fn then(&mut self) {
        self.push("then", CompletionKind::Keyword, "the next segment of the curve", "");
    }
}
