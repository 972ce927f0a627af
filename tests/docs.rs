//! The reference manual under `docs/src/` is written from the schema table, the explain pages and
//! the example library. This test fails when it is stale; `BLESS=1 cargo test --test docs` rewrites it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use midc::diag::{CODES, CodeInfo, Level};
use midc::schema::{self, Block, Family, Function, Word};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compare a chapter with what it should be, or write it.
#[track_caller]
fn chapter(name: &str, text: &str) {
    let path = root().join("docs/src").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).expect("writable");
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let line = found.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or(found.lines().count());
    assert!(found == text, "docs/src/{name} is stale from line {}; BLESS=1 rewrites it", line + 1);
}

const NOTE: &str = "<!-- Written by `BLESS=1 cargo test --test docs`; do not edit. -->\n\n";

/// A cell of a table: no line breaks, no bare bars.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[test]
fn blocks() {
    let mut out = format!("{NOTE}# Blocks and fields\n");
    for block in schema::BLOCKS {
        write_block(&mut out, block);
    }
    chapter("blocks.md", &out);
}

fn write_block(out: &mut String, block: &Block) {
    let inside = block.inside.map_or(String::new(), |outer| format!(" (inside `{outer}`)"));
    let _ = write!(out, "\n## `{}`{inside}\n\n{}\n", block.keyword, block.doc);
    if let Some(open) = block.open {
        let _ = write!(out, "\nIts entries are {open}.\n");
    }
    if block.fields.is_empty() {
        return;
    }
    out.push_str("\n| field | takes | meaning |\n|---|---|---|\n");
    for field in block.fields {
        let mut notes = Vec::new();
        if field.required {
            notes.push("Required.".to_owned());
        }
        if field.inherited {
            notes.push("Taken over from the stage in `from`.".to_owned());
        }
        if let Some(default) = field.default {
            notes.push(format!("Default `{default}`."));
        }
        let takes = match field.ty {
            schema::Ty::Word(words) => {
                words.iter().map(|word| format!("`{}`", word.name)).collect::<Vec<_>>().join(", ")
            }
            ty => ty.describe().to_owned(),
        };
        let meaning = std::iter::once(field.doc.to_owned()).chain(notes).collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "| `{}` | {} | {} |", field.name, cell(&takes), cell(&meaning));
    }
}

#[test]
fn functions() {
    let mut out = format!("{NOTE}# Functions\n");
    for (family, title, text) in [
        (
            Family::Segment,
            "Segments of a curve",
            "A segment stands after `then`. It starts where the one before ended, a, and goes to `to`, b; u in [0, 1] is the progress inside it. At most one segment of a curve may leave out `over` and takes what is left of the stage.",
        ),
        (Family::Curve, "Curves", ""),
        (
            Family::Rope,
            "RoPE",
            "θ_d = base^(−2d/D); s is the factor. Every method equals its namesake in Hugging Face transformers on every frequency.",
        ),
        (Family::Mix, "Mixtures", ""),
        (Family::Init, "Architectures", ""),
        (Family::Optimizer, "Optimizers", ""),
        (Family::Soup, "Weight averages", ""),
        (Family::Fim, "Document transformations", ""),
        (Family::Order, "Orders of a source", ""),
        (Family::Measure, "Measurements in gates", ""),
    ] {
        let _ = write!(out, "\n## {title}\n");
        if !text.is_empty() {
            let _ = write!(out, "\n{text}\n");
        }
        for function in schema::FUNCTIONS.iter().filter(|function| function.family == family) {
            write_function(&mut out, function);
        }
        if family == Family::Init {
            out.push_str("\n### Presets\n\n| name | what it is |\n|---|---|\n");
            for preset in schema::PRESETS {
                let _ = writeln!(
                    out,
                    "| `{}` | {}: {}, {} layers of {}, {} heads ({} for keys and values), feed-forward {}, vocabulary {} |",
                    preset.name,
                    preset.doc,
                    preset.model_type,
                    preset.layers,
                    preset.hidden,
                    preset.heads,
                    preset.kv_heads,
                    preset.ffn,
                    preset.vocab
                );
            }
        }
    }
    chapter("functions.md", &out);
}

