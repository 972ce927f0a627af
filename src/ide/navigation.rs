//! From a name to where it is given and everywhere it is used.

use crate::source::{FileId, Files, Span};

use super::analysis::{Analysis, Names};
use super::marks::{Mark, Target, TargetKind, What};

/// A name, known by the place where it is given. The same in every analysis that shares its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Where the name is given.
    pub definition: Span,
    /// Under the cursor.
    pub here: Span,
}

/// A place where a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occurrence {
    /// Where.
    pub span: Span,
    /// Whether the name is given here.
    pub definition: bool,
}

/// The mark that holds byte `offset`, or ends there.
pub(super) fn mark_at<'m, 'a>(marks: &'m [Mark<'a>], offset: usize) -> Option<&'m Mark<'a>> {
    let inside = |m: &&Mark<'_>| (m.span.start as usize) <= offset && offset < m.span.end as usize;
    let touching = |m: &&Mark<'_>| m.span.end as usize == offset;
    marks.iter().rfind(inside).or_else(|| marks.iter().rfind(touching))
}

pub(super) fn target_of(mark: &Mark<'_>) -> Option<Target> {
    match mark.what {
        What::Define(target) | What::Refer(target) => Some(target),
        _ => None,
    }
}

/// The name at byte `offset` of `file`.
pub fn symbol_at(names: &Names, file: FileId, offset: usize) -> Option<Symbol> {
    let marks = names.marks(file);
    let mark = mark_at(&marks, offset)?;
    Some(Symbol { definition: target_of(mark)?.span, here: mark.span })
}

/// Where the name at byte `offset` is given; of a namespace, its file's beginning; of a path in
/// `use`, the file.
pub fn definition(analysis: &Analysis, file: FileId, offset: usize) -> Option<Symbol> {
    let names = &analysis.names;
    let marks = names.marks(file);
    let mark = mark_at(&marks, offset)?;
    if let Some(target) = target_of(mark) {
        // From the alias itself, on to the file it stands for.
        if let (TargetKind::Space(Some(module)), What::Define(_)) = (target.kind, mark.what) {
            let file = names.program.modules[module].file;
            return Some(Symbol { definition: Span::new(file, 0, 0), here: mark.span });
        }
        return Some(Symbol { definition: target.span, here: mark.span });
    }
    let link = super::links::links(names, file).into_iter().find(|l| l.span == mark.span)?;
    Some(Symbol { definition: Span::new(link.file?, 0, 0), here: mark.span })
}

/// Every place in all files of `names` where the name that is given at `definition` stands.
pub fn occurrences(names: &Names, definition: Span) -> Vec<Occurrence> {
    let mut found = Vec::new();
    for file in names.files() {
        found.extend(in_file(names, file, definition));
    }
    found
}

/// The same in `roots` and all they use.
pub fn everywhere(files: &mut dyn Files, roots: &[FileId], definition: Span) -> Vec<Occurrence> {
    among(&load_all(files, roots), definition)
}

/// The names of each of `roots` that none before it uses: what those use was found with them.
pub(super) fn load_all(files: &mut dyn Files, roots: &[FileId]) -> Vec<Names> {
    let mut out: Vec<Names> = Vec::new();
    for root in roots {
        if out.iter().all(|names| names.module(*root).is_none()) {
            out.push(Names::load(files, *root));
        }
    }
    out
}

/// Every place in `all` where the name that is given at `definition` stands, once and in order.
pub(super) fn among(all: &[Names], definition: Span) -> Vec<Occurrence> {
    let mut found: Vec<Occurrence> = all.iter().flat_map(|names| occurrences(names, definition)).collect();
    found.sort_by_key(|o| (o.span.file, o.span.start));
    found.dedup();
    found
}

/// Every place in `file` where the name at byte `offset` stands.
pub fn highlights(names: &Names, file: FileId, offset: usize) -> Vec<Occurrence> {
    match symbol_at(names, file, offset) {
        Some(symbol) => in_file(names, file, symbol.definition),
        None => Vec::new(),
    }
}

