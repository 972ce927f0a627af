//! Another name for something: where it stands, and whether everything would still mean what it did.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;

use crate::diag::{Diagnostic, Edit, Level, codes, fix};
use crate::schema;
use crate::sema::is_property;
use crate::source::{FileId, Files, LineIndex, Span};

use super::analysis::{Analysis, Names};
use super::marks::{TargetKind, What};
use super::navigation::{Occurrence, among, load_all, target_of};

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
    /// Something would be wrong that was not.
    #[error("with the name `{0}`, line {1} of `{2}` would be wrong: {3}")]
    Breaks(String, usize, String, String),
    /// A number of every stage.
    #[error("`stage.{0}` is a number of the stage itself, so no checkpoint has the name")]
    Property(String),
}

/// The places in `roots` and all they use where the name given at `definition` stands, if it may
/// become `new` there.
///
/// # Errors
/// When `new` is no name, is taken, or would make anything mean something else than it does.
pub fn rename(
    files: &mut dyn Files,
    roots: &[FileId],
    definition: Span,
    new: &str,
) -> Result<Vec<Occurrence>, RenameError> {
    may_name(new)?;
    let all = load_all(files, roots);
    let found = among(&all, definition);
    let Some(own) = all.iter().find(|names| names.module(definition.file).is_some()) else {
        return Ok(found);
    };
    if own.text(definition.file).get(definition.range()) == Some(new) {
        return Ok(found);
    }
    is_free(own, definition, new)?;
    let edits: Vec<Edit> = found.iter().map(|o| Edit { span: o.span, text: new.to_owned() }).collect();
    for names in &all {
        let touched = |file: FileId| edits.iter().any(|edit| edit.span.file == file);
        if let Some(root) = names.files().next()
            && names.files().any(touched)
        {
            means_the_same(files, root, &edits, new)?;
        }
    }
    Ok(found)
}

/// Whether `new` has the form of a name and no meaning of its own.
fn may_name(new: &str) -> Result<(), RenameError> {
    let starts = new.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts || !new.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(RenameError::Form(new.to_owned()));
    }
    let grammar = ["then", "of", "and", "or", "not", "where", "use", "param", "let", "assert", "as", "in"];
    if grammar.contains(&new) || schema::RESERVED.iter().any(|w| w.name == new) {
        return Err(RenameError::Reserved(new.to_owned()));
    }
    Ok(())
}

/// Whether nothing else beside the definition at `definition` is called `new`.
fn is_free(names: &Names, definition: Span, new: &str) -> Result<(), RenameError> {
    if let Some(module) = names.module(definition.file) {
        let module = &names.program.modules[module];
        if module.names.contains_key(new) || module.spaces.contains_key(new) {
            return Err(RenameError::Taken(new.to_owned()));
        }
    }
    let marks = names.marks(definition.file);
    let given = marks.iter().find(|m| m.span == definition).and_then(target_of);
    if given.is_some_and(|target| target.kind == TargetKind::Checkpoint) && is_property(new) {
        return Err(RenameError::Property(new.to_owned()));
    }
    Ok(())
}

/// Compare what every name and word of `root` and all it uses stands for before `edits` and after
/// them, and what is wrong.
fn means_the_same(files: &mut dyn Files, root: FileId, edits: &[Edit], new: &str) -> Result<(), RenameError> {
    let before = Analysis::new(files, root);
    let mut edited = Edited::new(files, edits);
    let after = Analysis::new(&mut edited, root);
    let moved = |span: Span| after_edits(edits, span);
    let wrong: HashSet<(codes::Code, Span)> =
        errors(&before).map(|d| (d.code, moved(d.primary.span))).collect();
    let (was, is) = (meanings(&before, moved), meanings(&after, |span| span));
    let known: HashSet<Span> = was.iter().map(|(span, ..)| *span).collect();
    // What meant nothing and was told so may come to mean something.
    let lost = |span: &Span| !known.contains(span) && wrong.iter().any(|(_, at)| touch(*at, *span));
    let differing: BTreeSet<Span> = was.symmetric_difference(&is).map(|(span, ..)| *span).collect();
    if let Some(span) = differing.into_iter().find(|span| !lost(span)) {
        let (line, name) = place(&after.names, span);
        return Err(RenameError::Captured(new.to_owned(), line, name));
    }
    let fresh = errors(&after).find(|d| !wrong.contains(&(d.code, d.primary.span)));
    if let Some(found) = fresh {
        let (line, name) = place(&after.names, found.primary.span);
        return Err(RenameError::Breaks(new.to_owned(), line, name, found.message.clone()));
    }
    Ok(())
}

