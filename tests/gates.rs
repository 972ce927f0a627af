//! Gates on what several sources have in common, on what is not trained on, and on what is not there.

mod common;

use std::sync::atomic::AtomicBool;

use midc::plan::{self, Plan};
use midc::runtime::exec::{Outcome, exec};
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

#[test]
fn a_missing_task_is_known_before_the_first_step() {
    let dir = tempfile::tempdir().unwrap();
    let plan = graph(r#"choice("nosuch.jsonl") >= 50%"#);
    let error =
        exec(&plan, &common::options(dir.path(), "run", "trunk"), &AtomicBool::new(false), &()).unwrap_err();
    assert!(error.to_string().contains("nosuch.jsonl"), "{error}");
    let steps = journal::read::<StepRecord>(&dir.path().join("run/metrics.jsonl")).unwrap();
    assert!(steps.is_empty(), "{} steps", steps.len());
}
