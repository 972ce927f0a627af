//! What a file and its imports define: names, and what stands behind their dots.

use std::collections::{HashMap, HashSet};

use super::{CompletionKind, List};
use crate::diag::codes;
use crate::ide::analysis::Names;
use crate::ide::context::{Call, Context, Token, TokenKind};
use crate::ide::marks::checkpoints;
use crate::sema::program::{DefId, DefKind, Program};
use crate::sema::{CURVE_PROPERTIES, PORTION_PROPERTIES, ROPE_PROPERTIES, STAGE_PROPERTIES};
use crate::syntax::ast::{EntryKind, ItemKind, PathSegment};

impl List<'_> {
    pub(super) fn lints(&mut self, behind: &str) {
        for info in codes::CODES {
            if let Some(lint) = info.lint {
                self.snippet(lint, CompletionKind::Lint, info.title, &info.text(), format!("{lint}{behind}"));
            }
        }
    }

    /// Definitions of some kinds that this file sees, its namespaces' included.
    pub(super) fn definitions(&mut self, kinds: &[DefKind], behind: &str) {
        if kinds.contains(&DefKind::Let) {
            self.variables();
        }
        let program = &self.names.program;
        for id in program.ids() {
            let def = program.def(id);
            if def.module == self.module && kinds.contains(&def.kind) {
                self.definition(id, &def.name.clone(), behind);
            }
        }
        let mut spaces: Vec<(&String, Option<usize>)> =
            program.modules[self.module].spaces.iter().map(|(name, (to, _))| (name, *to)).collect();
        spaces.sort();
        for (space, to) in spaces {
            for id in program.ids().filter(|id| Some(program.def(*id).module) == to) {
                let def = program.def(id);
                if kinds.contains(&def.kind) {
                    self.definition(id, &format!("{space}.{}", def.name), behind);
                }
            }
        }
    }

    /// The variables of the fan-out around the cursor.
    pub(super) fn variables(&mut self) {
        for variable in self.variables.clone() {
            self.push(variable, CompletionKind::Value, "a variable of the fan-out", "");
        }
    }

    /// What stages of this file read, as a mixture. That of a fan-out is one for each member.
    pub(super) fn mixes_of_stages(&mut self, behind: &str) {
        let program = &self.names.program;
        for id in program.ids() {
            let def = program.def(id);
            let each = matches!(&program.item(id).kind, ItemKind::Block(block) if !block.each.is_empty());
            if def.module == self.module && def.kind == DefKind::Stage && !each {
                self.definition(id, &format!("{}.mix", def.name), behind);
            }
        }
    }

    /// The entries of the mix that `call` changes, by their last parts.
    pub(super) fn entries_of(&mut self, call: &Call<'_>) {
        let names = path_before(&call.first);
        let Some((id, [])) = self.follow(&names) else { return };
        let ItemKind::Block(block) = &self.names.program.item(id).kind else { return };
        for entry in &block.entries {
            let EntryKind::Field { key, .. } = &entry.kind else { continue };
            let Some(PathSegment::Name(name)) = key.segments.last() else { continue };
            let setting = key.segments.len() == 1 && name.text == "weights";
            if !setting && !call.named.contains(&name.text.as_str()) {
                self.snippet(
                    &name.text,
                    CompletionKind::Argument,
                    "an entry of the mix",
                    "",
                    format!("{}: $0", name.text),
                );
            }
        }
    }

    /// Whether naming `id` here would close a circle.
    fn circular(&self, id: DefId) -> bool {
        let Some(own) = self.own else { return false };
        self.hidden.get_or_init(|| made_of(&self.names.program, own)).contains(&id)
    }

    /// Named values, without the parameters that are declared to be something else than `types`.
    pub(super) fn values(&mut self, types: &[&str]) {
        self.definitions(&[DefKind::Param, DefKind::Let], "");
        let program = &self.names.program;
        let unfit = |id: DefId| match &program.item(id).kind {
            ItemKind::Param { ty: Some(ty), .. } => !types.contains(&ty.text.as_str()),
            _ => false,
        };
        let names = &program.modules[self.module].names;
        self.out.retain(|c| names.get(&c.label).is_none_or(|id| !unfit(*id)));
    }

    pub(super) fn definition(&mut self, id: DefId, label: &str, behind: &str) {
        if self.circular(id) {
            return;
        }
        let def = self.names.program.def(id);
        let doc = self.names.program.item(id).preface.doc();
        let keyword = def.kind.keyword();
        self.snippet(label, kind_of(def.kind), keyword, &doc, format!("{label}{behind}"));
    }

    /// After a dot: names of a namespace, checkpoints and properties of a stage; of an `origin`, what
    /// a stage can start from.
    pub(super) fn members(&mut self, entry: &[Token<'_>], origin: bool) {
        let names = path_before(&entry[..entry.len() - 1]);
        let program = &self.names.program;
        let mut module = self.module;
        let mut rest = names.as_slice();
        while let Some((first, behind)) = rest.split_first() {
            if let Some(id) = program.modules[module].names.get(*first) {
                return self.members_of(*id, behind, origin);
            }
            match program.modules[module].spaces.get(*first) {
                Some((Some(to), _)) => {
                    module = *to;
                    rest = behind;
                }
                _ => return self.properties_after(first, behind),
            }
        }
        if names.is_empty() {
            return;
        }
        for id in program.ids().filter(|id| program.def(*id).module == module) {
            let name = program.def(id).name.clone();
            self.definition(id, &name, "");
        }
    }

    pub(super) fn members_of(&mut self, id: DefId, behind: &[&str], origin: bool) {
        let program = &self.names.program;
        match (program.def(id).kind, behind) {
            (DefKind::Stage, []) => {
                for checkpoint in checkpoints(program, id) {
                    self.push(&checkpoint.text, CompletionKind::Checkpoint, "checkpoint", "");
                }
                for property in STAGE_PROPERTIES.iter().filter(|_| !origin) {
                    self.push(property, CompletionKind::Property, "of the stage", "");
                }
            }
            (DefKind::Stage, [first, behind @ ..]) => self.properties_after(first, behind),
            (DefKind::Model, []) if !origin => {
                for property in ["mix", "lr", "seen", "context"] {
                    self.push(property, CompletionKind::Property, "of the model", "");
                }
            }
            _ => {}
        }
    }

    /// The sources of the file that the namespaces `spaces` lead to.
    pub(super) fn sources_of(&mut self, spaces: &[&str]) {
        let program = &self.names.program;
        let step = |module: usize, space: &&str| program.modules[module].spaces.get(*space)?.0;
        let Some(module) = spaces.iter().try_fold(self.module, step) else { return };
        for id in program.ids() {
            let def = program.def(id);
            if def.module == module && def.kind == DefKind::Source {
                self.definition(id, &def.name.clone(), "");
            }
        }
    }

    pub(super) fn properties_after(&mut self, property: &str, behind: &[&str]) {
        let (list, detail): (&[&str], &str) = match (property, behind) {
            ("lr" | "batch" | "context" | "batch_tokens", []) => (&CURVE_PROPERTIES, "of the curve"),
            ("rope", []) => (&ROPE_PROPERTIES, "of the encoding"),
            ("mix", []) => {
                return self.definitions(&[DefKind::Source], "");
            }
            // A file on the way to the source.
            ("mix", spaces) if self.follow(spaces).is_none() => return self.sources_of(spaces),
            ("mix", _) => (&PORTION_PROPERTIES, "of the source in the stage"),
            _ => return,
        };
        for name in list {
            self.push(name, CompletionKind::Property, detail, "");
        }
    }
}