/// Mistakes that no level makes less of. A file that is pinned is another by any edit, which its
/// pin has a fix for.
fn errors(analysis: &Analysis) -> impl Iterator<Item = &Diagnostic> {
    let counts =
        |d: &&Diagnostic| d.level == Level::Deny && d.lint.is_none() && d.code != codes::PIN_MISMATCH;
    analysis.diagnostics().iter().filter(counts)
}

/// Where a mark stands, its sort, and where the name it stands for is given.
type Meaning<'a> = (Span, Discriminant<What<'a>>, Option<Span>);

/// The meanings of all marks, with every place as `moved` has it.
fn meanings(analysis: &Analysis, moved: impl Fn(Span) -> Span) -> HashSet<Meaning<'_>> {
    let names = &analysis.names;
    let marks = names.files().flat_map(|file| names.marks(file));
    marks.map(|m| (moved(m.span), discriminant(&m.what), target_of(&m).map(|t| moved(t.span)))).collect()
}

fn touch(a: Span, b: Span) -> bool {
    a.file == b.file && a.start <= b.end && b.start <= a.end
}

/// Line and file of a place.
fn place(names: &Names, span: Span) -> (usize, String) {
    let text = names.text(span.file);
    (LineIndex::new(text).position(text, span.start).line as usize, names.name(span.file).to_owned())
}

/// Where `span` is once `edits` are made.
fn after_edits(edits: &[Edit], span: Span) -> Span {
    let moved = |at: u32| {
        let before = edits.iter().filter(|e| e.span.file == span.file && e.span.end <= at);
        let shift: i64 = before.map(|e| e.text.len() as i64 - e.span.range().len() as i64).sum();
        (i64::from(at) + shift) as u32
    };
    Span { start: moved(span.start), end: moved(span.end), ..span }
}

/// Files with edits made in them.
struct Edited<'f> {
    files: &'f mut dyn Files,
    texts: HashMap<FileId, String>,
}

impl<'f> Edited<'f> {
    fn new(files: &'f mut dyn Files, edits: &[Edit]) -> Self {
        let mut of: HashMap<FileId, Vec<&Edit>> = HashMap::new();
        for edit in edits {
            of.entry(edit.span.file).or_default().push(edit);
        }
        let texts =
            of.iter().map(|(file, edits)| (*file, fix::apply_edits(edits, files.text(*file)))).collect();
        Self { files, texts }
    }
}