fn write_function(out: &mut String, function: &Function) {
    let mut args: Vec<String> = function.positional.iter().map(|what| format!("*{what}*")).collect();
    args.extend(
        function.params.iter().map(|p| if p.required { p.name.to_owned() } else { format!("{}?", p.name) }),
    );
    args.extend(function.open.iter().map(|what| format!("*{what}*")));
    let _ = write!(out, "\n### `{}`\n\n({})\n\n{}\n", function.name, args.join(", "), function.doc);
    if function.params.is_empty() {
        return;
    }
    out.push_str("\n| argument | takes | meaning |\n|---|---|---|\n");
    for param in function.params {
        let default = param.default.map_or(String::new(), |default| format!(" Default `{default}`."));
        let _ = writeln!(
            out,
            "| `{}` | {} | {}{} |",
            param.name,
            cell(param.ty.describe()),
            cell(param.doc),
            default
        );
    }
}

#[test]
fn words() {
    let mut out = format!("{NOTE}# Words, units, attributes\n");
    let groups: [(&str, &[Word]); 13] = [
        ("Units, after a number", schema::UNITS),
        ("Kinds of source", schema::KINDS),
        ("Orders of a source", schema::ORDERS),
        ("`attention`", schema::ATTENTION),
        ("`packing`", schema::PACKING),
        ("`state`", schema::STATE),
        ("`precision`", schema::PRECISION),
        ("`weights` of a mix", schema::WEIGHTS),
        ("`style` of `fim`", schema::PSM),
        ("Accelerators of a `budget`", schema::ACCELERATOR_WORDS),
        ("Levels of a lint", schema::LEVELS),
        ("Types of a `param`", schema::PARAM_TYPES),
        ("Names with a meaning inside values", schema::RESERVED),
    ];
    for (title, words) in groups {
        let _ = write!(out, "\n## {title}\n\n| word | meaning |\n|---|---|\n");
        for word in words {
            let _ = writeln!(out, "| `{}` | {} |", word.name, cell(word.doc));
        }
    }
    out.push_str("\n## Attributes\n\n| attribute | meaning |\n|---|---|\n");
    for attribute in schema::ATTRIBUTES {
        let _ = writeln!(out, "| `@{}` | {} |", attribute.name, cell(attribute.doc));
    }
    chapter("words.md", &out);
}

/// A page one level down.
fn demoted(page: &str) -> String {
    let mut fenced = false;
    let mut out = String::new();
    for line in page.trim_end().lines() {
        fenced ^= line.starts_with("```");
        if line.starts_with('#') && !fenced {
            out.push('#');
        }
        // The book shows both kinds of example alike.
        out.push_str(if line.starts_with("```curriculum") { "```curriculum" } else { line });
        out.push('\n');
    }
    out
}

fn index(codes: &[&CodeInfo]) -> String {
    let mut out = String::from("| code | lint | default | what |\n|---|---|---|---|\n");
    for info in codes {
        let level = match info.level {
            Level::Allow => "allow",
            Level::Warn => "warn",
            Level::Deny => "deny",
        };
        let lint = info.lint.map_or(String::new(), |lint| format!("`{lint}`"));
        let _ = writeln!(out, "| {} | {lint} | {level} | {} |", info.code, cell(info.title));
    }
    out
}

#[test]
fn lints() {
    let lints: Vec<&CodeInfo> = CODES.iter().filter(|info| info.lint.is_some()).collect();
    let mut out = format!(
        "{NOTE}# Lints\n\nWhat is legal and unwise. A level comes, each over the one before, from this table, from `lints {{ }}` in\nthe file, from `@allow`, `@warn` and `@deny` before an item or entry, and from `-A`, `-W` and `-D`.\n\n{}",
        index(&lints)
    );
    for info in lints {
        let _ = write!(out, "\n{}", demoted(info.page));
    }
    chapter("lints.md", &out);
}

#[test]
fn errors() {
    let errors: Vec<&CodeInfo> = CODES.iter().filter(|info| info.lint.is_none()).collect();
    let mut out = format!(
        "{NOTE}# Errors\n\nWhat cannot be run. An error has no level.\n\n| code | what |\n|---|---|\n"
    );
    for info in &errors {
        let _ = writeln!(out, "| {} | {} |", info.code, cell(info.title));
    }
    for info in errors {
        let _ = write!(out, "\n{}", demoted(info.page));
    }
    chapter("errors.md", &out);
}

