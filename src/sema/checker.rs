//! The state of one check: what is resolved so far and what was found. Definitions are resolved in
//! an order in which each comes after what it mentions, so no resolution recurses into another.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::diag::Diagnostic;
use crate::source::{Files, Span};
use crate::syntax::ast::{self, ItemKind};

use super::clock::LastGrid;
use super::curriculum::{Curriculum, Param};
use super::eval::{Local, Scope};
use super::measured::Count;
use super::mix::MixSpec;
use super::program::{DefId, DefKind, Program};
use super::value::{Kind, Val};
use crate::diag::codes;

/// What a definition turned out to be.
#[derive(Clone, Debug)]
pub(crate) enum Resolved<'p> {
    /// Not yet looked at.
    Pending,
    /// Wrong, and said so.
    Poison,
    /// A `param` or `let`.
    Value(Val<'p>),
    /// A model, by index.
    Model(usize),
    /// A source, by index.
    Source(usize),
    /// A mixture.
    Mix(std::rc::Rc<MixSpec<'p>>),
    /// The members of a stage, by index.
    Stage(Vec<usize>),
    /// A soup, by index.
    Soup(usize),
}

/// One check in progress.
pub(crate) struct Checker<'p> {
    pub(crate) program: &'p Program,
    pub(crate) files: &'p dyn Files,
    pub(crate) diags: Vec<Diagnostic>,
    seen: HashSet<(u16, Span, String)>,
    /// How many unknown names were met.
    pub(crate) unknown_names: u32,
    /// By [`DefId`].
    pub(crate) resolved: Vec<Resolved<'p>>,
    /// By [`DefId`]: whether something mentions it.
    pub(crate) used: Vec<bool>,
    pub(crate) out: Curriculum,
    /// By stage member: what later stages inherit.
    pub(crate) legacies: Vec<super::stage::Legacy>,
    /// Tokens of the longest line through the graph.
    pub(crate) total: Option<u64>,
    /// By stage member: its definition.
    pub(crate) member_defs: Vec<DefId>,
    /// By stage member: the variables of its fan-out and their values.
    pub(crate) member_locals: Vec<Rc<[Local<'p>]>>,
    /// Values given to parameters from outside.
    pub(crate) settings: HashMap<DefId, Val<'p>>,
    /// By [`DefId`]: whether it, or a named value or mix it mentions, is marked `@assumed`.
    pub(crate) assumed: Vec<bool>,
    /// Where `rest` stands in a mix and what it comes to; for the members of a fan-out one behind the other.
    pub(crate) rests: HashMap<Span, String>,
    /// The grid of steps that was laid last.
    pub(crate) last_grid: LastGrid,
    /// What was counted of sources, once some source asks.
    pub(super) measured: Option<HashMap<String, Count>>,
    /// Findings about `lr_never_lands` and the like that arise while values are laid out.
    pub(crate) early_lints: Vec<Diagnostic>,
}

impl<'p> Checker<'p> {
    pub(crate) fn new(program: &'p Program, files: &'p dyn Files, diags: Vec<Diagnostic>) -> Self {
        let n = program.defs.len();
        Self {
            program,
            files,
            diags,
            seen: HashSet::new(),
            unknown_names: 0,
            resolved: vec![Resolved::Pending; n],
            used: vec![false; n],
            out: Curriculum::default(),
            legacies: Vec::new(),
            total: None,
            member_defs: Vec::new(),
            member_locals: Vec::new(),
            settings: HashMap::new(),
            assumed: vec![false; n],
            rests: HashMap::new(),
            last_grid: LastGrid::default(),
            measured: None,
            early_lints: Vec::new(),
        }
    }

    /// Report; the same thing at the same place is said once (a fan-out evaluates its body once
    /// per member, a named value wherever it is used).
    pub(crate) fn push(&mut self, d: Diagnostic) {
        if self.seen.insert((d.code.0, d.primary.span, d.message.clone())) {
            self.diags.push(d);
        }
    }

    /// Take back all but the first `kept` diagnostics, which may come again.
    pub(crate) fn forget(&mut self, kept: usize) {
        for d in self.diags.drain(kept..) {
            self.seen.remove(&(d.code.0, d.primary.span, d.message));
        }
    }

    /// Resolve everything.
    pub(crate) fn resolve(&mut self) {
        let order = self.order();
        for id in &order {
            if matches!(self.resolved[id.index()], Resolved::Poison) {
                continue;
            }
            if self.program.def(*id).kind == DefKind::Stage && self.total.is_none() {
                self.total = self.total_tokens(&order);
            }
            self.assumed[id.index()] = self.is_assumed(*id);
            let resolved = self.resolve_def(*id);
            self.resolved[id.index()] = resolved;
        }
    }

    fn resolve_def(&mut self, id: DefId) -> Resolved<'p> {
        let program = self.program;
        let def = program.def(id);
        let item = program.item(id);
        let scope = Scope::top(def.module);
        match &item.kind {
            ItemKind::Param { ty, value, name } => self.resolve_param(id, name, ty.as_ref(), value, &scope),
            ItemKind::Let { value, .. } => {
                let value = self.eval_named(value, &scope);
                if value.is_poison() { Resolved::Poison } else { Resolved::Value(value) }
            }
            ItemKind::Block(block) => match def.kind {
                DefKind::Model => {
                    self.resolve_model(id, block, &scope).map_or(Resolved::Poison, Resolved::Model)
                }
                DefKind::Source => {
                    self.resolve_source(id, block, &scope).map_or(Resolved::Poison, Resolved::Source)
                }
                DefKind::Mix => {
                    self.resolve_mix(block, &scope).map_or(Resolved::Poison, |m| Resolved::Mix(m.into()))
                }
                DefKind::Stage => match self.resolve_stage(id, item, block, &scope) {
                    members if members.is_empty() => Resolved::Poison,
                    members => Resolved::Stage(members),
                },
                DefKind::Param | DefKind::Let | DefKind::Soup => Resolved::Poison,
            },
            ItemKind::Bind { value, .. } => match def.kind {
                DefKind::Soup => {
                    self.resolve_soup(id, value, &scope).map_or(Resolved::Poison, Resolved::Soup)
                }
                DefKind::Source => {
                    self.resolve_part(id, value, &scope).map_or(Resolved::Poison, Resolved::Source)
                }
                DefKind::Mix => {
                    let value = self.eval(value, &scope);
                    if value.is_poison() { Resolved::Poison } else { Resolved::Value(value) }
                }
                _ => Resolved::Poison,
            },
            ItemKind::Use { .. } | ItemKind::Assert(_) => Resolved::Poison,
        }
    }

    fn resolve_param(
        &mut self,
        id: DefId,
        name: &'p ast::Ident,
        ty: Option<&'p ast::Ident>,
        value: &'p ast::Expr,
        scope: &Scope<'p>,
    ) -> Resolved<'p> {
        let default = self.eval(value, scope);
        let given = self.settings.get(&id).cloned();
        // Those of other files are told of where they are not what the file says.
        let told = given.is_some() || scope.module == 0;
        let mut chosen = given.unwrap_or(default);
        if chosen.is_poison() {
            return Resolved::Poison;
        }
        if let Some(ty) = ty {
            match super::params::conform(&chosen, &ty.text) {
                Ok(kind) => chosen.kind = kind,
                Err(super::params::Misfit::Type) => {
                    let d = Diagnostic::error(
                        codes::UNKNOWN_WORD,
                        ty.span,
                        format!("unknown type `{}`", ty.text),
                        "no type has this name",
                    );
                    let names = crate::schema::PARAM_TYPES.iter().map(|w| w.name);
                    let near = crate::diag::suggest::nearest(&ty.text, names);
                    self.push(super::program::suggest(
                        d,
                        ty.span,
                        near,
                        "types are `tokens`, `steps`, `number`, `share`, `text`, `batch`, `bool`",
                    ));
                    return Resolved::Poison;
                }
                Err(super::params::Misfit::Value) => {
                    let found = chosen.describe();
                    self.push(
                        Diagnostic::error(
                            codes::BAD_PARAM,
                            chosen.span,
                            format!("`{}` is {found}, not {}", name.text, super::params::describe(&ty.text)),
                            format!("this is {found}"),
                        )
                        .label(ty.span, "declared here"),
                    );
                    return Resolved::Poison;
                }
            }
        }
        if told {
            self.out.params.push(Param {
                name: self.full_name(id),
                value: super::params::print(&chosen),
                span: name.span,
            });
        }
        Resolved::Value(Val { kind: chosen.kind, span: chosen.span })
    }

    /// All definitions, each after what it mentions. Circles are reported once and poisoned.
    fn order(&mut self) -> Vec<DefId> {
        const WHITE: u8 = 0;
        const GREY: u8 = 1;
        const BLACK: u8 = 2;
        let n = self.program.defs.len();
        let mut colour = vec![WHITE; n];
        let mut order = Vec::with_capacity(n);
        let mut roots: Vec<DefId> = self.program.ids().collect();
        // Lengths must be known before the first stage asks for the total.
        roots.sort_by_key(|id| match self.program.def(*id).kind {
            DefKind::Param | DefKind::Let => 0,
            DefKind::Source => 1,
            DefKind::Model => 2,
            DefKind::Mix => 3,
            DefKind::Stage | DefKind::Soup => 4,
        });
        for root in roots {
            if colour[root.index()] != WHITE {
                continue;
            }
            colour[root.index()] = GREY;
            let mut path = vec![(root, self.program.mentions(root), 0usize)];
            while let Some((node, targets, next)) = path.last_mut() {
                let node = *node;
                let Some(target) = targets.get(*next).copied() else {
                    colour[node.index()] = BLACK;
                    order.push(node);
                    path.pop();
                    continue;
                };
                *next += 1;
                match colour[target.index()] {
                    WHITE => {
                        colour[target.index()] = GREY;
                        let mentions = self.program.mentions(target);
                        path.push((target, mentions, 0));
                    }
                    GREY => {
                        let from = path.iter().position(|(id, ..)| *id == target).unwrap_or(0);
                        let circle: Vec<DefId> = path[from..].iter().map(|(id, ..)| *id).collect();
                        self.report_circle(&circle);
                    }
                    _ => {}
                }
            }
        }
        order
    }

    fn report_circle(&mut self, circle: &[DefId]) {
        let names: Vec<&str> = circle.iter().map(|id| self.program.def(*id).name.as_str()).collect();
        let first = self.program.def(circle[0]);
        let message = match names.as_slice() {
            [one] => format!("`{one}` is defined by itself"),
            _ => format!(
                "{} are defined by each other",
                names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
            ),
        };
        let mut d = Diagnostic::error(codes::CYCLE, first.name_span, message, "the circle starts here");
        for id in circle.iter().skip(1).take(5) {
            let def = self.program.def(*id);
            if def.name_span.file == first.name_span.file {
                d = d.label(def.name_span, "and goes through this");
            }
        }
        for id in circle {
            self.resolved[id.index()] = Resolved::Poison;
        }
        self.push(d);
    }

    /// Tokens of the longest line through the graph, when every length is written in tokens.
    fn total_tokens(&mut self, order: &[DefId]) -> Option<u64> {
        let program = self.program;
        let mut best: HashMap<DefId, u64> = HashMap::new();
        let mut longest = 0;
        for id in order {
            let before = program.mentions(*id).iter().filter_map(|m| best.get(m)).max().copied().unwrap_or(0);
            let mut own = 0;
            if let (DefKind::Stage, ItemKind::Block(block)) = (program.def(*id).kind, &program.item(*id).kind)
            {
                let field = block.entries.iter().find_map(|e| match &e.kind {
                    ast::EntryKind::Field { key, value } => match key.segments.as_slice() {
                        [ast::PathSegment::Name(n)] if n.text == "tokens" => Some(value),
                        _ => None,
                    },
                    _ => None,
                })?;
                // A trial evaluation: what it finds is found again when the stage is resolved.
                let kept = self.diags.len();
                let tokens = self.longest_member(block, field, &Scope::top(program.def(*id).module));
                self.forget(kept);
                own = tokens?;
            }
            let sum = before.checked_add(own)?;
            best.insert(*id, sum);
            longest = longest.max(sum);
        }
        Some(longest)
    }

    /// What `field`, the length of the stage `block`, comes to in tokens; of a fan-out, for its longest member.
    fn longest_member(
        &mut self,
        block: &'p ast::Block,
        field: &'p ast::Expr,
        scope: &Scope<'p>,
    ) -> Option<u64> {
        let mut longest = 0;
        for scope in self.member_scopes(block, scope)? {
            let kept = self.diags.len();
            let value = self.eval(field, &scope);
            let clean = self.diags.len() == kept;
            let tokens = match value.kind {
                Kind::Number(n) | Kind::Quantity(n, ast::Unit::Tokens) if clean && n.is_integer() => {
                    u64::try_from(n.numer()).ok()?
                }
                _ => return None,
            };
            longest = longest.max(tokens);
        }
        Some(longest)
    }

    /// The name of a definition as the root file sees it: `s.web`.
    pub(crate) fn full_name(&self, id: DefId) -> String {
        let def = self.program.def(id);
        if def.module == 0 {
            return def.name.clone();
        }
        let spaces = &self.program.modules[0].spaces;
        let mut aliases: Vec<&str> = spaces
            .iter()
            .filter(|(_, (target, _))| *target == Some(def.module))
            .map(|(alias, _)| alias.as_str())
            .collect();
        aliases.sort_unstable();
        match aliases.first() {
            Some(alias) => format!("{alias}.{}", def.name),
            // Reached through another file only: the name alone, marked with its module.
            None => format!("m{}.{}", def.module, def.name),
        }
    }
}
