//! The files of a curriculum and the names they define. Knows where a name leads, not what it is
//! worth.

use std::collections::{HashMap, HashSet};

use crate::diag::Diagnostic;
use crate::diag::suggest::nearest;
use crate::schema::{self, Family, Ty};
use crate::source::{FileId, Files, Span};
use crate::syntax::ast::{self, EntryKind, Expr, ExprKind, ItemKind, PathSegment};

use crate::diag::codes;

/// Index into [`Program::defs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DefId(pub(crate) u32);

impl DefId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// All files that take part, the root first.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) modules: Vec<Module>,
    pub(crate) defs: Vec<Def>,
}

/// One file.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) file: FileId,
    pub(crate) ast: ast::File,
    pub(crate) names: HashMap<String, DefId>,
    /// `use … as s`: the module and where the alias stands.
    pub(crate) spaces: HashMap<String, (Option<usize>, Span)>,
    /// Names whose definition has its message: what they stand for is not known.
    pub(crate) lost: HashSet<String>,
}

/// Something with a name at the top of a file.
#[derive(Clone, Debug)]
pub(crate) struct Def {
    pub(crate) module: usize,
    /// Position in the module's items.
    pub(crate) item: usize,
    pub(crate) kind: DefKind,
    pub(crate) name: String,
    pub(crate) name_span: Span,
}

/// What sort of definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DefKind {
    Param,
    Let,
    Model,
    Source,
    Mix,
    Stage,
    Soup,
}

impl DefKind {
    /// The keyword.
    pub(crate) fn keyword(self) -> &'static str {
        match self {
            DefKind::Param => "param",
            DefKind::Let => "let",
            DefKind::Model => "model",
            DefKind::Source => "source",
            DefKind::Mix => "mix",
            DefKind::Stage => "stage",
            DefKind::Soup => "soup",
        }
    }
}

/// Where a path leads: what its first segments name, and how many of them that took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lookup {
    Def(DefId, usize),
    /// Into a file that could not be read, or to something that has its message: silence.
    Lost,
    /// A namespace alone.
    Space,
    Unknown,
    /// `s.nothing`: the namespace is known, the name in it is not.
    UnknownIn(usize),
}

impl Program {
    /// Read `root` and everything it uses.
    pub(crate) fn load(files: &mut dyn Files, root: FileId, diags: &mut Vec<Diagnostic>) -> Self {
        let mut program = Self::default();
        let mut by_file: HashMap<FileId, usize> = HashMap::new();
        program.add(files, root, &mut by_file, diags);
        // Breadth first: `modules` grows while it is walked.
        let mut at = 0;
        let mut uses: Vec<(usize, usize, Span)> = Vec::new();
        while at < program.modules.len() {
            let wanted: Vec<(ast::Str, Option<ast::Ident>, Option<ast::Str>)> = program.modules[at]
                .ast
                .items
                .iter()
                .filter_map(|item| match &item.kind {
                    ItemKind::Use { path, alias, sha256 } => {
                        Some((path.clone(), alias.clone(), sha256.clone()))
                    }
                    _ => None,
                })
                .collect();
            for (path, alias, sha256) in wanted {
                let from = program.modules[at].file;
                let target = match files.load(&path.text, Some(from)) {
                    Ok(file) => {
                        if let Some(pin) = &sha256 {
                            check_pin(files.text(file), pin, diags);
                        }
                        let index = match by_file.get(&file) {
                            Some(index) => *index,
                            None => program.add(files, file, &mut by_file, diags),
                        };
                        uses.push((at, index, path.span));
                        Some(index)
                    }
                    Err(reason) => {
                        diags.push(
                            Diagnostic::error(
                                codes::CANNOT_READ,
                                path.span,
                                format!("cannot read `{}`", path.text),
                                reason,
                            )
                            .help("paths in `use` are relative to the file they stand in"),
                        );
                        None
                    }
                };
                let Some(alias) = alias else {
                    diags.push(
                        Diagnostic::error(
                            codes::MISSING_FIELD,
                            path.span,
                            "`use` without a name for what it brings in",
                            "`as NAME` is missing after this",
                        )
                        .help(
                            "write `use \"sources.curriculum\" as s`; its names are then `s.web`, `s.code`",
                        ),
                    );
                    continue;
                };
                program.define_space(at, alias, target, diags);
            }
            at += 1;
        }
        program.report_use_cycles(&uses, diags);
        program
    }