impl Files for Edited<'_> {
    fn load(&mut self, path: &str, from: Option<FileId>) -> Result<FileId, String> {
        self.files.load(path, from)
    }

    fn text(&self, file: FileId) -> &str {
        self.texts.get(&file).map_or_else(|| self.files.text(file), String::as_str)
    }

    fn name(&self, file: FileId) -> &str {
        self.files.name(file)
    }

    fn glob(&self, pattern: &str, from: FileId) -> Vec<PathBuf> {
        self.files.glob(pattern, from)
    }

    fn read_beside(&self, path: &str, from: FileId) -> Result<Option<String>, String> {
        self.files.read_beside(path, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ide::navigation::symbol_at;
    use crate::ide::testing::{CLEAN, analyze};

    /// What comes of calling the first `what` in `text` by the name `new`: how many places change.
    fn renamed(text: &str, what: &str, new: &str) -> Result<usize, RenameError> {
        let (mut files, main, analysis) = analyze(text);
        let symbol = symbol_at(analysis.names(), main, text.find(what).unwrap()).unwrap();
        rename(&mut files, &[main], symbol.definition, new).map(|found| found.len())
    }

    /// Refused because of the line that holds the last `at` in `text`.
    fn captured(text: &str, new: &str, at: &str) -> Result<usize, RenameError> {
        let line = text[..text.rfind(at).unwrap()].matches('\n').count() + 1;
        Err(RenameError::Captured(new.to_owned(), line, "main.curriculum".to_owned()))
    }

    #[test]
    fn a_new_name_must_be_free() {
        let quality = |new: &str| renamed(CLEAN, "quality {", new);
        assert_eq!(quality("better"), Ok(2));
        assert_eq!(quality("base"), Err(RenameError::Taken("base".into())));
        assert_eq!(quality("rest"), Err(RenameError::Reserved("rest".into())));
        assert_eq!(quality("a b"), Err(RenameError::Form("a b".into())));
        assert_eq!(renamed(CLEAN, "half {", "lr"), Err(RenameError::Property("lr".into())));
        assert_eq!(renamed(CLEAN, "half {", "from"), Ok(2));
    }

    /// A stage with members, at the end of the fixture.
    const MANY: &str = "\
stage many[seed in [1, 2]] {
  from = anneal
  tokens = 1B
  mix = quality
  lr = inherit then hold
  data_seed = seed
  attention = masks
  gate { loss(quality) <= 98% of from }
  assert tokens <= budget
  eval often { every = 100 steps, loss = heldout 1% }
  eval seldom { every = 500 steps, loss = heldout 1% }
}
let masks = documents
let budget = 2B
";

    #[test]
    fn a_new_name_means_the_same_everywhere() {
        let text = format!("{CLEAN}{MANY}");
        for (what, new, at) in [
            ("quality {", "seed", "quality\n"),
            ("total_tokens:", "from", "98% of from"),
            ("total_tokens:", "hold", "hold"),
            ("seed in", "from", "98% of from"),
            ("masks = doc", "causal", "= masks"),
            ("budget = 2B", "tokens", "tokens <="),
            ("budget = 2B", "seed", "<= budget"),
        ] {
            assert_eq!(renamed(&text, what, new), captured(&text, new, at), "{what} {new}");
        }
        assert_eq!(renamed(&text, "total_tokens:", "seed"), Ok(2));
        assert_eq!(renamed(&text, "masks = doc", "shown"), Ok(2));
    }

    #[test]
    fn a_new_name_breaks_nothing() {
        let text = format!("{CLEAN}{MANY}");
        for (what, new) in [("often {", "seldom"), ("often {", "gate")] {
            let found = renamed(&text, what, new);
            assert!(matches!(found, Err(RenameError::Breaks(..))), "{what} {new}: {found:?}");
        }
        assert_eq!(renamed(&text, "often {", "always"), Ok(1));
        let twice =
            text.replace("keep = forever }", "keep = forever }\n  checkpoint third { at = 30% of stage }");
        assert!(matches!(renamed(&twice, "third {", "half"), Err(RenameError::Breaks(..))));
        // What is wrong already is no hindrance.
        let broken = text.replace("lr = inherit then hold", "lr = nothing");
        assert_eq!(renamed(&broken, "quality {", "better"), Ok(4));
    }

    /// `code:` is the last part of `s.code`, until an entry is called that alone.
    #[test]
    fn an_argument_is_not_taken_over() {
        let text = "source web { path = \"w\" }\nsource maths { path = \"m\" }\nuse \"lib.curriculum\" as s\n\
                    mix m { web = 50%, s.math = 25%, maths = rest }\nmix up = upsample(m, math: 2)\n";
        assert_eq!(renamed(text, "maths {", "math"), captured(text, "math", "mix up"));
        assert_eq!(renamed(text, "maths {", "code"), Ok(2));
    }
}
