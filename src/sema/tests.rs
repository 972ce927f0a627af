//! What a check makes of several files, and of mistakes people bring along: whether what it says leads to the mend.

use super::{Curriculum, Options, Setting, check};
use crate::diag::fix::apply_edits;
use crate::diag::{Diagnostic, Edit};
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
    let main =
        "use \"s.curriculum\" as s\nparam here: share = 1%\nlet both = [here, s.share, s.deep.share]\n";
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
        &[(
            "run.curriculum",
            &stage(
                "steps = 9, batch = 4 seqs, mix = web, lr = 1e-3 then hold(over: 4 steps) then hold(until: 3 steps) then linear(to: 0)",
            ),
        )],
        &[],
    );
    assert!(found[0].message.contains("not behind the place where its `hold` begins"), "{found:?}");
}

/// Where the batch is so many tokens, no step waits for the context to be known.
#[test]
fn a_context_may_be_laid_in_steps() {
    let phases = |text: &str| {
        let s = sound(text);
        s.phases.iter().map(|p| (p.step, p.context)).collect::<Vec<_>>()
    };
    let with = |batch: &str, context: &str| {
        stage(&format!("steps = 10, batch = {batch}, context = {context}, mix = web, lr = 1e-3"))
    };
    let in_steps = "64 then hold(over: 6 steps) then step(to: 128) then hold";
    let in_shares = "64 then hold(over: 60% of stage) then step(to: 128) then hold";
    for text in [with("256 tokens", in_steps), with("256 tokens", in_shares), with("4 seqs", in_steps)] {
        assert_eq!(phases(&text), [(0, 64), (6, 128)], "{text}");
    }
    // The share of a stage whose tokens hang on the very curve.
    let (_, found) = of(&[("run.curriculum", &with("4 seqs", in_shares))], &[]);
    assert!(found[0].primary.text.contains("is known once this curve is laid"), "{found:?}");
    // It is held to its stage as any other curve.
    let long = stage(
        "steps = 10, batch = 256 tokens, context = 64 then hold(over: 60 steps) then step(to: 128) then hold, mix = web, lr = 1e-3",
    );
    let (_, found) = of(&[("run.curriculum", &long)], &[]);
    assert_eq!(found.len(), 1, "{found:?}");
}

/// `text` with these edits, which do not overlap.
fn mended<'d>(text: &str, edits: impl Iterator<Item = &'d Edit>) -> String {
    apply_edits(&edits.collect::<Vec<_>>(), text)
}

/// Mistakes that other tools and languages teach, and what must be said of each: the place, a part of the help, and
/// what the fix makes of the line, where one is offered.
#[test]
fn habits_are_told_what_is_written_here() {
    let rest = "batch = 4 seqs, mix = web";
    for (line, place, help, fixed) in [
        ("lr = 3e-4 cosine", "cosine", "`3e-4 then cosine(to: …)`", None),
        ("lr = 3e-4 hold", "hold", "`3e-4 then hold`", None),
        ("lr = 3e-4 cosine(to: 0)", "cosine", "goes on with `then`", Some("lr = 3e-4 then cosine(to: 0)")),
        ("lr = 3e-4 -> 0", "-", "`3e-4 then linear(to: 0)`", None),
        ("lr = 3e-4, then cosine(to: 0)", "then", "no comma before `then`", None),
        ("lr = cosine(3e-4, 0)", "3e-4", "the value it starts from stands before `then`", None),
        ("lr = cosine(3e-4, 0)", "0", "write `to: …`", Some("lr = cosine(3e-4, to: 0)")),
        (
            "lr = 1e-3 then linear(3e-5, 2000 steps)",
            "2000 steps",
            "write `over: …`",
            Some("lr = 1e-3 then linear(3e-5, over: 2000 steps)"),
        ),
        ("lr = 1e-3 then hold(5B)", "5B", "write `over: …`", Some("lr = 1e-3 then hold(over: 5B)")),
        ("lr = 1e-3 then poly(0, 2)", "2", "write `power: …`", None),
        ("lr = 1e-3 then sinus(to: 0)", "sinus", "`one_minus_sqrt(…)`", None),
        ("lr = sinus(1)", "sinus", "`one_minus_sqrt(…)`", None),
        ("gate { bleu(web) >= 1 }", "bleu", "`needle(…)`, `loss(…)`, `choice(…)`", None),
        (
            "lr = 3e-4 then linear(to: 0.1 * peak)",
            "*",
            "write `10% of peak`",
            Some("lr = 3e-4 then linear(to: 10% of peak)"),
        ),
        (
            "lr = 3e-4 then linear(to: peak / 10)",
            "/",
            "write `10% of peak`",
            Some("lr = 3e-4 then linear(to: 10% of peak)"),
        ),
        ("tokens = part * trunk", "*", "write `part of trunk`", Some("tokens = part of trunk")),
        ("tokens = 10% * 5M", "10% * 5M", "write `10% of 5M`", Some("tokens = 10% of 5M")),
        ("mix = 60% web + 40% qa", "web", "`mix NAME { web = 60% … }`", None),
        ("mix = 60% * web + 40% * qa", "*", "`mix NAME { web = 60%, code = rest }`", None),
        (
            "optimizer = adamw(betas: (0.9, 0.95))",
            ",",
            "write `[…]`",
            Some("optimizer = adamw(betas: [0.9, 0.95])"),
        ),
        ("lr = 1e-3 then hold(until: 10% of peak)", "10% of peak", "", None),
        ("lr = 1e-3 then hold(until: lr <= 1e-4)", "lr <= 1e-4", "`hold(until: 10% of stage)`", None),
        ("steps = 500000B", "500000B", "`tokens = 500000B`", None),
        ("gate = loss(web) <= 2", "gate", "`gate { loss(web) <= 2.5 }`", None),
    ] {
        let key = |key: &str| line.starts_with(key) || rest.contains(key) && !line.starts_with(key);
        let mut fields = vec![line];
        fields.extend(rest.split(", ").filter(|f| f.split(' ').next() != line.split(' ').next()));
        fields.extend((!key("lr")).then_some("lr = 1e-3"));
        fields.extend((!key("steps") && !key("tokens")).then_some("steps = 9"));
        let text = format!("let part = 10%\nparam trunk: tokens = 5M\n{}", stage(&fields.join("\n")));
        let (_, found) = of(&[("run.curriculum", &text)], &[]);
        let said = |d: &Diagnostic| {
            d.help.iter().any(|h| h.contains(help)) || d.fixes.iter().any(|f| f.title == help)
        };
        let at = |d: &&Diagnostic| &text[d.primary.span.range()] == place && (help.is_empty() || said(d));
        let Some(d) = found.iter().find(at) else { panic!("{line}: {found:?}") };
        if let Some(fixed) = fixed {
            let text = mended(&text, d.fixes.iter().take(1).flat_map(|fix| &fix.edits));
            assert!(text.contains(fixed), "{line}: {:?}", d.fixes);
        }
    }
}

