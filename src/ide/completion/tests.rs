//! What is offered where, by cursor fixtures.

use super::*;
use crate::ide::testing::{CLEAN, cursor};
use crate::source::MemoryFiles;

fn labels(marked: &str) -> Vec<String> {
    let (text, offset) = cursor(marked);
    let mut files = MemoryFiles::new();
    let main = files.add("main.curriculum", text.as_str());
    files.add("lib.curriculum", crate::ide::testing::LIBRARY);
    let names = Names::load(&mut files, main);
    complete(&names, &files, main, offset).into_iter().map(|c| c.label).collect()
}

/// `text` at the end of the clean fixture: each of `has` is offered, none of `not`.
fn offers(text: &str, has: &[&str], not: &[&str]) {
    let found = labels(&format!("{CLEAN}{text}"));
    for label in has {
        assert!(found.iter().any(|f| f == label), "{text:?} lacks {label}: {found:?}");
    }
    for label in not {
        assert!(!found.iter().any(|f| f == label), "{text:?} offers {label}: {found:?}");
    }
}

#[test]
fn what_fits_the_place() {
    offers("st$0", &["stage", "use", "assert", "soup", "budget"], &["eval", "lr"]);
    offers("stage x {\n  from = base\n  $0\n}", &["lr", "tokens", "eval", "gate"], &["from", "stage"]);
    offers("stage x {\n  from = $0\n}", &["base", "anneal", "final"], &["quality", "s.web"]);
    offers("stage x {\n  mix = $0\n}", &["quality", "s.web", "upsample"], &["base", "linear"]);
    offers("stage x {\n  batch = 1024 $0\n}", &["seqs", "tokens", "then"], &["steps", "epochs"]);
    offers("stage x {\n  lr = 1e-5 then $0\n}", &["linear", "hold", "cosine"], &["yarn", "adamw"]);
    offers("stage x {\n  lr = 1e-5 then linear($0", &["to", "over"], &["factor"]);
    offers("stage x {\n  lr = 1e-5 then linear(to: 0, $0", &["over"], &["to"]);
    offers("stage x {\n  lr = 1e-5 then linear(to: 0, over: 5% $0", &["of"], &["over"]);
    offers("stage x {\n  lr = 1e-5 then linear(to: 0, over: 5% of $0", &["stage", "total"], &["of"]);
    offers("stage x {\n  attention = $0\n}", &["causal", "documents"], &["keep"]);
    offers("stage x {\n  rope = $0\n}", &["yarn", "abf", "llama3"], &["linear"]);
    offers("mix x { $0", &["s.web", "s.math", "quality"], &["base", "anneal"]);
    offers("mix x { s.web = $0", &["rest"], &["s.math"]);
    offers("mix x { s.$0", &["web", "math"], &["quality"]);
    offers("source x {\n  kind = $0\n}", &["web", "math"], &["yes"]);
    offers("model x {\n  init = $0\n}", &["llama", "smollm2_135m"], &["yarn"]);
    offers("assert anneal.$0", &["lr", "half", "mix"], &["base"]);
    offers("assert anneal.lr.$0", &["end", "peak"], &["half"]);
    offers("assert anneal.mix.$0", &["s.web"], &["lr"]);
    offers("@$0", &["allow", "cite"], &["stage"]);
    offers("@allow($0", &["lr_jump"], &["stage"]);
    offers("lints { $0", &["unused_mix"], &["stage"]);
    offers("param x: $0", &["tokens", "share"], &["stage"]);
    offers("soup x = average($0", &["anneal", "final"], &["base"]);
    offers("stage x { eval e { $0", &["every", "needle"], &["lr"]);
    offers("stage x { gate { $0", &["needle", "loss"], &["lr"]);
}

#[test]
fn fields_of_a_broken_block_are_not_offered_twice() {
    let found = labels("stage x {\n  lr = (((\n  tokens = 5 GB\n  $0\n  context = 4Ki\n}\n");
    assert!(found.contains(&"from".to_owned()));
    for written in ["lr", "tokens", "context"] {
        assert!(!found.contains(&written.to_owned()), "{written}");
    }
}

#[test]
fn nothing_inside_comments_and_texts() {
    assert_eq!(labels("# stage $0"), Vec::<String>::new());
    assert_eq!(labels("assert 1 == 1, \"st$0"), Vec::<String>::new());
}
