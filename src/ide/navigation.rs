//! From a name to where it is given and everywhere it is used.

use crate::schema;
use crate::sema::is_property;
use crate::source::{FileId, LineIndex, Span};
use crate::syntax::ast::{Block, ItemKind};

use super::analysis::{Analysis, Names};
use super::marks::{MORE_WORDS, Mark, Target, TargetKind, What};

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

/// Why a name cannot become another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenameError {
    /// Not a name.
    #[error("`{0}` is not a name: letters, digits and `_`, not beginning with a digit")]
    Form(String),
    /// A word of the language.
    #[error("`{0}` has a meaning of its own inside values")]
    Reserved(String),
    /// Something has the name.
    #[error("`{0}` is defined in this file already")]
    Taken(String),
    /// A place where the name stands, or would, reads it as something else.
    #[error("`{0}` means something else where the name is used: line {1} of `{2}`")]
    Captured(String, usize, String),
    /// A number of every stage.
    #[error("`stage.{0}` is a number of the stage itself, so no checkpoint has the name")]
    Property(String),
}

/// The mark that holds byte `offset`, or ends there.
pub(super) fn mark_at<'m, 'a>(marks: &'m [Mark<'a>], offset: usize) -> Option<&'m Mark<'a>> {
    let inside = |m: &&Mark<'_>| (m.span.start as usize) <= offset && offset < m.span.end as usize;
    let touching = |m: &&Mark<'_>| m.span.end as usize == offset;
    marks.iter().rfind(inside).or_else(|| marks.iter().rfind(touching))
}

fn target_of(mark: &Mark<'_>) -> Option<Target> {
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

/// The same in one file.
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

/// Check that the name given at `definition` may become `new`.
///
/// # Errors
/// When `new` is no name or is taken.
pub fn rename_edits(names: &Names, definition: Span, new: &str) -> Result<Vec<Occurrence>, RenameError> {
    let starts = new.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !new.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(RenameError::Form(new.to_owned()));
    }
    let grammar = ["then", "of", "and", "or", "not", "where", "use", "param", "let", "assert", "as", "in"];
    if grammar.contains(&new) || schema::RESERVED.iter().any(|w| w.name == new) {
        return Err(RenameError::Reserved(new.to_owned()));
    }
    let old = names.text(definition.file).get(definition.range()).unwrap_or_default();
    if new == old {
        return Ok(occurrences(names, definition));
    }
    if let Some(module) = names.module(definition.file) {
        let module = &names.program.modules[module];
        if module.names.contains_key(new) || module.spaces.contains_key(new) {
            return Err(RenameError::Taken(new.to_owned()));
        }
    }
    let marks = names.marks(definition.file);
    let given = marks.iter().find(|m| m.span == definition);
    let kind = given.and_then(target_of).map(|target| target.kind);
    if kind == Some(TargetKind::Checkpoint) && is_property(new) {
        return Err(RenameError::Property(new.to_owned()));
    }
    let found = occurrences(names, definition);
    let hidden = found.iter().map(|o| o.span).find(|span| variable_at(names, *span) == Some(new));
    // A word such as `from` gives way to what a file defines, so it would no longer say what it says.
    let hides = || match kind {
        Some(TargetKind::Def(..) | TargetKind::Space(_)) => {
            let text = names.text(definition.file);
            marks.iter().find(|m| gives_way(m, text) && text.get(m.span.range()) == Some(new)).map(|m| m.span)
        }
        _ => None,
    };
    if let Some(span) = hidden.or_else(hides) {
        let text = names.text(span.file);
        let line = LineIndex::new(text).position(text, span.start).line as usize;
        return Err(RenameError::Captured(new.to_owned(), line, names.name(span.file).to_owned()));
    }
    Ok(found)
}

/// The variable of the fan-out that `span` stands in, if a name alone at `span` could be it.
fn variable_at(names: &Names, span: Span) -> Option<&str> {
    let item = names
        .tree(span.file)?
        .items
        .iter()
        .find(|item| item.span.start <= span.start && span.end <= item.span.end)?;
    let ItemKind::Block(Block { each: Some(each), brace, .. }) = &item.kind else { return None };
    let text = names.text(span.file);
    let alone = !text[..span.start as usize].ends_with('.') && !text[span.end as usize..].starts_with('.');
    (alone && span.start > brace.start).then_some(each.var.text.as_str())
}

/// Whether `mark` is a word, function or field of records that a definition of its name takes over.
fn gives_way(mark: &Mark<'_>, text: &str) -> bool {
    match mark.what {
        What::RecordField => true,
        What::Word(word, _) => MORE_WORDS.iter().any(|(w, _)| *w == word),
        What::Function(_) => !text[mark.span.end as usize..].trim_start().starts_with('('),
        _ => false,
    }
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
    fn a_new_name_must_be_free() {
        let (_, main, analysis) = analyze(CLEAN);
        let symbol = symbol_at(analysis.names(), main, at("quality {", 0)).unwrap();
        let names = analysis.names();
        assert_eq!(rename_edits(names, symbol.definition, "better").map(|o| o.len()), Ok(2));
        assert_eq!(rename_edits(names, symbol.definition, "base"), Err(RenameError::Taken("base".into())));
        assert_eq!(rename_edits(names, symbol.definition, "rest"), Err(RenameError::Reserved("rest".into())));
        assert_eq!(rename_edits(names, symbol.definition, "a b"), Err(RenameError::Form("a b".into())));
    }

    #[test]
    fn a_new_name_means_the_same_everywhere() {
        let text = format!(
            "{CLEAN}stage many[seed in [1, 2]] {{\n  from = anneal\n  tokens = 1B\n  mix = quality\n  \
             lr = inherit then hold\n  data_seed = seed\n  gate {{ loss(quality) <= 98% of from }}\n}}\n"
        );
        let (_, main, analysis) = analyze(&text);
        let names = analysis.names();
        let rename = |what: &str, new: &str| {
            let symbol = symbol_at(names, main, text.find(what).unwrap()).unwrap();
            rename_edits(names, symbol.definition, new).map(|o| o.len())
        };
        let captured = |new: &str, at: &str| {
            let line = text[..text.rfind(at).unwrap()].matches('\n').count() + 1;
            Err(RenameError::Captured(new.to_owned(), line, "main.curriculum".to_owned()))
        };
        assert_eq!(rename("quality {", "seed"), captured("seed", "quality\n"));
        assert_eq!(rename("total_tokens:", "from"), captured("from", "98% of from"));
        assert_eq!(rename("total_tokens:", "hold"), captured("hold", "hold"));
        assert_eq!(rename("total_tokens:", "seed"), Ok(2));
        assert_eq!(rename("half {", "lr"), Err(RenameError::Property("lr".into())));
        assert_eq!(rename("half {", "from"), Ok(2));
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
