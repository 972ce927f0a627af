//! The manual's page on other engines holds the table of what each can do, written from
//! `emit::capability`. `BLESS=1 cargo test --test emit_table` rewrites it.

use std::fmt::Write as _;
use std::path::Path;

use midc::emit::Engine;
use midc::emit::capability::{Answer, TABLE};

const BEGIN: &str = "<!-- Written by `BLESS=1 cargo test --test emit_table`; do not edit. -->\n";
const END: &str = "<!-- End of what is written. -->\n";

fn table() -> String {
    let mut out = String::from("\n| feature |");
    for (_, name) in Engine::ALL {
        let _ = write!(out, " {name} |");
    }
    out.push_str("\n|---|---|---|---|---|\n");
    for row in TABLE {
        let _ = write!(out, "| {} |", row.feature);
        for (engine, _) in Engine::ALL {
            let _ = match row.answer(engine) {
                Answer::Yes => write!(out, " yes |"),
                Answer::Drops(help) => write!(out, " left out: {help} |"),
                Answer::OnlyIf(help) => write!(out, " if {help} |"),
                Answer::Unjudged(help) => write!(out, " **not judged**: {help} |"),
                Answer::No(help) => write!(out, " **no**: {help} |"),
            };
        }
        out.push('\n');
    }
    out.push('\n');
    for (engine, name) in Engine::ALL {
        let _ = writeln!(out, "- `{name}`: {}.", engine.checked());
    }
    out.push('\n');
    out
}

#[test]
fn the_manual_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/engines.md");
    let page = std::fs::read_to_string(&path).expect("the page is in the repository");
    let (head, rest) = page.split_once(BEGIN).expect("a place for the table");
    let (_, tail) = rest.split_once(END).expect("an end of that place");
    let wanted = format!("{head}{BEGIN}{}{END}{tail}", table());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, wanted).expect("writable");
        return;
    }
    assert_eq!(page, wanted, "docs/src/engines.md is stale; BLESS=1 rewrites it");
}
