//! The state of one session: open files, what was made of them, and who asks for what. Reads no
//! clock and no stream, so that a browser can drive it message by message.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use lsp_server::{ErrorCode, Message, Notification, Request, RequestId, Response};
use lsp_types as lsp;
use serde_json::{Value, json};

use crate::ide::Analysis;
use crate::source::{FileId, Files as _};

use super::config::Config;
use super::disk::Disk;
use super::documents::Documents;
use super::position::Lines;
use super::publish::Published;
use super::{convert, explain, requests};

/// Whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does.
    Running,
    /// The client said `exit`; with this code.
    Exit(u8),
}

/// One session.
pub struct Server {
    pub(super) documents: Documents,
    pub(super) config: Option<Config>,
    pub(super) analyses: BTreeMap<FileId, Analysis>,
    /// The last picture of a plan, by root: shown while a mistake is being typed.
    pub(super) figures: BTreeMap<FileId, String>,
    published: Published,
    /// Roots whose diagnostics the client has not got.
    owed: Vec<FileId>,
    shutdown: bool,
    next_request: i32,
}

impl Server {
    /// A session that has not begun.
    pub fn new(disk: Box<dyn Disk>) -> Self {
        Self {
            documents: Documents::new(disk),
            config: None,
            analyses: BTreeMap::new(),
            figures: BTreeMap::new(),
            published: Published::default(),
            owed: Vec::new(),
            shutdown: false,
            next_request: 0,
        }
    }

