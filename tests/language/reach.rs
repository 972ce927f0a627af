//! Small promises of the language that no code of its own stands for: what is marked as assumed,
//! what is reported beside another mistake, spans in steps.

use midc::plan;
use midc::source::MemoryFiles;

use crate::support::check_text;

const HEAD: &str = "lints {\n  missing_files = allow\n}\nmodel base {\n  init    = llama3_8b\n  context = 4Ki\n}\nsource web {\n  kind = web\n}\nsource code {\n  kind = code\n}\n";

fn stages(text: &str) -> Vec<plan::StagePlan> {
    let mut files = MemoryFiles::new();
    let file = files.add("test.curriculum", format!("{HEAD}{text}"));
    let (curriculum, found) = midc::sema::check(&mut files, file, &midc::sema::Options::default());
    let messages: Vec<&str> = found.iter().map(|d| d.message.as_str()).collect();
    plan::build(&curriculum.unwrap_or_else(|| panic!("{messages:?}"))).stages
}

fn codes(text: &str) -> Vec<String> {
    check_text(&format!("{HEAD}{text}")).0.iter().map(|d| d.code.to_string()).collect()
}

#[test]
fn what_is_assumed_reaches_the_stage() {
    let stages = stages(
        "@assumed(\"not disclosed\")\nlet top = 3e-4\nlet warm = 2 * top\n\
         mix m {\n  web = 60%\n  @assumed(\"read off a figure\")\n  code = rest\n}\nlet outer = m\n\
         stage a {\n  from = base\n  tokens = 10B\n  batch = 1024 seqs\n  mix = outer\n  data_seed = 1\n\
         \x20 lr = 0 then linear(to: warm, over: 1B) then linear(to: 0)\n}\n\
         stage b {\n  from = a\n  tokens = 1B\n  lr = 0 then linear(to: 1e-5, over: 100M) then linear(to: 0)\n  data_seed = 2\n}\n\
         @assumed(\"all of it\")\nstage c {\n  from = b\n  tokens = 1B\n  mix = web\n  lr = 0 then linear(to: 1e-5, over: 100M) then linear(to: 0)\n  data_seed = 3\n}\n",
    );
    assert_eq!(stages[0].assumed, ["lr", "mix"]);
    // Inherited, and so assumed here too.
    assert_eq!(stages[1].assumed, ["mix"]);
    assert_eq!(stages[2].assumed, ["data_seed", "lr", "mix", "tokens"]);
}

