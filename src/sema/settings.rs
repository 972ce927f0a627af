//! `--set NAME=VALUE` and params files: values from outside, with the diagnostics of the file.

use crate::diag::Diagnostic;
use crate::diag::suggest::nearest;
use crate::source::{FileId, Span};
use crate::syntax::ast::{Expr, ExprKind, ItemKind};

use super::checker::Checker;
use super::eval::Scope;
use super::program::DefKind;
use super::value::{Kind, Val};
use crate::diag::codes;

/// What stands before the value in the text that is parsed.
const BEFORE: &str = "let x = ";

/// A setting, parsed. The text is no file: places in it are moved to where the value is written, or
/// to the parameter.
#[derive(Debug)]
pub(crate) struct Setting<'o> {
    given: &'o super::Setting,
    expr: Option<Expr>,
    errors: Vec<Diagnostic>,
}

/// Parse the right-hand sides.
pub(crate) fn parse(set: &[super::Setting]) -> Vec<Setting<'_>> {
    set.iter()
        .map(|given| {
            let (file, errors) =
                crate::syntax::parse(FileId(u32::MAX), &format!("{BEFORE}{}\n", given.value));
            let expr = match file.items.into_iter().next().map(|item| item.kind) {
                Some(ItemKind::Let { value, .. }) if errors.is_empty() => Some(value),
                _ => None,
            };
            Setting { given, expr, errors }
        })
        .collect()
}

/// A place in the parsed text as a place where people wrote it.
fn moved(span: Span, value: Span) -> Span {
    if span.file != FileId(u32::MAX) {
        return span;
    }
    let at = |offset: u32| (value.start + offset.saturating_sub(BEFORE.len() as u32)).min(value.end);
    Span { file: value.file, start: at(span.start), end: at(span.end) }
}

fn moved_diagnostic(mut d: Diagnostic, value: Span) -> Diagnostic {
    d.primary.span = moved(d.primary.span, value);
    d.labels.iter_mut().for_each(|l| l.span = moved(l.span, value));
    d.fixes.iter_mut().flat_map(|f| &mut f.edits).for_each(|e| e.span = moved(e.span, value));
    d
}

/// A value whose places, as far as they are kept, are moved.
fn moved_value<'p>(value: Val<'p>, to: Span) -> Val<'p> {
    let span = moved(value.span, to);
    let kind = match value.kind {
        Kind::List(items) => Kind::List(items.iter().map(|v| moved_value(v.clone(), to)).collect()),
        kind => kind,
    };
    Val { kind, span }
}

/// What to say of `value`, written at `place`, where the parameter is a text or yes or no and the
/// value is none: what the grammar makes of it would only mislead.
fn unfit(
    name: &str,
    value: &str,
    param: &ItemKind,
    found: Option<&Val<'_>>,
    place: Span,
) -> Option<Diagnostic> {
    let ItemKind::Param { ty, value: default, .. } = param else { return None };
    let declared = ty.as_ref().map(|ty| ty.text.as_str());
    let text = declared == Some("text") || declared.is_none() && matches!(default.kind, ExprKind::Str(_));
    let kind = found.map(|v| &v.kind);
    if text && !matches!(kind, Some(Kind::Text(..))) {
        let message = format!("the text for `{name}` has no quotes");
        let d = Diagnostic::error(codes::BAD_PARAM, place, message, "not a text as it stands");
        // A value with a quote in it went wrong in another way.
        return (!value.contains(['"', '\'', '\\'])).then(|| {
            d.help(format!(
                "a text stands in quotes, which a shell must let through: `--set '{name}=\"{value}\"'`"
            ))
        });
    }
    if declared == Some("bool") && !matches!(kind, Some(Kind::Bool(_))) {
        let message = format!("`{name}` cannot be `{value}`");
        let d = Diagnostic::error(codes::BAD_PARAM, place, message, "neither `yes` nor `no`");
        let meant = if matches!(value, "false" | "False" | "0" | "off") { "no" } else { "yes" };
        return Some(d.help(format!("write `--set {name}={meant}`")));
    }
    None
}

