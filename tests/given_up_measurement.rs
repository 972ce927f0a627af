//! A run that is asked to stop while it measures writes a checkpoint soon, and measures when it goes on what it
//! gave up: its records are those of a run that nobody stopped.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use midc::plan::{self, Plan};
use midc::runtime::data::Progress;
use midc::runtime::exec::{Event, Observer, Outcome, exec};
use midc::runtime::journal::{self, EvalRecord, StepRecord};

/// Asks to stop once at every step that is measured, after the first of its records.
#[derive(Default)]
struct Impatient {
    stop: AtomicBool,
    stopped_at: Mutex<BTreeSet<u64>>,
}

impl Observer for Impatient {
    fn on(&self, event: Event<'_>) {
        if let Event::Eval(record) = event
            && self.stopped_at.lock().unwrap().insert(record.step)
        {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn reading(&self) -> &dyn Progress {
        // As of somebody who does not watch.
        ().reading()
    }
}

/// What was measured, without what differs from run to run.
fn evals(run: &Path) -> Vec<EvalRecord> {
    journal::read::<EvalRecord>(&run.join("evals.jsonl")).unwrap()
}

fn losses(run: &Path) -> Vec<(u64, f64)> {
    let records = journal::read::<StepRecord>(&run.join("metrics.jsonl")).unwrap();
    records.iter().map(|r| (r.step, r.loss)).collect()
}

fn graph() -> Plan {
    let eval = "eval heldout { every = 10 steps, loss = heldout 5% }";
    let text = common::graph();
    assert!(text.contains(eval));
    let text = text.replace(eval, "eval heldout { every = 10 steps, loss = heldout 5%, needle = [128] }");
    let (curriculum, _) = common::check_text(&text);
    plan::build(&curriculum.unwrap())
}

#[test]
fn it_is_taken_when_the_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let plan = graph();
    let steps = plan.stages.iter().find(|s| s.name == "trunk").unwrap().steps;
    let calm =
        exec(&plan, &common::options(dir.path(), "calm", "trunk"), &AtomicBool::new(false), &()).unwrap();
    assert!(matches!(calm, Outcome::Finished(_)));

    let (options, observer) = (common::options(dir.path(), "stopped", "trunk"), Impatient::default());
    let run = options.run_dir.clone();
    let mut given_up = Vec::new();
    loop {
        observer.stop.store(false, Ordering::Relaxed);
        match exec(&plan, &options, &observer.stop, &observer).unwrap() {
            Outcome::Stopped { step, .. } if step < steps => {
                let records = evals(&run).iter().filter(|r| r.step == step).count();
                assert_eq!(records, 1, "step {step} was measured on");
                // Before the first step there is nothing to keep.
                if step > 0 {
                    let state = run.join(format!("checkpoints/trunk/step-{step}/state/trainer.json"));
                    let state: serde_json::Value =
                        serde_json::from_slice(&std::fs::read(state).unwrap()).unwrap();
                    assert_eq!(state["unmeasured"], true, "{state}");
                }
                given_up.push(step);
            }
            Outcome::Stopped { .. } => {}
            Outcome::Finished(_) => break,
            other => panic!("{other:?}"),
        }
    }
    // The end of the stage is measured whoever asks: its checkpoint says that all is done.
    assert_eq!(given_up, [0, 10, 20, 30, 40]);
    assert_eq!(evals(&run), evals(&dir.path().join("calm")));
    assert_eq!(losses(&run), losses(&dir.path().join("calm")));
}
