//! One function for each request: parameters in, `ide` asked, the protocol's answer out.

use std::str::FromStr as _;

use lsp_server::ErrorCode;
use lsp_types as lsp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::diag::{Edit, Level};
use crate::ide::{self, LensKind, Names, TextEdit};
use crate::plot;
use crate::source::{FileId, Files as _, Span};

use super::convert::{self, Places};
use super::server::Server;
use super::uri;

/// An answer or what is wrong with the question.
type Answer = Result<Value, (ErrorCode, String)>;

/// What `workspace/executeCommand` takes.
pub(super) const COMMANDS: &[&str] = &["midc.showPlan", "midc.plan", "midc.rehearse"];

/// Answer one request.
pub(super) fn answer(server: &mut Server, method: &str, params: Value) -> Answer {
    match method {
        "textDocument/hover" => {
            with(params, |p: lsp::HoverParams| hover(server, &p.text_document_position_params))
        }
        "textDocument/completion" => {
            with(params, |p: lsp::CompletionParams| completion(server, &p.text_document_position))
        }
        "textDocument/signatureHelp" => with(params, |p: lsp::SignatureHelpParams| {
            let (file, offset) = place(server, &p.text_document_position_params)?;
            Some(convert::signature(&ide::signature(server.documents.text(file), offset)?))
        }),
        "textDocument/definition" => {
            with(params, |p: lsp::GotoDefinitionParams| definition(server, &p.text_document_position_params))
        }
        "textDocument/references" => with(params, |p: lsp::ReferenceParams| {
            references(server, &p.text_document_position, p.context.include_declaration)
        }),
        "textDocument/documentHighlight" => with(params, |p: lsp::DocumentHighlightParams| {
            highlights(server, &p.text_document_position_params)
        }),
        "textDocument/documentSymbol" => with(params, |p: lsp::DocumentSymbolParams| {
            let file = file(server, &p.text_document.uri)?;
            let outlines = ide::outline(server.analyze(file).names(), file);
            let mut places = places(server)?;
            Some(outlines.iter().map(|o| places.outline(o)).collect::<Vec<_>>())
        }),
        "workspace/symbol" => {
            with(params, |p: lsp::WorkspaceSymbolParams| workspace_symbols(server, &p.query))
        }
        "textDocument/codeAction" => with(params, |p: lsp::CodeActionParams| code_actions(server, &p)),
        "textDocument/codeLens" => {
            with(params, |p: lsp::CodeLensParams| lenses(server, &p.text_document.uri))
        }
        "textDocument/documentLink" => {
            with(params, |p: lsp::DocumentLinkParams| links(server, &p.text_document.uri))
        }
        "textDocument/formatting" => with(params, |p: lsp::DocumentFormattingParams| {
            let file = file(server, &p.text_document.uri)?;
            let edits = ide::format(server.documents.text(file));
            text_edits(server, file, edits)
        }),
        "textDocument/rangeFormatting" => with(params, |p: lsp::DocumentRangeFormattingParams| {
            let file = file(server, &p.text_document.uri)?;
            let range = places(server)?.lines(file).bytes(p.range);
            let edits = ide::format_range(server.documents.text(file), range);
            text_edits(server, file, edits)
        }),
        "textDocument/prepareRename" => with(params, |p: lsp::TextDocumentPositionParams| {
            let (file, offset) = place(server, &p)?;
            let (span, placeholder) = ide::renamable(server.analyze(file).names(), file, offset)?;
            let range = places(server)?.range(span);
            Some(lsp::PrepareRenameResponse::RangeWithPlaceholder { range, placeholder })
        }),
        "textDocument/rename" => rename(server, params),
        "textDocument/foldingRange" => with(params, |p: lsp::FoldingRangeParams| {
            let file = file(server, &p.text_document.uri)?;
            let folds = ide::folds(server.analyze(file).names(), file);
            Some(folds.into_iter().map(convert::fold).collect::<Vec<_>>())
        }),
        "textDocument/selectionRange" => with(params, |p: lsp::SelectionRangeParams| selections(server, &p)),
        "textDocument/semanticTokens/full" => with(params, |p: lsp::SemanticTokensParams| {
            let file = file(server, &p.text_document.uri)?;
            semantic_tokens(server, file, None)
        }),
        "textDocument/semanticTokens/range" => with(params, |p: lsp::SemanticTokensRangeParams| {
            let file = file(server, &p.text_document.uri)?;
            let range = places(server)?.lines(file).bytes(p.range);
            semantic_tokens(server, file, Some(range))
        }),
        "textDocument/inlayHint" => with(params, |p: lsp::InlayHintParams| {
            let file = file(server, &p.text_document.uri)?;
            let options = server.config.as_ref()?.hints;
            let range = places(server)?.lines(file).bytes(p.range);
            let hints = ide::hints(server.analyze(file), file, range, options);
            let mut places = places(server)?;
            Some(hints.iter().map(|h| places.hint(h)).collect::<Vec<_>>())
        }),
        "workspace/executeCommand" => command(server, params),
        _ => Err((ErrorCode::MethodNotFound, format!("`{method}` is not answered here"))),
    }
}

