//! `--memory`: what fits the limit is trained to the same bits, and its checkpoints are written without a copy.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use midc::plan::{self, Plan, Precision};
use midc::runtime::engine::Device;
use midc::runtime::exec::{ExecError, ExecOptions, Outcome, Selection, exec, memory};

fn graph() -> Plan {
    let (curriculum, diagnostics) = common::check_text(&common::graph());
    plan::build(&curriculum.unwrap_or_else(|| panic!("{diagnostics:?}")))
}

/// What is held without a limit.
fn held(plan: &Plan, dir: &Path) -> u64 {
    let all = memory(plan, dir, Device::Cpu, Precision::F32, None).expect("a prediction");
    all.iter().map(|stage| stage.memory.total()).max().expect("a stage")
}

/// The files of the last checkpoint of `trunk`.
fn files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let last = run.join("checkpoints/trunk/step-48");
    let mut files = BTreeMap::new();
    for dir in [last.clone(), last.join("state")] {
        for entry in fs::read_dir(dir).expect("a checkpoint").flatten().filter(|e| e.path().is_file()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.insert(name, fs::read(entry.path()).expect("a file"));
        }
    }
    files
}

#[test]
fn a_checkpoint_without_a_copy_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let plan = graph();
    let limit = held(&plan, dir.path());
    for (name, memory) in [("free", None), ("tight", Some(limit))] {
        let options = ExecOptions { memory, ..common::options(dir.path(), name, "trunk") };
        let ended = exec(&plan, &options, &AtomicBool::new(false), &()).unwrap();
        assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    }
    let [free, tight] = ["free", "tight"].map(|name| files(&dir.path().join(name)));
    assert_eq!(free.keys().collect::<Vec<_>>(), tight.keys().collect::<Vec<_>>());
    for (name, bytes) in &free {
        assert!(*bytes == tight[name], "{name} differs");
    }
}

/// Refused before the trunk is trained, not when its branches have half of the memory each.
#[test]
fn stages_that_train_at_the_same_time_fit_together() {
    let dir = tempfile::tempdir().unwrap();
    let plan = graph();
    let least = (1..64)
        .map(|n| n << 20)
        .find(|limit| memory(&plan, dir.path(), Device::Cpu, Precision::F32, Some(*limit)).is_ok());
    let options = ExecOptions {
        memory: least.map(|bytes| bytes + (bytes >> 1)),
        jobs: 2,
        selection: Selection::All,
        ..common::options(dir.path(), "run", "trunk")
    };
    let refused = exec(&plan, &options, &AtomicBool::new(false), &()).unwrap_err();
    assert!(
        matches!(&refused, ExecError::TooLarge { stage, parts: 2, .. } if stage == "branch[2]"),
        "{refused}"
    );
    let help = miette::Diagnostic::help(&refused).map(|help| help.to_string()).unwrap_or_default();
    assert!(help.contains("--jobs"), "{help}");
    assert!(!dir.path().join("run/checkpoints/trunk").exists());
}
