//! Stages side by side: what ends one of them ends the run, with the others saved.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use midc::plan::{self, Precision};
use midc::runtime::data::OnBad;
use midc::runtime::engine::Device;
use midc::runtime::exec::{ExecError, ExecOptions, NotFinite, Selection, exec};
use midc::runtime::run_dir::Resume;

/// The graph of `tests/kill_resume`, whose members of the fan-out have a gate that cannot hold.
fn curriculum(dir: &Path) -> PathBuf {
    let graph = common::graph();
    let member = "  data_seed  = seed\n";
    assert!(graph.contains(member));
    let text = graph.replace(member, "  data_seed  = seed\n  gate { loss(prose) <= 0.5 }\n");
    let path = dir.join("gated.curriculum");
    std::fs::write(&path, text).unwrap();
    path
}

fn steps(run: &Path, stage: &str) -> Vec<u64> {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.filter(|r| r["stage"] == stage).map(|r| r["step"].as_u64().unwrap()).collect()
}

#[test]
fn a_gate_halts_the_members_beside_it_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (file, run) = (curriculum(dir.path()), dir.path().join("run"));
    for _ in 0..2 {
        let output = Command::new(env!("CARGO_BIN_EXE_midc"))
            .args(["exec", "--jobs", "2", "--resume", "--cache-dir"])
            .arg(dir.path().join("cache"))
            .arg(&file)
            .arg("--run-dir")
            .arg(&run)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("halted: the gate `loss(prose) <= 0.5` of stage `branch["), "{said}");
        for stage in ["trunk", "branch[2]", "branch[3]"] {
            let done = steps(&run, stage);
            assert!(!done.is_empty(), "{stage}");
            assert_eq!(done, (0..done.len() as u64).collect::<Vec<_>>(), "{stage}");
            let last = run.join(format!("checkpoints/{stage}/step-{}/state/trainer.json", done.len()));
            assert!(last.is_file(), "{} is not there: {said}", last.display());
        }
        assert!(steps(&run, "end").is_empty() && !run.join("checkpoints/mean").exists());
    }
}

#[test]
fn a_gpu_takes_one_stage_at_a_time() {
    let (curriculum, _) = common::check_text("model base {\n  init = llama3_8b\n  context = 4Ki\n}\n");
    let options = ExecOptions {
        base_dir: PathBuf::from("."),
        run_dir: PathBuf::from("never made"),
        cache_dir: PathBuf::from("never made"),
        resume: Resume::No,
        device: Device::Cuda(1),
        precision: Precision::Bf16,
        threads: None,
        memory: None,
        on_bad: OnBad::Skip,
        selection: Selection::All,
        jobs: 2,
        noise_every: None,
        on_not_finite: NotFinite::Skip,
        gates_halt: true,
    };
    let plan = plan::build(&curriculum.unwrap());
    let refused = exec(&plan, &options, &AtomicBool::new(false), &()).unwrap_err();
    assert!(matches!(refused, ExecError::JobsOnGpu { jobs: 2, ordinal: 1 }), "{refused}");
}