fn in_file(names: &Names, file: FileId, definition: Span) -> Vec<Occurrence> {
    names
        .marks(file)
        .iter()
        .filter(|m| target_of(m).is_some_and(|t| t.span == definition))
        .map(|m| Occurrence { span: m.span, definition: matches!(m.what, What::Define(_)) })
        .collect()
}

/// The name at `offset`, if it can be renamed, and its text.
pub fn renamable(names: &Names, file: FileId, offset: usize) -> Option<(Span, String)> {
    let symbol = symbol_at(names, file, offset)?;
    Some((symbol.here, names.text(file).get(symbol.here.range())?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::testing::{CLEAN, analyze, cursor};

    /// The fixture with its cursor put before the `n`-th `what`.
    fn at(what: &str, n: usize) -> usize {
        CLEAN.match_indices(what).nth(n).unwrap_or_else(|| panic!("{what}")).0
    }

    fn places(marked_at: usize) -> Vec<String> {
        let (files, main, analysis) = analyze(CLEAN);
        let symbol = symbol_at(analysis.names(), main, marked_at).unwrap();
        let mut found: Vec<String> = occurrences(analysis.names(), symbol.definition)
            .into_iter()
            .map(|o| {
                let text = crate::source::Files::text(&files, o.span.file);
                let line = text[..o.span.start as usize].matches('\n').count() + 1;
                format!("{}:{line}{}", o.span.file.0, if o.definition { "!" } else { "" })
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn names_lead_to_their_definition_across_files() {
        // `s.math` in the mix and in the assert, defined in the library.
        assert_eq!(places(at("math = rest", 0)), ["0:23", "0:49", "1:7!"]);
        assert_eq!(places(at("anneal {", 0)), ["0:26!", "0:38", "0:46", "0:48", "0:49"]);
        assert_eq!(places(at("half {", 0)), ["0:34!", "0:46"]);
        assert_eq!(places(at("total_tokens:", 0)), ["0:10!", "0:28"]);
        assert_eq!(places(at("s.web", 0)), ["0:1!", "0:22", "0:23", "0:49"]);
    }

    #[test]
    fn words_are_no_names() {
        let (text, offset) = cursor("stage long { from = long }\nsource a { kind = lo$0ng }\n");
        let (_, main, analysis) = analyze(&text);
        assert_eq!(symbol_at(analysis.names(), main, offset), None);
    }

    /// In a condition on records and among names of their fields, too.
    #[test]
    fn values_are_found_where_fields_of_records_stand() {
        let text = "let least = 3\nlet told = \"x\"\nsource a { where = score >= $0least, loss_on = told }\n";
        let (text, offset) = cursor(text);
        let (_, main, analysis) = analyze(&text);
        for (at, definition) in [(offset, "least"), (text.rfind("told").unwrap(), "told")] {
            let symbol = symbol_at(analysis.names(), main, at).unwrap();
            let found = occurrences(analysis.names(), symbol.definition);
            assert_eq!(found.len(), 2, "{definition}");
        }
        let field = symbol_at(analysis.names(), main, text.find("score").unwrap());
        assert_eq!(field, None);
    }

    #[test]
    fn arguments_are_entries_of_the_mix_they_change() {
        let text = CLEAN.to_owned() + "mix more = upsample(quality, math: 2)\n";
        let (_, main, analysis) = analyze(&text);
        let symbol = symbol_at(analysis.names(), main, text.find("math: 2").unwrap()).unwrap();
        assert_eq!(symbol.definition.file, FileId(1));
        assert_eq!(occurrences(analysis.names(), symbol.definition).len(), 4);
    }

    #[test]
    fn a_use_leads_to_its_file() {
        let (_, main, analysis) = analyze(CLEAN);
        for offset in [at("lib.c", 0), at("s\n", 0)] {
            let symbol = definition(&analysis, main, offset).unwrap();
            assert_eq!(symbol.definition, Span::new(FileId(1), 0, 0));
        }
    }
}
