//! Where a code is explained, as an address an editor can open.

use std::str::FromStr;

use lsp_types::{CodeDescription, Uri};

use crate::diag::Code;

use super::config::Config;
use super::disk::Disk;
use super::uri;

/// Settle where the pages are: on the client's site, else in the user's cache.
pub(super) fn settle(config: &mut Config, disk: &dyn Disk) {
    if config.explain.is_none() {
        config.explain = disk.explain_pages().map(|p| uri::to_uri(&uri::from_path(&p)));
    }
}

/// The page of `code`: a file of its own, or an anchor of the manual's page of errors.
pub(super) fn description(config: &Config, code: Code) -> Option<CodeDescription> {
    let base = config.explain.as_ref()?;
    let address = if base.starts_with("file:") {
        format!("{base}/{code}.md")
    } else {
        format!("{base}#{}", code.to_string().to_ascii_lowercase())
    };
    Some(CodeDescription { href: Uri::from_str(&address).ok()? })
}
