//! Attributes before items and fields: only those of the schema table have a meaning.

use crate::diag::suggest::nearest;
use crate::diag::{Applicability, Diagnostic, codes};
use crate::schema;
use crate::syntax::ast::{Attr, Block, EntryKind, Expr, ExprKind, ItemKind, PathSegment, Preface};

use super::checker::Checker;
use super::eval::Scope;
use super::program::{DefId, DefKind, Lookup, suggest, visit_expr};

impl<'p> Checker<'p> {
    /// Report attributes that do not exist, in all files.
    pub(crate) fn check_attributes(&mut self) {
        let program = self.program;
        for item in program.modules.iter().flat_map(|m| &m.ast.items) {
            self.known_attributes(&item.preface);
            if let ItemKind::Block(block) = &item.kind {
                self.attributes_inside(block);
            }
        }
    }

    fn attributes_inside(&mut self, block: &'p Block) {
        for entry in &block.entries {
            self.known_attributes(&entry.preface);
            if let EntryKind::Block(inner) = &entry.kind {
                self.attributes_inside(inner);
            }
        }
    }

    /// Whether a value, or a named one it is made of, is marked `@assumed`. Asked in the order of
    /// resolution, so that what it mentions has its answer.
    pub(crate) fn is_assumed(&self, id: DefId) -> bool {
        let program = self.program;
        let item = program.item(id);
        if has_assumed(&item.preface) {
            return true;
        }
        let carries = matches!(program.def(id).kind, DefKind::Param | DefKind::Let | DefKind::Mix);
        let inside = match &item.kind {
            ItemKind::Block(block) => block.entries.iter().any(|e| has_assumed(&e.preface)),
            _ => false,
        };
        carries && (inside || program.mentions(id).iter().any(|m| self.passes_on(*m)))
    }

    /// Whether an expression mentions a named value or mix that is assumed.
    pub(crate) fn mentions_assumed(&self, expr: &Expr, scope: &Scope<'_>) -> bool {
        let mut found = false;
        visit_expr(expr, &mut |path| {
            if let Lookup::Def(id, _) = self.program.lookup(scope.module, path) {
                found |= self.passes_on(id);
            }
        });
        found
    }

    /// A stage that is named (`s1.mix`, `from`) does not pass on what is assumed in it.
    fn passes_on(&self, id: DefId) -> bool {
        self.assumed[id.index()]
            && matches!(self.program.def(id).kind, DefKind::Param | DefKind::Let | DefKind::Mix)
    }

    fn known_attributes(&mut self, preface: &'p Preface) {
        let known = || schema::ATTRIBUTES.iter().map(|a| a.name);
        for attr in &preface.attrs {
            let name = &attr.name;
            if known().any(|k| k == name.text) {
                self.attribute_arguments(attr);
                continue;
            }
            let d = Diagnostic::error(
                codes::UNKNOWN_ATTRIBUTE,
                name.span,
                format!("unknown attribute `@{}`", name.text),
                "no attribute has this name",
            );
            let otherwise = "attributes are `@allow`, `@warn`, `@deny`, `@cite` and `@assumed`";
            self.push(suggest(d, name.span, nearest(&name.text, known()), otherwise));
        }
    }

    /// `@allow` without a lint, or with `"lint"`, would silence nothing; `@cite` without its source
    /// cites nothing.
    fn attribute_arguments(&mut self, attr: &'p Attr) {
        let name = &attr.name.text;
        let level = matches!(name.as_str(), "allow" | "warn" | "deny");
        let wrong = attr.args.iter().find(|arg| {
            !matches!(arg.value.kind, ExprKind::Error)
                && (arg.name.is_some()
                    || match level {
                        true => !lone_word(&arg.value),
                        false => !matches!(arg.value.kind, ExprKind::Str(_)),
                    })
        });
        let missing = attr.args.is_empty() && name != "assumed";
        let (span, message, label) = match wrong {
            Some(arg) if level => {
                (arg.span, format!("`@{name}` of something that is no lint"), "not the name of a lint")
            }
            Some(arg) => (arg.span, format!("`@{name}` of something that is no text"), "not a text"),
            None if missing && level => {
                (attr.span, format!("`@{name}` does not say which lint"), "of which lint?")
            }
            None if missing => (attr.span, format!("`@{name}` does not say what"), "where was it published?"),
            None => return,
        };
        let d = Diagnostic::error(codes::UNKNOWN_ATTRIBUTE, span, message, label);
        let Some(ExprKind::Str(text)) = wrong.map(|arg| &arg.value.kind).filter(|_| level) else {
            self.push(d.help(match level {
                true => format!("write `@{name}(lr_jump)`; `midc explain list` names all lints"),
                false if name == "assumed" => "write `@assumed(\"not disclosed\")`".to_owned(),
                false => format!("write `@{name}(\"arXiv:2501.00656 Table 5\")`"),
            }));
            return;
        };
        self.push(match codes::lints().any(|lint| lint == text) {
            true => d.fix("take the quotes away", Applicability::MachineApplicable, span, text.clone()),
            false => d.help("a reason stands in a comment: `@allow(lr_jump)  # why`"),
        });
    }
}

/// The word that is the whole of an expression.
fn lone_word(expr: &Expr) -> bool {
    matches!(&expr.kind, ExprKind::Path(path)
        if matches!(path.segments.as_slice(), [PathSegment::Name(_)]))
}

/// Whether `@assumed` stands before it.
pub(crate) fn has_assumed(preface: &Preface) -> bool {
    preface.attrs.iter().any(|a| a.name.text == "assumed")
}
