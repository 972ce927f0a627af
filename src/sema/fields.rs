//! The fields of a block against its row in the schema table: unknown names, doubles, gaps.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::diag::suggest::nearest;
use crate::diag::{Applicability, Diagnostic};
use crate::schema::{self, Block};
use crate::source::Span;
use crate::syntax::ast::{self, EntryKind, PathSegment};

use super::checker::Checker;
use super::eval::Scope;
use super::habits::{self, Meant};
use super::program::suggest;
use super::value::{Kind, Val};
use crate::diag::codes;

/// Whether a block stands for the field `mix` of the block around it: `mix { web = 60%, code = rest }`.
pub(crate) fn is_mix_in_place(around: &Block, inner: &ast::Block) -> bool {
    inner.kind.text == "mix" && inner.name.is_none() && around.field("mix").is_some()
}

/// The fields of one block, by name.
#[derive(Debug)]
pub(crate) struct Fields<'p> {
    pub(crate) block: &'static Block,
    entries: BTreeMap<&'static str, (&'p ast::Entry, &'p ast::Expr)>,
    /// `mix { … }`, in place of the field `mix`.
    mix: Option<(&'p ast::Entry, &'p ast::Block)>,
    /// Set when a name was wrong, so that a missing field may be just that one.
    pub(crate) doubtful: bool,
}

impl<'p> Fields<'p> {
    /// The value expression of a field.
    pub(crate) fn get(&self, name: &str) -> Option<&'p ast::Expr> {
        self.entries.get(name).map(|(_, e)| *e)
    }

    /// Whether a field is written, be it as a block.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// Where each value is written.
    pub(crate) fn spans(&self) -> BTreeMap<&'static str, Span> {
        let mix = self.mix.map(|(_, block)| ("mix", block.kind.span));
        self.entries.iter().map(|(name, (_, e))| (*name, e.span)).chain(mix).collect()
    }

    /// Where each whole entry stands.
    pub(crate) fn entry(&self, name: &str) -> Option<&'p ast::Entry> {
        let mix = self.mix.filter(|_| name == "mix").map(|(entry, _)| entry);
        self.entries.get(name).map(|(entry, _)| *entry).or(mix)
    }

    /// Every field with its entry and value; the weights of `mix { … }` are values of `mix`.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &'p ast::Entry, &'p ast::Expr)> {
        let weights = self.mix.into_iter().flat_map(|(entry, block)| {
            block.entries.iter().filter_map(move |inner| match &inner.kind {
                EntryKind::Field { value, .. } => Some(("mix", entry, value)),
                _ => None,
            })
        });
        self.entries.iter().map(|(name, (entry, value))| (*name, *entry, *value)).chain(weights)
    }
}

impl<'p> Checker<'p> {
    /// Sort the entries of `block` by the schema; report what does not belong.
    pub(crate) fn fields(&mut self, block: &'p ast::Block) -> Option<Fields<'p>> {
        let schema = schema::block(&block.kind.text)?;
        let mut fields = Fields { block: schema, entries: BTreeMap::new(), mix: None, doubtful: false };
        for entry in &block.entries {
            match &entry.kind {
                EntryKind::Field { key, value } => {
                    let name = match key.segments.as_slice() {
                        [PathSegment::Name(name)] => name,
                        _ => {
                            let text = self.text(key.span);
                            self.unknown_field(schema, block, key.span, &text);
                            fields.doubtful = true;
                            continue;
                        }
                    };
                    let Some(field) = schema.field(&name.text) else {
                        // `accelerater`, and not `tokens = 200B`.
                        let meant = schema.fields.iter().map(|f| f.name);
                        if schema.keyword == "budget" && nearest(&name.text, meant).is_none() {
                            self.not_a_bound(entry);
                            fields.doubtful = true;
                            continue;
                        }
                        self.unknown_field(schema, block, name.span, &name.text);
                        fields.doubtful = true;
                        // A bare `seed` was meant as one: it is not missing as well.
                        if schema.keyword == "stage" && name.text == "seed" {
                            fields.entries.entry("data_seed").or_insert((entry, value));
                        }
                        continue;
                    };
                    if self.written_before(&fields, name) {
                        continue;
                    }
                    fields.entries.insert(field.name, (entry, value));
                }
                EntryKind::Block(inner) if is_mix_in_place(schema, inner) => {
                    if !self.written_before(&fields, &inner.kind) {
                        fields.mix = Some((entry, inner));
                    }
                }
                EntryKind::Block(inner) => {
                    let inside = schema::block(&inner.kind.text).and_then(|b| b.inside);
                    if inside != Some(schema.keyword) {
                        self.misplaced(schema, inner);
                        // `mix inner { … }` was meant to stand there.
                        if inner.kind.text == "mix" && schema.field("mix").is_some() && !fields.has("mix") {
                            fields.mix = Some((entry, inner));
                        }
                    }
                }
                // Bounds have their own reader.
                EntryKind::Constraint(_) if schema.keyword == "budget" => {}
                EntryKind::Constraint(expr) => {
                    self.push(
                        Diagnostic::error(
                            codes::UNKNOWN_FIELD,
                            expr.span,
                            format!("a condition in a `{}`", schema.keyword),
                            "fields are written `name = value`",
                        )
                        .help("conditions belong in `gate { … }`, `budget { … }` or after `assert`"),
                    );
                    fields.doubtful = true;
                }
                EntryKind::Assert(assert) => {
                    if schema.keyword != "stage" {
                        self.push(Diagnostic::error(
                            codes::UNKNOWN_FIELD,
                            assert.span,
                            format!("an `assert` in a `{}`", schema.keyword),
                            "asserts stand at the top of a file or in a stage",
                        ));
                    }
                }
            }
        }
        Some(fields)
    }

    /// Report a field that is written a second time as `name`.
    fn written_before(&mut self, fields: &Fields<'p>, name: &ast::Ident) -> bool {
        let Some(first) = fields.entry(&name.text).map(|entry| entry.span) else { return false };
        self.push(
            Diagnostic::error(
                codes::DUPLICATE_FIELD,
                name.span,
                format!("`{}` is written twice", name.text),
                "written again here",
            )
            .label(first, "first written here")
            .help("keep one of the two"),
        );
        true
    }

    /// Report required fields that are absent, unless a misspelt one may be it.
    pub(crate) fn require(&mut self, fields: &Fields<'p>, block: &'p ast::Block) -> bool {
        let missing: Vec<&schema::Field> = fields
            .block
            .fields
            .iter()
            .filter(|f| f.required && !fields.entries.contains_key(f.name))
            .collect();
        if missing.is_empty() {
            return true;
        }
        if !fields.doubtful {
            let list = missing.iter().map(|f| format!("`{}`", f.name)).collect::<Vec<_>>().join(" and ");
            let name = block.name.as_ref().map_or(String::new(), |n| format!(" `{}`", n.text));
            let at = block.name.as_ref().map_or(block.kind.span, |n| n.span);
            let mut d = Diagnostic::error(
                codes::MISSING_FIELD,
                at,
                format!("{}{name} has no {list}", block.kind.text),
                format!("{list} must be written"),
            );
            for f in missing {
                d = d.help(format!("`{}`: {}", f.name, f.doc));
            }
            self.push(d);
        }
        false
    }

    /// The value of a field, evaluated as its row says.
    pub(crate) fn field(&mut self, fields: &Fields<'p>, name: &str, scope: &Scope<'p>) -> Option<Val<'p>> {
        if let Some((_, block)) = fields.mix.filter(|_| name == "mix") {
            let span = block.kind.span;
            let spec = self.resolve_mix(block, scope);
            return Some(spec.map_or(Val::poison(span), |spec| Val { kind: Kind::Mix(Rc::new(spec)), span }));
        }
        let expr = fields.get(name)?;
        let ty = fields.block.field(name)?.ty;
        Some(self.eval_typed(expr, ty, name, scope))
    }