/// The definition of `module` that the cursor is in.
pub(super) fn own(names: &Names, module: usize, context: &Context<'_>) -> Option<DefId> {
    let name = match (context.blocks.first(), context.entry.as_slice()) {
        (Some(block), _) => block.name?,
        (None, [item, name, ..]) if item.text != "assert" => name.text,
        _ => return None,
    };
    names.program.modules[module].names.get(name).copied()
}

/// `own` and every definition that mentions one that is made of it.
fn made_of(program: &Program, own: DefId) -> HashSet<DefId> {
    let mut mentioned_by: HashMap<DefId, Vec<DefId>> = HashMap::new();
    for id in program.ids() {
        for mentioned in program.mentions(id) {
            mentioned_by.entry(mentioned).or_default().push(id);
        }
    }
    let mut found = HashSet::from([own]);
    let mut open = vec![own];
    while let Some(id) = open.pop() {
        let next = mentioned_by.get(&id).into_iter().flatten();
        open.extend(next.filter(|next| found.insert(**next)));
    }
    found
}

/// The names of the path that `entry` ends in, `a.b[42]`; indices are left out.
pub(super) fn path_before<'t>(entry: &[Token<'t>]) -> Vec<&'t str> {
    let mut path: Vec<&str> = Vec::new();
    let mut depth = 0usize;
    for token in entry.iter().rev() {
        match (token.kind, token.text) {
            (_, "]") => depth += 1,
            (_, "[") if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            (TokenKind::Word, word) if path.len().is_multiple_of(2) => path.push(word),
            (TokenKind::Sign, ".") if !path.len().is_multiple_of(2) => path.push("."),
            _ => break,
        }
    }
    let mut names: Vec<&str> = path.into_iter().filter(|p| *p != ".").collect();
    names.reverse();
    names
}

fn kind_of(kind: DefKind) -> CompletionKind {
    match kind {
        DefKind::Param | DefKind::Let => CompletionKind::Value,
        DefKind::Model => CompletionKind::Model,
        DefKind::Source => CompletionKind::Source,
        DefKind::Mix => CompletionKind::Mix,
        DefKind::Stage => CompletionKind::Stage,
        DefKind::Soup => CompletionKind::Soup,
    }
}