#[test]
fn a_place_in_a_stage_is_a_checkpoint() {
    let text = |checkpoint: &str, from: &str| {
        stage(&format!("steps = 9, batch = 4 seqs, mix = web, lr = 1e-3\n{checkpoint}"))
            + &format!("stage t {{ from = {from}, steps = 9, lr = 1e-3, data_seed = 2 }}\n")
    };
    let help = |text: &str| of(&[("run.curriculum", text)], &[]).1[0].help[0].clone();
    assert_eq!(help(&text("", "s.mid")), "write `checkpoint mid { at = 50% of stage }` in `s`");
    let one = "checkpoint early { at = 2 steps }";
    assert!(help(&text(one, "s.mid")).ends_with("its checkpoints are `early`"));
    assert_eq!(help(&text(one, "s.erly")), "did you mean `early`?");
}

/// Blocks as Python has them: said once each, and in braces all is well.
#[test]
fn blocks_by_indentation_are_told_once() {
    let text = stage("steps = 9, batch = 4 seqs, mix = web, lr = 1e-3\n  eval e { loss = heldout 1% }");
    let head = text.find("stage s {").expect("the stage");
    let lines = "stage s:\n  from = m\n  data_seed = 1\n  steps = 9\n  batch = 4 seqs\n  eval e:\n    loss = heldout 1%\n\
                 \x20 mix = web\n  lr = 1e-3\n\n## The next.\nstage t:\n  from = s\n  steps = 9\n  data_seed = 2\n  lr = 1e-3\n";
    let text = format!("{}{lines}", &text[..head]);
    let (_, found) = of(&[("run.curriculum", &text)], &[]);
    let messages: Vec<&str> = found.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(messages, ["`:` after `stage s`", "`:` after `eval e`", "`:` after `stage t`"]);
    let mended = mended(&text, found.iter().flat_map(|d| &d.fixes[0].edits));
    assert_eq!(sound(&mended).evals.len(), 1);
}

#[test]
fn the_variables_of_a_fan_out_stand_in_one_pair_of_brackets() {
    let said = |head: &str| {
        let (_, found) = of(&[("run.curriculum", &format!("{head} {{ from = m }}\n"))], &[]);
        found.iter().any(|d| d.message == "a second pair of brackets")
    };
    assert!(said("stage s[k in [1]][l in [2]]"));
    assert!(!said("stage s[k in [1], l in [2]]"));
}

#[test]
fn a_haystack_is_no_longer_than_the_longest_row() {
    let text = |needle: &str, gate: &str| {
        format!(
            "{MODEL}source web {{ path = \"w\", tokens = 9M }}\n\
             stage s {{ from = m, steps = 9, batch = 4 seqs, mix = web, lr = 0.1\n\
             \x20 eval e {{ needle = {needle} }}\n gate {{ needle({gate}) >= 1% }}\n}}\n"
        )
    };
    let said = |needle: &str, gate: &str| {
        let (_, found) = of(&[("run.curriculum", &text(needle, gate))], &[]);
        found.into_iter().map(|d| format!("{}: {:?}", d.message, d.help)).collect::<Vec<_>>()
    };
    assert!(said("[4Ki, 64Mi]", "64Mi").is_empty());
    for (needle, gate) in [("[4Ki, 65Mi]", "4Ki"), ("1T", "4Ki"), ("4Ki", "65Mi")] {
        let said = said(needle, gate);
        assert!(said.len() == 1 && said[0].contains("a haystack of"), "{needle} {gate}: {said:?}");
    }
}