impl<'p> Checker<'p> {
    /// Give the parameters their values; unknown names and unreadable values are errors.
    pub(crate) fn apply_settings(&mut self, settings: &'p [Setting<'p>]) {
        let program = self.program;
        for s in settings {
            let super::Setting { name, value, place } = s.given;
            let id = program.find(name);
            let Some(id) = id.filter(|id| program.def(*id).kind == DefKind::Param) else {
                self.unknown_param(s.given, id);
                continue;
            };
            let param = program.def(id).name_span;
            let Some((_, written)) = *place else {
                // Nothing to point at but the parameter: one message says it all.
                let before = self.diags.len();
                let found = s.expr.as_ref().map(|expr| self.eval(expr, &Scope::top(0)));
                let sound = self.diags.len() == before;
                self.diags.truncate(before);
                match found {
                    Some(v) if sound && !v.is_poison() => {
                        self.settings.insert(id, Val { kind: v.kind, span: param });
                    }
                    _ => self.push(
                        Diagnostic::error(
                            codes::BAD_PARAM,
                            param,
                            format!("`--set {name}={value}`: the value cannot be read"),
                            "the parameter that was set",
                        )
                        .help("values are written as in the file: `--set budget=10B`, `--set lr=3e-4`"),
                    ),
                }
                continue;
            };
            let before = self.diags.len();
            for d in &s.errors {
                self.push(d.clone());
            }
            let found = s.expr.as_ref().map(|expr| self.eval(expr, &Scope::top(0)));
            let item = &program.item(id).kind;
            if let Some(d) = unfit(name, value, item, found.as_ref(), written) {
                self.diags.truncate(before);
                self.push(d.label(param, "the parameter"));
                self.settings.insert(id, Val::poison(written));
                continue;
            }
            for d in &mut self.diags[before..] {
                *d = moved_diagnostic(d.clone(), written);
                if d.code == codes::UNKNOWN_NAME {
                    // Names of the file are no help: a value from outside names nothing.
                    d.fixes.clear();
                    d.help = vec!["a value from outside is written out, as in `--set budget=10B`".to_owned()];
                }
            }
            let Some(found) = found else { continue };
            if found.is_poison() {
                if self.diags.len() == before {
                    // Settings come before what the file defines.
                    self.push(
                        Diagnostic::error(
                            codes::BAD_PARAM,
                            written,
                            format!("`{name}` is set to a name of the file"),
                            "a value from outside is written out",
                        )
                        .label(param, "the parameter")
                        .help("write the value itself, as in `--set budget=10B`"),
                    );
                }
                // What is wrong with it is said; the default must not stand in for it.
                self.settings.insert(id, Val::poison(written));
            } else {
                self.settings.insert(id, moved_value(found, written));
            }
        }
    }

    fn unknown_param(&mut self, given: &super::Setting, id: Option<super::program::DefId>) {
        let program = self.program;
        let super::Setting { name, value, place } = given;
        let top = Span::new(program.modules[0].file, 0, 0);
        let other = id.map(|id| program.def(id));
        let at = place.map(|(name, _)| name).or(other.map(|d| d.name_span)).unwrap_or(top);
        let mut d = Diagnostic::error(
            codes::UNKNOWN_PARAM,
            at,
            match place {
                Some(_) => format!("there is no parameter `{name}`"),
                None => format!("`--set {name}={value}`: there is no parameter `{name}`"),
            },
            match other {
                Some(def) if place.is_none() => format!("this is a {}", def.kind.keyword()),
                _ => "no `param` has that name".to_owned(),
            },
        );
        if let (Some(def), Some(_)) = (other, place) {
            d = d.label(def.name_span, format!("this is a {}", def.kind.keyword()));
        }
        let params = program.params();
        let params: Vec<&str> = params.iter().map(String::as_str).collect();
        d = match (nearest(name, params.iter().copied()), params.as_slice()) {
            (Some(near), _) => d.help(format!("did you mean `{near}`?")),
            (None, []) => d.help("there are no parameters; only a `param` can be set from outside"),
            (None, all) => d.help(format!(
                "parameters are {}",
                all.iter().map(|p| format!("`{p}`")).collect::<Vec<_>>().join(", ")
            )),
        };
        self.push(d);
    }
}
