//! From `ide` data to the protocol's types.

use std::collections::HashMap;
use std::str::FromStr;

use lsp_types as lsp;

use crate::diag::{Diagnostic, Edit, Level};
use crate::ide::{Completion, Fold, Hint, Outline, Signature, Token};
use crate::ide::{CompletionKind, FoldKind, HintKind, OutlineKind, TOKEN_MODIFIERS, TOKEN_TYPES};
use crate::source::{FileId, Files as _, Span};

use super::config::Config;
use super::documents::Documents;
use super::explain;
use super::position::Lines;

/// Turns spans into places; keeps the lines of each file it meets.
pub(super) struct Places<'d> {
    documents: &'d Documents,
    config: &'d Config,
    lines: HashMap<FileId, Lines<'d>>,
}

impl<'d> Places<'d> {
    pub(super) fn new(documents: &'d Documents, config: &'d Config) -> Self {
        Self { documents, config, lines: HashMap::new() }
    }

    pub(super) fn lines(&mut self, file: FileId) -> &Lines<'d> {
        let (documents, encoding) = (self.documents, self.config.encoding);
        self.lines.entry(file).or_insert_with(|| Lines::new(documents.text(file), encoding))
    }

    pub(super) fn range(&mut self, span: Span) -> lsp::Range {
        self.lines(span.file).range(span.range())
    }

    pub(super) fn uri(&self, file: FileId) -> Option<lsp::Uri> {
        lsp::Uri::from_str(self.documents.uri(file)).ok()
    }

    pub(super) fn location(&mut self, span: Span) -> Option<lsp::Location> {
        Some(lsp::Location { uri: self.uri(span.file)?, range: self.range(span) })
    }

    /// A diagnostic as the client gets it.
    pub(super) fn diagnostic(&mut self, d: &Diagnostic) -> lsp::Diagnostic {
        let mut message = d.message.clone();
        if !d.primary.text.is_empty() {
            message.push_str(&format!("\n{}", d.primary.text));
        }
        for note in &d.notes {
            message.push_str(&format!("\nnote: {note}"));
        }
        for help in &d.help {
            message.push_str(&format!("\nhelp: {help}"));
        }
        let mut related = Vec::new();
        for label in &d.labels {
            if self.config.related_information {
                let location = self.location(label.span);
                related.extend(location.map(|location| lsp::DiagnosticRelatedInformation {
                    location,
                    message: label.text.clone(),
                }));
            } else if !label.text.is_empty() {
                let line = self.range(label.span).start.line + 1;
                message.push_str(&format!("\nline {line}: {}", label.text));
            }
        }
        let unused = d.lint.is_some_and(|l| l.starts_with("unused_"));
        lsp::Diagnostic {
            range: self.range(d.primary.span),
            severity: Some(match d.level {
                Level::Deny => lsp::DiagnosticSeverity::ERROR,
                Level::Warn | Level::Allow => lsp::DiagnosticSeverity::WARNING,
            }),
            code: Some(lsp::NumberOrString::String(d.lint.map_or_else(|| d.code.to_string(), str::to_owned))),
            code_description: explain::description(self.config, d.code),
            source: Some("midc".to_owned()),
            message,
            related_information: (!related.is_empty()).then_some(related),
            tags: unused.then(|| vec![lsp::DiagnosticTag::UNNECESSARY]),
            data: None,
        }
    }

    /// Changes of several files.
    pub(super) fn workspace_edit(&mut self, edits: &[Edit]) -> lsp::WorkspaceEdit {
        let mut files: Vec<FileId> = edits.iter().map(|e| e.span.file).collect();
        files.sort();
        files.dedup();
        let mut changes: Vec<(FileId, lsp::Uri, Vec<lsp::TextEdit>)> = Vec::new();
        for file in files {
            let Some(uri) = self.uri(file) else { continue };
            let of_file = edits.iter().filter(|e| e.span.file == file);
            let texts = of_file.map(|e| lsp::TextEdit::new(self.range(e.span), e.text.clone())).collect();
            changes.push((file, uri, texts));
        }
        if self.config.document_changes {
            let edits = changes
                .into_iter()
                .map(|(file, uri, edits)| lsp::TextDocumentEdit {
                    text_document: lsp::OptionalVersionedTextDocumentIdentifier {
                        uri,
                        version: self.documents.version(file),
                    },
                    edits: edits.into_iter().map(lsp::OneOf::Left).collect(),
                })
                .collect();
            return lsp::WorkspaceEdit {
                document_changes: Some(lsp::DocumentChanges::Edits(edits)),
                ..lsp::WorkspaceEdit::default()
            };
        }
        #[allow(clippy::mutable_key_type)] // the protocol's type is what it is
        let changes = changes.into_iter().map(|(_, uri, edits)| (uri, edits)).collect();
        lsp::WorkspaceEdit { changes: Some(changes), ..lsp::WorkspaceEdit::default() }
    }

    pub(super) fn outline(&mut self, outline: &Outline) -> lsp::DocumentSymbol {
        #[allow(deprecated)] // the field has to be given
        lsp::DocumentSymbol {
            name: outline.name.clone(),
            detail: (!outline.detail.is_empty()).then(|| outline.detail.clone()),
            kind: symbol_kind(outline.kind),
            tags: None,
            deprecated: None,
            range: self.range(outline.span),
            selection_range: self.range(outline.name_span),
            children: Some(outline.children.iter().map(|c| self.outline(c)).collect()),
        }
    }

    pub(super) fn completion(&mut self, c: &Completion) -> lsp::CompletionItem {
        let snippet = c.snippet && self.config.snippets;
        let text = if c.snippet && !snippet { without_places(&c.insert) } else { c.insert.clone() };
        lsp::CompletionItem {
            label: c.label.clone(),
            kind: Some(completion_kind(c.kind)),
            detail: (!c.detail.is_empty()).then(|| c.detail.clone()),
            documentation: (!c.doc.is_empty()).then(|| lsp::Documentation::MarkupContent(markdown(&c.doc))),
            sort_text: Some(format!("{:04}", c.rank)),
            insert_text_format: Some(if snippet {
                lsp::InsertTextFormat::SNIPPET
            } else {
                lsp::InsertTextFormat::PLAIN_TEXT
            }),
            text_edit: Some(lsp::CompletionTextEdit::Edit(lsp::TextEdit::new(self.range(c.replace), text))),
            ..lsp::CompletionItem::default()
        }
    }

    pub(super) fn hint(&mut self, hint: &Hint) -> lsp::InlayHint {
        let place = Span { file: hint.file, start: hint.at, end: hint.at };
        lsp::InlayHint {
            position: self.range(place).start,
            label: lsp::InlayHintLabel::String(hint.text.clone()),
            kind: match hint.kind {
                HintKind::Inherited => Some(lsp::InlayHintKind::PARAMETER),
                _ => Some(lsp::InlayHintKind::TYPE),
            },
            text_edits: None,
            tooltip: None,
            padding_left: Some(true),
            padding_right: None,
            data: None,
        }
    }

    /// Tokens in the protocol's relative form.
    pub(super) fn tokens(&mut self, tokens: &[Token]) -> Vec<lsp::SemanticToken> {
        let mut out: Vec<lsp::SemanticToken> = Vec::with_capacity(tokens.len());
        let mut last = lsp::Position::default();
        for token in tokens {
            let range = self.range(token.span);
            // A token never spans lines: strings do not, and nothing else could.
            if range.start.line != range.end.line {
                continue;
            }
            let delta_line = range.start.line - last.line;
            let delta_start =
                if delta_line == 0 { range.start.character - last.character } else { range.start.character };
            out.push(lsp::SemanticToken {
                delta_line,
                delta_start,
                length: range.end.character - range.start.character,
                token_type: token.kind,
                token_modifiers_bitset: token.modifiers,
            });
            last = range.start;
        }
        out
    }
}

