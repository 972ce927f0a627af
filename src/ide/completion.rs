//! What can be written at the cursor: fields that are not there yet, names of the kind that fits,
//! units after a number, segments after `then`. Everything comes from the schema table or from the
//! names of the program.

mod following;
mod names;

use std::cell::OnceCell;
use std::collections::HashSet;

use crate::schema::{self, Block, Family, Function, Naming, Ty, Word};
use crate::sema::STAGE_PROPERTIES;
use crate::sema::program::{DefId, DefKind};
use crate::source::{FileId, Files, Span};
use crate::syntax::ast::{Block as Tree, ExprKind, ItemKind};

use super::analysis::Names;
use super::context::{Call, Context, OpenBlock, Token, context};
use super::marks::ITEM_WORDS;
use super::paths;
use names::path_before;

/// How two values are compared.
const COMPARISONS: [(&str, &str); 6] = [
    ("<=", "no more than"),
    (">=", "no less than"),
    ("==", "equal"),
    ("!=", "another"),
    ("<", "less than"),
    (">", "more than"),
];

/// One thing to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// As shown and filtered.
    pub label: String,
    /// What it is.
    pub kind: CompletionKind,
    /// A few words beside it.
    pub detail: String,
    /// Markdown.
    pub doc: String,
    /// What is inserted: a snippet with `$0` and `${1:…}` when `snippet`.
    pub insert: String,
    /// Whether `insert` has places to fill in.
    pub snippet: bool,
    /// What it replaces: the word around the cursor up to the cursor.
    pub replace: Span,
    /// Smaller comes first.
    pub rank: u32,
}

/// What a completion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CompletionKind {
    Keyword,
    Field,
    Function,
    Argument,
    Word,
    Unit,
    Source,
    Mix,
    Stage,
    Model,
    Soup,
    Value,
    Namespace,
    Property,
    Checkpoint,
    File,
    Lint,
    Attribute,
}

/// The completions at byte `offset` of `file`.
pub fn complete(names: &Names, files: &dyn Files, file: FileId, offset: usize) -> Vec<Completion> {
    let text = names.text(file);
    let (Some(module), Some(context)) = (names.module(file), context(text, offset)) else {
        return Vec::new();
    };
    let replace = Span::new(file, context.word, offset.min(text.len()));
    let variables = context.blocks.first().map(|block| block.variables.clone()).unwrap_or_default();
    let (own, hidden) = (names::own(names, module, &context), OnceCell::new());
    let mut list =
        List { names, module, file, text, replace, variables, own, hidden, out: Vec::new(), rank: 0 };
    list.at(&context, files);
    list.leave(text.get(offset..).unwrap_or_default().trim_start_matches([' ', '\t']));
    list.out
}

struct List<'a> {
    names: &'a Names,
    module: usize,
    file: FileId,
    text: &'a str,
    replace: Span,
    /// The variables of the fan-out around the cursor.
    variables: Vec<&'a str>,
    /// The definition that the cursor is in.
    own: Option<DefId>,
    /// It and all that is made of it, once asked for: nothing that can be named there.
    hidden: OnceCell<HashSet<DefId>>,
    out: Vec<Completion>,
    rank: u32,
}

impl<'a> List<'a> {
    fn push(
        &mut self,
        label: &str,
        kind: CompletionKind,
        detail: &str,
        doc: &str,
    ) -> Option<&mut Completion> {
        if self.out.iter().any(|c| c.label == label && c.kind == kind) {
            return None;
        }
        self.rank += 1;
        self.out.push(Completion {
            label: label.to_owned(),
            kind,
            detail: detail.to_owned(),
            doc: doc.to_owned(),
            insert: label.to_owned(),
            snippet: false,
            replace: self.replace,
            rank: self.rank,
        });
        self.out.last_mut()
    }

    fn snippet(&mut self, label: &str, kind: CompletionKind, detail: &str, doc: &str, insert: String) {
        if let Some(completion) = self.push(label, kind, detail, doc) {
            completion.snippet = insert.contains('$');
            completion.insert = insert;
        }
    }

