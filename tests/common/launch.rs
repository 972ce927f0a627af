//! A small curriculum for launches of other engines, and the logs a faithful engine would write of it.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

pub(crate) const CURRICULUM: &str = r#"
model base {
  init      = olmo2(layers: 2, hidden: 64, heads: 4, kv_heads: 4, ffn: 128, vocab: 4096)
  tokenizer = "data/tokenizer.json"
  context   = 128
  rope      = rope(theta: 10_000)
}
source prose { path = "data/prose.train.jsonl", kind = web, tokens = 118k }
source code { path = "data/code.train.jsonl", kind = code, tokens = 101k }
mix broad { prose = 75%, code = rest }
stage main {
  from      = base
  tokens    = 12_288
  context   = 128
  batch     = 8 seqs
  mix       = broad then hold(over: 6 steps) then step(to: code) then hold
  lr        = 0 then linear(to: 3e-3, over: 3 steps) then cosine(to: 1e-4)
  data_seed = 1
  checkpoint half { at = 6 steps }
}
stage long[order in [11, 12]] {
  from      = main.half
  steps     = 10
  context   = 256
  batch     = 4 seqs
  mix       = broad
  rope      = yarn(factor: 2, original: 128)
  lr        = inherit then linear(to: 0)
  data_seed = order
}
soup final = average(long)
"#;

/// Lints about a run this small.
pub(crate) const QUIET: [&str; 9] =
    ["-A", "lr_jump", "-A", "decay_too_short", "-A", "soup_ingredients", "-A", "lr_never_lands", "--quiet"];

/// A directory with the curriculum and its data.
pub(crate) fn workplace(curriculum: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
    std::os::unix::fs::symlink(data, dir.path().join("data")).expect("a link");
    std::fs::write(dir.path().join("run.curriculum"), curriculum).expect("written");
    dir
}

pub(crate) fn midc(dir: &Path, args: &[&str]) -> Output {
    let midc = env!("CARGO_BIN_EXE_midc");
    Command::new(midc).current_dir(dir).env("NO_COLOR", "1").args(args).output().expect("midc runs")
}

pub(crate) fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// The value of `[[step, value], …]` at a step.
pub(crate) fn at(table: &Value, step: u64) -> f64 {
    let runs = table.as_array().expect("a table");
    let run = runs.iter().rfind(|r| r[0].as_u64().expect("a step") <= step).expect("a run");
    run[1].as_f64().expect("a value")
}

/// Logs as a faithful engine on two processes would write them, with the exports beside them.
pub(crate) fn write_logs(out: &Path) {
    let expected = read(&out.join("expected.json"));
    for stage in expected["stages"].as_array().unwrap() {
        let name = stage["name"].as_str().unwrap();
        let index = std::fs::read(out.join("rows").join(name).join("index.bin")).unwrap();
        let crcs: Vec<u32> =
            index.chunks(8).map(|entry| u32::from_le_bytes(entry[..4].try_into().unwrap())).collect();
        let per_step = crcs.len() as u64 / stage["steps"].as_u64().unwrap();
        let mut logs = [String::new(), String::new()];
        for (step, rows) in crcs.chunks(per_step as usize).enumerate() {
            for (rank, log) in logs.iter_mut().enumerate() {
                let mine: Vec<u32> = rows.iter().copied().skip(rank).step_by(2).collect();
                let line = json!({
                    "stage": stage["stage"],
                    "step": step,
                    "lr": at(&stage["lr"], step as u64),
                    "rows": mine,
                    "nll": vec![100.0; mine.len()],
                    "targets": vec![50; mine.len()],
                    "loss": 2.0,
                    "grad_norm": 1.0,
                    "seconds": 0.5,
                });
                log.push_str(&format!("{line}\n"));
            }
        }
        std::fs::create_dir_all(out.join("logs")).unwrap();
        for (rank, log) in logs.iter().enumerate() {
            std::fs::write(out.join("logs").join(format!("{name}.rank{rank}.jsonl")), log).unwrap();
        }
        let hf = out.join("out").join(name).join(format!("step-{}", stage["steps"])).join("hf");
        std::fs::create_dir_all(&hf).unwrap();
        let mut config = read(&out.join("models/base.json"))["config"].clone();
        let changes = read(&out.join("stages").join(format!("{name}.json")))["config"].clone();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        std::fs::write(hf.join("config.json"), config.to_string()).unwrap();
    }
}