/// What the numbers of semantic tokens mean.
pub(super) fn legend() -> lsp::SemanticTokensLegend {
    lsp::SemanticTokensLegend {
        token_types: TOKEN_TYPES.iter().map(|t| lsp::SemanticTokenType::new(t)).collect(),
        token_modifiers: TOKEN_MODIFIERS.iter().map(|m| lsp::SemanticTokenModifier::new(m)).collect(),
    }
}

pub(super) fn markdown(text: &str) -> lsp::MarkupContent {
    lsp::MarkupContent { kind: lsp::MarkupKind::Markdown, value: text.to_owned() }
}

pub(super) fn fold(fold: Fold) -> lsp::FoldingRange {
    lsp::FoldingRange {
        start_line: fold.start as u32,
        end_line: fold.end as u32,
        kind: Some(match fold.kind {
            FoldKind::Region => lsp::FoldingRangeKind::Region,
            FoldKind::Comment => lsp::FoldingRangeKind::Comment,
            FoldKind::Imports => lsp::FoldingRangeKind::Imports,
        }),
        ..lsp::FoldingRange::default()
    }
}

pub(super) fn signature(signature: &Signature) -> lsp::SignatureHelp {
    // Offsets into labels are always in UTF-16 units, whatever was agreed for positions.
    let units = |at: usize| signature.label[..at].encode_utf16().count() as u32;
    let parameters = signature.parameters.iter().map(|(range, doc)| lsp::ParameterInformation {
        label: lsp::ParameterLabel::LabelOffsets([units(range.start), units(range.end)]),
        documentation: (!doc.is_empty()).then(|| lsp::Documentation::MarkupContent(markdown(doc))),
    });
    let active = signature.active.map(|a| a as u32);
    lsp::SignatureHelp {
        signatures: vec![lsp::SignatureInformation {
            label: signature.label.clone(),
            documentation: Some(lsp::Documentation::MarkupContent(markdown(signature.doc))),
            parameters: Some(parameters.collect()),
            active_parameter: active,
        }],
        active_signature: Some(0),
        active_parameter: active,
    }
}

