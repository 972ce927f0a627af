//! One file, everything it uses, and what the checker made of it.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use crate::diag::{Diagnostic, Level};
use crate::plan::{self, Plan};
use crate::sema::program::{DefId, Program};
use crate::sema::{self, Curriculum, Fact};
use crate::source::{FileId, Files, Span};
use crate::syntax::ast;

use super::marks::{Mark, marks};

/// The names of a file and of all it uses, with the texts they were read from. Enough to find
/// references without checking anything.
pub struct Names {
    pub(super) program: Program,
    texts: Vec<Arc<str>>,
    names: Vec<String>,
}

impl Names {
    /// Read `root` and what it uses.
    pub fn load(files: &mut dyn Files, root: FileId) -> Self {
        let mut ignored = Vec::new();
        let program = Program::load(files, root, &mut ignored);
        Self::new(program, files)
    }

    fn new(program: Program, files: &dyn Files) -> Self {
        let texts = program.modules.iter().map(|m| Arc::from(files.text(m.file))).collect();
        let names = program.modules.iter().map(|m| files.name(m.file).to_owned()).collect();
        Self { program, texts, names }
    }

    /// The name of `file` as messages show it.
    pub(super) fn name(&self, file: FileId) -> &str {
        self.module(file).map_or("", |m| &self.names[m])
    }

    /// All files that take part, the root first.
    pub fn files(&self) -> impl Iterator<Item = FileId> {
        self.program.modules.iter().map(|m| m.file)
    }

    /// The text of `file` at the time of reading; empty for a file that takes no part.
    pub fn text(&self, file: FileId) -> &str {
        self.module(file).map_or("", |m| &self.texts[m])
    }

    pub(super) fn module(&self, file: FileId) -> Option<usize> {
        self.program.modules.iter().position(|m| m.file == file)
    }

    pub(super) fn tree(&self, file: FileId) -> Option<&ast::File> {
        self.program.modules.iter().find(|m| m.file == file).map(|m| &m.ast)
    }

    pub(super) fn marks(&self, file: FileId) -> Vec<Mark<'_>> {
        self.module(file).map_or_else(Vec::new, |m| marks(&self.program, m))
    }
}

/// A checked file.
pub struct Analysis {
    pub(super) names: Names,
    pub(super) curriculum: Curriculum,
    pub(super) facts: Vec<Fact>,
    pub(super) rests: HashMap<Span, String>,
    complete: bool,
    diagnostics: Vec<Diagnostic>,
    plan: OnceCell<Plan>,
}

impl Analysis {
    /// Check `root` and what it uses.
    pub fn new(files: &mut dyn Files, root: FileId) -> Self {
        let outcome = sema::analyze(files, root, &sema::Options::default());
        Self {
            names: Names::new(outcome.program, files),
            curriculum: outcome.curriculum,
            facts: outcome.facts,
            rests: outcome.rests,
            complete: outcome.complete,
            diagnostics: outcome.diagnostics,
            plan: OnceCell::new(),
        }
    }

    /// Names and texts.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The file that was asked for.
    pub fn root(&self) -> FileId {
        self.names.program.modules[0].file
    }

    /// Everything found in any of the files, at the levels the files set.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether a `use` leads nowhere, so that any new file may change everything.
    pub fn lost_a_file(&self) -> bool {
        self.names.program.modules.iter().any(|m| m.spaces.values().any(|(to, _)| to.is_none()))
    }

    /// The plan; `None` while a mistake stands in its way.
    pub fn plan(&self) -> Option<&Plan> {
        self.complete.then(|| self.plan.get_or_init(|| plan::build(&self.curriculum)))
    }

    /// The plan with what follows from it, as `midc plan --format json` prints it: `None` also while a
    /// lint denies it.
    pub fn shown(&self) -> Option<plan::Shown<'_>> {
        if self.diagnostics.iter().any(|d| d.level == Level::Deny) {
            return None;
        }
        let curriculum = &self.curriculum;
        Some(plan::Shown::new(self.plan()?, Some(curriculum), curriculum.utilisation))
    }

    pub(super) fn fact(&self, id: DefId) -> &Fact {
        self.facts.get(id.index()).unwrap_or(&Fact::None)
    }
}
