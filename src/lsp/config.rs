//! What the client can do and what it wishes.

use lsp_types::{ClientCapabilities, InitializeParams};
use serde_json::Value;

use crate::ide::HintOptions;

use super::position::Encoding;

/// Settled at `initialize`; wishes may change later.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) encoding: Encoding,
    /// Edits with versions rather than by address alone.
    pub(super) document_changes: bool,
    pub(super) related_information: bool,
    pub(super) snippets: bool,
    pub(super) refresh_hints: bool,
    pub(super) watch_files: bool,
    pub(super) hints: HintOptions,
    pub(super) lenses: bool,
    /// Where explanations of codes are: `…/E0301.md`, or a site given by the client.
    pub(super) explain: Option<String>,
    pub(super) folders: Vec<String>,
}

impl Config {
    pub(super) fn new(params: &InitializeParams) -> Self {
        let caps: &ClientCapabilities = &params.capabilities;
        let text = caps.text_document.as_ref();
        let workspace = caps.workspace.as_ref();
        let offered = caps.general.as_ref().and_then(|g| g.position_encodings.as_deref());
        let edits = workspace.and_then(|w| w.workspace_edit.as_ref());
        let completion = text.and_then(|t| t.completion.as_ref()).and_then(|c| c.completion_item.as_ref());
        #[allow(deprecated)] // old clients name their root this way only
        let folders = match &params.workspace_folders {
            Some(folders) => folders.iter().map(|f| f.uri.as_str().to_owned()).collect(),
            None => params.root_uri.iter().map(|u| u.as_str().to_owned()).collect(),
        };
        let mut config = Self {
            encoding: Encoding::choose(offered),
            document_changes: edits.and_then(|e| e.document_changes).unwrap_or(false),
            related_information: text
                .and_then(|t| t.publish_diagnostics.as_ref())
                .and_then(|p| p.related_information)
                .unwrap_or(false),
            snippets: completion.and_then(|c| c.snippet_support).unwrap_or(false),
            refresh_hints: workspace
                .and_then(|w| w.inlay_hint.as_ref())
                .and_then(|h| h.refresh_support)
                .unwrap_or(false),
            watch_files: workspace
                .and_then(|w| w.did_change_watched_files.as_ref())
                .and_then(|w| w.dynamic_registration)
                .unwrap_or(false),
            hints: HintOptions::default(),
            lenses: true,
            explain: None,
            folders,
        };
        if let Some(options) = &params.initialization_options {
            config.wish(options);
        }
        config
    }

    /// Take what settings say: `{ "inlayHints": { "steps": false }, "codeLens": false }`.
    pub(super) fn wish(&mut self, settings: &Value) {
        let settings = settings.get("midc").unwrap_or(settings);
        if let Some(hints) = settings.get("inlayHints") {
            let set = |name: &str, to: &mut bool| {
                if let Some(wanted) = hints.get(name).and_then(Value::as_bool).or(hints.as_bool()) {
                    *to = wanted;
                }
            };
            set("steps", &mut self.hints.steps);
            set("curves", &mut self.hints.curves);
            set("epochs", &mut self.hints.epochs);
            set("rest", &mut self.hints.rest);
            set("inherited", &mut self.hints.inherited);
        }
        let lens = settings.get("codeLens");
        if let Some(wanted) = lens.and_then(|l| l.as_bool().or_else(|| l.get("enable")?.as_bool())) {
            self.lenses = wanted;
        }
        if let Some(site) = settings.get("explainUrl").and_then(Value::as_str).filter(|s| !s.is_empty()) {
            self.explain = Some(site.trim_end_matches('/').to_owned());
        }
    }
}
