//! What `midc exec` records for each step is what `midc plan` said it would be.

use std::path::Path;
use std::process::Command;

use midc::plan::Plan;

const SETS: [&str; 4] = ["--set", "stable_tokens=100k", "--set", "anneal_tokens=50k"];

fn midc(args: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_midc"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(args)
        .args(SETS)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn every_step_of_the_quickstart() {
    let example = "examples/quickstart.curriculum";
    let plan: Plan = serde_json::from_slice(&midc(&["plan", example, "--format", "json"])).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (run_dir, cache) = (path("run"), path("cache"));
    midc(&["exec", example, "--quiet", "--run-dir", &run_dir, "--cache-dir", &cache]);

    let text = std::fs::read_to_string(Path::new(&run_dir).join("metrics.jsonl")).unwrap();
    let mut records = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    for stage in &plan.stages {
        let (mut seen, mut rows_of_first) = (0, 0.0);
        let first = &stage.mix[0];
        for step in 0..stage.steps {
            let record = records.next().expect("one line for each step");
            let at = |key: &str| record[key].as_f64().unwrap();
            assert_eq!(record["stage"], stage.name);
            assert_eq!(record["step"], step);
            assert_eq!(record["tokens"], seen);
            assert_eq!(at("lr"), stage.lr.curve.value(seen));
            let point = stage.step_point(step);
            assert_eq!(record["batch_tokens"], point.sequences * point.context);
            assert_eq!(record["context"], point.context);
            for mix in &stage.mix {
                assert_eq!(record["mix"][&mix.source].as_f64().unwrap(), mix.weight.value(seen));
            }
            seen += point.sequences * point.context;
            // The realised share stays within one row of the plan at every prefix.
            rows_of_first += record["rows"][&first.source].as_f64().unwrap() * point.context as f64;
            let planned = first.weight_mean * seen as f64;
            assert!((rows_of_first - planned).abs() <= point.context as f64, "step {step}");
        }
        assert_eq!(seen, stage.tokens + stage.overshoot_tokens);
    }
    assert!(records.next().is_none());
}

#[test]
fn a_plan_whose_first_learning_rate_is_not_its_curves_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan: serde_json::Value =
        serde_json::from_slice(&midc(&["plan", "examples/quickstart.curriculum", "--format", "json"]))
            .unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let path = dir.path().join("plan.json");
    let run = |plan: &serde_json::Value| {
        let text = plan.to_string().replace("data/", &format!("{root}/examples/data/"));
        let mut plan: midc::plan::Plan = serde_json::from_str(&text).unwrap();
        plan.hash = midc::plan::hash(&plan);
        std::fs::write(&path, serde_json::to_vec(&plan).unwrap()).unwrap();
        let run_dir = dir.path().join("run");
        let output = Command::new(env!("CARGO_BIN_EXE_midc"))
            .arg("exec")
            .arg(&path)
            .args(["--quiet", "--until", "stable", "--run-dir"])
            .arg(&run_dir)
            .arg("--cache-dir")
            .arg(dir.path().join("cache"))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), run_dir)
    };
    plan["stages"][0]["lr"]["start"] = serde_json::json!(0.125);
    let (code, said, run_dir) = run(&plan);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("1.25e-1") && said.contains("stable"), "{said}");
    assert_eq!(std::fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap_or_default(), "");
}
