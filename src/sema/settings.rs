//! `--set NAME=VALUE`: values from the command line, with the diagnostics of the file.

use crate::diag::Diagnostic;
use crate::diag::suggest::nearest;
use crate::source::{FileId, Span};
use crate::syntax::ast::{Expr, ItemKind};

use super::checker::Checker;
use super::eval::Scope;
use super::program::DefKind;
use super::value::{Kind, Val};
use crate::diag::codes;

/// A setting, parsed. The text is no file: spans in it are replaced by the parameter's.
#[derive(Debug)]
pub(crate) struct Setting {
    name: String,
    value: String,
    expr: Option<Expr>,
}

/// Parse the right-hand sides.
pub(crate) fn parse(set: &[(String, String)]) -> Vec<Setting> {
    set.iter()
        .map(|(name, value)| {
            let (file, errors) = crate::syntax::parse(FileId(u32::MAX), &format!("let x = {value}\n"));
            let expr = match file.items.into_iter().next().map(|item| item.kind) {
                Some(ItemKind::Let { value, .. }) if errors.is_empty() => Some(value),
                _ => None,
            };
            Setting { name: name.clone(), value: value.clone(), expr }
        })
        .collect()
}

impl<'p> Checker<'p> {
    /// Give the parameters their values; unknown names and unreadable values are errors.
    pub(crate) fn apply_settings(&mut self, settings: &'p [Setting]) {
        let program = self.program;
        for s in settings {
            let id = program.modules[0].names.get(&s.name).copied();
            let Some(id) = id.filter(|id| program.def(*id).kind == DefKind::Param) else {
                let top = Span::new(program.modules[0].file, 0, 0);
                let mut d = Diagnostic::error(
                    codes::UNKNOWN_PARAM,
                    id.map_or(top, |id| program.def(id).name_span),
                    format!("`--set {}={}`: there is no parameter `{}`", s.name, s.value, s.name),
                    match id {
                        Some(id) => format!("this is a {}", program.def(id).kind.keyword()),
                        None => "no `param` in this file has that name".to_owned(),
                    },
                );
                let params: Vec<&str> = program
                    .ids()
                    .map(|id| program.def(id))
                    .filter(|d| d.module == 0 && d.kind == DefKind::Param)
                    .map(|d| d.name.as_str())
                    .collect();
                d = match (nearest(&s.name, params.iter().copied()), params.as_slice()) {
                    (Some(near), _) => d.help(format!("did you mean `{near}`?")),
                    (None, []) => {
                        d.help("the file has no parameters; only a `param` can be set from outside")
                    }
                    (None, all) => d.help(format!(
                        "parameters are {}",
                        all.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", ")
                    )),
                };
                self.push(d);
                continue;
            };
            let span = program.def(id).name_span;
            let unreadable = |this: &mut Self, why: &str| {
                this.push(
                    Diagnostic::error(
                        codes::BAD_PARAM,
                        span,
                        format!("`--set {}={}`: the value cannot be read", s.name, s.value),
                        why.to_owned(),
                    )
                    .help("values are written as in the file: `--set budget=10B`, `--set lr=3e-4`"),
                );
            };
            let Some(expr) = &s.expr else {
                unreadable(self, "the parameter that was set");
                continue;
            };
            let before = self.diags.len();
            let value = self.eval(expr, &Scope::top(0));
            if self.diags.len() > before {
                self.diags.truncate(before);
                unreadable(self, "the parameter that was set");
                continue;
            }
            if matches!(value.kind, Kind::Poison) {
                unreadable(self, "the parameter that was set");
                continue;
            }
            self.settings.insert(s.name.clone(), Val { kind: value.kind, span });
        }
    }
}
