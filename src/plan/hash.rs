//! The identity of a run: what decides its outcome, and nothing else.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{CheckpointPlan, FromKind, ModelPlan, Plan, SourcePlan, StagePlan};

/// Keys that say how a run is watched, what is said of it or where its numbers came from, not what it computes.
/// The smallest batch is in the phases.
const IDLE: [&str; 13] = [
    "doc",
    "assumed",
    "inherited",
    "evals",
    "gates",
    "save_every",
    "save_every_tokens",
    "keep",
    "epochs",
    "flops",
    "drawn_tokens",
    "max_epochs",
    "min",
];

/// `blake3:` and the hash over the canonical JSON of everything that decides the outcome: models,
/// stages, soups and sources, keys sorted, without the names of the file and its parameters (their
/// values are in the numbers), without models that nothing starts from and without what only observes
/// or says how long a checkpoint stays. Measurements and periodic checkpoints can therefore be added to
/// a run that is under way. The share of documents that an `eval` holds out is no mere observation: it is
/// taken from the training data.
pub fn hash(plan: &Plan) -> String {
    let started =
        |m: &&ModelPlan| plan.stages.iter().any(|s| s.from_kind == FromKind::Model && s.from == m.name);
    // Pruning changes no number. Written out, so that plans without it keep their hash.
    let passing = |c: &CheckpointPlan| CheckpointPlan { forever: false, ..c.clone() };
    let stages: Vec<StagePlan> = plan
        .stages
        .iter()
        .map(|s| StagePlan { checkpoints: s.checkpoints.iter().map(passing).collect(), ..s.clone() })
        .collect();
    of(plan, plan.models.iter().filter(started).collect(), &stages)
}

/// The hash that an earlier midc gave a plan, which took in models that nothing starts from and
/// `keep = forever`.
pub(super) fn former(plan: &Plan) -> String {
    of(plan, plan.models.iter().collect(), &plan.stages)
}

impl Plan {
    /// Whether what bears this hash was made by this plan, by an earlier midc perhaps.
    pub fn answers_to(&self, hash: &str) -> bool {
        self.hash == hash || former(self) == hash
    }
}

/// What decides an outcome of a part of a plan, to compare it with another.
pub(super) fn outcome(part: &impl serde::Serialize) -> String {
    let mut text = String::new();
    write(&serde_json::to_value(part).unwrap_or(Value::Null), &mut text);
    text
}

/// Whether two parts of plans decide other outcomes.
pub(super) fn differ(a: &impl serde::Serialize, b: &impl serde::Serialize) -> bool {
    outcome(a) != outcome(b)
}

/// Where two parts of plans decide other outcomes: the path to each value that differs, and both of it as they are
/// hashed.
pub(super) fn apart(a: &impl serde::Serialize, b: &impl serde::Serialize) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let value = |part: Result<Value, _>| part.unwrap_or(Value::Null);
    part(String::new(), &value(serde_json::to_value(a)), &value(serde_json::to_value(b)), &mut found);
    found
}

fn part(path: String, a: &Value, b: &Value, found: &mut Vec<(String, String, String)>) {
    let below = |key: String| if path.is_empty() { key } else { format!("{path}.{key}") };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in keys.into_iter().filter(|key| !IDLE.contains(&key.as_str())) {
                let at = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                part(below(key.clone()), &at(x), &at(y), found);
            }
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => {
            for (i, (x, y)) in x.iter().zip(y).enumerate() {
                part(below(i.to_string()), x, y, found);
            }
        }
        _ if differ(a, b) => found.push((path, outcome(a), outcome(b))),
        _ => {}
    }
}

/// What of a source decides an outcome: what it is called a kind of, and how large it is said to be, are in the weights
/// already.
pub(super) fn read_from(source: &SourcePlan) -> SourcePlan {
    SourcePlan { kind: String::new(), tokens: None, ..source.clone() }
}

fn of(plan: &Plan, models: Vec<&ModelPlan>, stages: &[StagePlan]) -> String {
    let sources: Vec<SourcePlan> = plan.sources.iter().map(read_from).collect();
    let text = outcome(&(&plan.v, models, stages, &plan.soups, &sources, plan.heldout()));
    format!("blake3:{}", blake3::hash(text.as_bytes()).to_hex())
}

/// JSON with sorted keys and no blanks; numbers as serde_json prints them (shortest that reads
/// back exactly).
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            out.push('{');
            let mut first = true;
            for (key, value) in sorted(map) {
                if IDLE.contains(&key) {
                    continue;
                }
                if !first {
                    out.push(',');
                }
                first = false;
                out.push_str(&Value::from(key).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn sorted(map: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut entries: Vec<(&str, &Value)> = map.iter().map(|(k, v)| (k.as_str(), v)).collect();
    entries.sort_by_key(|(k, _)| *k);
    entries
}
