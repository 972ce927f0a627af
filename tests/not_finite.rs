//! What a run does about a step whose loss is not finite, brought about by a learning rate of 1e17.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use midc::plan;
use midc::runtime::data::{Progress, Quiet};
use midc::runtime::exec::{Event, ExecOptions, NotFinite, Observer, exec};
use midc::runtime::journal::{self, StepRecord};

/// A stage of 48 steps with a checkpoint every 7, whose step 10 ruins the weights.
fn curriculum(dir: &Path) -> PathBuf {
    let graph = common::graph();
    let (trunk, _) = graph.split_once("stage branch").unwrap();
    let gentle = "linear(to: 2e-3, over: 5 steps) then hold";
    assert!(trunk.contains(gentle));
    let ruinous = "linear(to: 2e-3, over: 9 steps) then linear(to: 1e18, over: 10 steps) then hold";
    let text = trunk.replace(gentle, ruinous);
    let path = dir.join("ruin.curriculum");
    std::fs::write(&path, text).unwrap();
    path
}

/// What it printed and the steps in `metrics.jsonl`.
fn run(policy: &str) -> (String, Vec<u64>) {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let output = Command::new(env!("CARGO_BIN_EXE_midc"))
        .arg("exec")
        .arg(curriculum(dir.path()))
        .arg("--run-dir")
        .arg(&run)
        .arg("--cache-dir")
        .arg(dir.path().join("cache"))
        .args(["--on-nonfinite", policy, "-A", "lr_scale"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{policy}");
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let step =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap();
    // Reports break lines where the terminal would.
    let said = String::from_utf8(output.stderr).unwrap().replace('│', " ");
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    (said, metrics.lines().map(step).collect())
}

#[test]
fn skipping_gives_up_after_ten_in_a_row() {
    let (said, steps) = run("skip");
    assert_eq!(said.matches("update skipped").count(), 10, "{said}");
    assert!(said.contains("step 20") && said.contains("given up at occurrence 10"), "{said}");
    assert_eq!(steps, (0..20).collect::<Vec<_>>());
}

#[test]
fn rewinding_goes_back_to_the_checkpoint_three_times() {
    let (said, steps) = run("rewind");
    assert_eq!(said.matches("back to step 7 with the data that follows").count(), 3, "{said}");
    assert!(said.contains("given up at occurrence 4"), "{said}");
    // Every step once: the journal was cut back with the weights.
    assert_eq!(steps, (0..11).collect::<Vec<_>>());
}

/// A checkpoint that an interruption left is none that the plan asks for, and the times are counted through it.
#[test]
fn rewinding_is_the_same_whether_or_not_it_was_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(curriculum(dir.path())).unwrap();
    let (checked, _) = common::check_text(&format!("lints {{ lr_scale = allow }}\n{text}"));
    let plan = plan::build(&checked.unwrap());
    let run = |name: &str, stop_after: u64| {
        let options =
            ExecOptions { on_not_finite: NotFinite::Rewind, ..common::options(dir.path(), name, "trunk") };
        let (ended, notes) = common::Watch::new(stop_after).run(&plan, &options);
        (ended.is_err(), notes)
    };
    let (gave_up, calm) = run("calm", 0);
    assert!(gave_up && calm.matches("back to step 7").count() == 3, "{calm}");
    let mut stormy = String::new();
    // Before the first rewind, after it, and after the second.
    for stop_after in [9, 3, 4] {
        let (gave_up, notes) = run("stormy", stop_after);
        assert!(!gave_up, "{notes}");
        stormy = format!("{stormy}\n{notes}");
    }
    let (gave_up, notes) = run("stormy", 0);
    let stormy = format!("{stormy}\n{notes}");
    assert!(gave_up && stormy.matches("back to step 7").count() == 3, "{stormy}");
    assert!(!stormy.contains("back to step 9"), "{stormy}");
    let losses = |name: &str| {
        let records = journal::read::<StepRecord>(&dir.path().join(name).join("metrics.jsonl")).unwrap();
        records.iter().map(|r| (r.step, r.loss.to_bits())).collect::<Vec<_>>()
    };
    assert_eq!(losses("calm"), losses("stormy"));
}

/// Puts something in the way of removing a checkpoint, once the run has begun and cleaned up.
struct Obstacle(PathBuf);

impl Observer for Obstacle {
    fn on(&self, event: Event<'_>) {
        if matches!(event, Event::Step { .. }) {
            std::fs::create_dir_all(self.0.join("in the way")).unwrap();
        }
    }

    fn reading(&self) -> &dyn Progress {
        &Quiet
    }
}

/// What an interruption left goes before the journals are cut: a run that ends in between goes on from it, and has
/// every step.
#[test]
fn a_rewind_that_is_cut_short_leaves_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(curriculum(dir.path())).unwrap();
    let (checked, _) = common::check_text(&format!("lints {{ lr_scale = allow }}\n{text}"));
    let plan = plan::build(&checked.unwrap());
    let options =
        ExecOptions { on_not_finite: NotFinite::Rewind, ..common::options(dir.path(), "run", "trunk") };
    common::Watch::new(9).ended(&plan, &options);
    let series = dir.path().join("run/checkpoints/trunk");
    assert!(series.join("step-9").is_dir());
    // The name a checkpoint has while it is removed.
    let obstacle = Obstacle(series.join(format!(".tmp-old-{}-step-9", std::process::id())));
    let ended = exec(&plan, &options, &AtomicBool::new(false), &obstacle);
    assert!(ended.unwrap_err().to_string().contains("step-9"));
    let (ended, notes) = common::Watch::new(0).run(&plan, &options);
    assert!(ended.is_err() && notes.matches("back to step 7").count() == 3, "{notes}");
    let records = journal::read::<StepRecord>(&dir.path().join("run/metrics.jsonl")).unwrap();
    assert_eq!(records.iter().map(|r| r.step).collect::<Vec<_>>(), (0..11).collect::<Vec<_>>());
}