    /// Insert names alone where what would follow them is there already, as `behind` the cursor.
    fn leave(&mut self, behind: &str) {
        let sign = ["==", "<=", "=", ":", "("].into_iter().find(|sign| behind.starts_with(sign));
        let Some(sign) = sign.filter(|sign| *sign != "==") else { return };
        for completion in &mut self.out {
            let rest = completion.insert.strip_prefix(&completion.label).unwrap_or_default();
            if rest.trim_start().starts_with(sign) {
                completion.insert.clone_from(&completion.label);
                completion.snippet = false;
            }
        }
    }

    fn words(&mut self, words: &'static [Word]) {
        for word in words {
            self.push(word.name, CompletionKind::Word, word.doc, "");
        }
    }

    fn at(&mut self, context: &Context<'_>, files: &dyn Files) {
        if let Some(start) = context.string {
            return self.inside_string(context, start, files);
        }
        let entry = context.entry.as_slice();
        let previous = entry.last().copied();
        match previous.map(|t| t.text) {
            Some("@") => {
                for attribute in schema::ATTRIBUTES {
                    let insert = match attribute.name {
                        "cite" | "assumed" => format!("{}(\"$0\")", attribute.name),
                        name => format!("{name}($0)"),
                    };
                    self.snippet(attribute.name, CompletionKind::Attribute, attribute.doc, "", insert);
                }
                return;
            }
            Some(".") => {
                self.members(entry, context.value().is_some_and(|(key, _)| key == "from"));
                if let (Some(block), None) =
                    (context.blocks.last().filter(|b| b.keyword == "mix"), context.value())
                {
                    let path = path_before(&entry[..entry.len() - 1]).join(".");
                    self.leave_out(block, &format!("{path}."));
                }
                return;
            }
            _ => {}
        }
        if entry.first().is_some_and(|t| t.text == "@") {
            // What `cite` and `assumed` take is a text.
            if entry.get(1).is_some_and(|t| matches!(t.text, "allow" | "warn" | "deny")) {
                self.lints("");
            }
            return;
        }
        if self.index(context) {
            return;
        }
        if let Some(call) = context.call() {
            return self.in_call(&call, context);
        }
        let block = context.blocks.last();
        match (block, context.value()) {
            (_, Some((key, value))) => self.value_of(block, context, &key, value),
            (None, None) => self.top(entry),
            (Some(block), None) => self.entry(block, context),
        }
    }

    fn inside_string(&mut self, context: &Context<'_>, start: usize, files: &dyn Files) {
        let first = context.entry.first().map(|t| t.text);
        let (curricula, wanted) = match first {
            Some("use") => (true, true),
            Some("path" | "exclude" | "checkpoint" | "tokenizer" | "choice") => (false, true),
            _ => (false, false),
        };
        if !wanted {
            return;
        }
        let typed = self.text.get(start..self.replace.end as usize).unwrap_or_default().to_owned();
        let from = typed.rfind('/').map_or(start, |slash| start + slash + 1);
        self.replace = Span::new(self.file, from, self.replace.end as usize);
        for name in paths::beside(files, self.file, &typed, |n| !curricula || n.ends_with(".curriculum")) {
            self.push(&name, CompletionKind::File, "", "");
        }
    }

