//! What a check makes of several files, and of mistakes people bring along: whether what it says leads to the mend.

use super::{Curriculum, Options, Setting, check};
use crate::diag::Diagnostic;
use crate::source::MemoryFiles;

/// Check the first of `texts`, with `settings` from outside.
fn of(texts: &[(&str, &str)], settings: &[(&str, &str)]) -> (Option<Curriculum>, Vec<Diagnostic>) {
    let mut files = MemoryFiles::new();
    let ids: Vec<_> = texts.iter().map(|(name, text)| files.add(name, *text)).collect();
    let set = settings.iter().map(|(name, value)| Setting::new(*name, *value)).collect();
    let (curriculum, mut found) = check(&mut files, ids[0], &Options { set });
    found.retain(|d| d.lint.is_none());
    (curriculum, found)
}

/// The lints that one file draws.
fn lints(text: &str) -> Vec<&'static str> {
    let mut files = MemoryFiles::new();
    let file = files.add("run.curriculum", text);
    let (_, found) = check(&mut files, file, &Options::default());
    found.iter().filter_map(|d| d.lint).collect()
}

const MODEL: &str =
    "model m { init = llama(layers: 1, hidden: 16, heads: 2, ffn: 32, vocab: 512), context = 64 }\n";

#[test]
fn a_path_starts_from_the_file_it_is_written_in() {
    let main = format!(
        "use \"sub/t.curriculum\" as t\n{MODEL}source own {{ path = t.files }}\nsource more {{ path = [\"a\", t.one] }}\n\
         stage s {{ from = m, steps = 9, batch = 4 seqs, mix = both, lr = 0.1\n\
         \x20 eval e {{ choice = t.task }}\n gate {{ choice(t.task) >= 1% }}\n}}\n\
         mix both {{ own = 50%, more = 50% }}\n"
    );
    let sub = "let task = \"arc.jsonl\"\nlet files = [\"x\", \"/y\"]\nlet one = \"z\"\n";
    let (curriculum, found) = of(&[("main.curriculum", &main), ("sub/t.curriculum", sub)], &[]);
    assert!(found.is_empty(), "{found:?}");
    let curriculum = curriculum.expect("sound");
    assert_eq!(curriculum.stages[0].evals[0].choice.as_deref(), Some("sub/arc.jsonl"));
    assert_eq!(curriculum.stages[0].gates[0].argument, "sub/arc.jsonl");
    assert_eq!(curriculum.sources[0].path, ["sub/x", "/y"]);
    assert_eq!(curriculum.sources[1].path, ["a", "sub/z"]);
}

