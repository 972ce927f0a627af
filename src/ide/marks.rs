//! Every name, word and number of one file, in order, with what it stands for. Hover, definition,
//! references, rename and semantic tokens all read this list, so they never disagree.

use crate::diag::{CodeInfo, codes};
use crate::schema::{self, Attribute, Block, Field, Function, Param, Ty, Word};
use crate::sema::is_property;
use crate::sema::program::{DefId, DefKind, Lookup, Program};
use crate::source::Span;
use crate::syntax::ast::{
    self, Arg, Assert, Each, EntryKind, Expr, ExprKind, Ident, ItemKind, PathSegment, Preface, Quantity,
};

/// A stretch of text and what it stands for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark<'a> {
    pub(super) span: Span,
    pub(super) what: What<'a>,
    /// Position in the file's items.
    pub(super) item: usize,
}

/// What a mark stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'a> {
    /// `use`, `param`, `let`, `assert`, `soup`: the word and what it does.
    Keyword(&'static str, &'static str),
    /// The keyword of a block.
    Block(&'static Block),
    /// A name where it is given.
    Define(Target),
    /// A name where it is used.
    Refer(Target),
    /// The key of a field.
    Field(&'static Block, &'static Field),
    /// The name of a function.
    Function(&'static Function),
    /// The name of an argument.
    Param(&'static Function, &'static Param),
    /// A word with a fixed meaning in its place.
    Word(&'static str, &'static str),
    /// A property of a stage, curve or source: `lr`, `end`, `epochs`.
    Property,
    /// A field of a record of the data.
    RecordField,
    /// A number.
    Quantity(&'a Quantity),
    /// A string.
    Text,
    /// The name of an attribute, without `@`.
    Attribute(&'static Attribute),
    /// The name of a lint.
    Lint(&'static CodeInfo),
}

/// Something with a name, by the place where it gets that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) span: Span,
    pub(super) kind: TargetKind,
}

/// What sort of thing has the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetKind {
    /// A definition at the top of a file.
    Def(DefId, DefKind),
    /// A namespace (`use … as s`); the module it leads to, if it could be read.
    Space(Option<usize>),
    /// The variable of a fan-out.
    Variable,
    /// A named checkpoint.
    Checkpoint,
    /// A named measurement.
    Eval,
}

/// What the item keywords that are no blocks do.
pub(crate) const ITEM_WORDS: &[(&str, &str)] = &[
    ("use", "Names of another file: `use \"sources.curriculum\" as s`."),
    ("param", "A value that `--set NAME=VALUE` may change."),
    ("let", "A named value of any type, curves and mixtures included."),
    ("assert", "A condition that must hold."),
    ("soup", "An average of weights: `soup final = average(anneal)`."),
];

/// Words of values that the schema does not list, since a definition may take their name.
pub(crate) const MORE_WORDS: &[(&str, &str)] = &[
    ("total", "the tokens of the longest line through the graph"),
    ("from", "the value at what the stage starts from"),
];

/// The marks of module `module`.
pub(super) fn marks(program: &Program, module: usize) -> Vec<Mark<'_>> {
    let mut walk = Walk { program, module, item: 0, variables: &[], out: Vec::new() };
    for (i, item) in program.modules[module].ast.items.iter().enumerate() {
        walk.item = i;
        walk.variables = &[];
        walk.item(item);
    }
    walk.out.sort_by_key(|m| (m.span.start, m.span.end));
    walk.out
}

struct Walk<'a> {
    program: &'a Program,
    module: usize,
    item: usize,
    /// The variables of the fan-out around the place.
    variables: &'a [Each],
    out: Vec<Mark<'a>>,
}

/// Where an expression stands.
#[derive(Clone, Copy)]
struct Place {
    /// What it is read as.
    ty: Option<Ty>,
    /// Whether bare names may be properties of the stage.
    properties: bool,
}

const PLAIN: Place = Place { ty: None, properties: false };
const CONDITION: Place = Place { ty: None, properties: true };

impl<'a> Walk<'a> {
    fn mark(&mut self, span: Span, what: What<'a>) {
        self.out.push(Mark { span, what, item: self.item });
    }

    fn keyword(&mut self, start: Span, word: &str) {
        let Some((word, doc)) = ITEM_WORDS.iter().find(|(w, _)| *w == word) else { return };
        let span = Span { end: start.start + word.len() as u32, ..start };
        self.mark(span, What::Keyword(word, doc));
    }

    fn define(&mut self, name: &'a Ident) {
        let module = &self.program.modules[self.module];
        // A second definition of a name stands for the first: renaming one renames both.
        if let Some(id) = module.names.get(&name.text) {
            let target = self.def(*id);
            self.mark(name.span, What::Define(target));
        }
    }

