//! A run that is killed again and again at random moments and resumed each time ends with the
//! metrics and weights of a run nobody disturbed.
//!
//! `MIDC_KILLS` sets how often it is killed (default 5), `MIDC_KILL_SETS` the `--set` arguments
//! (default: a run of seconds; empty: the quickstart as it is).

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const DEFAULT_SETS: &str = "stable_tokens=200k anneal_tokens=80k";

fn exec(run_dir: &Path, cache: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_midc"));
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart.curriculum");
    command.arg("exec").arg(example).arg("--run-dir").arg(run_dir).arg("--cache-dir").arg(cache);
    command.args(["--quiet", "--resume"]);
    let sets = std::env::var("MIDC_KILL_SETS").unwrap_or_else(|_| DEFAULT_SETS.to_string());
    for set in sets.split_whitespace() {
        command.args(["--set", set]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Metrics without what a clock decides.
fn metrics(run_dir: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields = record.as_object_mut().unwrap();
            assert!(fields.remove("tokens_per_second").is_some());
            fields.remove("mfu");
            record
        })
        .collect()
}

/// Every file under `checkpoints` with its bytes, the last checkpoint of each stage only: which of
/// the periodic ones are left is the same, but the test needs no more.
fn weights(run_dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for stage in ["stable", "anneal"] {
        let dir = run_dir.join("checkpoints").join(stage);
        let mut steps: Vec<(u64, std::path::PathBuf)> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter_map(|p| Some((p.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()?, p)))
            .collect();
        steps.sort();
        let (step, last) = steps.pop().unwrap();
        for file in ["model.safetensors", "state/optimizer.safetensors"] {
            found.push((format!("{stage}/{step}/{file}"), std::fs::read(last.join(file)).unwrap()));
        }
    }
    found
}

#[test]
fn killed_and_resumed_equals_undisturbed() {
    let kills: u32 = std::env::var("MIDC_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    let dir = tempfile::tempdir().unwrap();
    let (calm, stormy) = (dir.path().join("calm"), dir.path().join("stormy"));

    // One run to know how long an undisturbed one takes, from reading the data on.
    let begin = Instant::now();
    assert!(exec(&calm, &dir.path().join("cache-calm")).status().unwrap().success());
    let whole = begin.elapsed();

    let cache = dir.path().join("cache-stormy");
    let mut killed = 0;
    while killed < kills {
        // Kills fall anywhere in the time a run takes; most of a run survives each as checkpoints,
        // so short lives are needed to reach `kills` before it is done.
        let share = f64::from(RandomState::new().build_hasher().finish() as u32) / f64::from(u32::MAX);
        let life = whole.mul_f64(0.5 * share) + Duration::from_millis(5);
        let mut child = exec(&stormy, &cache).spawn().unwrap();
        std::thread::sleep(life);
        if child.try_wait().unwrap().is_some() {
            // It finished before it could be killed: begin again, so that every kill counts.
            let done = metrics(&stormy);
            assert_eq!(done, metrics(&calm));
            std::fs::remove_dir_all(&stormy).unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    assert!(exec(&stormy, &cache).status().unwrap().success());

    assert_eq!(metrics(&stormy), metrics(&calm));
    let (a, b) = (weights(&stormy), weights(&calm));
    assert_eq!(a.len(), b.len());
    for ((name_a, bytes_a), (name_b, bytes_b)) in a.iter().zip(&b) {
        assert_eq!(name_a, name_b);
        assert!(bytes_a == bytes_b, "{name_a} differs");
    }
}
