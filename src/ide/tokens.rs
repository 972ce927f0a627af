//! Semantic tokens: what the grammar of an editor cannot know, such as whether a name is a source
//! or a stage.

use crate::sema::program::DefKind;
use crate::source::{FileId, Span};

use super::analysis::Names;
use super::marks::{TargetKind, What};

/// Types of tokens, standard names of the protocol, so that every theme has a color for them.
pub const TOKEN_TYPES: &[&str] = &[
    "keyword",
    "namespace",
    "class",
    "enum",
    "struct",
    "event",
    "variable",
    "parameter",
    "property",
    "function",
    "enumMember",
    "number",
    "string",
    "decorator",
    "type",
];
/// Modifiers of tokens.
pub const TOKEN_MODIFIERS: &[&str] = &["definition", "readonly"];

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where.
    pub span: Span,
    /// Index into [`TOKEN_TYPES`].
    pub kind: u32,
    /// Bits by index into [`TOKEN_MODIFIERS`].
    pub modifiers: u32,
}

const DEFINITION: u32 = 1;
const READONLY: u32 = 2;

/// The tokens of `file`, in order, none overlapping.
pub fn tokens(names: &Names, file: FileId) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    for mark in names.marks(file) {
        let (name, modifiers) = match mark.what {
            What::Keyword(..) | What::Block(_) => ("keyword", 0),
            What::Define(target) => (kind(target.kind), DEFINITION),
            What::Refer(target) => (kind(target.kind), 0),
            What::Field(..) | What::Property | What::RecordField => ("property", 0),
            What::Function(_) => ("function", 0),
            What::Param(..) => ("parameter", 0),
            What::Word(..) => ("enumMember", READONLY),
            What::Quantity(_) => ("number", 0),
            What::Text => ("string", 0),
            What::Attribute(_) => ("decorator", 0),
            What::Lint(_) => ("type", 0),
        };
        // A mark inside another (an index in a path) would overlap; a string may not cross lines.
        if out.last().is_some_and(|last| last.span.end > mark.span.start) {
            continue;
        }
        let Some(kind) = TOKEN_TYPES.iter().position(|t| *t == name) else { continue };
        out.push(Token { span: mark.span, kind: kind as u32, modifiers });
    }
    out
}

fn kind(target: TargetKind) -> &'static str {
    match target {
        TargetKind::Def(_, DefKind::Param) => "parameter",
        TargetKind::Def(_, DefKind::Let) | TargetKind::Variable => "variable",
        TargetKind::Def(_, DefKind::Source) => "enum",
        TargetKind::Def(_, DefKind::Mix) => "struct",
        TargetKind::Def(_, DefKind::Model | DefKind::Stage | DefKind::Soup) => "class",
        TargetKind::Space(_) => "namespace",
        TargetKind::Checkpoint | TargetKind::Eval => "event",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::analyze;

    #[test]
    fn names_are_told_by_what_they_are() {
        let text = "use \"lib.curriculum\" as s\nmix m { s.web = 100% }\nstage a {\n  mix = m\n}\n";
        let (_, main, analysis) = analyze(text);
        let found: Vec<String> = tokens(analysis.names(), main)
            .iter()
            .map(|t| {
                format!(
                    "{}:{}{}",
                    &text[t.span.range()],
                    TOKEN_TYPES[t.kind as usize],
                    if t.modifiers & DEFINITION > 0 { "!" } else { "" }
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                "use:keyword",
                "\"lib.curriculum\":string",
                "s:namespace!",
                "mix:keyword",
                "m:struct!",
                "s:namespace",
                "web:enum",
                "100%:number",
                "stage:keyword",
                "a:class!",
                "mix:property",
                "m:struct",
            ]
        );
    }
}
