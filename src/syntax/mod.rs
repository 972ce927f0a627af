//! Text to syntax tree. Knows nothing of training.
//!
//! ```text
//! text ─ layout ─▶ pieces ─ tree ─▶ entries ─ grammar (pest) ─▶ pairs ─ build, literal ─▶ ast
//!                                        └─ no match ─ mismatch ─▶ a diagnostic and what can be saved
//! ```

pub mod ast;
mod build;
mod foreign;
mod grammar;
mod layout;
mod literal;
mod mismatch;
mod rational;
mod tree;

#[cfg(test)]
pub(crate) use literal::SEGMENTS;

use crate::diag::{Diagnostic, codes};
use crate::source::{FileId, Span};

/// Parse one file. Never fails: each entry that cannot be read has one diagnostic on its own line,
/// and everything else is in the tree. Linear in the length of the text.
pub fn parse(file: FileId, text: &str) -> (ast::File, Vec<Diagnostic>) {
    if u32::try_from(text.len()).is_err() {
        let span = Span::new(file, 0, 0);
        let empty = ast::File { items: Vec::new(), comments: Vec::new(), broken: Vec::new(), span };
        let label = "longer than 4 GiB";
        return (empty, vec![Diagnostic::error(codes::TOO_LONG, span, "a file too long to read", label)]);
    }
    tree::parse(file, text)
}

#[cfg(test)]
mod tests {
    use super::ast::{EntryKind, Expr, ExprKind, ItemKind, Path, PathSegment, Picked};
    use super::*;

    /// The tree in short: enough to see how things nest.
    fn sketch(file: &ast::File) -> String {
        file.items.iter().map(|item| sketch_item(&item.kind)).collect::<Vec<_>>().join("; ")
    }

    fn sketch_item(kind: &ItemKind) -> String {
        match kind {
            ItemKind::Use { path, alias, sha256 } => format!(
                "use {:?} as {} pin {}",
                path.text,
                alias.as_ref().map_or("-", |a| &a.text),
                sha256.as_ref().map_or("-", |s| &s.text)
            ),
            ItemKind::Param { name, ty, value } => {
                format!("param {}: {} = {}", name.text, ty.as_ref().map_or("-", |t| &t.text), expr(value))
            }
            ItemKind::Let { name, value } => format!("let {} = {}", name.text, expr(value)),
            ItemKind::Assert(a) => {
                format!("assert {} {:?}", expr(&a.condition), a.why.as_ref().map(|w| &w.text))
            }
            ItemKind::Bind { kind, name, value } => format!("{} {} = {}", kind.text, name.text, expr(value)),
            ItemKind::Block(block) => sketch_block(block),
        }
    }

    fn sketch_block(block: &ast::Block) -> String {
        let name = block.name.as_ref().map(|n| format!(" {}", n.text)).unwrap_or_default();
        let each: Vec<String> =
            block.each.iter().map(|e| format!("{} in {}", e.var.text, expr(&e.values))).collect();
        let each = if each.is_empty() { String::new() } else { format!("[{}]", each.join(", ")) };
        let entries: Vec<String> = block
            .entries
            .iter()
            .map(|entry| match &entry.kind {
                EntryKind::Field { key, value } => format!("{} = {}", path(key), expr(value)),
                EntryKind::Constraint(e) => expr(e),
                EntryKind::Block(b) => sketch_block(b),
                EntryKind::Assert(a) => format!("assert {}", expr(&a.condition)),
            })
            .collect();
        format!("{}{name}{} {{{}}}", block.kind.text, each, entries.join(", "))
    }

