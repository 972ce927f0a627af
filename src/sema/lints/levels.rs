//! The levels a file gives to lints: `lints { }` for the whole file, `@allow`, `@warn` and `@deny`
//! for an item or entry. Also `unknown_lint` and `unused_allow`, which are about them.

use crate::diag::suggest::nearest;
use crate::diag::{Applicability, Diagnostic, Level, codes};
use crate::schema;
use crate::sema::program::suggest;
use crate::source::{FileId, Span};
use crate::syntax::ast::{Attr, Block, EntryKind, Expr, ExprKind, File, ItemKind, PathSegment, Preface};

/// A level given to a lint, somewhere.
struct Given {
    lint: &'static str,
    level: Level,
    /// Where it holds; `None` is the whole file.
    region: Option<Span>,
    file: FileId,
    /// The name, for what is said about it.
    name: Span,
    /// What goes with the name when it is taken out of its attribute.
    cut: Option<Cut>,
    used: bool,
}

/// How one name is taken out of an attribute.
#[derive(Clone, Copy)]
struct Cut {
    /// The name and one comma.
    name: Span,
    /// The attribute up to what stands behind it.
    attribute: Span,
    /// How many things the attribute names.
    of: usize,
}

/// Give every diagnostic the level that its file says and report levels that are for nothing.
///
/// `complete` says whether the checker came through: after an error a lint may not have run, and
/// an `@allow` that silenced nothing proves nothing.
pub(super) fn apply(files: &[(FileId, &File)], complete: bool, diags: &mut Vec<Diagnostic>) {
    let mut given = Vec::new();
    let mut about = Vec::new();
    for (file, ast) in files {
        collect(*file, ast, &mut given, &mut about);
    }
    for d in diags.iter_mut() {
        let Some(lint) = d.lint else { continue };
        let places: Vec<Span> =
            std::iter::once(d.primary.span).chain(d.labels.iter().map(|l| l.span)).collect();
        let reach = |g: &Given| match g.region {
            // The smallest region around the place rules; the place itself before what it points at.
            Some(region) => places
                .iter()
                .position(|p| p.file == region.file && region.start <= p.start && p.end <= region.end)
                .map(|rank| (rank, region.end - region.start)),
            None => (g.file == d.primary.span.file).then_some((places.len(), u32::MAX)),
        };
        let best = given
            .iter_mut()
            .filter(|g| g.lint == lint)
            .filter_map(|g| Some((reach(g)?, g)))
            .min_by_key(|(r, _)| *r);
        if let Some((_, g)) = best {
            g.used = true;
            d.level = g.level;
        }
    }
    if complete {
        // Lints on other engines fire when a launch is written, not here.
        let idle =
            || given.iter().filter(|g| !g.used && g.level == Level::Allow && !codes::of_an_engine(g.lint));
        for (g, cut) in idle().filter_map(|g| Some((g, g.cut?))) {
            let beside = idle().filter(|g| g.cut.is_some_and(|c| c.attribute == cut.attribute)).count();
            let (title, span) = match beside == cut.of {
                true => ("remove it".to_owned(), cut.attribute),
                false => (format!("remove `{}`", g.lint), cut.name),
            };
            about.push(
                Diagnostic::lint(
                    codes::UNUSED_ALLOW,
                    "unused_allow",
                    Level::Warn,
                    g.name,
                    format!("`@allow({})` silences nothing", g.lint),
                    format!("`{}` does not fire here", g.lint),
                )
                .help("take it out")
                .fix(title, Applicability::MachineApplicable, span, ""),
            );
        }
    }
    // What is said about levels has the file's levels too.
    for d in &mut about {
        if let Some(g) = given
            .iter()
            .find(|g| Some(g.lint) == d.lint && g.region.is_none() && g.file == d.primary.span.file)
        {
            d.level = g.level;
        }
    }
    diags.append(&mut about);
}

fn collect(file: FileId, ast: &File, given: &mut Vec<Given>, about: &mut Vec<Diagnostic>) {
    for item in &ast.items {
        attributes(file, ast, &item.preface, item.span, given, about);
        let ItemKind::Block(block) = &item.kind else { continue };
        if block.kind.text == "lints" {
            for entry in &block.entries {
                let EntryKind::Field { key, value } = &entry.kind else { continue };
                let [PathSegment::Name(name)] = key.segments.as_slice() else { continue };
                if schema::LEVELS.iter().any(|w| w.name == name.text) {
                    about.push(turned_round(&name.text, entry.span, value));
                    meant(file, &name.text, value, given);
                    continue;
                }
                let level = level(value);
                if level.is_none() && !matches!(value.kind, ExprKind::Error) {
                    about.push(no_level(&name.text, value));
                }
                if let (Some(lint), Some(level)) = (known(&name.text, name.span, about), level) {
                    let name = name.span;
                    let first = given.iter().find(|g| g.lint == lint && g.region.is_none() && g.file == file);
                    if let Some(first) = first {
                        about.push(
                            Diagnostic::error(
                                codes::DUPLICATE_FIELD,
                                name,
                                format!("`{lint}` is given two levels"),
                                "given again here",
                            )
                            .label(first.name, "first given here")
                            .help("keep one of the two"),
                        );
                        continue;
                    }
                    given.push(Given { lint, level, region: None, file, name, cut: None, used: false });
                }
            }
        } else {
            inside(file, ast, block, given, about);
        }
    }
}

fn inside(file: FileId, ast: &File, block: &Block, given: &mut Vec<Given>, about: &mut Vec<Diagnostic>) {
    for entry in &block.entries {
        attributes(file, ast, &entry.preface, entry.span, given, about);
        if let EntryKind::Block(inner) = &entry.kind {
            inside(file, ast, inner, given, about);
        }
    }
}