    fn def(&self, id: DefId) -> Target {
        let def = self.program.def(id);
        Target { span: def.name_span, kind: TargetKind::Def(id, def.kind) }
    }

    fn item(&mut self, item: &'a ast::Item) {
        self.preface(&item.preface);
        match &item.kind {
            ItemKind::Use { path, alias, sha256 } => {
                self.keyword(item.span, "use");
                self.mark(path.span, What::Text);
                if let Some(alias) = alias {
                    let leads = self.program.modules[self.module].spaces.get(&alias.text);
                    if let Some((to, span)) = leads {
                        let target = Target { span: *span, kind: TargetKind::Space(*to) };
                        self.mark(alias.span, What::Define(target));
                    }
                }
                if let Some(pin) = sha256 {
                    self.mark(pin.span, What::Text);
                }
            }
            ItemKind::Param { name, ty, value } => {
                self.keyword(item.span, "param");
                self.define(name);
                if let Some(ty) = ty {
                    self.word(ty, schema::PARAM_TYPES);
                }
                self.expr(value, PLAIN);
            }
            ItemKind::Let { name, value } => {
                self.keyword(item.span, "let");
                self.define(name);
                self.expr(value, PLAIN);
            }
            ItemKind::Assert(assert) => self.assert(assert),
            ItemKind::Bind { kind, name, value } => {
                match schema::block(&kind.text) {
                    Some(block) => self.mark(kind.span, What::Block(block)),
                    None => self.keyword(kind.span, &kind.text),
                }
                self.define(name);
                self.expr(value, PLAIN);
            }
            ItemKind::Block(block) => self.block(block, true),
        }
    }

    fn assert(&mut self, assert: &'a Assert) {
        self.keyword(assert.span, "assert");
        self.expr(&assert.condition, CONDITION);
        if let Some(why) = &assert.why {
            self.mark(why.span, What::Text);
        }
    }

    fn preface(&mut self, preface: &'a Preface) {
        for attr in &preface.attrs {
            if let Some(known) = schema::ATTRIBUTES.iter().find(|a| a.name == attr.name.text) {
                self.mark(attr.name.span, What::Attribute(known));
            }
            for arg in &attr.args {
                match &arg.value.kind {
                    ExprKind::Path(path) => self.lint(path),
                    ExprKind::Str(_) => self.mark(arg.value.span, What::Text),
                    _ => {}
                }
            }
        }
    }

    fn lint(&mut self, path: &'a ast::Path) {
        if let [PathSegment::Name(name)] = path.segments.as_slice()
            && let Some(info) = codes::find(&name.text)
        {
            self.mark(name.span, What::Lint(info));
        }
    }

    fn block(&mut self, block: &'a ast::Block, top: bool) {
        let schema = schema::block(&block.kind.text);
        if let Some(schema) = schema {
            self.mark(block.kind.span, What::Block(schema));
        }
        if let Some(name) = &block.name {
            match (top, block.kind.text.as_str()) {
                (true, _) => self.define(name),
                (false, "checkpoint") => {
                    let target = Target { span: name.span, kind: TargetKind::Checkpoint };
                    self.mark(name.span, What::Define(target));
                }
                (false, _) => {
                    let target = Target { span: name.span, kind: TargetKind::Eval };
                    self.mark(name.span, What::Define(target));
                }
            }
        }
        for each in &block.each {
            let target = Target { span: each.var.span, kind: TargetKind::Variable };
            self.mark(each.var.span, What::Define(target));
            self.expr(&each.values, PLAIN);
        }
        if top {
            self.variables = &block.each;
        }
        for entry in &block.entries {
            self.preface(&entry.preface);
            match &entry.kind {
                EntryKind::Field { key, value } => self.field(schema, key, value),
                EntryKind::Constraint(condition) => self.expr(condition, CONDITION),
                EntryKind::Block(inner) => self.block(inner, false),
                EntryKind::Assert(assert) => self.assert(assert),
            }
        }
    }

    fn field(&mut self, schema: Option<&'static Block>, key: &'a ast::Path, value: &'a Expr) {
        if let (Some(schema), [PathSegment::Name(name)]) = (schema, key.segments.as_slice()) {
            if let Some(field) = schema.field(&name.text) {
                self.mark(name.span, What::Field(schema, field));
                self.expr(value, Place { ty: Some(field.ty), properties: false });
                return;
            }
            if schema.keyword == "lints" {
                self.lint(key);
                self.expr(value, Place { ty: Some(Ty::Word(schema::LEVELS)), properties: false });
                return;
            }
        }
        match schema.map(|s| s.keyword) {
            Some("mix") => {
                self.path(key, PLAIN);
                self.expr(value, PLAIN);
            }
            // The value of a field that does not exist means nothing.
            Some(_) => {}
            None => self.expr(value, PLAIN),
        }
    }