/// Read the parameters, ask; nothing to say is `null`.
fn with<P: DeserializeOwned, R: Serialize>(params: Value, ask: impl FnOnce(P) -> Option<R>) -> Answer {
    let params = read(params)?;
    serde_json::to_value(ask(params)).map_err(|e| (ErrorCode::InternalError, e.to_string()))
}

fn read<P: DeserializeOwned>(params: Value) -> Result<P, (ErrorCode, String)> {
    serde_json::from_value(params).map_err(|e| (ErrorCode::InvalidParams, e.to_string()))
}

fn places(server: &Server) -> Option<Places<'_>> {
    Some(Places::new(&server.documents, server.config.as_ref()?))
}

fn file(server: &Server, uri: &lsp::Uri) -> Option<FileId> {
    server.documents.opened(uri.as_str())
}

fn place(server: &Server, at: &lsp::TextDocumentPositionParams) -> Option<(FileId, usize)> {
    let file = file(server, &at.text_document.uri)?;
    Some((file, places(server)?.lines(file).offset(at.position)))
}

fn hover(server: &mut Server, at: &lsp::TextDocumentPositionParams) -> Option<lsp::Hover> {
    let (file, offset) = place(server, at)?;
    let hover = ide::hover(server.analyze(file), file, offset)?;
    let range = places(server)?.range(hover.span);
    Some(lsp::Hover {
        contents: lsp::HoverContents::Markup(convert::markdown(&hover.text)),
        range: Some(range),
    })
}

fn completion(server: &mut Server, at: &lsp::TextDocumentPositionParams) -> Option<Vec<lsp::CompletionItem>> {
    let (file, offset) = place(server, at)?;
    // Names are enough here, and cheaper than a check on every key.
    let found = match server.analyses.get(&file) {
        Some(analysis) => ide::complete(analysis.names(), &server.documents, file, offset),
        None => {
            let names = Names::load(&mut server.documents, file);
            ide::complete(&names, &server.documents, file, offset)
        }
    };
    let mut places = places(server)?;
    Some(found.iter().map(|c| places.completion(c)).collect())
}

fn definition(
    server: &mut Server,
    at: &lsp::TextDocumentPositionParams,
) -> Option<lsp::GotoDefinitionResponse> {
    let (file, offset) = place(server, at)?;
    let symbol = ide::definition(server.analyze(file), file, offset)?;
    let location = places(server)?.location(symbol.definition)?;
    Some(lsp::GotoDefinitionResponse::Scalar(location))
}

/// Every open file and every curriculum of the workspace.
fn roots(server: &mut Server) -> Vec<FileId> {
    let mut roots = server.documents.all_open();
    let folders = server.config.as_ref().map(|c| c.folders.clone()).unwrap_or_default();
    for folder in folders {
        let Some(path) = uri::to_path(&uri::key(&folder)) else { continue };
        for path in server.documents.disk().curricula(&path) {
            if let Ok(id) = server.documents.load_key(uri::from_path(&path))
                && !roots.contains(&id)
            {
                roots.push(id);
            }
        }
    }
    roots
}

fn references(
    server: &mut Server,
    at: &lsp::TextDocumentPositionParams,
    with_definition: bool,
) -> Option<Vec<lsp::Location>> {
    let (file, offset) = place(server, at)?;
    let symbol = ide::symbol_at(server.analyze(file).names(), file, offset)?;
    let roots = roots(server);
    let found = ide::everywhere(&mut server.documents, &roots, symbol.definition);
    let mut places = places(server)?;
    let kept = found.iter().filter(|o| with_definition || !o.definition);
    Some(kept.filter_map(|o| places.location(o.span)).collect())
}

fn highlights(
    server: &mut Server,
    at: &lsp::TextDocumentPositionParams,
) -> Option<Vec<lsp::DocumentHighlight>> {
    let (file, offset) = place(server, at)?;
    let found = ide::highlights(server.analyze(file).names(), file, offset);
    let mut places = places(server)?;
    let highlight = |o: &ide::Occurrence, range| lsp::DocumentHighlight {
        range,
        kind: Some(if o.definition {
            lsp::DocumentHighlightKind::WRITE
        } else {
            lsp::DocumentHighlightKind::READ
        }),
    };
    Some(found.iter().map(|o| highlight(o, places.range(o.span))).collect())
}

