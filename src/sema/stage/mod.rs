//! `stage` blocks. Here is fan-out; one member of it is in [`member`], what it starts from and takes over in
//! [`ground`], its smaller fields in `parts`.

mod ground;
mod member;
mod optimizer;
mod parts;
mod portions;

pub(crate) use ground::{Legacy, place_name};

use std::collections::HashMap;
use std::rc::Rc;

use crate::diag::{Diagnostic, codes};
use crate::sema::checker::Checker;
use crate::sema::eval::Scope;
use crate::sema::file_name;
use crate::sema::program::{DefId, visit_expr};
use crate::sema::value::{Kind, Val};
use crate::source::Span;
use crate::syntax::ast;
use member::Draft;

/// A fan-out over more members than this is refused.
const MAX_MEMBERS: usize = 1000;

impl<'p> Checker<'p> {
    /// A `stage` block: its members.
    pub(crate) fn resolve_stage(
        &mut self,
        id: DefId,
        item: &'p ast::Item,
        block: &'p ast::Block,
        scope: &Scope<'p>,
    ) -> Vec<usize> {
        let Some(name) = &block.name else { return Vec::new() };
        let Some(fields) = self.fields(block) else { return Vec::new() };
        let (fields, name_span, base) = (&fields, name.span, self.full_name(id));
        let draft = Draft { id, item, block, fields, scope, name_span, base, key: None };
        let Some(each) = &block.each else { return self.member(&draft).into_iter().collect() };
        let Some(values) = self.fan_out(each, block, &name.text, scope) else { return Vec::new() };
        let Some(keys) = self.member_keys(&draft.base, &values) else { return Vec::new() };
        let mut members = Vec::new();
        for (value, key) in &keys {
            let scope = &Scope { local: Some((each.var.text.as_str(), (*value).clone())), ..scope.clone() };
            let (base, key) = (draft.base.clone(), Some(key.clone()));
            members.extend(self.member(&Draft { scope, base, key, ..draft }));
        }
        // A fan-out with a broken member is broken as a whole: averages over it would be wrong.
        if members.len() == keys.len() { members } else { Vec::new() }
    }

    /// The values of a fan-out.
    fn fan_out(
        &mut self,
        each: &'p ast::Each,
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

    /// The members of a fan-out with what they are called: directories and files are, too. A value that stands
    /// there twice is said and passed over.
    fn member_keys<'v>(&mut self, base: &str, values: &'v [Val<'p>]) -> Option<Vec<(&'v Val<'p>, String)>> {
        let mut files: HashMap<String, (String, Span)> = HashMap::new();
        let mut members: Vec<(&Val<'p>, String)> = Vec::new();
        for value in values {
            let key = self.member_key(value);
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
            if members.iter().any(|(_, other)| *other == key) {
                self.push(Diagnostic::error(
                    codes::STAGE_EACH,
                    value.span,
                    format!("`{key}` twice in one fan-out"),
                    "there is already a member with this value",
                ));
                continue;
            }
            let file = file_name(&format!("{base}[{key}]"));
            if let Some((other, first)) = files.insert(file.clone(), (key.clone(), value.span)) {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_EACH,
                        value.span,
                        format!("the files of `{base}[{other}]` and `{base}[{key}]` would be the same"),
                        format!("called `{file}`, too"),
                    )
                    .label(first, format!("called `{file}`"))
                    .help("in names of files every sign but letters of ASCII, digits, `_` and `.` becomes `-`: let the two differ in more"),
                );
                return None;
            }
            members.push((value, key));
        }
        Some(members)
    }

    /// What a member is called after the value it is for: a number, a string, or the name of something.
    pub(super) fn member_key(&self, value: &Val<'p>) -> String {
        match &value.kind {
            Kind::Entity(_) | Kind::Word(_) => self.text(value.span),
            _ => crate::sema::params::print(value),
        }
    }
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
