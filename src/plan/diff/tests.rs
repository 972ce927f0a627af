//! What moves the hash of a plan is told as a change of what it stands in.

use serde_json::Value;

use super::{Diff, diff};
use crate::plan::{Plan, Standing, build, hash};
use crate::sema::{self, Options};
use crate::source::MemoryFiles;

const TEXT: &str = "
lints { missing_files = allow }
model m {
  init = llama(layers: 1, hidden: 16, heads: 2, ffn: 32, vocab: 512), context = 1Ki
  rope = rope(theta: 500_000)
}
source web {
  path = \"w/*.jsonl\", tokens = 9B, text = \"body\", dedup = exact, exclude = \"bench/*.jsonl\"
  order = ascending(length), where = length >= 9
}
source code { path = \"c/*.jsonl\", tokens = 9B, fim = fim(rate: 10%, style: psm), kind = code }
source talk { path = \"t/*.jsonl\", tokens = 9B, kind = instruct, loss_on = [\"assistant\"], today = \"2025-07-08\" }
mix all { web = 50%, code = 30%, talk = rest }
stage a {
  from = m, tokens = 1M, batch = 8 seqs, context = 2Ki, mix = all, data_seed = 1
  rope = yarn(factor: 2, original: 1Ki, mscale: 1)
  optimizer = muon(momentum: 0.95)
  lr = 0 then linear(to: 1e-3, over: 100k) then linear(to: 1e-4)
}
stage b {
  from = a, tokens = 1M, rope = llama3(factor: 8, low: 1, high: 4, original: 1Ki), data_seed = 2
  lr = inherit then linear(to: 0)
}
## As it was.
soup s = average(a, b)
stage c { from = s, tokens = 1M, rope = pi(factor: 2), lr = 1e-4 then linear(to: 0), data_seed = 3 }
";

fn plan() -> Plan {
    let mut files = MemoryFiles::new();
    let file = files.add("run.curriculum", TEXT);
    let (curriculum, found) = sema::check(&mut files, file, &Options::default());
    build(&curriculum.unwrap_or_else(|| panic!("{found:#?}")))
}

/// Numbers that are made of others of the stage, and names it is found by.
const MADE: [&str; 16] = [
    "name",
    "doc",
    "steps",
    "overshoot_tokens",
    "start_tokens",
    "lr.start",
    "lr.end",
    "lr.peak",
    "batch_tokens.start",
    "batch_tokens.end",
    "batch_tokens.max",
    "from_kind",
    "assumed",
    "inherited",
    "weight_mean",
    "weight_start",
];

/// The paths to all values below `value` that hold no others.
fn leaves(value: &Value, path: &str, out: &mut Vec<String>) {
    let mut each = |key: &str, value: &Value| leaves(value, &format!("{path}/{key}"), out);
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| each(key, value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| each(&i.to_string(), item)),
        _ => out.push(path.to_owned()),
    }
}

/// A value of the same kind, which texts for people print the same where it is a number.
fn moved(value: &Value) -> Vec<Value> {
    match value {
        Value::Bool(yes) => vec![Value::Bool(!yes)],
        Value::Number(n) if n.is_f64() => vec![Value::from(n.as_f64().unwrap_or(0.0) * (1.0 + 1e-9) + 1e-14)],
        Value::Number(n) => vec![Value::from(n.as_u64().unwrap_or(0) + 1)],
        Value::String(text) => {
            let words = ["causal", "documents", "concat", "best_fit", "keep", "weights_only"];
            words.into_iter().map(str::to_owned).chain([format!("{text}x")]).map(Value::from).collect()
        }
        _ => vec![Value::from(1.5), Value::from("bf16"), Value::from(7)],
    }
}

/// `plan` with each value below `place` moved: where, and the plan, whose hash is another.
fn edits(plan: &Plan, place: &str) -> Vec<(String, Plan)> {
    let json = serde_json::to_value(plan).unwrap();
    let mut paths = Vec::new();
    leaves(json.pointer(place).unwrap(), "", &mut paths);
    let mut edits = Vec::new();
    for path in paths {
        for value in moved(json.pointer(&format!("{place}{path}")).unwrap()) {
            let mut edited = json.clone();
            *edited.pointer_mut(&format!("{place}{path}")).unwrap() = value;
            let Ok(mut edited) = serde_json::from_value::<Plan>(edited) else { continue };
            edited.hash = hash(&edited);
            if edited.hash != plan.hash {
                edits.push((path.clone(), edited));
            }
        }
    }
    edits
}

fn changes(diff: &Diff) -> Vec<String> {
    let all = diff.stages.iter().flat_map(|s| &s.changes);
    all.map(|c| format!("{}: {} -> {}", c.what, c.before, c.after)).collect()
}

#[test]
fn whatever_moves_the_hash_of_a_stage_is_a_change_of_it() {
    let plan = plan();
    assert_eq!(plan.stages.len(), 3);
    let mut seen = 0;
    for (i, stage) in plan.stages.iter().enumerate() {
        for (path, edited) in edits(&plan, &format!("/stages/{i}")) {
            let dotted = path.trim_start_matches('/').replace('/', ".");
            let last = dotted.rsplit('.').next().unwrap_or_default();
            // What the mix draws, and the landmarks of curves, are made of the curves.
            let made = MADE.contains(&dotted.as_str()) || MADE.contains(&last);
            let drawn = dotted.starts_with("mix.") && matches!(last, "weight_end" | "tokens");
            if made || drawn || dotted.starts_with("context.") || dotted.contains("curve") {
                continue;
            }
            seen += 1;
            let diff = diff(&plan, &edited, None);
            let of = diff.stages.iter().find(|s| s.stage == stage.name).unwrap();
            assert!(!of.changes.is_empty(), "{}: {path}", stage.name);
            for change in &of.changes {
                let slow = change.what == "lr" || change.what.starts_with("mix.") || change.what == "batch";
                assert!(slow || change.before != change.after, "{}: {path}: {change:?}", stage.name);
            }
        }
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn whatever_moves_the_hash_of_a_source_or_model_is_a_change_of_who_reads_it() {
    let plan = plan();
    for place in ["/sources/0", "/sources/1", "/sources/2", "/models/0"] {
        for (path, edited) in edits(&plan, place) {
            if path == "/name" {
                continue;
            }
            let diff = diff(&plan, &edited, None);
            let told = changes(&diff);
            assert!(!told.is_empty() && diff.stages[0].standing == Standing::Changed, "{place}{path}");
            assert!(diff.stages[0].changes.iter().all(|c| c.before != c.after), "{place}{path}: {told:?}");
        }
    }
}

#[test]
fn what_texts_round_is_told_in_full() {
    let plan = plan();
    let mut edited = plan.clone();
    edited.stages[0].optimizer.weight_decay *= 1.0 + 1e-9;
    edited.hash = hash(&edited);
    let told = changes(&diff(&plan, &edited, None));
    let (was, is) = (plan.stages[0].optimizer.weight_decay, edited.stages[0].optimizer.weight_decay);
    assert!(told[0].contains(&format!("weight_decay {was} -> ")), "{told:?}");
    assert!(told[0].ends_with(&format!("weight_decay {is}")), "{told:?}");
}

#[test]
fn what_is_said_of_a_soup_changes_nothing() {
    let plan = plan();
    let mut edited = plan.clone();
    edited.soups[0].doc = "Of the last two.".into();
    edited.hash = hash(&edited);
    let same = diff(&plan, &edited, None);
    assert!(same.same_outcome && same.soups.is_empty(), "{same:?}");
    assert!(same.stages.iter().all(|s| s.standing == Standing::Kept), "{same:?}");
    edited.soups[0].weights = vec![0.5 + 1e-12, 0.5 - 1e-12];
    edited.hash = hash(&edited);
    let other = diff(&plan, &edited, None);
    assert_eq!(other.soups, ["s"]);
    assert_eq!(other.stages[2].standing, Standing::Changed);
}
