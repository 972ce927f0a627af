//! Curricula that are edited while their run is under way, and runs whose plan is gone.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use midc::plan::{self, Plan};
use midc::runtime::exec::{ExecOptions, Outcome};
use midc::runtime::journal::{self, StepRecord};
use midc::runtime::run_dir::Resume;

/// The graph of `tests/kill_resume` with something else in the place of each of these.
fn graph(edits: &[(&str, &str)]) -> Plan {
    let mut text = common::graph();
    for (before, after) in edits {
        assert!(text.contains(before), "{before}");
        text = text.replacen(before, after, 1);
    }
    let (curriculum, diagnostics) = common::check_text(&text);
    plan::build(&curriculum.unwrap_or_else(|| panic!("{diagnostics:?}")))
}

/// Where the stage `trunk` of a run ends.
fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("checkpoints/trunk/step-48/model.safetensors")).expect("the last checkpoint")
}

/// A run of the graph as it is, stopped after twelve of the 48 steps of `trunk`.
fn begun(dir: &Path, run: &str) -> ExecOptions {
    let options = common::options(dir, run, "trunk");
    let (ended, _) = common::Watch::new(12).ended(&graph(&[]), &options);
    assert!(matches!(ended, Outcome::Stopped { step: 12, .. }), "{ended:?}");
    options
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copied(&path, &to);
        } else {
            fs::copy(&path, to).expect("a copy");
        }
    }
}

fn run_dir(options: &ExecOptions, name: &str) -> (PathBuf, ExecOptions) {
    let run_dir = options.run_dir.with_file_name(name);
    copied(&options.run_dir, &run_dir);
    (run_dir.clone(), ExecOptions { run_dir, resume: Resume::Edited, ..options.clone() })
}

const LATER: (&str, &str) = (
    "lr         = 0 then linear(to: 1e-3, over: 3 steps)",
    "lr         = 0 then linear(to: 2e-3, over: 3 steps)",
);
const GOES_ON: (&str, &str) =
    ("over: 5 steps) then hold", "over: 5 steps) then hold(over: 30 steps) then linear(to: 1e-4)");

#[test]
fn what_is_done_stays_and_the_rest_follows_the_edited_curriculum() {
    let dir = tempfile::tempdir().unwrap();
    let begun = begun(dir.path(), "begun");
    // A stage that has not begun; one that is under way, from beyond where it stands; a source that joins there.
    let joins =
        ("mix        = both", "mix        = both then hold(over: 30 steps) then step(to: later) then hold");
    for (name, edit) in [("later", LATER), ("goes_on", GOES_ON), ("joins", joins)] {
        let plan = graph(&[edit]);
        let (run, edited) = run_dir(&begun, name);
        let same = ExecOptions { resume: Resume::Same, ..edited.clone() };
        let refused = common::Watch::new(0).run(&plan, &same).0.unwrap_err();
        let help = miette::Diagnostic::help(&refused).map(|help| help.to_string()).unwrap_or_default();
        assert!(
            refused.to_string().contains("another plan") && help.contains("--edited"),
            "{refused}: {help}"
        );

        let (ended, notes) = common::Watch::new(0).ended(&plan, &edited);
        assert!(matches!(ended, Outcome::Finished(_)), "{ended:?}");
        assert!(
            notes.contains("goes on with an edited curriculum") && notes.contains("`was-plan-1.json`"),
            "{notes}"
        );
        let read = |file: &str| Plan::read(&fs::read(run.join(file)).unwrap()).unwrap().hash;
        assert_eq!([read("plan.json"), read("was-plan-1.json")], [plan.hash.clone(), graph(&[]).hash]);

        let steps = journal::read::<StepRecord>(&run.join("metrics.jsonl")).unwrap();
        assert_eq!(steps.iter().map(|r| r.step).collect::<Vec<_>>(), (0..48).collect::<Vec<_>>());
        let fresh = common::options(dir.path(), &format!("fresh_{name}"), "trunk");
        common::Watch::new(0).ended(&plan, &fresh);
        assert_eq!(weights(&run), weights(&fresh.run_dir), "{name}");
    }
}

#[test]
fn what_is_done_is_not_made_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let begun = begun(dir.path(), "begun");
    for (edit, said) in [
        (("data_seed  = 1", "data_seed  = 7"), "`data_seed`"),
        (("linear(to: 2e-3, over: 5 steps)", "linear(to: 1e-3, over: 5 steps)"), "`lr`"),
        (("dedup = exact", "dedup = exact, order = as_written"), ""),
    ] {
        let plan = graph(&[edit]);
        let (run, edited) = run_dir(&begun, "stale");
        let ended = common::Watch::new(13).run(&plan, &edited).0;
        if said.is_empty() {
            // A source that nothing has read yet.
            assert!(matches!(ended, Ok(Outcome::Stopped { .. })), "{ended:?}");
        } else {
            let said_so = ended.unwrap_err().to_string();
            assert!(said_so.contains("does not go on") && said_so.contains(said), "{said_so}");
            assert_eq!(
                fs::read(run.join("plan.json")).unwrap(),
                fs::read(begun.run_dir.join("plan.json")).unwrap()
            );
            assert!(!run.join("was-plan-1.json").exists());
        }
        fs::remove_dir_all(&run).unwrap();
    }
}

#[test]
fn a_plan_that_is_gone_or_damaged_is_written_anew_for_its_own_checkpoints_alone() {
    let dir = tempfile::tempdir().unwrap();
    let begun = begun(dir.path(), "begun");
    let straight = common::options(dir.path(), "straight", "trunk");
    common::Watch::new(0).ended(&graph(&[]), &straight);
    for damaged in [None, Some("{")] {
        let (run, edited) = run_dir(&begun, "gone");
        let plan_json = run.join("plan.json");
        fs::remove_file(&plan_json).unwrap();
        fs::write(run.join("report.html"), "of the run").unwrap();
        if let Some(text) = damaged {
            fs::write(&plan_json, text).unwrap();
        }
        for (resume, plan) in
            [(Resume::No, graph(&[])), (Resume::Same, graph(&[GOES_ON])), (Resume::Edited, graph(&[LATER]))]
        {
            let options = ExecOptions { resume, ..edited.clone() };
            let refused = common::Watch::new(0).run(&plan, &options).0.unwrap_err().to_string();
            assert!(refused.contains("plan.json"), "{refused}");
            assert_eq!(fs::read_to_string(&plan_json).ok().as_deref(), damaged);
        }
        let same = ExecOptions { resume: Resume::Same, ..edited };
        let (ended, notes) = common::Watch::new(0).ended(&graph(&[]), &same);
        assert!(matches!(ended, Outcome::Finished(_)) && notes.contains("it is written anew"), "{notes}");
        assert_eq!(weights(&run), weights(&straight.run_dir));
        fs::remove_dir_all(&run).unwrap();
    }
}