    fn path(path: &Path) -> String {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|segment| match segment {
                PathSegment::Name(name) => format!(".{}", name.text),
                PathSegment::Pick(pick) => {
                    let values = pick.values.iter().map(|picked| match picked {
                        Picked::One(value) => expr(value),
                        Picked::Every(_) => "*".to_owned(),
                    });
                    format!("[{}]", values.collect::<Vec<_>>().join(", "))
                }
            })
            .collect();
        parts.concat().trim_start_matches('.').to_owned()
    }

    fn expr(e: &Expr) -> String {
        let list = |items: &[Expr]| items.iter().map(expr).collect::<Vec<_>>();
        match &e.kind {
            ExprKind::Quantity(q) => {
                format!("{}{}", q.value, q.unit.map(|u| format!(" {}", u.word())).unwrap_or_default())
            }
            ExprKind::Str(s) => format!("{s:?}"),
            ExprKind::Path(p) => path(p),
            ExprKind::List(items) => format!("[{}]", list(items).join(", ")),
            ExprKind::Call { callee, args } => {
                let args: Vec<String> = args
                    .iter()
                    .map(|arg| {
                        let name = arg.name.as_ref().map(|n| format!("{}: ", n.text));
                        format!("{}{}", name.unwrap_or_default(), expr(&arg.value))
                    })
                    .collect();
                format!("{}({})", path(callee), args.join(", "))
            }
            ExprKind::Apply { word, arg } => format!("<{} {}>", word.text, expr(arg)),
            ExprKind::Neg(x) => format!("-{}", expr(x)),
            ExprKind::Not(x) => format!("<not {}>", expr(x)),
            ExprKind::Binary { op, left, right, .. } => format!("<{} {op:?} {}>", expr(left), expr(right)),
            ExprKind::Of { share, whole } => format!("<{} of {}>", expr(share), expr(whole)),
            ExprKind::Then(parts) => format!("<{}>", list(parts).join(" then ")),
            ExprKind::Where { subject, predicate } => {
                format!("<{} where {}>", expr(subject), expr(predicate))
            }
            ExprKind::Paren(x) => format!("({})", expr(x)),
            ExprKind::Error => "!".to_owned(),
        }
    }

    fn clean(text: &str) -> String {
        let (file, diagnostics) = parse(FileId(0), text);
        let messages: Vec<&str> = diagnostics.iter().map(|d| d.message.as_str()).collect();
        assert!(messages.is_empty(), "{text}: {messages:?}");
        assert!(file.broken.is_empty());
        sketch(&file)
    }

    #[test]
    fn items_and_entries() {
        for (text, tree) in [
            ("use \"a.curriculum\"", "use \"a.curriculum\" as - pin -"),
            ("use \"a\" as s, sha256: \"f\"", "use \"a\" as s pin f"),
            ("param total: tokens = 50B", "param total: tokens = 50000000000"),
            ("let d = 10% of total", "let d = <1/10 of total>"),
            ("assert a.b <= 4, \"why\"", "assert <a.b Le 4> Some(\"why\")"),
            ("soup s = average(a, b[*], c[42].x)", "soup s = average(a, b[*], c[42].x)"),
            ("source l = s.books where length >= 32Ki", "source l = <s.books where <length Ge 32768>>"),
            ("stage a[o in [1, 2]] {\n  eval e { x = 1 }\n}", "stage a[o in [1, 2]] {eval e {x = 1}}"),
            ("gate { needle(32Ki) >= 95%, a != b }", "gate {<needle(32768) Ge 19/20>, <a Ne b>}"),
            ("source x { where = a >= 4 and b\n  or c }", "source x {where = <<<a Ge 4> And b> Or c>}"),
            ("mix m { s.web = 60%, c = rest, }", "mix m {s.web = 3/5, c = rest}"),
            ("\u{feff}budget {\r\n tokens <= 2B\r\n}\r\n", "budget {<tokens Le 2000000000>}"),
        ] {
            assert_eq!(clean(text), tree, "{text}");
        }
    }

    #[test]
    fn operators_bind_as_documented() {
        for (text, tree) in [
            ("a or b and not c == d", "<a Or <b And <not <c Eq d>>>>"),
            ("a + b * -c - d / e", "<<a Add <b Mul -c>> Sub <d Div e>>"),
            ("2 * 10% of peak", "<2 Mul <1/10 of peak>>"),
            (
                "inherit then hold(until: lr <= 20% of peak) then step(to: 8Ki)",
                "<inherit then hold(until: <lr Le <1/5 of peak>>) then step(to: 8192)>",
            ),
            (
                "0 # a comment\n  # another\n  then linear(to: 1e-5, over: 200 steps)",
                "<0 then linear(to: 1/100000, over: 200 steps)>",
            ),
            ("[1B, heldout 1%, (a),]", "[1000000000, <heldout 1/100>, (a)]"),
            ("f(\n  x: [1,\n 2],\n)", "f(x: [1, 2])"),
            ("where_x of order", "<where_x of order>"),
        ] {
            assert_eq!(clean(&format!("let v = {text}")), format!("let v = {tree}"), "{text}");
        }
    }

    #[test]
    fn spans_end_where_the_text_does() {
        let text = "let v = a  # c\n  then b (x: 1 , y )  # d\n";
        let (file, _) = parse(FileId(0), text);
        let ItemKind::Let { value, .. } = &file.items[0].kind else { panic!() };
        assert_eq!(&text[value.span.range()], "a  # c\n  then b (x: 1 , y )");
        let ExprKind::Then(parts) = &value.kind else { panic!() };
        assert_eq!(&text[parts[0].span.range()], "a");
        let ExprKind::Call { args, .. } = &parts[1].kind else { panic!() };
        assert_eq!(&text[args[0].span.range()], "x: 1");
        assert_eq!(&text[args[1].span.range()], "y");
        assert_eq!(file.comments.len(), 2);
    }

    #[test]
    fn docs_and_attributes_go_with_what_follows() {
        let text = "## one\n##  two\n@cite(\"x\")\nmodel m {\n  ## d\n  @assumed lr = 1\n}";
        let (file, diagnostics) = parse(FileId(0), text);
        assert_eq!(diagnostics, []);
        let docs: Vec<&str> = file.items[0].preface.docs.iter().map(|d| d.text.as_str()).collect();
        assert_eq!(docs, ["one", " two"]);
        assert_eq!(file.items[0].preface.attrs[0].name.text, "cite");
        let ItemKind::Block(block) = &file.items[0].kind else { panic!() };
        assert_eq!(block.entries[0].preface.attrs[0].name.text, "assumed");
        assert_eq!(&text[block.span.range()], &text[text.find("model").unwrap()..]);
        assert_eq!(&text[block.brace.range()], "{");
    }

    /// `line: message` of each diagnostic, and the sketch.
    fn broken(text: &str) -> (Vec<String>, String) {
        let (file, diagnostics) = parse(FileId(0), text);
        let line = |d: &Diagnostic| text[..d.primary.span.start as usize].matches('\n').count() + 1;
        (diagnostics.iter().map(|d| format!("{}: {}", line(d), d.message)).collect(), sketch(&file))
    }

    #[test]
    fn each_broken_entry_has_its_own_line_and_keeps_its_name() {
        let (messages, tree) = broken(
            "let a = \nstage s {\n  tokens = 50 GB\n  lr = 0 then linear(to: 1\n  x = \"abc\n  context = 4Ki\n  batch: 1024 seqs\n  y = 1 == 2 == 3\n}\nlet z = 5 %\n",
        );
        assert_eq!(
            messages,
            [
                "1: a value is missing after `=`",
                "3: unknown magnitude `GB`",
                "4: `(` is never closed",
                "5: a string is never closed",
                "7: `:` between a key and its value",
                "8: a chain of comparisons",
                "10: `%` stands apart from its number",
            ]
        );
        assert_eq!(
            tree,
            "let a = !; stage s {tokens = !, lr = !, x = !, context = 4096, batch = !, y = !}; let z = !"
        );
    }

    #[test]
    fn a_missing_brace_is_told_where_it_belongs() {
        let (messages, tree) = broken("stage a {\n  tokens = 1\n\n## doc\nstage b {\n  tokens = 2\n}\n");
        assert_eq!(messages, ["1: the block `stage a` is never closed"]);
        assert_eq!(tree, "stage a {tokens = 1}; stage b {tokens = 2}");
        let (messages, tree) = broken("stage a {\n  eval e {\n    x = 1\n}\nlet y = 1\n");
        assert_eq!(messages, ["2: the block `eval e` is never closed"]);
        assert_eq!(tree, "stage a {eval e {x = 1}}; let y = 1");
        clean("stage s {\n  eval e {\n  x = 1\n}\n    }\nlet x = 1");
        let (messages, _) = broken("mix m { a = 1\n}\n}\nlet x = 1");
        assert_eq!(messages, ["3: `}` closes nothing"]);
    }

    #[test]
    fn depth_and_noise_cost_a_message_not_a_crash() {
        let deep = format!("let x = {}1{}\nlet y = 2", "(".repeat(1000), ")".repeat(1000));
        assert_eq!(broken(&deep).0, ["1: brackets nested too deeply"]);
        let chain = format!("let x = 1{}", " + 1".repeat(100_000));
        assert_eq!(broken(&chain).0, ["1: an expression nested too deeply"]);
        let flat = format!("let x = [{}]", "1, ".repeat(100_000));
        clean(&flat);
        assert_eq!(broken(&"stage a {\n".repeat(10_000)).0.len(), 10_000);
        let nested: String = (0..10_000).map(|i| format!("{}e {{\n", " ".repeat(i % 50))).collect();
        assert_eq!(broken(&nested).0.len(), 17, "sixteen open blocks and the one too many");
        assert!(!broken(&"e{".repeat(10_000)).0.is_empty());
        assert!(!broken(&"@".repeat(10_000)).0.is_empty());
        assert!(!broken(&"\"(\n".repeat(10_000)).0.is_empty());
        assert!(!broken(&"- ".repeat(100_000)).0.is_empty());
        assert!(!broken(&"not ".repeat(100_000)).0.is_empty());
        assert_eq!(parse(FileId(0), &"a = 1, ".repeat(100_000)).1.len(), 100_000);
    }
}