    /// Whether there is something to check.
    pub fn pending(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Files that are not open are read again when next needed.
    pub fn disk_may_have_changed(&mut self) {
        self.documents.disk_may_have_changed();
    }

    /// Take one message; answers go to `out`.
    pub fn handle(&mut self, message: Message, out: &mut Vec<Message>) -> Status {
        match message {
            Message::Request(request) => self.request(request, out),
            Message::Notification(notification) => {
                if notification.method == "exit" {
                    return Status::Exit(u8::from(!self.shutdown));
                }
                let caught = catch_unwind(AssertUnwindSafe(|| self.notification(notification, out)));
                if caught.is_err() {
                    self.apologize(out);
                }
            }
            // Answers to what the server asked: nothing depends on them.
            Message::Response(_) => {}
        }
        Status::Running
    }

    /// Check what changed and tell the client.
    pub fn check(&mut self, out: &mut Vec<Message>) {
        let caught = catch_unwind(AssertUnwindSafe(|| self.check_owed(out)));
        if caught.is_err() {
            self.owed.clear();
            self.apologize(out);
        }
    }

    fn check_owed(&mut self, out: &mut Vec<Message>) {
        let Some(config) = self.config.clone() else { return };
        let fresh = std::mem::take(&mut self.owed);
        for root in &fresh {
            self.analyze(*root);
        }
        self.published.publish(&self.documents, &config, &self.analyses, &fresh, out);
        // What a client shows beside other files may have changed with them.
        if fresh.len() > 1 && config.refresh_hints {
            self.ask("workspace/inlayHint/refresh", Value::Null, out);
        }
    }

    /// A bug must not take the editor's session with it.
    fn apologize(&mut self, out: &mut Vec<Message>) {
        let params = lsp::LogMessageParams {
            typ: lsp::MessageType::ERROR,
            message: "midc: a bug in the language server; it goes on without this answer".to_owned(),
        };
        out.push(Notification::new("window/logMessage".to_owned(), params).into());
    }

    fn ask(&mut self, method: &str, params: Value, out: &mut Vec<Message>) {
        self.next_request += 1;
        out.push(Request::new(RequestId::from(self.next_request), method.to_owned(), params).into());
    }

    /// The analysis of `root`, made now if what is there is out of date.
    pub(super) fn analyze(&mut self, root: FileId) -> &Analysis {
        let documents = &mut self.documents;
        self.analyses.entry(root).or_insert_with(|| Analysis::new(documents, root))
    }

    fn request(&mut self, request: Request, out: &mut Vec<Message>) {
        let id = request.id.clone();
        let answer = |result: Result<Value, (ErrorCode, String)>| match result {
            Ok(value) => Response::new_ok(id.clone(), value),
            Err((code, message)) => Response::new_err(id.clone(), code as i32, message),
        };
        if request.method == "initialize" {
            let result = if self.config.is_some() {
                Err((ErrorCode::InvalidRequest, "initialized already".to_owned()))
            } else {
                self.initialize(request.params)
            };
            out.push(answer(result).into());
            return;
        }
        if self.config.is_none() {
            let early = (ErrorCode::ServerNotInitialized, "not initialized".to_owned());
            out.push(answer(Err(early)).into());
            return;
        }
        if self.shutdown {
            out.push(answer(Err((ErrorCode::InvalidRequest, "shut down".to_owned()))).into());
            return;
        }
        if request.method == "shutdown" {
            self.shutdown = true;
            out.push(answer(Ok(Value::Null)).into());
            return;
        }
        let caught =
            catch_unwind(AssertUnwindSafe(|| requests::answer(self, &request.method, request.params)));
        let result = caught.unwrap_or_else(|_| {
            self.apologize(out);
            Err((ErrorCode::InternalError, format!("a bug in answering {}", request.method)))
        });
        out.push(answer(result).into());
    }

    fn initialize(&mut self, params: Value) -> Result<Value, (ErrorCode, String)> {
        let params: lsp::InitializeParams =
            serde_json::from_value(params).map_err(|e| (ErrorCode::InvalidParams, e.to_string()))?;
        let mut config = Config::new(&params);
        explain::settle(&mut config, self.documents.disk());
        if let Some(folder) = config.folders.first() {
            self.documents.set_root(folder);
        }
        let result = json!({
            "capabilities": capabilities(&config),
            "serverInfo": { "name": "midc", "version": env!("CARGO_PKG_VERSION") },
        });
        self.config = Some(config);
        Ok(result)
    }

    fn notification(&mut self, notification: Notification, out: &mut Vec<Message>) {
        let Some(config) = &mut self.config else { return };
        match notification.method.as_str() {
            "initialized" if config.watch_files => {
                let registration = json!({ "registrations": [{
                    "id": "curricula",
                    "method": "workspace/didChangeWatchedFiles",
                    "registerOptions": { "watchers": [{ "globPattern": "**/*.curriculum" }] },
                }] });
                self.ask("client/registerCapability", registration, out);
            }
            "textDocument/didOpen" => {
                if let Ok(p) = notification.extract::<lsp::DidOpenTextDocumentParams>("textDocument/didOpen")
                {
                    let document = p.text_document;
                    let id = self.documents.open(document.uri.as_str(), document.version, document.text);
                    self.changed(Some(id));
                }
            }
            "textDocument/didChange" => {
                if let Ok(p) =
                    notification.extract::<lsp::DidChangeTextDocumentParams>("textDocument/didChange")
                {
                    self.change(p);
                }
            }
            "textDocument/didClose" => {
                if let Ok(p) =
                    notification.extract::<lsp::DidCloseTextDocumentParams>("textDocument/didClose")
                {
                    let id = self.documents.close(p.text_document.uri.as_str());
                    if let Some(id) = id {
                        self.analyses.remove(&id);
                        self.figures.remove(&id);
                        self.changed(Some(id));
                        // Nothing may be open any more: what was told must still be taken back.
                        let config = self.config.clone();
                        if let Some(config) = config.filter(|_| self.owed.is_empty()) {
                            self.published.publish(&self.documents, &config, &self.analyses, &[], out);
                        }
                    }
                }
            }
            "textDocument/didSave" | "workspace/didChangeWatchedFiles" => {
                self.documents.disk_may_have_changed();
                self.changed(None);
            }
            // Of our own: a browser hands over the files that a `use` may lead to.
            "midc/file" => {
                if let Some(uri) = notification.params.get("uri").and_then(Value::as_str) {
                    let text = notification.params.get("text").and_then(Value::as_str);
                    let id = self.documents.provide(uri, text.map(str::to_owned));
                    self.changed(Some(id));
                }
            }
            "workspace/didChangeConfiguration" => {
                if let Some(settings) = notification.params.get("settings") {
                    config.wish(settings);
                }
                if config.refresh_hints {
                    self.ask("workspace/inlayHint/refresh", Value::Null, out);
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, params: lsp::DidChangeTextDocumentParams) {
        let Some(config) = &self.config else { return };
        let Some(id) = self.documents.opened(params.text_document.uri.as_str()) else { return };
        let version = params.text_document.version;
        // A stale version: what is here is newer.
        if self.documents.version(id).is_some_and(|known| version < known) {
            return;
        }
        let mut text = self.documents.text(id).to_owned();
        for change in params.content_changes {
            match change.range {
                Some(range) => {
                    let bytes = Lines::new(&text, config.encoding).bytes(range);
                    text.replace_range(bytes, &change.text);
                }
                None => text = change.text,
            }
        }
        self.documents.replace(id, version, text);
        self.changed(Some(id));
    }

    /// Forget what was made of roots that `file` takes part in, or of all.
    fn changed(&mut self, file: Option<FileId>) {
        let stale: Vec<FileId> = self
            .analyses
            .iter()
            .filter(|(root, analysis)| match file {
                Some(file) => {
                    **root == file || analysis.names().files().any(|f| f == file) || analysis.lost_a_file()
                }
                None => true,
            })
            .map(|(root, _)| *root)
            .collect();
        for root in &stale {
            self.analyses.remove(root);
        }
        let open = self.documents.all_open();
        let owed = open.iter().filter(|f| Some(**f) == file || stale.contains(f));
        for root in owed {
            if !self.owed.contains(root) {
                self.owed.push(*root);
            }
        }
        self.owed.retain(|f| open.contains(f));
    }
}

fn capabilities(config: &Config) -> Value {
    let strings = |words: &[&str]| words.iter().map(|w| json!(w)).collect::<Value>();
    json!({
        "positionEncoding": config.encoding.kind(),
        "textDocumentSync": { "openClose": true, "change": 2, "save": true },
        "hoverProvider": true,
        "completionProvider": { "triggerCharacters": strings(&[".", "@", "\"", "/", " ", "(", ":"]) },
        "signatureHelpProvider": {
            "triggerCharacters": strings(&["(", ","]),
            "retriggerCharacters": strings(&[":"]),
        },
        "definitionProvider": true,
        "referencesProvider": true,
        "documentHighlightProvider": true,
        "documentSymbolProvider": true,
        "workspaceSymbolProvider": true,
        "codeActionProvider": {
            "codeActionKinds": strings(&["quickfix", "source.fixAll.midc"]),
        },
        "codeLensProvider": {},
        "documentLinkProvider": {},
        "documentFormattingProvider": true,
        "documentRangeFormattingProvider": true,
        "renameProvider": { "prepareProvider": true },
        "foldingRangeProvider": true,
        "selectionRangeProvider": true,
        "inlayHintProvider": true,
        "semanticTokensProvider": { "legend": convert::legend(), "full": true, "range": true },
        "executeCommandProvider": { "commands": strings(requests::COMMANDS) },
    })
}