    fn word(&mut self, name: &'a Ident, words: &'static [Word]) -> bool {
        let found = words.iter().find(|w| w.name == name.text);
        if let Some(word) = found {
            self.mark(name.span, What::Word(word.name, word.doc));
        }
        found.is_some()
    }

    fn expr(&mut self, expr: &'a Expr, place: Place) {
        match &expr.kind {
            ExprKind::Quantity(q) => self.mark(expr.span, What::Quantity(q)),
            ExprKind::Str(_) => self.mark(expr.span, What::Text),
            ExprKind::Path(path) => self.path(path, place),
            ExprKind::List(items) => items.iter().for_each(|e| self.expr(e, place)),
            ExprKind::Then(parts) => parts.iter().for_each(|e| self.expr(e, place)),
            ExprKind::Call { callee, args } => self.call(callee, args, place),
            ExprKind::Apply { word, arg } => {
                if word.text == "heldout" {
                    self.mark(
                        word.span,
                        What::Word("heldout", "a share of each source's documents, kept out of training"),
                    );
                }
                self.expr(arg, PLAIN);
            }
            ExprKind::Neg(inner) | ExprKind::Not(inner) | ExprKind::Paren(inner) => self.expr(inner, place),
            ExprKind::Binary { left, right, .. } => {
                self.expr(left, place);
                self.expr(right, place);
            }
            ExprKind::Of { share, whole } => {
                self.expr(share, PLAIN);
                self.expr(whole, PLAIN);
            }
            ExprKind::Where { subject, predicate } => {
                self.expr(subject, place);
                self.expr(predicate, Place { ty: Some(Ty::Predicate), properties: false });
            }
            ExprKind::Error => {}
        }
    }

    fn call(&mut self, callee: &'a ast::Path, args: &'a [Arg], place: Place) {
        let function = match callee.segments.as_slice() {
            [PathSegment::Name(name)] => schema::function(&name.text),
            _ => None,
        };
        match function {
            Some(function) => self.mark(callee.span, What::Function(function)),
            None => self.path(callee, place),
        }
        for arg in args {
            let param = arg.name.as_ref().and_then(|n| function?.param(&n.text));
            match (&arg.name, function, param) {
                (Some(name), Some(function), Some(param)) => {
                    self.mark(name.span, What::Param(function, param));
                }
                // `upsample(decay, code: 2)`: the name of an entry.
                (Some(name), Some(function), None) if function.open.is_some() => self.mixed(name, args),
                _ => {}
            }
            let ty = match (param, function.map(|f| f.family)) {
                (Some(param), _) => Some(param.ty),
                (None, Some(schema::Family::Order)) => Some(Ty::Names),
                (None, _) => None,
            };
            let properties = ty == Some(Ty::Condition);
            self.expr(&arg.value, Place { ty, properties });
        }
    }

    /// The name of an entry of the mix that a call with `args` takes: as the checker has it, written
    /// in full or by its last part where no other entry ends so.
    fn mixed(&mut self, name: &'a Ident, args: &'a [Arg]) {
        let Some(ExprKind::Path(mix)) = args.iter().find(|a| a.name.is_none()).map(|a| &a.value.kind) else {
            return;
        };
        let Lookup::Def(id, _) = self.program.lookup(self.module, mix) else { return };
        let ItemKind::Block(block) = &self.program.item(id).kind else { return };
        let keys = block.entries.iter().filter_map(|entry| match &entry.kind {
            EntryKind::Field { key, .. } => Some(key),
            _ => None,
        });
        let last = |key: &ast::Path| matches!(key.segments.last(), Some(PathSegment::Name(n)) if n.text == name.text);
        let mut found: Vec<&ast::Path> = keys.filter(|key| last(key)).collect();
        if found.len() > 1 {
            found.retain(|key| key.segments.len() == 1);
        }
        let [entry] = found.as_slice() else { return };
        if let Lookup::Def(entry, _) = self.program.lookup(self.program.def(id).module, entry) {
            let target = self.def(entry);
            self.mark(name.span, What::Refer(target));
        }
    }

    fn path(&mut self, path: &'a ast::Path, place: Place) {
        let Some(PathSegment::Name(first)) = path.segments.first() else { return };
        if path.segments.len() == 1 && self.lone(first, place) {
            return;
        }
        let known = self.segments(&path.segments, self.module);
        if known == 0 && place.properties && is_property(&first.text) {
            self.properties(&path.segments, None);
        }
    }

