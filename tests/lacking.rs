//! What a run that goes on lacks is made up for: measurements that were not asked for, checkpoints that are gone, steps
//! in which nothing is to be learned. And what it has is not lost for what an interruption left.

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use common::Watch;
use midc::plan::{self, Plan};
use midc::runtime::data::{Progress, Quiet};
use midc::runtime::exec::{Event, ExecOptions, NotFinite, Observer, Outcome, Selection, exec};
use midc::runtime::journal::{self, EvalRecord, StepRecord};

fn built(text: &str) -> Plan {
    let (curriculum, diagnostics) = common::check_text(text);
    plan::build(&curriculum.unwrap_or_else(|| panic!("{diagnostics:?}")))
}

/// The first stage of the graph with `more` in it, and what follows.
fn trunk(more: &str, after: &str) -> Plan {
    let graph = common::graph();
    let (before, _) = graph.split_once("stage branch").unwrap();
    let (before, _) = before.rsplit_once('}').unwrap();
    built(&format!("{before}{more}\n}}\n{after}"))
}

fn checkpoints(run: &Path, stage: &str) -> Vec<u64> {
    let entries = std::fs::read_dir(run.join("checkpoints").join(stage)).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut steps: Vec<u64> = names.filter_map(|n| n.strip_prefix("step-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

fn weights(run: &Path, stage: &str, step: u64) -> Vec<u8> {
    std::fs::read(run.join(format!("checkpoints/{stage}/step-{step}/model.safetensors"))).unwrap()
}

#[test]
fn a_gate_of_a_finished_stage_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let options = common::options(dir.path(), "run", "trunk");
    let (ended, _) = Watch::new(0).ended(&trunk("", ""), &options);
    assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    let gated = trunk("gate { loss(both) <= 99% of from }", "");
    let (ended, _) = Watch::new(0).ended(&gated, &options);
    assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    let run = dir.path().join("run");
    let records = journal::read::<EvalRecord>(&run.join("evals.jsonl")).unwrap();
    let value = |step: u64| {
        let found: Vec<f64> =
            records.iter().filter(|r| r.eval == "gate" && r.step == step).map(|r| r.value).collect();
        assert_eq!(found.len(), 1, "step {step}");
        found[0]
    };
    let eval = |source: &str, step: u64| {
        let found = records.iter().find(|r| r.eval == "heldout" && r.subject == source && r.step == step);
        found.unwrap().value
    };
    for step in [0, gated.stages[0].steps] {
        let expected = 0.6 * eval("prose", step) + 0.4 * eval("code", step);
        assert!((value(step) - expected).abs() < 1e-9, "step {step}: {} for {expected}", value(step));
    }
    // Reports look at the plan that is there.
    assert!(std::fs::read_to_string(run.join("plan.json")).unwrap().contains("99% of from"));
    // A gate that fails is the new one, too.
    let strict = trunk("gate { loss(both) <= 1% of from }", "");
    let (ended, _) = Watch::new(0).ended(&strict, &options);
    assert!(matches!(ended, Outcome::GateFailed { .. }), "{ended:?}");
}

#[test]
fn a_start_that_is_gone_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let after = "stage late { from = trunk.half, steps = 4, mix = both, lr = 1e-3, data_seed = 9 }";
    let plan = trunk("checkpoint half { at = 24 steps }", after);
    let run = dir.path().join("run");
    let first = common::options(dir.path(), "run", "trunk");
    Watch::new(0).ended(&plan, &first);
    let half = weights(&run, "trunk", 24);
    let end = weights(&run, "trunk", 48);
    std::fs::remove_dir_all(run.join("checkpoints/trunk/step-24")).unwrap();
    // What does not need it goes past it.
    let (_, notes) = Watch::new(0).ended(&plan, &first);
    assert!(!notes.contains("taken up again"), "{notes}");
    let options = ExecOptions { selection: Selection::All, ..first };
    // Interrupted after the checkpoint that was lacking is there again.
    let (_, torn) = Watch::new(30).ended(&plan, &options);
    let (ended, notes) = Watch::new(0).ended(&plan, &options);
    let notes = format!("{torn}\n{notes}");
    assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    assert!(notes.contains("after step 24 of stage `trunk`, which `late` starts from, is gone"), "{notes}");
    assert!(weights(&run, "trunk", 24) == half && weights(&run, "trunk", 48) == end);
    assert_eq!(checkpoints(&run, "late"), [4]);
    let steps = journal::read::<StepRecord>(&run.join("metrics.jsonl")).unwrap();
    let of_trunk: Vec<u64> = steps.iter().filter(|r| r.stage == "trunk").map(|r| r.step).collect();
    assert_eq!(of_trunk, (0..48).collect::<Vec<_>>());
}

#[test]
fn interruptions_take_no_place_of_periodic_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let options = common::options(dir.path(), "run", "trunk");
    let plan = trunk("", "");
    let run = dir.path().join("run");
    // The one before stays until a step has started from the next.
    for (steps, left) in [(23, vec![14, 21, 23]), (1, vec![14, 21, 23, 24]), (24, vec![35, 42, 48])] {
        Watch::new(steps).ended(&plan, &options);
        assert_eq!(checkpoints(&run, "trunk"), left);
    }
}