/// A snippet for clients that know none: `linear(to: ${1:0})` is `linear(to: 0)`.
fn without_places(snippet: &str) -> String {
    let mut out = String::with_capacity(snippet.len());
    let mut rest = snippet;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('{') {
            Some(inside) => {
                let end = inside.find('}').unwrap_or(inside.len());
                out.push_str(inside[..end].split_once(':').map_or("", |(_, text)| text));
                rest = inside.get(end + 1..).unwrap_or_default();
            }
            None => rest = rest.trim_start_matches(|c: char| c.is_ascii_digit()),
        }
    }
    out.push_str(rest);
    out
}

pub(super) fn symbol_kind(kind: OutlineKind) -> lsp::SymbolKind {
    match kind {
        OutlineKind::Use => lsp::SymbolKind::NAMESPACE,
        OutlineKind::Value => lsp::SymbolKind::CONSTANT,
        OutlineKind::Model => lsp::SymbolKind::CLASS,
        OutlineKind::Source => lsp::SymbolKind::ENUM,
        OutlineKind::Mix => lsp::SymbolKind::STRUCT,
        OutlineKind::Stage => lsp::SymbolKind::FUNCTION,
        OutlineKind::Soup => lsp::SymbolKind::OPERATOR,
        OutlineKind::Other => lsp::SymbolKind::OBJECT,
    }
}

fn completion_kind(kind: CompletionKind) -> lsp::CompletionItemKind {
    use lsp::CompletionItemKind as K;
    match kind {
        CompletionKind::Keyword => K::KEYWORD,
        CompletionKind::Field | CompletionKind::Property => K::PROPERTY,
        CompletionKind::Function => K::FUNCTION,
        CompletionKind::Argument => K::FIELD,
        CompletionKind::Word | CompletionKind::Lint => K::ENUM_MEMBER,
        CompletionKind::Unit => K::UNIT,
        CompletionKind::Source => K::ENUM,
        CompletionKind::Mix => K::STRUCT,
        CompletionKind::Stage | CompletionKind::Model | CompletionKind::Soup => K::CLASS,
        CompletionKind::Value => K::VALUE,
        CompletionKind::Namespace => K::MODULE,
        CompletionKind::Checkpoint => K::EVENT,
        CompletionKind::File => K::FILE,
        CompletionKind::Attribute => K::KEYWORD,
    }
}

#[cfg(test)]
mod tests {
    use super::without_places;

    #[test]
    fn snippets_for_plain_clients() {
        assert_eq!(without_places("linear(to: ${1:0}, over: ${2})$0"), "linear(to: 0, over: )");
        assert_eq!(without_places("a $1 b"), "a  b");
        assert_eq!(without_places("$"), "");
    }
}