fn attributes(
    file: FileId,
    ast: &File,
    preface: &Preface,
    region: Span,
    given: &mut Vec<Given>,
    about: &mut Vec<Diagnostic>,
) {
    for attr in &preface.attrs {
        let level = match attr.name.text.as_str() {
            "allow" => Level::Allow,
            "warn" => Level::Warn,
            "deny" => Level::Deny,
            _ => continue,
        };
        for (name, span) in names(attr) {
            if let Some(lint) = known(name, span, about) {
                let cut = Some(cut(attr, span, ast, preface, region));
                given.push(Given { lint, level, region: Some(region), file, name: span, cut, used: false });
            }
        }
    }
}

/// How `name` is taken out of `attr`, one of the attributes of `preface` before the thing at `owner`.
fn cut(attr: &Attr, name: Span, ast: &File, preface: &Preface, owner: Span) -> Cut {
    let args: Vec<Span> = attr.args.iter().map(|arg| arg.value.span).collect();
    let place = args.iter().position(|arg| *arg == name);
    let name = match place {
        Some(i) if i + 1 < args.len() => Span { end: args[i + 1].start, ..name },
        Some(i) if i > 0 => Span { start: args[i - 1].end, ..name },
        _ => name,
    };
    // The line goes with what stood alone on it; a comment behind it stays.
    let next = preface.attrs.iter().map(|a| a.span).chain(preface.docs.iter().map(|d| d.span));
    let next = next.chain(ast.comments.iter().map(|c| c.span)).chain([owner]);
    let end = next.map(|span| span.start).filter(|start| *start >= attr.span.end).min();
    let attribute = Span { end: end.unwrap_or(attr.span.end), ..attr.span };
    Cut { name, attribute, of: args.len() }
}

/// The lints an attribute names.
fn names(attr: &Attr) -> impl Iterator<Item = (&str, Span)> {
    attr.args.iter().filter_map(|arg| match &arg.value.kind {
        ExprKind::Path(path) => match path.segments.as_slice() {
            [PathSegment::Name(name)] => Some((name.text.as_str(), name.span)),
            _ => None,
        },
        _ => None,
    })
}

fn level(value: &Expr) -> Option<Level> {
    let ExprKind::Path(path) = &value.kind else { return None };
    match path.segments.as_slice() {
        [PathSegment::Name(name)] => match name.text.as_str() {
            "allow" => Some(Level::Allow),
            "warn" => Some(Level::Warn),
            "deny" => Some(Level::Deny),
            _ => None,
        },
        _ => None,
    }
}

/// A lint given something that is no level would keep the level it has, in silence.
fn no_level(lint: &str, value: &Expr) -> Diagnostic {
    let d = Diagnostic::error(
        codes::UNKNOWN_WORD,
        value.span,
        format!("`{lint}` has no level here"),
        "not a level of a lint",
    );
    let near = match &value.kind {
        ExprKind::Path(path) => match path.segments.as_slice() {
            [PathSegment::Name(name)] => nearest(&name.text, schema::LEVELS.iter().map(|w| w.name)),
            _ => None,
        },
        _ => None,
    };
    suggest(d, value.span, near, "levels are `allow`, `warn` and `deny`")
}

/// `allow = [missing_files]`: a level and lints, the wrong way round.
fn turned_round(level: &str, entry: Span, value: &Expr) -> Diagnostic {
    let d = Diagnostic::error(
        codes::UNKNOWN_WORD,
        entry,
        format!("`{level}` is a level and no lint"),
        "the lint comes first",
    );
    let lints: Option<Vec<String>> =
        items(value).iter().map(|item| Some(format!("{} = {level}", lint_of(item)?))).collect();
    match lints.filter(|lints| !lints.is_empty()) {
        Some(lints) => {
            let meant = lints.join(", ");
            d.fix(format!("write `{meant}`"), Applicability::MachineApplicable, entry, meant)
        }
        None => d.help(format!("write `missing_files = {level}`")),
    }
}

/// Give the lints of `allow = [missing_files]` what they are meant to have.
fn meant(file: FileId, level: &str, value: &Expr, given: &mut Vec<Given>) {
    let level = match level {
        "allow" => Level::Allow,
        "warn" => Level::Warn,
        _ => Level::Deny,
    };
    for item in items(value) {
        if let Some(lint) = lint_of(item).and_then(|name| codes::lints().find(|l| *l == name)) {
            given.push(Given { lint, level, region: None, file, name: item.span, cut: None, used: false });
        }
    }
}

/// The items of a list, or the one thing that stands in its place.
fn items(value: &Expr) -> &[Expr] {
    match &value.kind {
        ExprKind::List(items) => items,
        _ => std::slice::from_ref(value),
    }
}

/// A name, with quotes or without.
fn lint_of(item: &Expr) -> Option<&str> {
    match &item.kind {
        ExprKind::Path(path) => match path.segments.as_slice() {
            [PathSegment::Name(name)] => Some(&name.text),
            _ => None,
        },
        ExprKind::Str(name) if !name.is_empty() => Some(name),
        _ => None,
    }
}

fn known(name: &str, span: Span, about: &mut Vec<Diagnostic>) -> Option<&'static str> {
    if let Some(lint) = codes::lints().find(|l| *l == name) {
        return Some(lint);
    }
    let d = Diagnostic::lint(
        codes::UNKNOWN_LINT,
        "unknown_lint",
        Level::Warn,
        span,
        format!("there is no lint called `{name}`"),
        "this changes nothing",
    );
    about.push(suggest(d, span, nearest(name, codes::lints()), "`midc explain list` names them all"));
    None
}