    fn unknown_field(&mut self, schema: &Block, block: &ast::Block, span: Span, name: &str) {
        if schema.keyword == "stage" && name == "seed" {
            self.push(
                Diagnostic::error(
                    codes::STAGE_SEED,
                    span,
                    "`seed` does not say of what",
                    "a stage has two seeds",
                )
                .help("write `data_seed` for the order of the data, `init_seed` for fresh weights")
                .fix(
                    "make it the seed of the data order",
                    Applicability::MaybeIncorrect,
                    span,
                    "data_seed",
                ),
            );
            return;
        }
        let d = Diagnostic::error(
            codes::UNKNOWN_FIELD,
            span,
            format!("`{}` has no field `{name}`", schema.keyword),
            "unknown field",
        );
        if let Some(help) = habits::block(name).filter(|_| schema.keyword == "stage") {
            let d = Diagnostic { message: format!("`{name}` is a block and no field"), ..d };
            self.push(d.help(help));
            return;
        }
        let common = match habits::field(schema, name) {
            Some(Meant::Said(help)) => {
                self.push(d.help(help));
                return;
            }
            Some(Meant::Name(name)) => Some(name),
            None => None,
        };
        let near = common.or_else(|| nearest(name, schema.fields.iter().map(|f| f.name)));
        let written = |near: &str| {
            block.entries.iter().find(|entry| match &entry.kind {
                EntryKind::Field { key, .. } => {
                    matches!(key.segments.as_slice(), [PathSegment::Name(n)] if n.text == near)
                }
                _ => false,
            })
        };
        if let Some((near, entry)) = near.and_then(|near| Some((near, written(near)?))) {
            let d = d.label(entry.span, format!("`{near}` is written here"));
            self.push(d.help(format!("if it says what `{near}` says, take it out")));
            return;
        }
        let all = schema.fields.iter().map(|f| format!("`{}`", f.name)).collect::<Vec<_>>().join(", ");
        self.push(suggest(d, span, near, &format!("its fields are {all}")));
    }

    fn misplaced(&mut self, schema: &Block, inner: &'p ast::Block) {
        let keyword = &inner.kind.text;
        let known = schema::block(keyword);
        let d = Diagnostic::error(
            codes::UNKNOWN_BLOCK,
            inner.kind.span,
            match known {
                Some(_) => format!("`{keyword}` inside a `{}`", schema.keyword),
                None => format!("unknown block `{keyword}`"),
            },
            match known.map(|b| b.inside) {
                Some(Some(inside)) => format!("belongs inside a `{inside}`"),
                Some(None) => "belongs at the top of the file".to_owned(),
                None => "no block has this name".to_owned(),
            },
        );
        let here = schema::BLOCKS.iter().filter(|b| b.inside == Some(schema.keyword)).map(|b| b.keyword);
        let near = if known.is_some() { None } else { nearest(keyword, here) };
        let d = suggest(d, inner.kind.span, near, "");
        self.push(match &inner.name {
            Some(name) if keyword == "mix" && schema.field("mix").is_some() => d
                .help(format!("without a name it is what the {} reads: `mix {{ … }}`", schema.keyword))
                .fix("take its name away", Applicability::MaybeIncorrect, name.span, ""),
            _ => d,
        });
    }

    /// Text of a span.
    pub(crate) fn text(&self, span: Span) -> String {
        self.files.text(span.file).get(span.range()).unwrap_or_default().to_owned()
    }
}