    fn add(
        &mut self,
        files: &mut dyn Files,
        file: FileId,
        by_file: &mut HashMap<FileId, usize>,
        diags: &mut Vec<Diagnostic>,
    ) -> usize {
        let (ast, errors) = crate::syntax::parse(file, files.text(file));
        diags.extend(errors);
        let index = self.modules.len();
        by_file.insert(file, index);
        let mut names = HashMap::new();
        let mut lost = HashSet::new();
        for (i, item) in ast.items.iter().enumerate() {
            let Some((kind, name)) = definition(item, diags) else {
                if let Some(name) = undefined(item) {
                    lost.insert(name.to_owned());
                }
                continue;
            };
            if let Some(word) = schema::RESERVED.iter().find(|w| w.name == name.text) {
                diags.push(
                    Diagnostic::error(
                        codes::RESERVED_NAME,
                        name.span,
                        format!("`{}` cannot be defined", name.text),
                        format!("inside values this word means {}", word.doc),
                    )
                    .help("choose another name"),
                );
                continue;
            }
            let id = DefId(self.defs.len() as u32);
            if let Some(first) = names.get(&name.text) {
                let first: &Def = &self.defs[DefId::index(*first)];
                diags.push(
                    Diagnostic::error(
                        codes::DUPLICATE_NAME,
                        name.span,
                        format!("`{}` is defined twice", name.text),
                        "defined again here",
                    )
                    .label(first.name_span, format!("first defined here, as a {}", first.kind.keyword()))
                    .help("names are shared by all kinds of items in a file; rename one of the two"),
                );
                // Which of two kinds is meant where it is mentioned is not known.
                if first.kind != kind {
                    lost.insert(name.text.clone());
                }
                continue;
            }
            names.insert(name.text.clone(), id);
            self.defs.push(Def {
                module: index,
                item: i,
                kind,
                name: name.text.clone(),
                name_span: name.span,
            });
        }
        self.modules.push(Module { file, ast, names, spaces: HashMap::new(), lost });
        index
    }

    fn define_space(
        &mut self,
        at: usize,
        alias: ast::Ident,
        target: Option<usize>,
        diags: &mut Vec<Diagnostic>,
    ) {
        let module = &mut self.modules[at];
        let first = module
            .names
            .get(&alias.text)
            .map(|id| self.defs[id.index()].name_span)
            .or_else(|| module.spaces.get(&alias.text).map(|(_, span)| *span));
        if let Some(first) = first {
            diags.push(
                Diagnostic::error(
                    codes::DUPLICATE_NAME,
                    alias.span,
                    format!("`{}` is defined twice", alias.text),
                    "defined again here",
                )
                .label(first, "first defined here")
                .help("rename one of the two"),
            );
            return;
        }
        module.spaces.insert(alias.text, (target, alias.span));
    }

    fn report_use_cycles(&self, uses: &[(usize, usize, Span)], diags: &mut Vec<Diagnostic>) {
        // Depth-first colouring without recursion; an edge to a node on the path closes a cycle.
        let mut out: Vec<Vec<(usize, Span)>> = vec![Vec::new(); self.modules.len()];
        for (from, to, span) in uses {
            out[*from].push((*to, *span));
        }
        let mut state = vec![0u8; self.modules.len()];
        for root in 0..self.modules.len() {
            if state[root] != 0 {
                continue;
            }
            state[root] = 1;
            let mut path = vec![(root, 0usize)];
            while let Some((node, next)) = path.last_mut() {
                let node = *node;
                if let Some((to, span)) = out[node].get(*next).copied() {
                    *next += 1;
                    match state[to] {
                        0 => {
                            state[to] = 1;
                            path.push((to, 0));
                        }
                        1 => diags.push(
                            Diagnostic::error(
                                codes::USE_CYCLE,
                                span,
                                "files use each other in a circle",
                                if to == node {
                                    "the file uses itself here"
                                } else {
                                    "this leads back to a file that is still being read"
                                },
                            )
                            .help("move what both need into a third file"),
                        ),
                        _ => {}
                    }
                } else {
                    state[node] = 2;
                    path.pop();
                }
            }
        }
    }