#[test]
fn parameters_of_other_files_are_set_by_the_names_that_lead_to_them() {
    let main = "use \"s.curriculum\" as s\nparam here: share = 1%\nlet both = [here, s.share, s.deep.share]\n";
    let texts = [
        ("main.curriculum", main),
        ("s.curriculum", "use \"deep.curriculum\" as deep\nparam share: share = 2%\n"),
        ("deep.curriculum", "param share: share = 3%\n"),
    ];
    let params = |settings: &[(&str, &str)]| {
        let (curriculum, found) = of(&texts, settings);
        assert!(found.is_empty(), "{found:?}");
        let params = curriculum.expect("sound").params;
        params.into_iter().map(|p| (p.name, p.value)).collect::<Vec<_>>()
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(params(&[]), [pair("here", "1%")]);
    let mut set = params(&[("here", "7%"), ("s.share", "8%"), ("s.deep.share", "9%")]);
    set.sort();
    assert_eq!(set.len(), 3);
    assert!(set.contains(&pair("here", "7%")) && set.contains(&pair("s.share", "8%")), "{set:?}");
    assert!(set.iter().any(|(_, value)| value == "9%"), "{set:?}");
    let (_, found) = of(&texts, &[("s.shore", "8%")]);
    assert!(found[0].help[0].contains("did you mean `s.share`?"), "{found:?}");
    let (_, found) = of(&texts, &[("nothing_like_it", "8%")]);
    assert!(found[0].help[0].contains("`here`, `s.share`, `s.deep.share`"), "{found:?}");
}

#[test]
fn a_rate_may_rise_as_far_as_the_batch_has_grown() {
    let text = |batch: &str, peak: &str| {
        format!(
            "{MODEL}source web {{ path = \"w\", tokens = 9M }}\n\
             stage a {{ from = m, steps = 99, batch = 4 seqs, mix = web, lr = 1e-4 then hold, data_seed = 1 }}\n\
             stage b {{ from = a, steps = 99, batch = {batch}, data_seed = 2\n\
             \x20 lr = inherit then linear(to: {peak}, over: 9 steps) then linear(to: 0)\n}}\n"
        )
    };
    let rises = |batch: &str, peak: &str| lints(&text(batch, peak)).contains(&"lr_rises_in_decay");
    assert!(rises("4 seqs", "2e-4"));
    assert!(!rises("16 seqs", "2e-4"));
    assert!(!rises("16 seqs", "4e-4"));
    assert!(rises("16 seqs", "5e-4"));
}

/// A stage with these fields beside those that it must have.
fn stage(fields: &str) -> String {
    format!(
        "{MODEL}source web {{ path = \"w\", tokens = 9M }}\nsource qa {{ path = \"q\", tokens = 9M }}\n\
         stage s {{\n from = m, data_seed = 1\n{fields}\n}}\n"
    )
}

/// The stage of a file without mistakes.
fn sound(text: &str) -> super::Stage {
    let (curriculum, found) = of(&[("run.curriculum", text)], &[]);
    assert!(found.is_empty(), "{text}{found:?}");
    curriculum.expect("sound").stages.remove(0)
}

/// A place is the same one in every curve, also behind a warm-up in steps.
#[test]
fn a_hold_ends_at_a_place_of_the_stage() {
    let s = sound(&stage(
        "steps = 100, batch = 4 seqs, mix = web then hold(until: 10_240) then step(to: qa) then hold\n\
         lr = 0 then linear(to: 0.01, over: 7 steps) then hold(until: 40% of stage) then linear(to: 0)",
    ));
    assert_eq!((s.lr.segments[1].start, s.lr.segments[1].end), (7 * 256, 10_240));
    assert_eq!(s.mix[1].weight.value(10_239), 0.0);
    assert_eq!(s.mix[1].weight.value(10_240), 1.0);
    let s = sound(&stage(
        "tokens = 25_600, mix = web\nbatch = 4 seqs then hold(until: 40% of stage) then step(to: 8 seqs) then hold\n\
         lr = 0 then linear(to: 0.01, over: 7 steps) then hold(until: 40 steps) then linear(to: 0)",
    ));
    assert_eq!((s.phases[1].tokens, s.phases[1].sequences), (10_240, 8));
    assert_eq!(s.lr.segments[1].end, 10_240);
    let (_, found) = of(
        &[("run.curriculum", &stage("steps = 9, batch = 4 seqs, mix = web, lr = 1e-3 then hold(over: 4 steps) then hold(until: 3 steps) then linear(to: 0)"))],
        &[],
    );
    assert!(found[0].message.contains("not behind the place where its `hold` begins"), "{found:?}");
}

/// Where the batch is so many tokens, no step waits for the context to be known.
#[test]
fn a_context_may_be_laid_in_steps_over_a_batch_in_tokens() {
    for context in ["64 then hold(over: 6 steps) then step(to: 128) then hold", "64 then hold(over: 60% of stage) then step(to: 128) then hold"]
    {
        let s = sound(&stage(&format!("steps = 10, batch = 256 tokens, context = {context}, mix = web, lr = 1e-3")));
        assert_eq!(s.phases.iter().map(|p| (p.step, p.context)).collect::<Vec<_>>(), [(0, 64), (6, 128)]);
        let rows = stage(&format!("steps = 10, batch = 4 seqs, context = {context}, mix = web, lr = 1e-3"));
        let (_, found) = of(&[("run.curriculum", &rows)], &[]);
        assert!(found[0].primary.text.contains("is known once this curve is laid"), "{found:?}");
    }
    // It is held to its stage as any other curve.
    let long = stage("steps = 10, batch = 256 tokens, context = 64 then hold(over: 60 steps) then step(to: 128) then hold, mix = web, lr = 1e-3");
    let (_, found) = of(&[("run.curriculum", &long)], &[]);
    assert_eq!(found.len(), 1, "{found:?}");
}