/// The comment a file begins with, without its marks.
fn header(text: &str) -> String {
    let lines = text.lines().take_while(|line| line.starts_with('#'));
    lines
        .map(|line| line.trim_start_matches('#').strip_prefix(' ').unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

fn curricula(directory: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(directory)).expect("the directory is in the repository");
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "curriculum"))
        .collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a file").to_string_lossy().into_owned()
}

/// What midc prints, run in the directory of the file.
fn midc(args: &[&str], path: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_midc"))
        .current_dir(path.parent().expect("a directory"))
        .env("NO_COLOR", "1")
        .args(args)
        .arg(path.file_name().expect("a file"))
        .output()
        .expect("midc runs");
    String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect()
}

#[test]
fn recipes() {
    let mut out = format!(
        "{NOTE}# Published recipes\n\nEach file of `examples/recipes/` is a run as it was published, with `@cite` on what a paper or\nconfiguration gives and `@assumed` on what none does; `midc plan` marks the assumptions. What the papers\nstate about the whole is asserted, and shown here below each description.\n"
    );
    for path in curricula("examples/recipes") {
        let text = std::fs::read_to_string(&path).expect("readable");
        let head = header(&text);
        let (title, rest) = head.split_once("\n\n").unwrap_or((&head, ""));
        let _ = write!(out, "\n## `{}.curriculum`\n\n{}\n", stem(&path), title.replace('\n', " "));
        if !rest.is_empty() {
            let _ = write!(out, "\n{rest}\n");
        }
        let mut inside = false;
        let of_assert = |line: &&str| {
            // A long one goes on in indented lines.
            inside = line.starts_with("assert ") || inside && line.starts_with(' ');
            inside
        };
        let asserts: Vec<&str> = text.lines().filter(of_assert).collect();
        if !asserts.is_empty() {
            let _ = write!(out, "\n```curriculum\n{}\n```\n", asserts.join("\n"));
        }
    }
    chapter("recipes.md", &out);
}

#[test]
fn mistakes() {
    let mut out = format!(
        "{NOTE}# Published mistakes\n\nEach happened in a serious public training stack. `examples/published-mistakes/` has every one as a\ncurriculum, reduced to what matters, and its corrected twin.\n"
    );
    for path in curricula("examples/published-mistakes") {
        let name = stem(&path);
        if name.ends_with(".fixed") {
            continue;
        }
        let launched = std::fs::read_to_string(&path).expect("readable");
        let fixed =
            std::fs::read_to_string(path.with_file_name(format!("{name}.fixed.curriculum"))).expect("a twin");
        let (number, words) = name.split_once('_').expect("mNN_name");
        let head = header(&launched);
        let (_, story) = head.split_once("\n\n").expect("a story after what is expected");
        let _ = write!(out, "\n## {}: {}\n\n{story}\n", number.to_uppercase(), words.replace('_', " "));
        let _ = write!(out, "\n```text\n{}```\n", midc(&["check", "--format", "concise"], &path));
        let _ = write!(
            out,
            "\n{} What changes:\n\n```diff\n{}```\n",
            header(&fixed).replace('\n', " "),
            changed(&launched, &fixed)
        );
    }
    chapter("mistakes.md", &out);
}

/// The lines that differ, beginning and end apart.
fn changed(before: &str, after: &str) -> String {
    let body = |text: &str| -> Vec<String> {
        text.lines().skip_while(|line| line.starts_with('#')).map(str::to_owned).collect()
    };
    let (a, b) = (body(before), body(after));
    // Longest common subsequence; the files are short.
    let mut length = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            length[i][j] =
                if a[i] == b[j] { length[i + 1][j + 1] + 1 } else { length[i + 1][j].max(length[i][j + 1]) };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || i < a.len() && length[i + 1][j] >= length[i][j + 1] {
            let _ = writeln!(out, "-{}", a[i]);
            i += 1;
        } else {
            let _ = writeln!(out, "+{}", b[j]);
            j += 1;
        }
    }
    out
}