#[test]
fn another_noise_every_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let never = common::options(dir.path(), "run", "trunk");
    let often = ExecOptions { noise_every: Some(3), ..never.clone() };
    let plan = trunk("", "");
    for (steps, options, noted) in
        [(4, &never, ""), (4, &often, "every 3 steps"), (4, &often, ""), (0, &never, "never")]
    {
        let (_, notes) = Watch::new(steps).ended(&plan, options);
        assert_eq!(notes.contains("`--noise-every`"), !noted.is_empty(), "{notes}");
        assert!(notes.contains(noted), "{notes}");
    }
}

/// Moves the directory of a run away after so many steps.
struct Mover<'a> {
    after: u64,
    from: &'a Path,
    to: &'a Path,
}

impl Observer for Mover<'_> {
    fn on(&self, event: Event<'_>) {
        if let Event::Step { record, .. } = event
            && record.step == self.after
        {
            std::fs::rename(self.from, self.to).unwrap();
        }
    }

    fn reading(&self) -> &dyn Progress {
        &Quiet
    }
}

#[test]
fn a_run_whose_directory_is_moved_ends_and_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    let options = common::options(dir.path(), "run", "trunk");
    let plan = trunk("", "");
    let (from, to) = (dir.path().join("run"), dir.path().join("moved"));
    let mover = Mover { after: 9, from: &from, to: &to };
    let error = exec(&plan, &options, &AtomicBool::new(false), &mover).unwrap_err();
    assert!(error.to_string().contains("was moved or removed"), "{error}");
    assert!(!from.exists() && checkpoints(&to, "trunk") == [7]);
    let (ended, _) = Watch::new(0).ended(&plan, &common::options(dir.path(), "moved", "trunk"));
    assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    let steps = journal::read::<StepRecord>(&to.join("metrics.jsonl")).unwrap();
    assert_eq!(steps.iter().map(|r| r.step).collect::<Vec<_>>(), (0..48).collect::<Vec<_>>());
}

#[test]
fn periods_in_tokens_hold_where_steps_change() {
    let text = common::graph();
    let (before, _) = text.split_once("stage trunk").unwrap();
    let plan = built(&format!(
        "{before}stage trunk {{ from = tiny, tokens = 51_200, context = 128, mix = both, data_seed = 1, lr = 1e-3
           batch = 1 seqs then hold(over: 10_240) then step(to: 8 seqs) then hold
           save_every = 5_120 tokens
           eval e {{ every = 10% of stage, loss = heldout 5% }} }}"
    ));
    let dir = tempfile::tempdir().unwrap();
    Watch::new(0).ended(&plan, &common::options(dir.path(), "run", "trunk"));
    // 80 steps of 128 tokens, then 40 of 1,024.
    let expected: Vec<u64> = [40, 80].into_iter().chain((1..=8).map(|n| 80 + 5 * n)).collect();
    assert_eq!(checkpoints(&dir.path().join("run"), "trunk"), expected);
    let records = journal::read::<EvalRecord>(&dir.path().join("run/evals.jsonl")).unwrap();
    let steps: Vec<u64> = records.iter().filter(|r| r.subject == "prose").map(|r| r.step).collect();
    assert_eq!(steps, [0].into_iter().chain(expected).collect::<Vec<_>>());
}

/// Rows within a long question have no token of the answer.
#[test]
fn steps_without_a_target_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let long = "why ".repeat(300);
    let record = |i: usize| {
        serde_json::json!({"messages": [
            {"role": "user", "content": format!("{i} {long}")}, {"role": "assistant", "content": "because"},
        ]})
    };
    let lines: Vec<String> = (0..40).map(|i| record(i).to_string()).collect();
    std::fs::write(dir.path().join("talk.jsonl"), lines.join("\n")).unwrap();
    let text = common::graph();
    let (before, _) = text.split_once("source prose").unwrap();
    let plan = built(&format!(
        "{before}source talk {{ path = \"talk.jsonl\", kind = instruct, loss_on = \"assistant\" }}
         stage s {{ from = tiny, steps = 40, context = 128, batch = 1 seqs, mix = talk, data_seed = 1, lr = 1e-3 }}"
    ));
    let outcome = |run: &str, stop_after: u64| {
        let options = ExecOptions {
            base_dir: PathBuf::from(dir.path()),
            on_not_finite: NotFinite::Stop,
            ..common::options(dir.path(), run, "s")
        };
        Watch::new(stop_after).ended(&plan, &options)
    };
    let (ended, notes) = outcome("run", 0);
    assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    assert_eq!(notes.matches("carries loss").count(), 1, "{notes}");
    let steps = journal::read::<StepRecord>(&dir.path().join("run/metrics.jsonl")).unwrap();
    let idle = steps.iter().filter(|r| r.skipped).count();
    assert!(idle > 10 && idle < 40, "{idle} of {}", steps.len());
    assert!(steps.iter().all(|r| r.skipped == r.loss.is_nan()));
    // Where it was interrupted makes no difference.
    for stop_after in [13, 20] {
        outcome("torn", stop_after);
    }
    outcome("torn", 0);
    assert!(weights(&dir.path().join("run"), "s", 40) == weights(&dir.path().join("torn"), "s", 40));
}
