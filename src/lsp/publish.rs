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
            for d in analysis.diagnostics().iter().filter(|d| shown(d, documents)) {
                let file = d.primary.span.file;
                // What is found in an open file on behalf of another may not show by itself, as a
                // circle of imports or a value that only fits where it is used; what does is said once.
                let own = (file != *root).then(|| analyses.get(&file)).flatten();
                if own.is_some_and(|own| own.diagnostics().iter().any(|o| same(o, d))) {
                    continue;
                }
                let said = now.entry(file).or_default();
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

fn shown(d: &Diagnostic, documents: &Documents) -> bool {
    // Where no disk is seen, every file is missing.
    let unseen = d.lint == Some("missing_files") && !documents.sees_beside(d.primary.span.file);
    d.level != Level::Allow && !unseen
}

/// Whether two analyses found the same; what they say of it may differ, as numbers and notes do.
fn same(a: &Diagnostic, b: &Diagnostic) -> bool {
    a.code == b.code && a.primary.span == b.primary.span
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
