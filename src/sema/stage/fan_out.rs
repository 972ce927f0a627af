//! Fan-outs: one member of a stage for each combination of the values of its variables, and how members are named.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::diag::{Diagnostic, codes};
use crate::sema::checker::{Checker, Resolved};
use crate::sema::eval::{Local, Scope};
use crate::sema::file_name;
use crate::sema::program::{DefId, visit_expr};
use crate::sema::value::{Kind, Val};
use crate::source::Span;
use crate::syntax::ast::{self, Each, Pick, Picked};

/// A fan-out over more members than this is refused.
const MAX_MEMBERS: usize = 1000;

/// What one member of a fan-out is for.
pub(super) struct Combination<'p> {
    /// The variables and their values.
    pub(super) locals: Rc<[Local<'p>]>,
    /// What the values are called, in the order of the variables.
    pub(super) keys: Vec<String>,
}

/// What `[…]` behind a stage picks.
pub(crate) enum Members {
    /// Whatever members there are.
    All,
    /// By index in the list of resolved stages.
    One(usize),
    Some(Vec<usize>),
}

/// A variable, its values and what they are called.
struct Variable<'p> {
    each: &'p Each,
    values: Vec<(Val<'p>, String)>,
}

impl<'p> Checker<'p> {
    /// The members of the fan-out `block`; of several variables the last moves fastest.
    pub(super) fn combinations(
        &mut self,
        block: &'p ast::Block,
        base: &str,
        name: &str,
        scope: &Scope<'p>,
    ) -> Option<Vec<Combination<'p>>> {
        let mut variables: Vec<Variable<'p>> = Vec::new();
        for each in &block.each {
            if variables.iter().any(|v| v.each.var.text == each.var.text) {
                self.push(Diagnostic::error(
                    codes::STAGE_EACH,
                    each.var.span,
                    format!("`{}` twice in one fan-out", each.var.text),
                    "there is already a variable of this name",
                ));
                return None;
            }
            let values = self.values_of(each, block, name, scope)?;
            variables.push(Variable { each, values: self.named_values(&values)? });
        }
        let count = variables.iter().try_fold(1_usize, |n, v| n.checked_mul(v.values.len()));
        if count.is_none_or(|n| n > MAX_MEMBERS) {
            let (first, last) = (block.each.first()?, block.each.last()?);
            let lengths: Vec<String> = variables.iter().map(|v| v.values.len().to_string()).collect();
            self.push(Diagnostic::error(
                codes::STAGE_EACH,
                first.var.span.to(last.values.span),
                format!("a fan-out over {} members", lengths.join(" × ")),
                format!("at most {MAX_MEMBERS} are possible"),
            ));
            return None;
        }
        let choices = choices(&variables.iter().map(|v| v.values.len()).collect::<Vec<_>>());
        let member = |choice: &Vec<usize>| {
            let of = |(v, at): (&Variable<'p>, &usize)| {
                let (value, key) = &v.values[*at];
                ((v.each.var.text.as_str(), value.clone()), key.clone())
            };
            let (locals, keys): (Vec<_>, Vec<_>) = variables.iter().zip(choice).map(of).unzip();
            Combination { locals: locals.into(), keys }
        };
        let members: Vec<Combination<'p>> = choices.iter().map(member).collect();
        self.own_files(base, &members)?;
        Some(members)
    }

    /// The scopes of the members of `block`, or the one scope of a block that does not fan out; `None` where what
    /// is written is no fan-out, which resolving the stage says.
    pub(crate) fn member_scopes(
        &mut self,
        block: &'p ast::Block,
        scope: &Scope<'p>,
    ) -> Option<Vec<Scope<'p>>> {
        let mut lists = Vec::new();
        for each in &block.each {
            let Kind::List(values) = self.eval(&each.values, scope).kind else { return None };
            lists.push((each.var.text.as_str(), values));
        }
        let lengths: Vec<usize> = lists.iter().map(|(_, values)| values.len()).collect();
        lengths.iter().try_fold(1_usize, |n, len| n.checked_mul(*len)).filter(|n| *n <= MAX_MEMBERS)?;
        let scope = |choice: Vec<usize>| {
            let locals = lists.iter().zip(choice).map(|((name, values), at)| (*name, values[at].clone()));
            Scope { locals: locals.collect(), ..scope.clone() }
        };
        Some(choices(&lengths).into_iter().map(scope).collect())
    }

    /// The values of one variable.
    fn values_of(
        &mut self,
        each: &'p Each,
        block: &'p ast::Block,
        name: &str,
        scope: &Scope<'p>,
    ) -> Option<Rc<[Val<'p>]>> {
        let values = self.eval(&each.values, scope);
        let span = each.values.span;
        let refused = |span, title, label| Diagnostic::error(codes::STAGE_EACH, span, title, label);
        let d = match &values.kind {
            Kind::Poison => return None,
            Kind::List(list) if list.is_empty() || list.len() > MAX_MEMBERS => refused(
                span,
                format!("a fan-out over {} values", list.len()),
                format!("between 1 and {MAX_MEMBERS} are possible"),
            ),
            Kind::List(list) if list.len() > 1 && !mentions(block, &each.var.text) && !block.incomplete => {
                refused(
                    each.var.span,
                    format!("{} members that are all the same run", list.len()),
                    format!("nothing in the stage mentions `{}`", each.var.text),
                )
                .help(format!(
                    "for runs over different orders of the data write `data_seed = {}`",
                    each.var.text
                ))
            }
            // What is wrong with a value is said, and a fan-out without it would be another.
            Kind::List(list) if list.iter().any(Val::is_poison) => return None,
            Kind::List(list) => return Some(Rc::clone(list)),
            _ => refused(
                span,
                format!("a fan-out over {}", values.describe()),
                "a list is expected here".to_owned(),
            )
            .help(format!("write `stage {name}[{} in [1, 2, 3]]`", each.var.text)),
        };
        self.push(d);
        None
    }

    /// The values of a variable with what they are called. A value that stands there twice is said and passed over.
    fn named_values(&mut self, values: &[Val<'p>]) -> Option<Vec<(Val<'p>, String)>> {
        let mut seen = HashSet::new();
        let mut named = Vec::new();
        for value in values {
            let key = self.key(value);
            let plain = |c: char| c.is_alphanumeric() || "._-+ ".contains(c);
            if let Kind::Text(text, _) = &value.kind
                && !(text.starts_with(char::is_alphanumeric) && text.chars().all(plain))
            {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_EACH,
                        value.span,
                        format!("a member called `{key}`"),
                        "directories and files are called after it",
                    )
                    .help("a string here is made of letters, digits, blanks, `.`, `-`, `_` and `+`, a letter or digit first"),
                );
                return None;
            }
            if !seen.insert(key.clone()) {
                self.push(Diagnostic::error(
                    codes::STAGE_EACH,
                    value.span,
                    format!("`{key}` twice in one fan-out"),
                    "there is already a member with this value",
                ));
                continue;
            }
            named.push((value.clone(), key));
        }
        Some(named)
    }

    /// Refuse members whose directories and files would have one name.
    fn own_files(&mut self, base: &str, members: &[Combination<'p>]) -> Option<()> {
        let mut files: HashMap<String, &Combination<'p>> = HashMap::new();
        for member in members {
            let name = member_name(base, &member.keys);
            let file = file_name(&name);
            let Some(first) = files.insert(file.clone(), member) else { continue };
            let differs = first.keys.iter().zip(&member.keys).position(|(a, b)| a != b).unwrap_or(0);
            let at = |c: &Combination<'p>| c.locals[differs].1.span;
            self.push(
                Diagnostic::error(
                    codes::STAGE_EACH,
                    at(member),
                    format!("the files of `{}` and `{name}` would be the same", member_name(base, &first.keys)),
                    format!("called `{file}`, too"),
                )
                .label(at(first), format!("called `{file}`"))
                .help("in names of files every sign but letters of ASCII, digits, `_` and `.` becomes `-`: let the two differ in more"),
            );
            return None;
        }
        Some(())
    }

    /// What a value of a fan-out is called: a number, a string, or the name of something.
    fn key(&self, value: &Val<'p>) -> String {
        match &value.kind {
            Kind::Entity(_) | Kind::Word(_) => self.text(value.span),
            _ => crate::sema::params::print(value),
        }
    }

    /// Members of a stage picked by `[42]` or `[*, 30%]`.
    pub(crate) fn pick(&mut self, id: DefId, pick: &'p Pick, scope: &Scope<'p>) -> Option<Members> {
        if pick.exprs().next().is_none() && pick.values.len() == 1 {
            return Some(Members::All);
        }
        let mut wanted: Vec<Option<String>> = Vec::new();
        for picked in &pick.values {
            wanted.push(match picked {
                Picked::Every(_) => None,
                Picked::One(expr) => {
                    let value = self.eval(expr, scope);
                    if value.is_poison() {
                        return None;
                    }
                    Some(self.key(&value))
                }
            });
        }
        let Resolved::Stage(members) = self.resolved[id.index()].clone() else { return None };
        let keys = |m: usize| self.out.stages[m].keys.as_slice();
        let fits = |m: usize| {
            let mut pairs = keys(m).iter().zip(&wanted);
            keys(m).len() == wanted.len()
                && pairs.all(|(key, wanted)| wanted.as_ref().is_none_or(|w| w == key))
        };
        let found: Vec<usize> = members.iter().copied().filter(|m| fits(*m)).collect();
        match found.as_slice() {
            [] => {
                let span = match pick.values.as_slice() {
                    [Picked::One(value)] => value.span,
                    _ => pick.span,
                };
                self.no_member(id, &members, span, &wanted);
                None
            }
            [one] => Some(Members::One(*one)),
            _ if found.len() == members.len() => Some(Members::All),
            _ => Some(Members::Some(found)),
        }
    }

    /// Say that no member of a stage is called so.
    fn no_member(&mut self, id: DefId, members: &[usize], span: Span, wanted: &[Option<String>]) {
        let ast::ItemKind::Block(block) = &self.program.item(id).kind else { return };
        let base = &self.out.stages[members[0]].base;
        let wanted: Vec<&str> = wanted.iter().map(|w| w.as_deref().unwrap_or("*")).collect();
        let shown = wanted.join(", ");
        let d = |label| {
            let title = format!("`{base}` has no member `{shown}`");
            Diagnostic::error(codes::UNKNOWN_NAME, span, title, label)
        };
        let variables: Vec<&str> = block.each.iter().map(|each| each.var.text.as_str()).collect();
        let d = if variables.is_empty() {
            d("no member with this value").help(format!("`{base}` is a single stage: write `{base}`"))
        } else if variables.len() != wanted.len() {
            let (values, of) = (count(wanted.len(), "value"), count(variables.len(), "variable"));
            d(&format!("{values} for {of}")).help(format!(
                "it fans out over `{}`: write a value for each, or `*` for all of its values",
                variables.join("` and `")
            ))
        } else {
            let names: Vec<String> =
                members.iter().take(12).map(|m| format!("`{}`", self.out.stages[*m].name)).collect();
            let more = members.len() - names.len();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            d("no member with this value").help(format!("its members are {}{more}", names.join(", ")))
        };
        self.push(d);
    }
}

