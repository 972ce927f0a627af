//! Sizes that `midc data` measures: of a curriculum that needs them to be sound.

#[path = "common/launch.rs"]
#[allow(dead_code, reason = "a part of it is used")]
mod launch;

use launch::{midc, read, workplace};

const CURRICULUM: &str = r#"
model base {
  init      = llama(layers: 1, hidden: 32, heads: 2, ffn: 64, vocab: 4096)
  tokenizer = "data/tokenizer.json"
  context   = 64
  rope      = rope(theta: 10_000)
}
source prose { path = "data/prose.train.jsonl", kind = web }
source code { path = "data/code.train.jsonl", kind = code }
source brief = code where length < 200
stage main {
  from      = base
  tokens    = 60k
  context   = 64
  batch     = 8 seqs
  mix       = proportional(prose, code, brief)
  lr        = 1e-3 then linear(to: 0)
  data_seed = 1
}
"#;

#[test]
fn what_is_measured_makes_a_curriculum_sound() {
    let dir = workplace(CURRICULUM);
    let check = || midc(dir.path(), &["check", "run.curriculum"]);
    let before = check();
    assert!(!before.status.success());
    assert!(String::from_utf8_lossy(&before.stdout).contains("E0305"), "{before:?}");

    // Its mistakes are said, and what would mend them is measured all the same.
    let data = midc(dir.path(), &["data", "run.curriculum", "--save", "--quiet"]);
    assert_eq!(data.status.code(), Some(1), "{data:?}");
    let counts = read(&dir.path().join("run.data.json"));
    let tokens: Vec<f64> =
        counts["sources"].as_array().unwrap().iter().map(|s| s["tokens"].as_f64().unwrap()).collect();
    assert!(tokens.len() == 3 && tokens[2] < tokens[1], "{tokens:?}");

    let after = check();
    assert!(after.status.success(), "{}", String::from_utf8_lossy(&after.stdout));
    let plan = midc(dir.path(), &["plan", "run.curriculum", "--format", "json"]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    let sum: f64 = tokens.iter().sum();
    for (i, portion) in plan["stages"][0]["mix"].as_array().unwrap().iter().enumerate() {
        let weight = portion["weight_mean"].as_f64().unwrap();
        assert!((weight - tokens[i] / sum).abs() < 1e-9, "{portion}");
    }
}

/// Counts of other settings are none, and those of other files are told of.
#[test]
fn what_was_measured_of_something_else_is_not_believed() {
    let text = CURRICULUM.replace("data/prose.train.jsonl", "prose.jsonl");
    let dir = workplace(&text);
    let prose = dir.path().join("prose.jsonl");
    let lines = std::fs::read_to_string("examples/data/prose.train.jsonl").unwrap();
    std::fs::write(&prose, &lines).unwrap();
    midc(dir.path(), &["data", "run.curriculum", "--save", "--quiet"]);
    let plan = || {
        let out = midc(dir.path(), &["plan", "run.curriculum", "--format", "json"]);
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (sound, told) = plan();
    assert!(sound && !told.contains("source `prose`"), "{told}");
    std::fs::write(&prose, lines.lines().next().unwrap()).unwrap();
    let (sound, told) = plan();
    assert!(sound && told.contains("source `prose`") && !told.contains("source `code`"), "{told}");
    let other = text.replace("kind = web }", "kind = web, where = length > 3 }");
    std::fs::write(dir.path().join("run.curriculum"), other).unwrap();
    let (sound, told) = plan();
    assert!(!sound && told.contains("E0305") && told.contains("of other settings"), "{told}");
}

#[test]
fn what_was_counted_by_another_tokenizer_is_told_of() {
    let text = CURRICULUM.replace("data/tokenizer.json", "own/tokenizer.json");
    let dir = workplace(&text);
    let own = dir.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::copy("examples/data/tokenizer.json", own.join("tokenizer.json")).unwrap();
    midc(dir.path(), &["data", "run.curriculum", "--save", "--quiet"]);
    let told = || {
        let out = midc(dir.path(), &["plan", "run.curriculum", "--format", "json"]);
        assert!(out.status.success(), "{out:?}");
        String::from_utf8_lossy(&out.stderr).matches("another tokenizer").count()
    };
    assert_eq!(told(), 0);
    std::fs::write(own.join("tokenizer_config.json"), r#"{"eos_token": "<|im_end|>"}"#).unwrap();
    assert_eq!(told(), 3);
    midc(dir.path(), &["data", "run.curriculum", "--save", "--quiet"]);
    assert_eq!(told(), 0);
    std::fs::remove_dir_all(&own).unwrap();
    assert_eq!(told(), 0);
}
