//! Diagnostics to the client: those of each open file, and those that lie in files it uses.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr as _;

use lsp_server::{Message, Notification};
use lsp_types::{PublishDiagnosticsParams, Uri};

use crate::diag::{Diagnostic, Level};
use crate::ide::Analysis;
use crate::source::FileId;

use super::config::Config;
use super::convert::Places;
use super::documents::Documents;

/// What the client was last told, by file.
#[derive(Default)]
pub(super) struct Published {
    told: HashMap<FileId, Vec<lsp_types::Diagnostic>>,
}

impl Published {
    /// Tell the client what changed. Of `fresh`, the roots that were just checked, in any case.
    pub(super) fn publish(
        &mut self,
        documents: &Documents,
        config: &Config,
        analyses: &BTreeMap<FileId, Analysis>,
        fresh: &[FileId],
        out: &mut Vec<Message>,
    ) {
        let mut now: BTreeMap<FileId, Vec<lsp_types::Diagnostic>> = BTreeMap::new();
        let mut places = Places::new(documents, config);
        for (root, analysis) in analyses {
            now.entry(*root).or_default();
            for d in analysis.diagnostics().iter().filter(|d| shown(d, *root, documents)) {
                let said = now.entry(d.primary.span.file).or_default();
                let diagnostic = places.diagnostic(d);
                if !said.contains(&diagnostic) {
                    said.push(diagnostic);
                }
            }
        }
        let mut gone: Vec<FileId> = self.told.keys().filter(|f| !now.contains_key(f)).copied().collect();
        gone.sort();
        for file in gone {
            self.told.remove(&file);
            tell(documents, file, Vec::new(), out);
        }
        for (file, diagnostics) in now {
            if fresh.contains(&file) || self.told.get(&file) != Some(&diagnostics) {
                tell(documents, file, diagnostics.clone(), out);
            }
            self.told.insert(file, diagnostics);
        }
    }
}

/// An open file speaks for itself; what is found in it on behalf of another stays unsaid.
fn shown(d: &Diagnostic, root: FileId, documents: &Documents) -> bool {
    let file = d.primary.span.file;
    // Where no disk is seen, every file is missing.
    if d.lint == Some("missing_files") && !documents.sees_beside(file) {
        return false;
    }
    d.level != Level::Allow && (file == root || documents.version(file).is_none())
}

fn tell(
    documents: &Documents,
    file: FileId,
    diagnostics: Vec<lsp_types::Diagnostic>,
    out: &mut Vec<Message>,
) {
    let Ok(uri) = Uri::from_str(documents.uri(file)) else { return };
    let params = PublishDiagnosticsParams { uri, diagnostics, version: documents.version(file) };
    out.push(Notification::new("textDocument/publishDiagnostics".to_owned(), params).into());
}