/// As the plan spells a member: `anneal[42]`, `anneal[3e-4, 30%]`, or what does not fan out by its name.
pub(super) fn member_name(base: &str, keys: &[String]) -> String {
    if keys.is_empty() { base.to_owned() } else { format!("{base}[{}]", keys.join(", ")) }
}

/// "1 value", "2 values".
fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// All choices of one index below each of `lengths`, the last moving fastest.
fn choices(lengths: &[usize]) -> Vec<Vec<usize>> {
    lengths.iter().fold(vec![Vec::new()], |before, length| {
        let longer =
            before.iter().flat_map(|choice| (0..*length).map(move |at| [choice.as_slice(), &[at]].concat()));
        longer.collect()
    })
}

/// Whether an entry of the block speaks of a name.
fn mentions(block: &ast::Block, name: &str) -> bool {
    let mut found = false;
    let mut visit = |path: &ast::Path| {
        found |= matches!(path.segments.first(), Some(ast::PathSegment::Name(n)) if n.text == name);
    };
    let mut open = vec![block];
    while let Some(block) = open.pop() {
        for entry in &block.entries {
            match &entry.kind {
                ast::EntryKind::Field { value, .. } => visit_expr(value, &mut visit),
                ast::EntryKind::Constraint(expr) => visit_expr(expr, &mut visit),
                ast::EntryKind::Assert(assert) => visit_expr(&assert.condition, &mut visit),
                ast::EntryKind::Block(inner) => open.push(inner),
            }
        }
    }
    found
}