    /// Whether a `param` or a `let` of this file has the name.
    fn is_value(&self, name: &Ident) -> bool {
        let found = self.program.modules[self.module].names.get(&name.text);
        found.is_some_and(|id| matches!(self.program.def(*id).kind, DefKind::Param | DefKind::Let))
    }

    /// A name alone, where it may be a word instead.
    fn lone(&mut self, name: &'a Ident, place: Place) -> bool {
        match place.ty {
            Some(Ty::Word(words)) if self.word(name, words) => return true,
            Some(Ty::Order) if self.word(name, schema::ORDERS) => return true,
            Some(Ty::Init) => {
                if let Some(preset) = schema::preset(&name.text) {
                    self.mark(name.span, What::Word(preset.name, preset.doc));
                    return true;
                }
            }
            Some(Ty::Predicate) if name.text == "length" => {
                self.mark(name.span, What::Word("length", "the document's length in tokens"));
                return true;
            }
            // A name of a `param` or `let` stands for its value.
            Some(Ty::Predicate | Ty::Names) if !self.is_value(name) => {
                if !self.word(name, schema::YES_NO) {
                    self.mark(name.span, What::RecordField);
                }
                return true;
            }
            _ => {}
        }
        if let Some(each) = self.variables.iter().find(|each| each.var.text == name.text) {
            let target = Target { span: each.var.span, kind: TargetKind::Variable };
            self.mark(name.span, What::Refer(target));
            return true;
        }
        if self.word(name, schema::RESERVED) {
            return true;
        }
        if self.program.modules[self.module].names.contains_key(&name.text) {
            return false;
        }
        // `hold` needs no brackets.
        if let Some(function) = schema::function(&name.text).filter(|f| f.family == schema::Family::Segment) {
            self.mark(name.span, What::Function(function));
            return true;
        }
        match MORE_WORDS.iter().find(|(w, _)| *w == name.text) {
            Some((word, doc)) if !place.properties || name.text != "tokens" => {
                self.mark(name.span, What::Word(word, doc));
                true
            }
            _ => false,
        }
    }

    /// Mark what `segments` lead to from `module`; how many of them did.
    fn segments(&mut self, segments: &'a [PathSegment], mut module: usize) -> usize {
        for (i, segment) in segments.iter().enumerate() {
            let PathSegment::Name(name) = segment else { return i };
            if let Some(id) = self.program.modules[module].names.get(&name.text).copied() {
                let target = self.def(id);
                self.mark(name.span, What::Refer(target));
                self.properties(&segments[i + 1..], Some(id));
                return segments.len();
            }
            let Some((to, span)) = self.program.modules[module].spaces.get(&name.text).copied() else {
                return i;
            };
            self.mark(name.span, What::Refer(Target { span, kind: TargetKind::Space(to) }));
            match to {
                Some(to) => module = to,
                None => return i + 1,
            }
        }
        segments.len()
    }

    /// Mark properties of `of`, or of the stage around.
    fn properties(&mut self, segments: &'a [PathSegment], of: Option<DefId>) {
        let stage = of.filter(|id| self.program.def(*id).kind == DefKind::Stage);
        for (i, segment) in segments.iter().enumerate() {
            match segment {
                PathSegment::Name(name) => {
                    if let Some(target) = stage.and_then(|id| checkpoint(self.program, id, &name.text)) {
                        self.mark(name.span, What::Refer(target));
                        continue;
                    }
                    self.mark(name.span, What::Property);
                    if name.text == "mix" {
                        // What follows is a source as this file names it.
                        let rest = &segments[i + 1..];
                        let known = self.segments(rest, self.module);
                        if known == 0 {
                            self.properties(rest, None);
                        }
                        return;
                    }
                }
                PathSegment::Pick(pick) => pick.exprs().for_each(|value| self.expr(value, PLAIN)),
            }
        }
    }
}

/// The checkpoint called `name` of the stage `id`.
pub(super) fn checkpoint(program: &Program, id: DefId, name: &str) -> Option<Target> {
    checkpoints(program, id)
        .find(|n| n.text == name)
        .map(|n| Target { span: n.span, kind: TargetKind::Checkpoint })
}

/// Names of the checkpoints of the stage `id`.
pub(super) fn checkpoints(program: &Program, id: DefId) -> impl Iterator<Item = &Ident> {
    let entries = match &program.item(id).kind {
        ItemKind::Block(block) => block.entries.as_slice(),
        _ => &[],
    };
    entries.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Block(inner) if inner.kind.text == "checkpoint" => inner.name.as_ref(),
        _ => None,
    })
}
