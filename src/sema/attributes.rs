//! Attributes before items and fields: only those of the schema table have a meaning.

use crate::diag::suggest::nearest;
use crate::diag::{Diagnostic, codes};
use crate::schema;
use crate::syntax::ast::{Block, EntryKind, ItemKind, Preface};

use super::checker::Checker;
use super::program::suggest;

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

    fn known_attributes(&mut self, preface: &'p Preface) {
        let known = || schema::ATTRIBUTES.iter().map(|a| a.name);
        for attr in &preface.attrs {
            let name = &attr.name;
            if known().any(|k| k == name.text) {
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
}
