//! `midc exec --engine` with a stand-in for the engine: supervision, failures, signals, resuming, and what the
//! run directory then holds. `tests/emit_engines.sh` does it with the engines.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

#[path = "common/launch.rs"]
mod launch;

use launch::{CURRICULUM, QUIET, at, midc, read, workplace, write_logs};

/// A workplace with the logs a faithful engine would write.
struct Case {
    dir: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        let dir = workplace(CURRICULUM);
        let emitted = midc(
            dir.path(),
            &[&["emit", "transformers", "run.curriculum", "-o", "answers", "--data"], &QUIET[..]].concat(),
        );
        assert!(emitted.status.success(), "{}", String::from_utf8_lossy(&emitted.stderr));
        write_logs(&dir.path().join("answers"));
        let case = Self { dir };
        case.mode("well");
        case
    }

    fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    fn mode(&self, mode: &str) {
        std::fs::write(self.path("answers/mode"), format!("{mode}\n")).unwrap();
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_midc"));
        let standin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/engine_standin.sh");
        command
            .current_dir(self.dir.path())
            .env("NO_COLOR", "1")
            .env("STANDIN", self.path("answers"))
            .env("MIDC_PYTHON", standin)
            .args(["exec", "run.curriculum", "-o", "run", "--engine", "transformers", "--nproc", "2"])
            .args(QUIET)
            .args(more);
        command
    }

    fn exec(&self, more: &[&str]) -> (Option<i32>, String) {
        said(&self.command(more).output().expect("midc runs"))
    }

    /// Start a run and wait until the stand-in hangs.
    fn hanging(&self, more: &[&str]) -> Child {
        let mut child =
            self.command(more).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("midc runs");
        while !self.path("answers/waiting").exists() {
            assert!(child.try_wait().unwrap().is_none(), "midc ended before the stand-in hung");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::remove_file(self.path("answers/waiting")).unwrap();
        child
    }

    /// Arguments the stand-in was called with.
    fn calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path("answers/calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn metrics(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path("run/metrics.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Every step of every stage is in the metrics once, in order, with the plan's learning rates and rows.
    fn whole(&self) {
        let expected = read(&self.path("run/launch/expected.json"));
        let mut steps: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for record in self.metrics() {
            steps.entry(record["stage"].as_str().unwrap().to_owned()).or_default().push(record);
        }
        for stage in expected["stages"].as_array().unwrap() {
            let records = steps.remove(stage["stage"].as_str().unwrap()).unwrap_or_default();
            let found: Vec<u64> = records.iter().map(|r| r["step"].as_u64().unwrap()).collect();
            assert_eq!(
                found,
                (0..stage["steps"].as_u64().unwrap()).collect::<Vec<_>>(),
                "{}",
                stage["stage"]
            );
            for record in &records {
                let step = record["step"].as_u64().unwrap();
                assert_eq!(record["lr"].as_f64().unwrap(), at(&stage["lr"], step));
                let rows: u64 =
                    record["rows"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
                assert_eq!(
                    rows * record["context"].as_u64().unwrap(),
                    record["batch_tokens"].as_u64().unwrap()
                );
            }
        }
        assert!(steps.is_empty(), "{steps:?}");
    }
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().expect("kill").success());
}

fn alive(pid: &str) -> bool {
    // A process that was killed and not yet reaped has no command line any more.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn a_whole_run_looks_like_one_of_midc() {
    let case = Case::new();
    let (code, text) = case.exec(&[]);
    assert_eq!(code, Some(0), "{text}");
    case.whole();
    let first = &case.metrics()[0];
    assert_eq!(first["rows"], serde_json::json!({ "code": 2, "prose": 6 }));
    assert_eq!(first["loss_by_source"], serde_json::json!({ "code": 2.0, "prose": 2.0 }));
    assert_eq!(first["mix"], serde_json::json!({ "code": 0.25, "prose": 0.75 }));
    assert_eq!(first["tokens_per_second"], 2048.0);
    let calls = case.calls();
    let files: Vec<&str> = calls.iter().filter_map(|c| c.rsplit(' ').next()).collect();
    assert_eq!(files, ["stages/main.json", "stages/long-11.json", "stages/long-12.json", "soups/final.json"]);
    assert!(
        calls[0].starts_with("-m torch.distributed.run --nnodes 1 --nproc-per-node 2 --master-addr"),
        "{calls:?}"
    );
    for place in [
        "report.html",
        "plan.json",
        "launch/console/main.log",
        "checkpoints/main/step-6/config.json",
        "checkpoints/main/step-12/checksums.json",
        "checkpoints/long[11]/step-10/model.safetensors",
        "checkpoints/final/step-0/config.json",
        "tensorboard/main",
    ] {
        assert!(case.path("run").join(place).exists(), "{place}");
    }
    let log = std::fs::read_to_string(case.path("run/log.txt")).unwrap();
    assert!(log.contains("stand-in 1.0"), "{log}");
    assert_eq!(log.lines().filter(|l| l.starts_with("verify: ok")).count(), 3, "{log}");
    let report = midc(case.dir.path(), &["report", "run"]);
    assert!(report.status.success());

    // The directory is taken; `--resume` finds everything done and verifies it again.
    let (code, text) = case.exec(&[]);
    assert_eq!(code, Some(2));
    assert!(text.contains("already holds a run"), "{text}");
    let (code, text) = case.exec(&["--resume"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(case.calls().len(), 4);
    case.whole();

    // Metrics lost with midc and not with the engine come back from its logs.
    std::fs::write(case.path("run/metrics.jsonl"), "").unwrap();
    assert_eq!(case.exec(&["--resume"]).0, Some(0));
    assert_eq!(case.calls().len(), 4);
    case.whole();
}

#[test]
fn a_failure_is_shown_and_resumed_from_the_engines_checkpoint() {
    let case = Case::new();
    case.mode("fail 8");
    let (code, text) = case.exec(&[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("RuntimeError: out of luck"), "{text}");
    assert!(!text.contains("what torchrun says"), "{text}");
    assert!(text.contains("exit status 3 in `main`") && text.contains("launch/console/main.log"), "{text}");
    assert_eq!(case.metrics().len(), 9);
    assert!(case.path("run/report.html").exists());
    case.mode("well");
    let (code, text) = case.exec(&["--resume"]);
    assert_eq!(code, Some(0), "{text}");
    case.whole();
    let console = std::fs::read_to_string(case.path("run/launch/console/main.log")).unwrap();
    let steps: Vec<&str> = console.lines().filter(|l| l.starts_with("main ")).collect();
    assert_eq!(steps.len(), 9 + 6, "{console}");
    assert_eq!(steps[9], "main 7/12");
}

/// A power cut can leave the names of a checkpoint's files without what is in them.
#[test]
fn a_checkpoint_whose_step_is_not_told_is_made_again() {
    let case = Case::new();
    assert_eq!(case.exec(&["--until", "main"]).0, Some(0));
    std::fs::write(case.path("run/launch/out/main/step-12/step.json"), "").unwrap();
    std::fs::write(case.path("run/launch/out/main/step-12/hf/model.safetensors"), "").unwrap();
    std::fs::remove_dir_all(case.path("run/checkpoints/main/step-12")).unwrap();
    let (code, text) = case.exec(&["--resume", "--until", "main"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(case.calls().len(), 2);
    let weights = case.path("run/checkpoints/main/step-12/model.safetensors");
    assert_eq!(std::fs::read_to_string(weights).unwrap(), "weights of main after 12\n");
}

#[test]
fn signals_reach_the_engine_and_it_has_time_to_obey() {
    // Below `nohup` nobody hears of a terminal that is gone.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let hears = u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 0;
    for (name, code) in [("-TERM", 130), ("-INT", 130)].into_iter().chain(hears.then_some(("-HUP", 130))) {
        let case = Case::new();
        case.mode("hang 8");
        let child = case.hanging(&[]);
        signal(name, child.id());
        if name == "-HUP" {
            // Of a terminal that is gone both the system and the shell tell; that is no impatience.
            std::thread::sleep(Duration::from_millis(150));
            let _ = Command::new("kill").args([name, &child.id().to_string()]).status();
        }
        let (found, text) = said(&child.wait_with_output().unwrap());
        assert_eq!(found, Some(code), "{text}");
        assert!(text.contains("stopped in `main` after step 9"), "{text}");
        // What the engine keeps when it is asked to stop.
        assert!(case.path("run/launch/out/main/step-9/step.json").exists());
        case.mode("well");
        let (code, text) = case.exec(&["--resume"]);
        assert_eq!(code, Some(0), "{text}");
        case.whole();
    }
}

#[test]
fn what_does_not_obey_is_killed_with_its_workers() {
    for second in [false, true] {
        let case = Case::new();
        case.mode("deaf 8");
        let child = case.hanging(&["--grace", if second { "600" } else { "1" }]);
        let worker = std::fs::read_to_string(case.path("answers/worker")).unwrap();
        assert!(alive(worker.trim()));
        signal("-TERM", child.id());
        if second {
            std::thread::sleep(Duration::from_millis(500));
            signal("-TERM", child.id());
        }
        let (code, text) = said(&child.wait_with_output().unwrap());
        assert_eq!(code, Some(130), "{text}");
        assert!(!alive(worker.trim()), "the worker outlived midc");
        case.mode("well");
        let (code, text) = case.exec(&["--resume"]);
        assert_eq!(code, Some(0), "{text}");
        case.whole();
    }
}

#[test]
fn an_engine_that_outlives_midc_keeps_the_run_directory() {
    let case = Case::new();
    case.mode("deaf 8");
    let mut child = case.hanging(&[]);
    let worker = std::fs::read_to_string(case.path("answers/worker")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, text) = case.exec(&["--resume"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("another process is running"), "{text}");
    // The stand-in leads a process group, its worker a session.
    let group = std::fs::read_to_string(format!("/proc/{}/stat", worker.trim())).unwrap();
    let parent = group.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().to_owned();
    signal("-KILL", parent.parse().unwrap());
    let (code, text) = case.exec(&["--resume"]);
    assert!(code == Some(2) && text.contains("another process is running"), "the worker holds it: {text}");
    signal("-KILL", worker.trim().parse().unwrap());
    case.mode("well");
    let resumed = (0..50).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        case.exec(&["--resume"]).0 == Some(0)
    });
    assert!(resumed);
    case.whole();
}

#[test]
fn another_plan_or_engine_is_refused() {
    let case = Case::new();
    assert_eq!(case.exec(&["--until", "main"]).0, Some(0));
    let (code, text) = said(&midc(
        case.dir.path(),
        &[&["exec", "run.curriculum", "-o", "run", "--resume"], &QUIET[..]].concat(),
    ));
    assert_eq!(code, Some(2));
    assert!(text.contains("holds a run of transformers, not of midc"), "{text}");
    let other = CURRICULUM.replace("prose = 75%", "prose = 50%");
    std::fs::write(case.path("run.curriculum"), other).unwrap();
    let (code, text) = case.exec(&["--resume"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("holds a run of another plan"), "{text}");
    assert_eq!(case.calls().len(), 1);
}

#[test]
fn only_and_until_choose() {
    let case = Case::new();
    let (code, text) = case.exec(&["--only", "long[11]"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("`long[11]` starts from `main`"), "{text}");
    assert_eq!(case.exec(&["--resume", "--until", "long[11]"]).0, Some(0));
    assert_eq!(case.exec(&["--resume", "--only", "long"]).0, Some(0));
    assert!(!case.path("run/checkpoints/final").exists());
    let (code, text) = case.exec(&["--resume", "--only", "nothing"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("the plan has no stage or soup `nothing`"), "{text}");
    assert_eq!(case.exec(&["--resume"]).0, Some(0));
    assert_eq!(case.calls().len(), 4);
    case.whole();
}

#[test]
fn a_run_that_is_not_the_planned_one_ends_with_1() {
    let case = Case::new();
    case.mode("wrong 4");
    let (code, text) = case.exec(&["--until", "main"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("WRONG  main: step 4 used the learning rate"), "{text}");
    assert!(std::fs::read_to_string(case.path("run/log.txt")).unwrap().contains("verify: WRONG"));
    assert!(case.path("run/report.html").exists());
}

#[test]
fn a_missing_python_or_package_has_a_way_out() {
    let case = Case::new();
    for (variable, value, python, wanted) in [
        (
            "STANDIN_MISSING",
            r#""torch", "numpy""#,
            None,
            ["lacks `torch`, `numpy`", "-m pip install 'torch>="],
        ),
        ("STANDIN_BROKEN", "1", None, ["ImportError: libcudart.so.13", "--python PATH"]),
        ("UNUSED", "", Some("nowhere/python"), ["no Python", "MIDC_PYTHON"]),
    ] {
        let mut command = case.command(&[]);
        command.env(variable, value).args(python.iter().flat_map(|path| ["--python", *path]));
        let (code, text) = said(&command.output().unwrap());
        let flat = text.replace("\n", " ").replace('│', " ");
        let flat = flat.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(code, Some(2), "{text}");
        for wanted in wanted {
            assert!(flat.contains(wanted), "{wanted}: {text}");
        }
        // Nothing is begun that would have to be resumed.
        assert!(!case.path("run").exists());
    }
}