fn workspace_symbols(server: &mut Server, query: &str) -> Option<Vec<lsp::SymbolInformation>> {
    const MOST: usize = 500;
    let query = query.to_lowercase();
    let mut roots = roots(server);
    roots.sort();
    let mut found = Vec::new();
    for root in roots {
        let names = Names::load(&mut server.documents, root);
        let outline = ide::outline(&names, root);
        let fitting = outline.into_iter().filter(|o| o.name.to_lowercase().contains(&query));
        let mut places = places(server)?;
        for o in fitting {
            #[allow(deprecated)] // the field has to be given
            found.push(lsp::SymbolInformation {
                location: places.location(o.name_span)?,
                name: o.name,
                kind: convert::symbol_kind(o.kind),
                tags: None,
                deprecated: None,
                container_name: (!o.detail.is_empty()).then_some(o.detail),
            });
        }
        if found.len() > MOST {
            break;
        }
    }
    Some(found)
}

fn code_actions(
    server: &mut Server,
    params: &lsp::CodeActionParams,
) -> Option<Vec<lsp::CodeActionOrCommand>> {
    let file = file(server, &params.text_document.uri)?;
    let range = places(server)?.lines(file).bytes(params.range);
    let wanted = |kind: &str| match &params.context.only {
        Some(only) => {
            only.iter().any(|o| kind == o.as_str() || kind.starts_with(&format!("{}.", o.as_str())))
        }
        None => true,
    };
    let mut out = Vec::new();
    if wanted("quickfix") {
        let actions = ide::actions(server.analyze(file), file, range);
        let diagnostics = server.analyze(file).diagnostics().to_vec();
        let mut places = places(server)?;
        for action in actions {
            let about = diagnostics.get(action.diagnostic)?;
            if about.level == Level::Allow {
                continue;
            }
            out.push(lsp::CodeActionOrCommand::CodeAction(lsp::CodeAction {
                title: action.title,
                kind: Some(lsp::CodeActionKind::QUICKFIX),
                diagnostics: Some(vec![places.diagnostic(about)]),
                edit: Some(places.workspace_edit(&action.edits)),
                is_preferred: action.preferred.then_some(true),
                ..lsp::CodeAction::default()
            }));
        }
    }
    // Only when asked for by name: it means checking again after each round.
    if params.context.only.is_some()
        && wanted("source.fixAll.midc")
        && let Some(edit) = fix_all(server, file)
    {
        let span = Span::new(file, edit.range.start, edit.range.end);
        let edits = [Edit { span, text: edit.text }];
        out.push(lsp::CodeActionOrCommand::CodeAction(lsp::CodeAction {
            title: "Apply all sure fixes".to_owned(),
            kind: Some(lsp::CodeActionKind::new("source.fixAll.midc")),
            edit: Some(places(server)?.workspace_edit(&edits)),
            ..lsp::CodeAction::default()
        }));
    }
    Some(out)
}

fn fix_all(server: &mut Server, file: FileId) -> Option<TextEdit> {
    let version = server.documents.version(file)?;
    let text = server.documents.text(file).to_owned();
    let documents = &mut server.documents;
    let edit = ide::fix_all(&text, file, |candidate| {
        documents.replace(file, version, candidate.to_owned());
        ide::Analysis::new(documents, file).diagnostics().to_vec()
    });
    server.documents.replace(file, version, text);
    edit
}

fn lenses(server: &mut Server, uri: &lsp::Uri) -> Option<Vec<lsp::CodeLens>> {
    let file = file(server, uri)?;
    if !server.config.as_ref()?.lenses {
        return Some(Vec::new());
    }
    let lenses = ide::lenses(server.analyze(file).names(), file);
    let mut places = places(server)?;
    let lens = |l: ide::Lens, range| {
        let (title, command) = match l.kind {
            LensKind::Plan => ("plan", "midc.plan"),
            LensKind::Plot => ("plot", "midc.showPlan"),
            LensKind::Rehearse => ("rehearse", "midc.rehearse"),
        };
        lsp::CodeLens {
            range,
            command: Some(lsp::Command {
                title: title.to_owned(),
                command: command.to_owned(),
                arguments: Some(vec![json!(uri.as_str()), json!(l.stage)]),
            }),
            data: None,
        }
    };
    Some(
        lenses
            .into_iter()
            .map(|l| {
                let range = places.range(l.span);
                lens(l, range)
            })
            .collect(),
    )
}

