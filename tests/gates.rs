//! Gates on what several sources have in common, on what is not trained on, and on what is not there.

mod common;

use std::sync::atomic::AtomicBool;

use midc::plan::{self, Plan};
use midc::runtime::exec::{ExecOptions, Outcome, exec};
use midc::runtime::journal::{self, EvalRecord, StepRecord};

/// The graph of `tests/kill_resume` with gates of its first stage.
fn graph(gates: &str) -> Plan {
    let text = common::graph();
    let eval = "eval heldout { every = 10 steps, loss = heldout 5% }";
    let text = text.replace(eval, &format!("{eval}\n  gate {{ {gates} }}"));
    let (curriculum, diagnostics) = common::check_text(&text);
    plan::build(&curriculum.unwrap_or_else(|| panic!("{diagnostics:?}")))
}

#[test]
fn the_loss_of_a_mix_is_the_mean_by_its_shares() {
    let dir = tempfile::tempdir().unwrap();
    // `qa` is no part of the stage's mix.
    let plan = graph("loss(both) <= 100, loss(later) <= 100% of from, loss(qa) <= 100");
    let ended =
        exec(&plan, &common::options(dir.path(), "run", "trunk"), &AtomicBool::new(false), &()).unwrap();
    assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    let records = journal::read::<EvalRecord>(&dir.path().join("run/evals.jsonl")).unwrap();
    let last = records.iter().map(|r| r.step).max().unwrap();
    let value = |eval: &str, subject: &str| {
        let found = records.iter().find(|r| r.step == last && r.eval == eval && r.subject == subject);
        found.unwrap_or_else(|| panic!("{eval} {subject}")).value
    };
    let [prose, code, qa] = ["prose", "code", "qa"].map(|source| value("heldout", source));
    for (gate, expected) in [
        ("both", 0.6 * prose + 0.4 * code),
        ("later", 0.7 * (0.6 * prose + 0.4 * code) + 0.3 * qa),
        ("qa", qa),
    ] {
        let got = value("gate", gate);
        assert!((got - expected).abs() < 1e-9, "{gate}: {got} for {expected}");
    }
}

/// It is in no mix, and nothing else is measured or held out for it.
#[test]
fn a_source_for_validation_is_measured_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = common::root().join("examples/data");
    let text = common::graph()
        .replace(
            "mix both",
            &format!(
                "source val {{ path = \"{}/prose.test.jsonl\", validation = yes }}\n\nmix both",
                data.display()
            ),
        )
        .replace(
            "eval heldout { every = 10 steps, loss = heldout 5% }",
            "eval on_val { every = 20 steps, loss = val, tokens = 2Ki }\n  gate { loss(val) <= 98% of from }",
        )
        .replace("  eval heldout { loss = heldout 5% }\n", "");
    let (curriculum, diagnostics) = common::check_text(&text);
    let plan = plan::build(&curriculum.unwrap_or_else(|| panic!("{diagnostics:?}")));
    assert_eq!((plan.heldout(), plan.stages[0].evals[0].sources.as_slice()), (0.0, &["val".to_owned()][..]));
    let options = common::options(dir.path(), "run", "trunk");
    let ended = exec(&plan, &options, &AtomicBool::new(false), &()).unwrap();
    assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    let records = journal::read::<EvalRecord>(&dir.path().join("run/evals.jsonl")).unwrap();
    let of = |eval: &str| {
        let found = records.iter().filter(|r| r.eval == eval && r.measure == "loss");
        found.map(|r| (r.subject.as_str(), r.step)).collect::<Vec<_>>()
    };
    assert_eq!(of("on_val"), [("val", 0), ("val", 20), ("val", 40), ("val", 48)]);
    assert_eq!(of("gate"), [("val", 0), ("val", 48)]);
    assert!(records.iter().all(|r| r.measure != "loss" || (1500..=2048).contains(&r.count)), "{records:?}");
}

#[test]
fn a_task_that_is_missing_or_empty_is_known_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("empty.jsonl"), "\n\n").unwrap();
    for task in ["nosuch.jsonl", "empty.jsonl"] {
        let plan = graph(&format!("choice(\"{task}\") >= 50%"));
        let error = exec(&plan, &common::options(dir.path(), task, "trunk"), &AtomicBool::new(false), &());
        let error = error.unwrap_err().to_string();
        assert!(error.contains(task), "{error}");
        let steps = journal::read::<StepRecord>(&dir.path().join(task).join("metrics.jsonl")).unwrap();
        assert!(steps.is_empty(), "{} steps", steps.len());
    }
}

/// Raw and by log-likelihood per character, each under a measure of its own; a gate is on the raw one. A gate that
/// does not hold is told in a sentence.
#[test]
fn both_accuracies_of_a_task_are_written_down() {
    let dir = tempfile::tempdir().unwrap();
    // Whatever the model has learned, a choice that is the other once more is less likely as a whole; the longer
    // has the larger part of its characters predicted from what stands before.
    let question = serde_json::json!({
        "question": "the", "choices": ["x", "the the the the the the the the the the the the"], "answer": 0,
    });
    std::fs::write(dir.path().join("task.jsonl"), question.to_string()).unwrap();
    let plan = graph("choice(\"task.jsonl\") >= 50%, loss(prose) <= 0.5");
    let options = ExecOptions { gates_halt: false, ..common::options(dir.path(), "run", "trunk") };
    let (ended, notes) = common::Watch::new(0).ended(&plan, &options);
    assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
    let records = journal::read::<EvalRecord>(&dir.path().join("run/evals.jsonl")).unwrap();
    let task: Vec<_> = records.iter().filter(|r| r.subject == "task.jsonl").collect();
    let found: Vec<_> = task.iter().map(|r| (r.measure.as_str(), r.value, r.count)).collect();
    assert_eq!(found, [("choice", 1.0, 1), ("choice_norm", 0.0, 1)]);
    assert!(notes.contains("the gate `loss(prose) <= 0.5` of stage `trunk` does not hold: "), "{notes}");
    assert!(notes.contains(" against 0.5000") && !notes.contains("GateFailed"), "{notes}");
}