    pub(crate) fn def(&self, id: DefId) -> &Def {
        &self.defs[id.index()]
    }

    pub(crate) fn item(&self, id: DefId) -> &ast::Item {
        let def = self.def(id);
        &self.modules[def.module].ast.items[def.item]
    }

    /// All definitions of one module, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = DefId> {
        (0..self.defs.len() as u32).map(DefId)
    }

    /// Where the first segments of `path`, written in `module`, lead.
    pub(crate) fn lookup(&self, module: usize, path: &ast::Path) -> Lookup {
        let mut module = module;
        let mut used = 0;
        loop {
            let Some(PathSegment::Name(name)) = path.segments.get(used) else {
                return if used == 0 { Lookup::Unknown } else { Lookup::Space };
            };
            if self.modules[module].lost.contains(&name.text) {
                return Lookup::Lost;
            }
            if let Some(id) = self.modules[module].names.get(&name.text) {
                return Lookup::Def(*id, used + 1);
            }
            match self.modules[module].spaces.get(&name.text) {
                Some((Some(target), _)) => {
                    module = *target;
                    used += 1;
                }
                Some((None, _)) => return Lookup::Lost,
                None if used == 0 => return Lookup::Unknown,
                None => return Lookup::UnknownIn(module),
            }
        }
    }

    /// The definition that the root file reaches as `name`: `budget`, `s.share`.
    pub(crate) fn find(&self, name: &str) -> Option<DefId> {
        let mut module = 0;
        let mut parts = name.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return self.modules[module].names.get(part).copied();
            }
            module = self.modules[module].spaces.get(part)?.0?;
        }
        None
    }

    /// Every parameter as the root file reaches it, its own first.
    pub(crate) fn params(&self) -> Vec<String> {
        let mut seen = HashSet::from([0]);
        let mut files = vec![(0, String::new())];
        let mut params = Vec::new();
        // `files` grows while it is walked.
        let mut at = 0;
        while let Some((module, before)) = files.get(at).cloned() {
            let own = self.defs.iter().filter(|def| def.module == module && def.kind == DefKind::Param);
            params.extend(own.map(|def| format!("{before}{}", def.name)));
            let mut spaces: Vec<_> = self.modules[module].spaces.iter().collect();
            spaces.sort_by_key(|(alias, _)| *alias);
            for (alias, (target, _)) in spaces {
                files.extend(target.filter(|t| seen.insert(*t)).map(|t| (t, format!("{before}{alias}."))));
            }
            at += 1;
        }
        params
    }

    /// The name nearest to `name` among those visible in `module`.
    pub(crate) fn nearest(
        &self,
        module: usize,
        name: &str,
        wanted: impl Fn(DefKind) -> bool,
    ) -> Option<String> {
        let m = &self.modules[module];
        let mut names: Vec<&str> = m
            .names
            .iter()
            .filter(|(_, id)| wanted(self.def(**id).kind))
            .map(|(n, _)| n.as_str())
            .chain(m.spaces.keys().map(String::as_str))
            .collect();
        names.sort_unstable();
        nearest(name, names).map(str::to_owned)
    }

    /// Every definition an item mentions, asserts and gates left out (they are checked when
    /// everything is resolved).
    pub(crate) fn mentions(&self, id: DefId) -> Vec<DefId> {
        let module = self.def(id).module;
        let mut found = Vec::new();
        let mut visit = |path: &ast::Path, words: bool| {
            if let Lookup::Def(target, _) = self.lookup(module, path) {
                // `kind = long` is a word even where a stage is called `long`.
                if !words || matches!(self.def(target).kind, DefKind::Param | DefKind::Let) {
                    found.push(target);
                }
            }
        };
        match &self.item(id).kind {
            ItemKind::Param { value, .. } | ItemKind::Let { value, .. } | ItemKind::Bind { value, .. } => {
                visit_expr(value, &mut |path| visit(path, false));
                if let ExprKind::Where { predicate, .. } = &value.kind {
                    visit_expr(predicate, &mut |path| visit(path, true));
                }
            }
            ItemKind::Block(block) => visit_block(block, &mut visit),
            ItemKind::Use { .. } | ItemKind::Assert(_) => {}
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// The name of a block or binding of a kind that defines nothing.
fn undefined(item: &ast::Item) -> Option<&str> {
    match &item.kind {
        ItemKind::Block(block) => block.name.as_ref(),
        ItemKind::Bind { name, .. } => Some(name),
        _ => None,
    }
    .map(|name| name.text.as_str())
}

/// What an item defines.
fn definition<'i>(item: &'i ast::Item, diags: &mut Vec<Diagnostic>) -> Option<(DefKind, &'i ast::Ident)> {
    match &item.kind {
        ItemKind::Param { name, .. } => Some((DefKind::Param, name)),
        ItemKind::Let { name, .. } => Some((DefKind::Let, name)),
        ItemKind::Bind { kind, name, .. } => {
            let kind = match kind.text.as_str() {
                "soup" => DefKind::Soup,
                "source" => DefKind::Source,
                "mix" => DefKind::Mix,
                _ => {
                    let mut d = Diagnostic::error(
                        codes::UNKNOWN_BLOCK,
                        kind.span,
                        format!("`{}` cannot be bound with `=`", kind.text),
                        "only `soup`, `source` and `mix` can",
                    );
                    if schema::block(&kind.text).is_some() {
                        d = d.help(format!("write a block: `{} {} {{ … }}`", kind.text, name.text));
                    } else {
                        d = d.help("a value gets a name with `let`");
                    }
                    diags.push(d);
                    return None;
                }
            };
            Some((kind, name))
        }
        ItemKind::Block(block) => {
            if let [first, .., last] | [first @ last] = block.each.as_slice()
                && block.kind.text != "stage"
                && schema::block(&block.kind.text).is_some()
            {
                diags.push(
                    Diagnostic::error(
                        codes::STAGE_EACH,
                        first.var.span.to(last.values.span),
                        format!("a fan-out of a `{}`", block.kind.text),
                        "only stages fan out",
                    )
                    .help(match block.kind.text.as_str() {
                        "source" | "mix" => {
                            "fan out the stage that reads it: `stage anneal[order in [1, 2]]`"
                        }
                        _ => "write the block without it",
                    }),
                );
            }
            let kind = match block.kind.text.as_str() {
                "model" => DefKind::Model,
                "source" => DefKind::Source,
                "mix" => DefKind::Mix,
                "stage" => DefKind::Stage,
                "soup" => {
                    diags.push(
                        Diagnostic::error(
                            codes::UNKNOWN_BLOCK,
                            block.kind.span,
                            "`soup` is not a block",
                            "a soup is bound with `=`",
                        )
                        .help("write `soup final = average(anneal)`"),
                    );
                    return None;
                }
                "budget" | "lints" => {
                    if let Some(name) = &block.name {
                        diags.push(
                            Diagnostic::error(
                                codes::BLOCK_NAME,
                                name.span,
                                format!("`{}` has no name", block.kind.text),
                                "this name has no use",
                            )
                            .fix(
                                "remove the name",
                                crate::diag::Applicability::MachineApplicable,
                                Span { file: name.span.file, start: block.kind.span.end, end: name.span.end },
                                "",
                            ),
                        );
                    }
                    return None;
                }
                other => {
                    let tops = schema::BLOCKS.iter().filter(|b| b.inside.is_none()).map(|b| b.keyword);
                    let mut d = Diagnostic::error(
                        codes::UNKNOWN_BLOCK,
                        block.kind.span,
                        match schema::block(other).and_then(|b| b.inside) {
                            Some(_) => format!("`{other}` stands outside a stage"),
                            None => format!("unknown block `{other}`"),
                        },
                        match schema::block(other).and_then(|b| b.inside) {
                            Some(inside) => format!("belongs inside a `{inside}`"),
                            None => "no block has this name".to_owned(),
                        },
                    );
                    if schema::block(other).is_none() {
                        d = suggest(
                            d,
                            block.kind.span,
                            nearest(other, tops),
                            "a file holds `use`, `param`, `let`, `model`, `source`, `mix`, `stage`, `soup`, `assert`, `budget`, `lints`",
                        );
                    }
                    diags.push(d);
                    return None;
                }
            };
            match &block.name {
                Some(name) => Some((kind, name)),
                None => {
                    diags.push(
                        Diagnostic::error(
                            codes::BLOCK_NAME,
                            block.kind.span,
                            format!("`{}` without a name", block.kind.text),
                            "a name is missing after this",
                        )
                        .help(format!("write `{} NAME {{ … }}`", block.kind.text)),
                    );
                    None
                }
            }
        }
        ItemKind::Use { .. } | ItemKind::Assert(_) => None,
    }
}

/// Add a did-you-mean with its fix, or `otherwise`.
pub(crate) fn suggest(d: Diagnostic, span: Span, near: Option<&str>, otherwise: &str) -> Diagnostic {
    match near {
        Some(near) => d.help(format!("did you mean `{near}`?")).fix(
            format!("replace by `{near}`"),
            crate::diag::Applicability::MaybeIncorrect,
            span,
            near,
        ),
        None if otherwise.is_empty() => d,
        None => d.help(otherwise),
    }
}

fn check_pin(text: &str, pin: &ast::Str, diags: &mut Vec<Diagnostic>) {
    let found = super::sha256::hex(text.as_bytes());
    if !pin.text.eq_ignore_ascii_case(&found) {
        diags.push(
            Diagnostic::error(
                codes::PIN_MISMATCH,
                pin.span,
                "the file is not the one that was pinned",
                "another content was pinned",
            )
            .note(format!("the file's SHA-256 is {found}"))
            .help("look at what changed in the file; then write its SHA-256 here")
            .fix(
                "pin the file as it is",
                crate::diag::Applicability::MaybeIncorrect,
                pin.span,
                format!("\"{found}\""),
            ),
        );
    }
}

/// Call `visit` on every path in a block but those in asserts, gates and evals; with `true` where a
/// word is expected before a name.
fn visit_block(block: &ast::Block, visit: &mut dyn FnMut(&ast::Path, bool)) {
    let schema = schema::block(&block.kind.text);
    for each in &block.each {
        visit_expr(&each.values, &mut |path| visit(path, false));
    }
    // Inside of a fan-out a variable alone is the variable, whatever else has the name.
    let is_variable = |name: &str| block.each.iter().any(|each| each.var.text == name);
    let visit = &mut |path: &ast::Path, words: bool| {
        let variable = match path.segments.as_slice() {
            [PathSegment::Name(name)] => is_variable(&name.text),
            _ => false,
        };
        if !variable {
            visit(path, words);
        }
    };
    for entry in &block.entries {
        match &entry.kind {
            EntryKind::Field { key, value } => {
                let mut words = false;
                if block.kind.text == "mix" {
                    visit(key, false);
                    let setting =
                        matches!(key.segments.as_slice(), [PathSegment::Name(n)] if n.text == "weights");
                    if setting && is_word(value, Ty::Word(schema::WEIGHTS)) {
                        continue;
                    }
                } else if let [PathSegment::Name(name)] = key.segments.as_slice() {
                    let field = schema.and_then(|b| b.field(&name.text));
                    if field.is_some_and(|f| is_word(value, f.ty)) {
                        continue;
                    }
                    // The value of a field that does not exist means nothing: `kindd = web` neither.
                    words = field.is_none_or(|f| {
                        matches!(f.ty, Ty::Word(_) | Ty::Names | Ty::Order | Ty::Predicate | Ty::Init)
                    });
                }
                visit_expr(value, &mut |path| visit(path, words));
            }
            EntryKind::Block(inner) if matches!(inner.kind.text.as_str(), "checkpoint" | "mix") => {
                visit_block(inner, &mut *visit);
            }
            EntryKind::Block(_) | EntryKind::Constraint(_) | EntryKind::Assert(_) => {}
        }
    }
}

/// Whether an expression is a word where `ty` is expected, which no definition changes: `kind = code`
/// where a mix is called `code`. As `eval_typed` reads it.
fn is_word(expr: &Expr, ty: Ty) -> bool {
    let path = match &expr.kind {
        ExprKind::Path(path) => path,
        _ => return false,
    };
    match (ty, path.segments.as_slice()) {
        (Ty::Word(words), [PathSegment::Name(name)]) => words.iter().any(|w| w.name == name.text),
        (Ty::Order, [PathSegment::Name(name)]) => schema::ORDERS.iter().any(|w| w.name == name.text),
        (Ty::Init, [PathSegment::Name(name)]) => schema::preset(&name.text).is_some(),
        // A name that a `param` or `let` has stands for its value where names of fields do.
        _ => false,
    }
}

/// Call `visit` on every path in an expression that is looked up. Depth is bounded by the parser.
pub(crate) fn visit_expr(expr: &Expr, visit: &mut impl FnMut(&ast::Path)) {
    match &expr.kind {
        ExprKind::Quantity(_) | ExprKind::Str(_) | ExprKind::Error => {}
        ExprKind::Path(path) => {
            visit(path);
            for segment in &path.segments {
                if let PathSegment::Pick(pick) = segment {
                    pick.exprs().for_each(|value| visit_expr(value, visit));
                }
            }
        }
        ExprKind::List(items) | ExprKind::Then(items) => items.iter().for_each(|e| visit_expr(e, visit)),
        ExprKind::Call { callee, args } => {
            // Functions are those of the language: `let linear = …` hides none.
            let function = match callee.segments.as_slice() {
                [PathSegment::Name(name)] => schema::function(&name.text),
                _ => None,
            };
            for arg in args {
                // `upsample(decay, code: 2)`: names of arguments are entries of the mix.
                let ty = match (&arg.name, function) {
                    (Some(name), Some(function)) => function.param(&name.text).map(|p| p.ty),
                    (None, Some(function)) if function.family == Family::Order => Some(Ty::Names),
                    _ => None,
                };
                if !ty.is_some_and(|ty| is_word(&arg.value, ty)) {
                    visit_expr(&arg.value, visit);
                }
            }
        }
        ExprKind::Apply { arg, .. } | ExprKind::Neg(arg) | ExprKind::Not(arg) | ExprKind::Paren(arg) => {
            visit_expr(arg, visit);
        }
        ExprKind::Binary { left, right, .. } => {
            visit_expr(left, visit);
            visit_expr(right, visit);
        }
        ExprKind::Of { share, whole } => {
            visit_expr(share, visit);
            visit_expr(whole, visit);
        }
        // A predicate names fields of records, not definitions.
        ExprKind::Where { subject, .. } => visit_expr(subject, visit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryFiles;

    /// What the definition called `of` in `text` mentions.
    fn mentioned(text: &str, of: &str) -> Vec<String> {
        let mut files = MemoryFiles::new();
        let root = files.add("main.curriculum", text);
        let program = Program::load(&mut files, root, &mut Vec::new());
        let names = program.mentions(program.modules[0].names[of]);
        names.into_iter().map(|id| program.def(id).name.clone()).collect()
    }

    #[test]
    fn what_shadows_a_definition_does_not_mention_it() {
        let text = "stage many[seed in [1, last]] {\n  from = base\n  data_seed = seed\n  \
                    checkpoint half { at = seed }\n}\n\
                    model base { checkpoint = \"b\" }\nlet last = 2\nstage seed { from = many }\n";
        assert_eq!(mentioned(text, "many"), ["base", "last"]);
        assert_eq!(mentioned(text, "seed"), ["many"]);
        let text = "mix relative {\n  weights = relative\n  web = 3\n}\nsource web { path = \"w\" }\n";
        assert_eq!(mentioned(text, "relative"), ["web"]);
    }
}