fn links(server: &mut Server, uri: &lsp::Uri) -> Option<Vec<lsp::DocumentLink>> {
    let file = file(server, uri)?;
    let links = ide::links(server.analyze(file).names(), file);
    let mut places = places(server)?;
    let mut out = Vec::new();
    for link in links {
        let target = match (link.file, &link.url) {
            (Some(file), _) => places.uri(file),
            (None, Some(url)) => lsp::Uri::from_str(url).ok(),
            (None, None) => None,
        };
        out.push(lsp::DocumentLink { range: places.range(link.span), target, tooltip: None, data: None });
    }
    Some(out)
}

fn text_edits(server: &Server, file: FileId, edits: Vec<TextEdit>) -> Option<Vec<lsp::TextEdit>> {
    let mut places = places(server)?;
    let lines = places.lines(file);
    Some(edits.into_iter().map(|e| lsp::TextEdit::new(lines.range(e.range), e.text)).collect())
}

fn rename(server: &mut Server, params: Value) -> Answer {
    let params: lsp::RenameParams = read(params)?;
    let nothing = || (ErrorCode::RequestFailed, "there is no name here".to_owned());
    let (file, offset) = place(server, &params.text_document_position).ok_or_else(nothing)?;
    let names = server.analyze(file).names();
    let symbol = ide::symbol_at(names, file, offset).ok_or_else(nothing)?;
    let new = params.new_name;
    let roots = roots(server);
    let edits: Vec<Edit> = ide::rename(&mut server.documents, &roots, symbol.definition, &new)
        .map_err(|e| (ErrorCode::RequestFailed, e.to_string()))?
        .into_iter()
        .map(|o| Edit { span: o.span, text: new.clone() })
        .collect();
    let edit = places(server).ok_or_else(nothing)?.workspace_edit(&edits);
    serde_json::to_value(edit).map_err(|e| (ErrorCode::InternalError, e.to_string()))
}

fn selections(server: &mut Server, params: &lsp::SelectionRangeParams) -> Option<Vec<lsp::SelectionRange>> {
    let file = file(server, &params.text_document.uri)?;
    let offsets: Vec<usize> = {
        let mut places = places(server)?;
        let lines = places.lines(file);
        params.positions.iter().map(|p| lines.offset(*p)).collect()
    };
    let mut out = Vec::new();
    for offset in offsets {
        let spans = ide::selection_ranges(server.analyze(file).names(), file, offset);
        let mut places = places(server)?;
        let nested = spans.iter().rev().fold(None, |parent: Option<Box<lsp::SelectionRange>>, span| {
            Some(Box::new(lsp::SelectionRange { range: places.range(*span), parent }))
        });
        out.push(*nested?);
    }
    Some(out)
}

fn semantic_tokens(
    server: &mut Server,
    file: FileId,
    range: Option<std::ops::Range<usize>>,
) -> Option<lsp::SemanticTokens> {
    let mut tokens = ide::tokens(server.analyze(file).names(), file);
    if let Some(range) = range {
        tokens.retain(|t| (t.span.start as usize) < range.end && range.start < t.span.end as usize);
    }
    Some(lsp::SemanticTokens { result_id: None, data: places(server)?.tokens(&tokens) })
}

fn command(server: &mut Server, params: Value) -> Answer {
    let params: lsp::ExecuteCommandParams = read(params)?;
    let wrong = |why: &str| (ErrorCode::InvalidParams, why.to_owned());
    let uri = params
        .arguments
        .first()
        .and_then(Value::as_str)
        .ok_or_else(|| wrong("the first argument is the file's address"))?;
    let root = server.documents.opened(uri).ok_or_else(|| wrong("the file is not open"))?;
    let analysis = server.analyze(root);
    let errors = analysis.diagnostics().iter().filter(|d| d.level == Level::Deny).count();
    match params.command.as_str() {
        "midc.showPlan" => {
            let fresh = analysis.plan().map(plot::plan_svg);
            let stale = fresh.is_none();
            let svg = fresh.inspect(|svg| {
                server.figures.insert(root, svg.clone());
            });
            let svg = svg.or_else(|| server.figures.get(&root).cloned());
            let version = server.documents.version(root);
            Ok(json!({ "svg": svg, "stale": stale, "errors": errors, "version": version }))
        }
        "midc.plan" => Ok(json!({ "plan": analysis.shown(), "errors": errors })),
        // Training is not the server's business: the client gets the command to run.
        "midc.rehearse" => {
            let path = uri::to_path(&uri::key(uri)).map(|p| p.display().to_string());
            Ok(json!({ "run": ["midc", "rehearse", path] }))
        }
        other => Err((ErrorCode::InvalidParams, format!("no command `{other}`"))),
    }
}
