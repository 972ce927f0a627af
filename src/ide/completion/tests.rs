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
fn what_follows_an_operand() {
    offers("assert anneal.lr.end $0", &["<=", "=="], &["anneal", "and"]);
    offers("assert anneal.lr.end == 0 $0", &["and", "or"], &["anneal", "=="]);
    offers("assert anneal.lr.end == 0 and $0", &["anneal"], &["and"]);
    offers("assert anneal.lr.end == 0, $0", &[], &["anneal", "and"]);
    offers("stage x { gate { needle(4Ki) >= 98% $0", &["of", "and"], &["needle", "lr"]);
    offers("stage x { gate { needle(4Ki) >= 98% of $0", &["from"], &["needle", "lr"]);
    offers("source x = s.math $0", &["where"], &["then"]);
    offers("source x = s.math where $0", &["length"], &["then"]);
    offers("source x = s.math where length $0", &[">="], &["then", "where", "length"]);
    offers("budget { tokens $0", &["<="], &["lr"]);
    offers("budget { tokens <= $0", &["total_tokens"], &["lr", "anneal"]);
}

#[test]
fn kinds_that_fit() {
    let late = "stage x {\n  from = anneal\n}\nstage y {\n  from = x.$0\n}";
    offers(late, &[], &["lr", "mix"]);
    offers("stage x {\n  from = anneal.$0\n}", &["half"], &["lr", "mix"]);
    let early = CLEAN.replacen("from      = base", "from      = $0", 1);
    let found = labels(&early);
    assert!(found.contains(&"base".to_owned()), "{found:?}");
    for later in ["anneal", "after", "final"] {
        assert!(!found.contains(&later.to_owned()), "{later}: {found:?}");
    }
    offers("stage x {\n  lr = 1 then linear(to: $0", &["0"], &["s.web", "quality"]);
    offers("stage x {\n  mix = s.web then linear(to: $0", &["s.web", "quality"], &["0", "total_tokens"]);
    offers("stage x {\n  lr = 1 then linear(to: 0, over: 5% of $0", &["stage", "total"], &["peak", "from"]);
    offers("model x {\n  rope = rope(theta: $0", &[], &["total_tokens"]);
    offers("stage x {\n  tokens = $0\n}", &["total_tokens"], &[]);
    offers("@cite($0", &[], &["lr_jump"]);
    offers("assert anneal.mix.s.$0", &["web", "math"], &["weight"]);
    offers("assert anneal.mix.s.web.$0", &["weight"], &["math"]);
    offers("stage x[k in [1, 2]] {\n}\nassert x[$0", &["1", "2", "*"], &["anneal", "x"]);
    offers("stage x[k in [1, 2], s in [10%, 30%]] {\n}\nassert x[1, $0", &["10%", "30%", "*"], &["1", "2"]);
}

#[test]
fn what_the_place_makes_possible() {
    let many = "stage x[seed in [1, 2]] {\n  from = anneal\n  ";
    offers(&format!("{many}data_seed = $0\n}}"), &["seed"], &["x"]);
    offers(&format!("{many}lr = inherit then linear(to: $0\n}}"), &["seed"], &[]);
    offers("stage y {\n  data_seed = $0\n}", &[], &["seed"]);
    let grid = "stage x[top in [1e-3, 2e-3], seed in [1, 2]] {\n  from = anneal\n  ";
    offers(&format!("{grid}data_seed = $0\n}}"), &["seed", "top"], &["x"]);
    offers(&format!("{grid}mix {{ $0 }}\n}}"), &["s.web", "quality"], &["lr"]);
    offers(&format!("{grid}mix {{ s.web = $0 }}\n}}"), &["seed", "rest"], &[]);
    offers("stage x {\n  $0\n}", &["mix { … }"], &[]);
    offers("stage x {\n  $0\n}", &["assert"], &["let", "param"]);
    offers("stage x {\n  mix = $0\n}", &["anneal.mix", "after.mix"], &["x.mix"]);
    offers("mix x { $0", &["anneal.mix", "s.web"], &[]);
    offers("stage x[k in [1, 2]] {\n}\nstage y {\n  mix = $0\n}", &["anneal.mix"], &["x.mix"]);
    offers("mix x = upsample(quality, $0", &["web", "math"], &["s.web", "s.math", "quality"]);
    offers("mix x = upsample(quality, math: 2, $0", &["web"], &["math"]);
    offers("mix x = upsample($0", &["quality", "s.web"], &["math"]);
    offers("source x {\n  where = score >= $0\n}", &["total_tokens", "length"], &["quality"]);
}

#[test]
fn what_is_written_or_would_be_a_circle_is_left_out() {
    offers("mix x { s.web = 10%, $0 }", &["s.math", "quality"], &["s.web", "x"]);
    offers("mix x { s.web = 10%, s.$0 }", &["math"], &["web"]);
    offers("mix x { $0 }\nmix y { x = 50%, s.web = rest }", &["quality"], &["x", "y"]);
    offers("lints { unused_mix = allow, $0 }", &["unused_let"], &["unused_mix"]);
    offers("let a = $0\nlet b = a", &["total_tokens"], &["a", "b"]);
    offers("soup x = average($0)", &["anneal", "final"], &["x"]);
    // A condition may speak of the stage that it stands in.
    offers("stage x {\n  from = base\n  assert $0\n}", &["x", "anneal"], &[]);
}

#[test]
fn what_stands_behind_the_cursor_stays() {
    let inserted = |marked: &str, label: &str| {
        let (text, offset) = cursor(marked);
        let mut files = MemoryFiles::new();
        let main = files.add("main.curriculum", text.as_str());
        let names = Names::load(&mut files, main);
        let found = complete(&names, &files, main, offset);
        found.into_iter().find(|c| c.label == label).map(|c| c.insert)
    };
    assert_eq!(inserted("stage x { fro$0 = main }", "from").as_deref(), Some("from"));
    assert_eq!(inserted("stage x { fro$0 }", "from").as_deref(), Some("from = $0"));
    assert_eq!(inserted("stage x { lr = 1 then lin$0(to: 0) }", "linear").as_deref(), Some("linear"));
    assert_eq!(inserted("stage x { lr = 1 then linear(t$0: 0) }", "to").as_deref(), Some("to"));
}

#[test]
fn keys_of_inner_blocks_are_not_those_of_the_stage() {
    let stage = "stage x {\n  checkpoint half { at = 1B, keep = forever }\n  save_every = 1B\n  $0\n}\n";
    let found = labels(stage);
    assert!(found.contains(&"keep".to_owned()) && !found.contains(&"save_every".to_owned()), "{found:?}");
    let found = labels("source x {\n  path = \"a#b\", kind = web\n  $0\n}\n");
    assert!(!found.contains(&"kind".to_owned()), "{found:?}");
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
