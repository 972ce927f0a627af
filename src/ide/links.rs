//! Paths that can be opened: files of `use`, citations of papers.

use crate::source::{FileId, Span};
use crate::syntax::ast::{Entry, EntryKind, ExprKind, ItemKind, Preface};

use super::analysis::Names;

/// A stretch of text that leads somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it stands.
    pub span: Span,
    /// The file it leads to.
    pub file: Option<FileId>,
    /// Or the address.
    pub url: Option<String>,
}

/// The links of `file`.
pub fn links(names: &Names, file: FileId) -> Vec<Link> {
    let Some(module) = names.module(file) else { return Vec::new() };
    let module = &names.program.modules[module];
    let mut out = Vec::new();
    for item in &module.ast.items {
        citations(&item.preface, &mut out);
        match &item.kind {
            ItemKind::Use { path, alias: Some(alias), .. } => {
                if let Some((Some(target), _)) = module.spaces.get(&alias.text) {
                    let file = names.program.modules[*target].file;
                    out.push(Link { span: path.span, file: Some(file), url: None });
                }
            }
            ItemKind::Block(block) => inside(&block.entries, &mut out),
            _ => {}
        }
    }
    out
}

fn inside(entries: &[Entry], out: &mut Vec<Link>) {
    for entry in entries {
        citations(&entry.preface, out);
        if let EntryKind::Block(inner) = &entry.kind {
            inside(&inner.entries, out);
        }
    }
}

/// `@cite("arXiv:2501.00656 Table 5")` leads to the paper.
fn citations(preface: &Preface, out: &mut Vec<Link>) {
    for arg in preface.attrs.iter().filter(|a| a.name.text == "cite").flat_map(|a| &a.args) {
        let ExprKind::Str(text) = &arg.value.kind else { continue };
        let number = text
            .split("arXiv:")
            .nth(1)
            .map(|rest| rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect::<String>());
        let address = text.split_whitespace().find(|w| w.starts_with("https://"));
        let url = match (number, address) {
            (Some(number), _) if number.len() >= 9 => {
                format!("https://arxiv.org/abs/{}", number.trim_end_matches('.'))
            }
            (_, Some(address)) => address.trim_end_matches([',', '.', ';', ')']).to_owned(),
            _ => continue,
        };
        out.push(Link { span: arg.value.span, file: None, url: Some(url) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::analyze;

    #[test]
    fn files_and_papers() {
        let text =
            "use \"lib.curriculum\" as s\nmodel m {\n  @cite(\"arXiv:2501.00656 Table 5\")\n  lr = 1e-5\n}\n";
        let (_, main, analysis) = analyze(text);
        let found = links(analysis.names(), main);
        assert_eq!(found[0].file, Some(FileId(1)));
        assert_eq!(found[1].url.as_deref(), Some("https://arxiv.org/abs/2501.00656"));
    }
}
