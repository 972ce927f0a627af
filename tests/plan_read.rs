//! Plans from files: those of the compiler read back as they are, what was damaged or edited is refused with
//! its place, and no file makes the reader or what relies on it panic.

mod common;

use midc::plan::{self, Plan};
use midc::sema::Options;
use midc::source::MemoryFiles;
use proptest::prelude::*;
use serde_json::{Value, json};

const CURRICULUM: &str = "
lints { missing_files = allow }
model base { init = smollm2_135m, context = 2Ki }
model idle { init = smollm2_360m, context = 2Ki }
source web { path = \"web.jsonl\", tokens = 1B }
source code { path = \"code.jsonl\", tokens = 1B }
mix m { web = 60% then linear(to: 20%), code = rest }
stage main[order in [1, 2]] {
  from = base, tokens = 40M, batch = 16 seqs then hold(over: 20M) then step(to: 32 seqs) then hold, mix = m, data_seed = order
  lr = 0 then linear(to: 1e-3, over: 5M) then cosine(to: 1e-4)
  checkpoint half { at = 50% of stage, keep = forever }
}
soup both = average(main)
stage last { from = both, tokens = 10M, batch = 16 seqs, mix = web, data_seed = 3, context = 2Ki, lr = 1e-4 then linear(to: 0) }
";

fn compile(name: &str, text: &str) -> Plan {
    let mut files = MemoryFiles::new();
    let file = files.add(name, text.to_owned());
    let (curriculum, diagnostics) = midc::sema::check(&mut files, file, &Options::default());
    let Some(curriculum) = curriculum else { panic!("{diagnostics:#?}") };
    plan::build(&curriculum)
}

fn json_of(plan: &Plan) -> Value {
    serde_json::to_value(plan).expect("a plan is JSON")
}

fn read(json: &Value) -> Result<Plan, String> {
    Plan::read(json.to_string().as_bytes()).map_err(|e| e.to_string())
}

#[test]
fn plans_of_the_compiler_read_as_they_are() {
    let mut all = vec![compile("run.curriculum", CURRICULUM)];
    for path in common::curricula(&["examples", "examples/recipes"]) {
        let Some(curriculum) = common::check(&path).0 else { panic!("{}", path.display()) };
        all.push(plan::build(&curriculum));
    }
    for plan in all {
        let text = serde_json::to_vec_pretty(&plan).expect("a plan is JSON");
        assert_eq!(Plan::read(&text).map_err(|e| e.to_string()), Ok(plan));
    }
}

#[test]
fn what_does_not_fit_together_is_refused_with_its_place() {
    let edits: &[(&str, Value, &[&str])] = &[
        ("/v", json!(7), &["version 7", "version 1"]),
        ("/curriculum", json!("x`\ncmd\n#"), &["curriculum", "not one line"]),
        ("/stages/0/name", json!("../../escaped"), &["name", "../../escaped"]),
        ("/stages/0/name", json!("/tmp/x"), &["name", "/tmp/x"]),
        ("/stages/0/name", json!(""), &["name"]),
        ("/stages/0/name", json!("main[2]"), &["same", "main[2]"]),
        ("/stages/0/name", json!("main-2"), &["same", "main-2", "main[2]"]),
        ("/soups/0/name", json!("a/../../b"), &["name"]),
        ("/models/0/name", json!(".."), &["name"]),
        ("/sources/0/name", json!("a\nb"), &["name"]),
        ("/stages/0/from", json!("nothing"), &["stages[0].from", "nothing"]),
        ("/stages/2/from", json!("nothing"), &["stages[2].from", "nothing"]),
        ("/soups/0/ingredients/1", json!("last"), &["stages[2].from", "last"]),
        ("/soups/0/ingredients", json!(["main[1]"]), &["soups[0]"]),
        ("/soups/0/ingredients/1", json!("nothing"), &["stages[2].from", "nothing"]),
        ("/stages/0/phases", json!([]), &["stages[0].phases", "none"]),
        ("/stages/0/phases/0/sequences", json!(0), &["stages[0].phases", "0 rows"]),
        ("/stages/0/phases/0/context", json!(0), &["stages[0].phases", "0 tokens"]),
        ("/stages/0/phases/0/context", json!(1u64 << 27), &["stages[0].phases"]),
        ("/stages/0/phases/0/step", json!(1), &["stages[0].phases", "step 1"]),
        ("/stages/0/phases/1/step", json!(0), &["stages[0].phases"]),
        ("/stages/0/phases/1/tokens", json!(7), &["stages[0].phases", "token 7"]),
        ("/stages/0/phases/1/sequences", json!(u64::MAX), &["stages[0].phases"]),
        ("/stages/0/steps", json!(0), &["stages[0].phases"]),
        ("/stages/0/steps", json!(u64::MAX), &["stages[0].phases"]),
        ("/stages/0/tokens", json!(u64::MAX), &["stages[0].phases"]),
        ("/stages/0/context", json!([]), &["stages[0].context"]),
        ("/stages/0/lr/segments", json!([]), &["stages[0].segments", "none"]),
        ("/stages/0/lr/segments/1/start", json!(1), &["stages[0].segments"]),
        ("/stages/0/lr/segments/1/end", json!(1), &["stages[0].segments"]),
        ("/stages/0/mix", json!([]), &["stages[0].mix", "nothing"]),
        ("/stages/0/mix/0/source", json!("gone"), &["stages[0].mix", "gone"]),
        ("/stages/0/mix/1/source", json!("web"), &["stages[0].mix", "web", "twice"]),
        ("/stages/0/mix/0/weight/terms/0/factors/0/segments", json!([]), &["stages[0].mix", "web"]),
        ("/stages/0/checkpoints/0/step", json!(1u64 << 40), &["stages[0].checkpoints", "half"]),
        ("/stages/0/data_seed", json!(9), &["hash"]),
        ("/stages/0/optimizer/betas/0", json!(0.5), &["hash"]),
        ("/hash", json!("blake3:0"), &["hash"]),
    ];
    refused(&json_of(&compile("run.curriculum", CURRICULUM)), edits);
}

/// That `whole` is refused with each value in its place, in these words.
fn refused(whole: &Value, edits: &[(&str, Value, &[&str])]) {
    for (pointer, value, words) in edits {
        let mut edited = whole.clone();
        *edited.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value.clone();
        let said = read(&edited).expect_err(pointer);
        for word in *words {
            assert!(said.contains(word), "{pointer} = {value}: {said}");
        }
    }
}

/// What evals and gates measure is there: nothing of it is looked at before a stage is trained.
#[test]
fn measurements_that_cannot_be_taken_are_refused() {
    let text = CURRICULUM.replace(
        "stage last {",
        "source val { path = \"val.jsonl\", validation = yes }
mix still { web = 60%, code = rest }
stage last {
  eval held { loss = heldout 1%, needle = [1Ki] }
  eval read { loss = val }
  gate {
    needle(1Ki) >= 50%
    loss(web) <= 98% of from
    loss(still) <= 3
  }
",
    );
    let whole = json_of(&compile("run.curriculum", &text));
    assert!(read(&whole).is_ok());
    refused(
        &whole,
        &[
            ("/stages/2/evals/0/name", json!("read"), &["stages[2].evals", "twice"]),
            ("/stages/2/evals/0/name", json!("gate"), &["stages[2].evals", "gates measure"]),
            ("/stages/2/evals/0/needle/0", json!(1u64 << 40), &["stages[2].evals", "longest"]),
            ("/stages/2/evals/0/needle/0", json!(0), &["stages[2].evals"]),
            ("/stages/2/evals/0/heldout", json!(1.0), &["stages[2].evals", "all"]),
            ("/stages/2/evals/1/sources/0", json!("gone"), &["stages[2].evals", "gone"]),
            ("/stages/2/gates/0/op", json!("=>"), &["=>", ">="]),
            ("/stages/2/gates/0/measure", json!("needles"), &["needles", "needle"]),
            ("/stages/2/gates/0/argument", json!("1Ki"), &["stages[2].gates", "no length"]),
            ("/stages/2/gates/0/argument", json!("01024"), &["stages[2].gates", "no length"]),
            ("/stages/2/gates/0/argument", json!("99999999999"), &["stages[2].gates", "longest"]),
            ("/stages/2/gates/1/argument", json!("gone"), &["stages[2].gates", "gone"]),
            ("/stages/2/gates/2/sources/1/source", json!("gone"), &["stages[2].gates", "gone"]),
            ("/sources/0/max_epochs", json!(-1.0), &["sources[0].max_epochs"]),
        ],
    );
}

/// What other files of midc have in their place of a version is read as well.
#[test]
fn another_version_of_what_lies_beside_a_plan_is_refused() {
    let plan = compile("run.curriculum", CURRICULUM);
    let launch = midc::emit::emit(midc::emit::Engine::Transformers, &plan, ".", &|_| None);
    let file = launch.files.iter().find(|f| f.path == "expected.json").expect("it is written");
    assert!(serde_json::from_str::<midc::emit::Expected>(&file.text).is_ok());
    let later = file.text.replacen("\"v\": 1", "\"v\": 2", 1).replacen("\"v\":1", "\"v\":2", 1);
    let said = serde_json::from_str::<midc::emit::Expected>(&later).expect_err("version 2").to_string();
    assert!(said.contains("version 2"), "{said}");
    let rows = json!({"v": 2, "plan": "", "stage": "", "dtype": "uint16", "rows": 0, "tokens": 0, "eos": 0,
        "sources": [], "marks": false});
    let said =
        serde_json::from_value::<midc::runtime::data::RowSet>(rows).expect_err("version 2").to_string();
    assert!(said.contains("version 2"), "{said}");
}

/// A run that was begun when idle models and `keep = forever` counted goes on.
#[test]
fn a_plan_with_the_hash_of_an_earlier_midc_gets_that_of_now() {
    let plan = compile("run.curriculum", CURRICULUM);
    let mut earlier = json_of(&plan);
    earlier["hash"] = json!("blake3:5f5b29fb76f61733a25fffa16896e37fef3cf5395ac0a1a97450b4614b274928");
    assert_eq!(read(&earlier).map(|p| p.hash), Ok(plan.hash.clone()));
    // Where neither is there, nothing has changed.
    let plain = compile(
        "run.curriculum",
        &CURRICULUM.replace(", keep = forever", "").replace("model idle", "# model idle"),
    );
    assert_eq!(plain.hash, plan.hash);
    assert_eq!(plain.hash, "blake3:7e8a61f7429394e8f96dca7b5a026e8d94ce718969ced465589bb6d24a45a3d9");
}

#[test]
fn the_name_of_a_curriculum_is_one_line() {
    assert_eq!(compile("a`\ncmd\n#.curriculum", CURRICULUM).curriculum, "a`-cmd-#");
}

/// Every number of a plan with its place.
fn numbers(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, v)| numbers(v, format!("{at}/{key}"), out)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, v)| numbers(v, format!("{at}/{i}"), out))
        }
        Value::Number(_) => out.push(at),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// The hash put right, as an editor of plans might: what is read can be walked step by step.
    #[test]
    fn what_is_read_can_be_relied_on(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u64..3, any::<u64>()), 1..4),
    ) {
        let whole = compile("run.curriculum", CURRICULUM);
        let mut edited = json_of(&whole);
        let mut places = Vec::new();
        numbers(&edited, String::new(), &mut places);
        for (place, kind, value) in changes {
            let value = match kind { 0 => 0, 1 => value % 100, _ => value };
            *edited.pointer_mut(&places[place.index(places.len())]).expect("a place") = json!(value);
        }
        if let Ok(plan) = serde_json::from_value::<Plan>(edited.clone()) {
            edited["hash"] = json!(plan::hash(&plan));
        }
        let Ok(read) = read(&edited) else { return Ok(()) };
        for stage in &read.stages {
            for step in [0, stage.steps / 2, stage.steps] {
                let point = stage.step_point(step);
                stage.lr.curve.value(point.tokens);
                stage.step_containing(point.tokens);
                stage.mix.iter().for_each(|m| { m.weight.value(point.tokens); });
            }
        }
        plan::diff(&whole, &read, None);
        plan::diff(&read, &whole, None);
        plan::exhaustion(&read);
    }
}