/// The names in the series of the trunk.
fn checkpoints(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run.join("checkpoints/trunk")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Weights that may be ruined take the place of no checkpoint, whatever is to be kept, and are not gone back to: the
/// run can still return to before them.
#[test]
fn the_last_good_checkpoint_stays() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(curriculum(dir.path())).unwrap();
    let often = text.replacen("save_every = 7 steps", "save_every = 2 steps", 1);
    let often = often.replacen("keep       = 2", "keep       = 1", 1);
    assert!(often.contains("save_every = 2 steps\n  keep       = 1\n"), "{often}");
    let (checked, _) = common::check_text(&format!("lints {{ lr_scale = allow }}\n{often}"));
    let plan = plan::build(&checked.unwrap());
    let run = dir.path().join("run");
    let skip = common::options(dir.path(), "run", "trunk");
    // Stopped among the steps that are not finite, where a checkpoint is due, and gone on with until it gives up.
    common::Watch::new(14).ended(&plan, &skip);
    assert_eq!(checkpoints(&run), ["step-10", "step-14"]);
    let (ended, _) = common::Watch::new(0).run(&plan, &skip);
    assert!(ended.is_err());
    assert_eq!(checkpoints(&run), ["step-10", "step-14"]);
    let rewind = ExecOptions { on_not_finite: NotFinite::Rewind, ..skip };
    let (ended, notes) = common::Watch::new(0).run(&plan, &rewind);
    assert!(ended.is_err() && notes.contains("back to step 10 with the data that follows"), "{notes}");
    assert_eq!(checkpoints(&run), ["step-10"]);
}

/// An update may ruin the weights and be saved before any loss tells: the checkpoint before stays until a step behind
/// the new one was finite, and is what a run returns to.
#[test]
fn a_checkpoint_stays_until_the_next_one_has_proved_itself() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(curriculum(dir.path())).unwrap();
    let often = text.replacen("save_every = 7 steps", "save_every = 1 steps", 1);
    let often = often.replacen("keep       = 2", "keep       = 1", 1);
    assert!(often.contains("save_every = 1 steps\n  keep       = 1\n"), "{often}");
    let (checked, _) = common::check_text(&format!("lints {{ lr_scale = allow }}\n{often}"));
    let plan = plan::build(&checked.unwrap());
    let run = dir.path().join("run");
    let rewind =
        ExecOptions { on_not_finite: NotFinite::Rewind, ..common::options(dir.path(), "run", "trunk") };
    let (ended, notes) = common::Watch::new(0).run(&plan, &rewind);
    assert!(ended.is_err(), "{notes}");
    assert_eq!(notes.matches("back to step 11 with").count(), 1, "{notes}");
    assert_eq!(notes.matches("back to step 10 with").count(), 2, "{notes}");
    assert_eq!(checkpoints(&run), ["step-10", "step-11"]);
}

#[test]
fn stopping_stops() {
    let (said, steps) = run("stop");
    assert!(said.contains("given up at occurrence 1"), "{said}");
    assert_eq!(steps, (0..11).collect::<Vec<_>>());
}