    /// At the beginning of a line outside of blocks, or in the head of an item.
    fn top(&mut self, entry: &[Token<'_>]) {
        match entry {
            [] => {
                for block in schema::BLOCKS.iter().filter(|b| b.inside.is_none()) {
                    self.block(block);
                }
                ITEM_WORDS.iter().for_each(|(word, _)| self.item_word(word));
            }
            [first, .., last] if first.text == "param" && last.text == ":" => self.words(schema::PARAM_TYPES),
            [first, _] if first.text == "use" => {
                self.push("as", CompletionKind::Keyword, "the name of the namespace", "");
            }
            [first, rest @ ..] if first.text == "assert" => self.condition(None, rest),
            _ => {}
        }
    }

    /// A word that begins an item.
    fn item_word(&mut self, word: &str) {
        let Some((_, doc)) = ITEM_WORDS.iter().find(|(known, _)| *known == word) else { return };
        let insert = match word {
            "use" => "use \"${1:sources.curriculum}\" as ${2:s}$0",
            "param" => "param ${1:total}: ${2:tokens} = ${0:50B}",
            "let" => "let ${1:name} = $0",
            "assert" => "assert $0",
            _ => "soup ${1:final} = average($0)",
        };
        self.snippet(word, CompletionKind::Keyword, "", doc, insert.to_owned());
    }

    /// Take away what stands in `block` already, where what is offered is written behind `path`.
    fn leave_out(&mut self, block: &OpenBlock<'_>, path: &str) {
        let written = self.written(block);
        self.out.retain(|c| !written.iter().any(|w| w.strip_prefix(path) == Some(c.label.as_str())));
    }

    /// A block with its required fields.
    fn block(&mut self, block: &Block) {
        let name = if block.naming == Naming::Named { " ${1:name}" } else { "" };
        let mut place = 1;
        let width = block.fields.iter().filter(|f| f.required).map(|f| f.name.len()).max().unwrap_or(0);
        let mut body = String::new();
        let extra = if block.keyword == "stage" { &["tokens"][..] } else { &[] };
        let width = extra.iter().map(|e| e.len()).max().unwrap_or(0).max(width);
        for field in block.fields.iter().filter(|f| f.required || extra.contains(&f.name)) {
            place += 1;
            body.push_str(&format!("  {:width$} = ${{{place}}}\n", field.name));
        }
        if body.is_empty() {
            body.push_str("  $0\n");
        }
        let insert = format!("{}{name} {{\n{body}}}", block.keyword);
        self.snippet(block.keyword, CompletionKind::Keyword, "", block.doc, insert);
    }

    /// At the beginning of an entry of a block.
    fn entry(&mut self, block: &OpenBlock<'_>, context: &Context<'_>) {
        let Some(schema) = schema::block(block.keyword) else { return };
        if !context.entry.is_empty() {
            match context.entry.as_slice() {
                [first, rest @ ..] if first.text == "assert" => self.condition(Some(block), rest),
                tokens if block.keyword == "gate" => self.condition(Some(block), tokens),
                [.., last]
                    if block.keyword == "budget" && COMPARISONS.iter().any(|(c, _)| *c == last.text) =>
                {
                    self.definitions(&[DefKind::Param, DefKind::Let], "");
                }
                [_] if block.keyword == "budget" => {
                    self.push("<=", CompletionKind::Keyword, "no more than", "");
                }
                _ => {}
            }
            return;
        }
        let written = self.written(block);
        let width = schema.fields.iter().filter(|f| written.contains(&f.name)).map(|f| f.name.len()).max();
        for field in schema.fields.iter().filter(|f| !written.contains(&f.name)) {
            let pad = width.unwrap_or(0).max(field.name.len());
            let insert = format!("{:pad$} = {}", field.name, starter(field.ty));
            let detail = if field.required { "required" } else { field.default.unwrap_or("") };
            let doc = format!("{}\n\nTakes {}.", field.doc, field.ty.describe());
            self.snippet(field.name, CompletionKind::Field, detail, &doc, insert);
        }
        match block.keyword {
            "mix" => {
                self.definitions(&[DefKind::Source, DefKind::Mix], " = $0");
                self.mixes_of_stages(" = $0");
                self.leave_out(block, "");
            }
            "lints" => {
                self.lints(" = ${0:allow}");
                self.leave_out(block, "");
            }
            "stage" => {
                self.item_word("assert");
                if !written.contains(&"mix") {
                    let doc = "What it reads, written here: the same as a `mix` with a name.";
                    self.snippet("mix { … }", CompletionKind::Keyword, "", doc, "mix { $0 }".to_owned());
                }
            }
            "gate" => self.functions(&[Family::Measure]),
            "budget" => {
                for word in ["tokens", "steps", "flops", "gpu_hours"] {
                    self.snippet(word, CompletionKind::Property, "", "", format!("{word} <= $0"));
                }
            }
            _ => {}
        }
        for inner in schema::BLOCKS.iter().filter(|b| b.inside == Some(schema.keyword)) {
            self.block(inner);
        }
    }

    /// Keys that stand in the block already, from the text: also those of broken lines.
    fn written(&self, block: &OpenBlock<'_>) -> Vec<&'a str> {
        let text = self.text.get(block.start..).unwrap_or_default();
        let bytes = text.as_bytes();
        let (mut found, mut depth, mut at, mut start) = (Vec::new(), 0usize, 0, 0);
        while let Some(byte) = bytes.get(at) {
            let line_end = || text[at..].find('\n').map_or(text.len(), |end| at + end);
            let ends_entry = match byte {
                b'#' => {
                    at = line_end();
                    continue;
                }
                b'"' => {
                    let closing = text[at + 1..line_end()].find('"');
                    at = closing.map_or_else(line_end, |length| at + length + 2);
                    continue;
                }
                b'=' if depth == 0 => {
                    found.push(text[start..at].trim());
                    false
                }
                b'{' => {
                    depth += 1;
                    true
                }
                b'}' if depth == 0 => break,
                b'}' => {
                    depth -= 1;
                    true
                }
                b'\n' | b',' => true,
                _ => false,
            };
            at += 1;
            if ends_entry {
                start = at;
            }
        }
        found
    }

    /// The value of a field or item.
    fn value_of(
        &mut self,
        block: Option<&OpenBlock<'_>>,
        context: &Context<'_>,
        key: &str,
        value: &[Token<'_>],
    ) {
        let ty = match block.map(|b| b.keyword) {
            Some("mix") if key != "weights" => Some(Ty::Share),
            Some("lints") => Some(Ty::Word(schema::LEVELS)),
            Some(keyword) => schema::block(keyword).and_then(|b| b.field(key)).map(|f| f.ty),
            None => None,
        };
        let item = context.entry.first().map_or("", |t| t.text);
        let bound = if block.is_none() { item } else { "" };
        if let Some(filter) = value.iter().rposition(|t| t.text == "where") {
            if !self.after(&value[filter + 1..], Some(Ty::Predicate)) {
                self.start(Ty::Predicate, None);
            }
            return;
        }
        if bound == "source" && !value.is_empty() {
            self.push("where", CompletionKind::Keyword, "only records that satisfy a condition", "");
            return;
        }
        if self.after(value, ty) {
            return;
        }
        match ty {
            Some(ty) => self.start(ty, block.map(|b| b.keyword)),
            None => match item {
                "soup" => {
                    self.functions(&[Family::Soup]);
                    self.definitions(&[DefKind::Stage, DefKind::Soup], "");
                }
                "mix" => {
                    self.functions(&[Family::Mix]);
                    self.definitions(&[DefKind::Mix, DefKind::Source], "");
                }
                "source" => self.definitions(&[DefKind::Source], ""),
                "let" | "param" => {
                    self.definitions(&[DefKind::Param, DefKind::Let, DefKind::Mix, DefKind::Source], "");
                    self.functions(&[Family::Mix, Family::Rope, Family::Optimizer, Family::Curve]);
                    self.words(schema::YES_NO);
                }
                _ => {}
            },
        }
    }

    /// The values of a fan-out's variable, inside its brackets: `anneal[`, `anneal[42, `; whether the cursor is there.
    fn index(&mut self, context: &Context<'_>) -> bool {
        let entry = context.entry.as_slice();
        let Some(bracket) = context.brackets.last().filter(|b| !b.paren) else { return false };
        if !entry.last().is_some_and(|t| matches!(t.text, "[" | ",")) {
            return false;
        }
        let at = entry[bracket.token..].iter().filter(|t| t.text == ",").count();
        let program = &self.names.program;
        let names = path_before(&entry[..bracket.token]);
        let Some((id, [])) = self.follow(&names) else { return false };
        let ItemKind::Block(Tree { each, .. }) = &program.item(id).kind else { return false };
        let Some(each) = each.get(at) else { return false };
        let ExprKind::List(members) = &each.values.kind else { return false };
        let text = self.names.text(program.modules[program.def(id).module].file);
        for member in members {
            let label = text.get(member.span.range()).unwrap_or_default();
            self.push(label, CompletionKind::Value, &format!("a value of `{}`", each.var.text), "");
        }
        self.push("*", CompletionKind::Value, "all of them", "");
        true
    }

    /// The definition that `names` lead to, and what of them is left.
    fn follow<'n>(&self, names: &'n [&'n str]) -> Option<(DefId, &'n [&'n str])> {
        let program = &self.names.program;
        let mut module = self.module;
        for (i, name) in names.iter().enumerate() {
            if let Some(id) = program.modules[module].names.get(*name) {
                return Some((*id, &names[i + 1..]));
            }
            module = program.modules[module].spaces.get(*name)?.0?;
        }
        None
    }

    /// A value of type `ty`, from its beginning.
    fn start(&mut self, ty: Ty, block: Option<&str>) {
        match ty {
            Ty::Tokens => self.values(&["tokens", "number"]),
            Ty::Steps => self.values(&["steps", "number"]),
            Ty::Number | Ty::Whole => self.values(&["number"]),
            Ty::Text | Ty::Paths => self.values(&["text"]),
            Ty::Numbers => self.definitions(&[DefKind::Param, DefKind::Let], ""),
            Ty::Share if block == Some("mix") => {
                self.push("rest", CompletionKind::Word, "what the other weights leave", "");
                self.definitions(&[DefKind::Param, DefKind::Let], "");
            }
            Ty::Share | Ty::Span | Ty::Target | Ty::Batch | Ty::Context => {
                if ty == Ty::Span {
                    for (label, insert) in [
                        ("% of stage", "${1:5}% of stage"),
                        ("% of total", "${1:5}% of total"),
                        ("steps", "${1:1000} steps"),
                        ("tokens", "${1:1B} tokens"),
                    ] {
                        self.snippet(label, CompletionKind::Value, "a span", "", insert.to_owned());
                    }
                }
                if ty == Ty::Batch {
                    self.snippet(
                        "seqs",
                        CompletionKind::Value,
                        "rows per step",
                        "",
                        "${1:1024} seqs".to_owned(),
                    );
                    self.snippet(
                        "tokens",
                        CompletionKind::Value,
                        "tokens per step",
                        "",
                        "${1:4Mi} tokens".to_owned(),
                    );
                }
                if ty == Ty::Context {
                    for length in ["2Ki", "4Ki", "8Ki", "16Ki", "32Ki", "64Ki", "128Ki"] {
                        self.push(length, CompletionKind::Value, "tokens per row", "");
                    }
                }
                if ty == Ty::Target {
                    self.push("0", CompletionKind::Value, "", "");
                    self.snippet(
                        "% of peak",
                        CompletionKind::Value,
                        "a share of the maximum",
                        "",
                        "${1:10}% of peak".to_owned(),
                    );
                    self.definitions(&[DefKind::Mix, DefKind::Source], "");
                }
                self.definitions(&[DefKind::Param, DefKind::Let], "");
            }
            Ty::Lr => {
                self.snippet(
                    "inherit then linear(to: 0)",
                    CompletionKind::Value,
                    "go on from where `from` ended and land at zero",
                    "",
                    "inherit then linear(to: ${0:0})".to_owned(),
                );
                self.snippet(
                    "warm-up, stable, decay",
                    CompletionKind::Value,
                    "three segments",
                    "",
                    "0 then linear(to: ${1:3e-4}, over: ${2:2000 steps}) then hold then linear(to: 0, over: ${0:10% of stage})".to_owned(),
                );
                self.push("inherit", CompletionKind::Word, "the value at the end of `from`", "");
                self.definitions(&[DefKind::Let, DefKind::Param], "");
                self.functions(&[Family::Curve]);
            }
            Ty::Mix => {
                self.definitions(&[DefKind::Mix, DefKind::Source, DefKind::Let], "");
                self.mixes_of_stages("");
                self.functions(&[Family::Mix]);
            }
            Ty::Word(words) => self.words(words),
            Ty::From => {
                self.definitions(&[DefKind::Model, DefKind::Stage, DefKind::Soup], "");
                self.variables();
            }
            Ty::Init => {
                self.functions(&[Family::Init]);
                for preset in schema::PRESETS {
                    self.push(preset.name, CompletionKind::Value, preset.doc, "");
                }
            }
            Ty::Rope => self.functions(&[Family::Rope]),
            Ty::Optimizer => self.functions(&[Family::Optimizer]),
            Ty::Fim => self.functions(&[Family::Fim]),
            Ty::Order => {
                self.words(schema::ORDERS);
                self.functions(&[Family::Order]);
            }
            Ty::Heldout => {
                self.snippet(
                    "heldout",
                    CompletionKind::Value,
                    "a held-out share",
                    "",
                    "heldout ${0:1}%".to_owned(),
                );
                self.definitions(&[DefKind::Source], "");
            }
            Ty::Predicate => {
                self.push("length", CompletionKind::Word, "the document's length in tokens", "");
                self.definitions(&[DefKind::Param, DefKind::Let], "");
            }
            Ty::Condition => {
                self.push("lr", CompletionKind::Property, "the learning rate", "");
            }
            Ty::Ingredients => self.definitions(&[DefKind::Stage, DefKind::Soup], ""),
            Ty::Names => {}
        }
    }

    fn in_call(&mut self, call: &Call<'_>, context: &Context<'_>) {
        let Some(function) = schema::function(call.callee) else { return };
        if let Some(param) = call.argument.and_then(|name| function.param(name)) {
            if !self.after(&call.value, Some(param.ty)) {
                self.start(param.ty, None);
                // `linear(to: …)` moves to a mix in the curve of one, and to a number elsewhere.
                let key = context.value().map(|(key, _)| key).unwrap_or_default();
                match (param.ty, key.as_str()) {
                    (Ty::Target, "lr" | "batch" | "context") => {
                        self.out.retain(|c| !matches!(c.kind, CompletionKind::Mix | CompletionKind::Source));
                    }
                    (Ty::Target, "mix") => {
                        self.out.retain(|c| matches!(c.kind, CompletionKind::Mix | CompletionKind::Source));
                    }
                    _ => {}
                }
            }
            return;
        }
        if !call.value.is_empty() {
            self.after(&call.value, None);
            return;
        }
        for param in function.params.iter().filter(|p| !call.named.contains(&p.name)) {
            let detail = if param.required { "required" } else { param.default.unwrap_or("") };
            let insert = format!("{}: {}", param.name, starter(param.ty));
            self.snippet(param.name, CompletionKind::Argument, detail, param.doc, insert);
        }
        match function.family {
            Family::Soup => self.definitions(&[DefKind::Stage, DefKind::Soup], ""),
            Family::Mix if call.index > 0 && function.open.is_some() => self.entries_of(call),
            Family::Mix => self.definitions(&[DefKind::Mix, DefKind::Source], ""),
            Family::Measure => self.definitions(&[DefKind::Source, DefKind::Mix], ""),
            Family::Curve => {
                let block = context.blocks.last().map(|b| b.keyword);
                self.start(Ty::Lr, block);
            }
            _ => {}
        }
    }

    /// A condition that begins with `tokens`.
    fn condition(&mut self, block: Option<&OpenBlock<'_>>, tokens: &[Token<'_>]) {
        // It is judged when everything is known, so it closes no circle.
        self.own = None;
        // The reason of an assertion is a text.
        let reason = tokens.last().is_some_and(|t| t.text == ",");
        if reason || self.after(tokens, Some(Ty::Condition)) {
            return;
        }
        if block.is_some_and(|b| b.keyword == "gate") {
            self.functions(&[Family::Measure]);
        }
        for property in STAGE_PROPERTIES.iter().filter(|_| block.is_some()) {
            self.push(property, CompletionKind::Property, "of this stage", "");
        }
        self.definitions(
            &[DefKind::Stage, DefKind::Model, DefKind::Source, DefKind::Mix, DefKind::Param, DefKind::Let],
            "",
        );
    }

    fn functions(&mut self, families: &[Family]) {
        for function in schema::FUNCTIONS.iter().filter(|f| families.contains(&f.family)) {
            let (label, _) = super::signature::label(function);
            let doc = format!("```curriculum\n{label}\n```\n\n{}", function.doc);
            self.snippet(function.name, CompletionKind::Function, "", &doc, call_snippet(function));
        }
    }
}

/// What to begin a value of type `ty` with.
fn starter(ty: Ty) -> &'static str {
    match ty {
        Ty::Text | Ty::Paths => "\"$0\"",
        Ty::Numbers => "[$0]",
        _ => "$0",
    }
}

/// A call with its required arguments.
fn call_snippet(function: &Function) -> String {
    let required: Vec<String> = function
        .params
        .iter()
        .filter(|p| p.required)
        .enumerate()
        .map(|(i, p)| format!("{}: ${{{}}}", p.name, i + 1))
        .collect();
    if !required.is_empty() {
        return format!("{}({})", function.name, required.join(", "));
    }
    match function.family {
        // `hold` needs no brackets.
        Family::Segment if function.params.iter().all(|p| !p.required) && function.name == "hold" => {
            function.name.to_owned()
        }
        _ => format!("{}($0)", function.name),
    }
}

#[cfg(test)]
mod tests;
