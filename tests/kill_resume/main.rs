//! A run that is killed again and again at random moments and resumed each time ends with the
//! metrics and weights of a run nobody disturbed, whether or not its stages train side by side.
//!
//! The graph has everything a run can be killed in: reading the data, training, checkpoints, souping.
//! Half of the kills come at any moment; the others wait for one of the short phases, which few would
//! fall in. What each hit is told from what the dead process left, and printed.
//! `MIDC_KILLS` sets how often it is killed (default 20), `MIDC_KILL_SEED` the moments (default: new
//! ones each time; a failure names the seed).

mod phase;

use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use phase::{Aim, Phase};

fn exec(run_dir: &Path, cache: &Path, jobs: u64) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_midc"));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kill_resume/graph.curriculum");
    command.arg("exec").arg(file).arg("--run-dir").arg(run_dir).arg("--cache-dir").arg(cache);
    command.args(["--quiet", "--resume", "--noise-every", "3"]).arg("--jobs").arg(jobs.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// splitmix64: moments that a seed repeats.
struct Moments(u64);

impl Moments {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

/// Metrics without what a clock decides: speed, and how the lines of stages that train at the same time
/// follow each other.
fn metrics(run_dir: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    let mut records: Vec<serde_json::Value> = text
        .lines()
        .map(|line| {
            let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
            let fields = record.as_object_mut().unwrap();
            assert!(fields.remove("tokens_per_second").is_some());
            fields.remove("data_seconds");
            fields.remove("mfu");
            record
        })
        .collect();
    // Keeps the order of each stage's own.
    records.sort_by(|a, b| a["stage"].as_str().cmp(&b["stage"].as_str()));
    records
}

/// Every file under `checkpoints` with its bytes, the last checkpoint of each stage only: which of
/// the periodic ones are left is the same, but the test needs no more.
fn weights(run_dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for stage in ["trunk", "branch[2]", "branch[3]", "mean", "end"] {
        let dir = run_dir.join("checkpoints").join(stage);
        let mut steps: Vec<(u64, std::path::PathBuf)> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter_map(|p| Some((p.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()?, p)))
            .collect();
        steps.sort();
        let (step, last) = steps.pop().unwrap();
        for file in ["model.safetensors", "state/optimizer.safetensors"] {
            // A soup has no moments.
            let Ok(bytes) = std::fs::read(last.join(file)) else {
                assert_eq!((stage, file), ("mean", "state/optimizer.safetensors"));
                continue;
            };
            found.push((format!("{stage}/{step}/{file}"), bytes));
        }
    }
    found
}

#[test]
fn killed_and_resumed_equals_undisturbed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let kills = number("MIDC_KILLS").unwrap_or(20);
    let seed = number("MIDC_KILL_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    eprintln!("MIDC_KILL_SEED={seed}");
    let mut moments = Moments(seed);
    let dir = tempfile::tempdir().unwrap();
    let (calm, stormy) = (dir.path().join("calm"), dir.path().join("stormy"));

    // One run to know how long an undisturbed one takes, from reading the data on.
    let begin = Instant::now();
    assert!(exec(&calm, &dir.path().join("cache-calm"), 1).status().unwrap().success());
    let whole = begin.elapsed();

    let cache = dir.path().join("cache-stormy");
    let mut hits: BTreeMap<Phase, u64> = BTreeMap::new();
    let mut killed = 0;
    // A phase may be over before the kill arrives, so some more may be needed for one in each.
    while killed < kills || Phase::ALL.iter().any(|phase| !hits.contains_key(phase)) {
        assert!(killed < 4 * kills.max(20), "some phase is never hit: {hits:?}");
        let aim = Aim::at(killed, &stormy);
        if aim == Aim::Indexing && cache.exists() {
            // What is kept of the data may be deleted at any time.
            std::fs::remove_dir_all(&cache).unwrap();
        }
        // Most of a run survives each kill as checkpoints, so short lives are needed for the kills to
        // fall everywhere before it is done.
        let life = whole.mul_f64(0.4 * moments.next()) + Duration::from_millis(5);
        let moment = Duration::from_secs_f64(0.004 * moments.next());
        // Times of files are told in ticks of the kernel's clock.
        std::thread::sleep(Duration::from_millis(10));
        let begin = SystemTime::now();
        // Every other life trains both seeds at once; the undisturbed run did not.
        let mut child = exec(&stormy, &cache, 1 + killed / 2 % 2).spawn().unwrap();
        match aim {
            Aim::Anything => std::thread::sleep(life),
            aimed => {
                while child.try_wait().unwrap().is_none()
                    && !aimed.is_under_way(&stormy, &cache, child.id(), begin)
                {
                    std::thread::sleep(Duration::from_micros(200));
                }
                std::thread::sleep(moment);
            }
        }
        if let Some(status) = child.try_wait().unwrap() {
            // It finished before it could be killed: begin again, so that every kill counts.
            assert!(status.success());
            same(&stormy, &calm);
            std::fs::remove_dir_all(&stormy).unwrap();
            std::fs::remove_dir_all(&cache).unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
        *hits.entry(Phase::of(&stormy, &cache, child.id(), begin)).or_default() += 1;
    }
    assert!(exec(&stormy, &cache, 2).status().unwrap().success());
    same(&stormy, &calm);
    for (phase, hits) in &hits {
        eprintln!("{hits:4} killed while {phase}");
    }
    eprintln!("{killed:4} kills, every resume the same to the bit");
}

fn same(one: &Path, other: &Path) {
    assert_eq!(metrics(one), metrics(other));
    let (a, b) = (weights(one), weights(other));
    assert_eq!(a.len(), b.len());
    for ((name_a, bytes_a), (name_b, bytes_b)) in a.iter().zip(&b) {
        assert_eq!(name_a, name_b);
        assert!(bytes_a == bytes_b, "{name_a} differs");
    }
}