#[test]
fn a_batch_without_a_unit_is_reported_beside_a_broken_length() {
    let text = "stage a {\n  from = base\n  tokens = 10 sheep\n  batch = 1024\n  mix = web\n  data_seed = 1\n\
                \x20 lr = 0 then linear(to: 1e-4, over: 1B) then linear(to: 0)\n}\n";
    let found = codes(text);
    assert!(found.contains(&"E0153".to_owned()), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_batch_ramp_in_steps() {
    let stages = stages(
        "stage a {\n  from = base\n  tokens = 40B\n  mix = web\n  data_seed = 1\n\
         \x20 batch = 256 seqs then hold(over: 100 steps) then linear(to: 1024 seqs, over: 500 steps) then hold\n\
         \x20 lr = 0 then linear(to: 1e-4, over: 1B) then linear(to: 0)\n}\n",
    );
    let a = &stages[0];
    assert_eq!(a.step_point(99).sequences, 256);
    assert_eq!(a.step_point(100).sequences, 256);
    assert!(a.step_point(599).sequences < 1024);
    assert_eq!(a.step_point(600).sequences, 1024);
}

#[test]
fn a_fan_out_follows_a_fan_out_member_by_member() {
    let a = "stage a[seed in [1, 2]] {\n  from = base\n  tokens = 10B\n  batch = 1024 seqs\n  mix = web\n  data_seed = seed\n\
             \x20 lr = 0 then linear(to: 1e-4, over: 1B) then hold\n}\n";
    let b = |from: &str| {
        format!(
            "stage b[seed in [1, 2]] {{\n  from = {from}\n  tokens = 1B\n  lr = inherit then linear(to: 0)\n  data_seed = 10 + seed\n}}\n"
        )
    };
    let found: Vec<(String, String)> =
        stages(&format!("{a}{}", b("a[seed]"))).into_iter().map(|s| (s.name, s.from)).collect();
    let expected = [("b[1]", "a[1]"), ("b[2]", "a[2]")];
    assert_eq!(found[2..], expected.map(|(s, f)| (s.to_owned(), f.to_owned())));
    assert_eq!(codes(&format!("{a}{}", b("a"))), ["E0503"]);
}

/// A grid has a member for each combination, the last variable moving fastest, which others start from by its values.
#[test]
fn a_grid_is_followed_by_some_of_its_values() {
    let a = "stage a[top in [1e-4, 2e-4], seed in [1, 2]] {\n  from = base\n  tokens = 10B\n  batch = 1024 seqs\n  mix = web\n\
             \x20 data_seed = seed\n  lr = 0 then linear(to: top, over: 1B) then hold\n}\n";
    let b = |from: &str| {
        format!(
            "stage b[seed in [1, 2]] {{\n  from = {from}\n  tokens = 1B\n  lr = inherit then linear(to: 0)\n  data_seed = 10 + seed\n}}\n"
        )
    };
    let found: Vec<(String, String, f64)> = stages(&format!("{a}{}", b("a[2e-4, seed]")))
        .into_iter()
        .map(|s| (s.name, s.from, s.lr.curve.value(0)))
        .collect();
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    let members = ["a[0.0001, 1]", "a[0.0001, 2]", "a[0.0002, 1]", "a[0.0002, 2]"];
    assert_eq!(names, [&members[..], &["b[1]", "b[2]"]].concat());
    assert_eq!(found[4..].iter().map(|(_, from, _)| from.as_str()).collect::<Vec<_>>(), members[2..]);
    assert!(found[4..].iter().all(|(.., lr)| *lr == 2e-4));
    for from in ["a", "a[*, 1]", "a[*, *]"] {
        assert_eq!(codes(&format!("{a}{}", b(from))), ["E0503"], "{from}");
    }
    let soup = "soup s = average(a[*, 1])\nassert a[*, 1].lr.start == 0\n";
    // Nothing reads `code`.
    assert_eq!(codes(&format!("{a}{soup}")), ["E0250"]);
    assert_eq!(codes(&format!("{a}soup s = average(a[1e-4])\n")), ["E0201"]);
}

/// A mix that stands in a stage is the same as one with a name, and may take the variable of a fan-out.
#[test]
fn a_mix_in_a_stage_is_that_mix() {
    let stage = |mix: &str| {
        format!(
            "stage a[share in [10%, 25%]] {{\n  from = base\n  tokens = 10B\n  batch = 1024 seqs\n  data_seed = 1\n\
             \x20 lr = 0 then linear(to: 1e-4, over: 1B) then hold\n  {mix}\n}}\n"
        )
    };
    let named =
        stages(&format!("mix m {{ web = 90%, code = rest }}\n{}", stage("mix = reweight(m, code: share)")));
    let written = stages(&stage("mix {\n    code = share\n    web = rest\n  }"));
    for (named, written) in named.iter().zip(&written) {
        let shares = |s: &midc::plan::StagePlan| {
            let mut shares: Vec<(String, u64)> = s.mix.iter().map(|m| (m.source.clone(), m.tokens)).collect();
            shares.sort();
            shares
        };
        assert_eq!(shares(named), shares(written));
    }
    assert_eq!(named.len(), 2);
    assert_eq!(codes(&stage("mix = web\n  mix { web = share, code = rest }")), ["E0209"]);
    assert_eq!(codes(&stage("mix m { web = share, code = rest }")), ["E0202"]);
    assert_eq!(codes(&stage("mix { web = share }")), ["E0301", "E0301"]);
}

/// `let` and `param` reach every field, but a word of the field stays one.
#[test]
fn names_stand_for_values_in_every_field() {
    let text = "param spoken: text = \"assistant\"\nparam shape: text = \"smollm2_135m\"\n\
        let tiny = llama(layers: 1, hidden: 16, heads: 2, ffn: 32, vocab: 4096)\nlet small = smollm2_135m\n\
        let by = ascending(length)\nlet plain = as_written\nlet masks = documents\nlet causal = documents\n\
        let both = [\"assistant\", \"user\"]\nlet shuffled = 3\nlet rank = \"score\"\n\
        model written { init = tiny }\nmodel named { init = small }\nmodel asked { init = shape }\n\
        source a { loss_on = spoken, order = by }\nsource b { loss_on = both, order = plain }\n\
        source c { loss_on = [spoken, answer], order = shuffled }\nsource d { order = descending(rank) }\n\
        stage s {\n from = named, tokens = 10B, batch = 1024 seqs, context = 2Ki, mix = m, data_seed = 1\n\
        \x20 lr = 0 then linear(to: 1e-4, over: 1B) then linear(to: 0), attention = masks\n}\n\
        stage t {\n from = named, tokens = 10B, batch = 1024 seqs, context = 2Ki, mix = m, data_seed = 2\n\
        \x20 lr = 0 then linear(to: 1e-4, over: 1B) then linear(to: 0), attention = causal\n}\n\
        mix m { a = 25%, b = 25%, c = 25%, d = 25% }\n";
    let mut files = MemoryFiles::new();
    let file = files.add("test.curriculum", format!("{HEAD}{text}"));
    let (curriculum, found) = midc::sema::check(&mut files, file, &midc::sema::Options::default());
    let errors: Vec<&str> = found.iter().filter(|d| d.lint.is_none()).map(|d| d.message.as_str()).collect();
    let plan = plan::build(&curriculum.unwrap_or_else(|| panic!("{errors:?}")));
    let layers = |name: &str| {
        let model = plan.models.iter().find(|m| m.name == name).unwrap();
        model.init.as_ref().unwrap().num_hidden_layers
    };
    assert_eq!([layers("written"), layers("named"), layers("asked")], [1, 30, 30]);
    let source = |name: &str| plan.sources.iter().find(|s| s.name == name).unwrap();
    assert_eq!(
        (source("a").loss_on.join(" "), source("a").order.as_str()),
        ("assistant".into(), "ascending(length)")
    );
    assert_eq!(
        (source("b").loss_on.join(" "), source("b").order.as_str()),
        ("assistant user".into(), "as_written")
    );
    assert_eq!(
        (source("c").loss_on.join(" "), source("c").order.as_str()),
        ("assistant answer".into(), "shuffled")
    );
    assert_eq!(source("d").order, "descending(score)");
    let attention =
        |name: &str| serde_json::to_value(plan.stages.iter().find(|s| s.name == name).unwrap().attention);
    assert_eq!(attention("s").unwrap(), "documents");
    assert_eq!(attention("t").unwrap(), "causal");
    // What a name stands for is mentioned.
    assert!(
        !found.iter().any(|d| d.lint == Some("unused_let")
            && !d.message.contains("shuffled")
            && !d.message.contains("causal")),
        "{found:?}"
    );
}

#[test]
fn the_rest_of_a_mix_is_a_number_where_nothing_moves() {
    let text = "mix still { web = 60%, code = rest }\nassert still.code == 40%\nassert still.web == 60%\n";
    assert_eq!(codes(text).iter().filter(|code| code.starts_with("E07")).count(), 0, "{:?}", codes(text));
    let moving = "mix moving { web = 60% then linear(to: 50%), code = rest }\nassert moving.code == 40%\n";
    assert!(codes(moving).contains(&"E0702".to_owned()), "{:?}", codes(moving));
}

/// The last step is the end of the stage, however far it goes past the length.
#[test]
fn a_checkpoint_lies_at_the_last_step() {
    let stage = |tokens: u64, at: &str| {
        format!(
            "model tiny {{ init = llama(layers: 1, hidden: 16, heads: 2, ffn: 32, vocab: 512), context = 64 }}\n\
             stage a {{\n from = tiny, tokens = {tokens}, batch = 4 seqs, mix = web, data_seed = 1\n\
             \x20 lr = 1e-3 then linear(to: 0)\n checkpoint h {{ at = {at} }}\n}}\n"
        )
    };
    let place = |tokens, at: &str| {
        let stages = stages(&stage(tokens, at));
        (stages[0].checkpoints[0].step, stages[0].checkpoints[0].tokens)
    };
    assert_eq!(place(1280, "5 steps"), (5, 1280));
    assert_eq!(place(1279, "5 steps"), (5, 1279));
    assert_eq!(place(1279, "5 steps"), place(1279, "100% of stage"));
    for at in ["6 steps", "1280"] {
        assert!(codes(&stage(1279, at)).contains(&"E0506".to_owned()), "{at}");
    }
}

/// The others keep their proportions in what is left, and a fan-out sweeps the share.
#[test]
fn a_share_is_set_and_the_others_keep_theirs_of_the_rest() {
    let stages = stages(
        "source math {\n  kind = math\n}\nmix decay {\n  web = 50%\n  code = 30%\n  math = rest\n}\n\
         stage a[share in [0%, 40%, 100%]] {\n  from = base\n  tokens = 40B\n  batch = 1024 seqs\n\
         \x20 mix = reweight(decay, math: share)\n  data_seed = 1\n\
         \x20 lr = 0 then linear(to: 1e-4, over: 1B) then linear(to: 0)\n}\n",
    );
    let shares: Vec<Vec<f64>> =
        stages.iter().map(|s| s.mix.iter().map(|m| m.weight.value(0)).collect()).collect();
    assert_eq!(shares, [[0.625, 0.375, 0.0], [0.375, 0.225, 0.4], [0.0, 0.0, 1.0]]);
}
