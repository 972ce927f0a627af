//! `midc report` on made-up runs: whole, damaged, hostile, and a million steps long.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use midc::plot::{History, Step, report_html};
use serde_json::Value;

use crate::{plans, runs};

/// The page that `midc report` writes for `dir`.
fn page(dir: &Path) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_midc")).arg("report").arg(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(dir.join("report.html")).unwrap()
}

/// The data of the page's script.
fn data(page: &str) -> Value {
    let start = page.split_once("id=\"data\">").unwrap().1;
    serde_json::from_str(start.split_once("</script>").unwrap().0).unwrap()
}

/// No element, attribute or address but our own.
fn assert_contained(page: &str) {
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    let ours = page.match_indices("://").all(|(i, _)| page[i..].starts_with("://www.w3.org/2000/svg"));
    assert!(ours, "the page names another address");
    for bad in ["<img", "<svg onload", "<a ", "<link", "<iframe", "@import", "url(http"] {
        assert!(!page.contains(bad), "{bad}");
    }
}

#[test]
fn a_whole_run_is_told_in_full() {
    let dir = match std::env::var_os("MIDC_PICTURES") {
        Some(kept) => Path::new(&kept).join("run"),
        None => tempfile::tempdir().unwrap().keep(),
    };
    let _ = std::fs::remove_dir_all(&dir);
    runs::write(&runs::plan(), &dir);
    let page = page(&dir);
    assert_contained(&page);
    for said in [
        "gate failed",
        "✓ passed",
        "✗ failed",
        "not measured",
        "steps skipped or without a finite loss",
        "step-600 is damaged",
        "<th scope=\"row\" class=\"num\">2Ki</th>",
        "mixture, share of sampled tokens",
    ] {
        assert!(page.contains(said), "{said}");
    }
    let data = data(&page);
    let steps = |key: &str| data[key].as_array().unwrap().len();
    assert_eq!(steps("loss"), steps("from"));
    assert_eq!(data["bad"].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>(), 1);
    assert_eq!(data["stages"].as_array().unwrap().len(), 4);
    // Every source is within one row of its plan, as the runtime keeps it.
    let (_, mixture) = page.split_once("rows off").unwrap();
    let (mixture, _) = mixture.split_once("</table>").unwrap();
    let off: Vec<f64> = mixture
        .split("<span class=\"")
        .skip(1)
        .map(|cell| cell.split_once("\">").unwrap().1.split_once('<').unwrap().0.parse().unwrap())
        .collect();
    assert_eq!(off.len(), 4 + 2 * 4 + 2, "a row for each source of each stage");
    assert!(off.iter().all(|rows| rows.abs() < 1.0), "{off:?}");
    if std::env::var_os("MIDC_PICTURES").is_none() {
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

#[test]
fn a_million_steps_fit_a_page_and_keep_their_extremes() {
    let batch = 1024 * 4096;
    let mut stage = plans::stage(
        "only",
        "base",
        1_000_000 * batch,
        plans::decay(1_000_000 * batch),
        &[("web", 0.5), ("code", 0.5)],
    );
    stage.from_kind = midc::plan::FromKind::Model;
    let plan = plans::plan("large", vec![stage], Vec::new());
    let mut history = History::new(&plan);
    let losses = BTreeMap::from([("web".to_owned(), 2.0), ("code".to_owned(), 1.5)]);
    let mix = BTreeMap::from([("web".to_owned(), 0.5), ("code".to_owned(), 0.5)]);
    let rows = BTreeMap::from([("web".to_owned(), 512), ("code".to_owned(), 512)]);
    for step in 0..1_000_000 {
        history.step(Step {
            stage: "only",
            step,
            tokens: step * batch,
            lr: 1e-3,
            batch_tokens: batch,
            context: 4096,
            loss: if step == 654_321 { 77.0 } else { 2.0 },
            loss_by_source: &losses,
            grad_norm: 1.0,
            tokens_per_second: 1e6,
            mix: &mix,
            rows: &rows,
            skipped: false,
        });
    }
    let page = report_html(&plan, &history);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    let data = data(&page);
    let spike =
        data["loss"].as_array().unwrap().iter().find(|v| v.is_array()).expect("one bucket has a range");
    assert_eq!(spike[1], 2);
    assert_eq!(spike[2], 77);
    let mean = spike[0].as_f64().unwrap();
    assert!(mean > 2.0 && mean < 2.2, "{mean}");
}

#[test]
fn half_written_journals_are_reported_as_far_as_they_go() {
    let whole = tempfile::tempdir().unwrap();
    let plan = runs::plan();
    runs::write(&plan, whole.path());
    let metrics = std::fs::read(whole.path().join("metrics.jsonl")).unwrap();
    for cut in [0, 1, 1000, metrics.len() / 2, metrics.len() - 3] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(whole.path().join("plan.json"), dir.path().join("plan.json")).unwrap();
        std::fs::write(dir.path().join("metrics.jsonl"), &metrics[..cut]).unwrap();
        let page = page(dir.path());
        assert_contained(&page);
        assert!(page.contains(if cut < 700 { "not started" } else { "unfinished" }), "cut at {cut}");
        assert!(!page.contains("damaged"), "a line being written is no damage");
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(whole.path().join("plan.json"), dir.path().join("plan.json")).unwrap();
    let mut lines: Vec<Vec<u8>> = metrics.split(|b| *b == b'\n').take(50).map(<[u8]>::to_vec).collect();
    lines[10] = b"{\"stage\":\"stable\",\"step\":1e99}".to_vec();
    lines[11] = vec![0xff, 0, 0x80];
    lines[20] = lines[5].clone();
    lines[30] = String::from_utf8(lines[30].clone()).unwrap().replace("stable", "<b>other").into_bytes();
    std::fs::write(dir.path().join("metrics.jsonl"), lines.join(&b'\n')).unwrap();
    let page = page(dir.path());
    for said in [
        "2 lines of metrics.jsonl are damaged",
        "1 record is of a step",
        "1 record names a stage",
        "4 steps between",
    ] {
        assert!(page.contains(said), "{said}");
    }
}

#[test]
fn steps_without_a_record_are_counted_up_to_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let plan = runs::plan();
    runs::write(&plan, dir.path());
    let stage = &plan.stages[0];
    let metrics = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    let kept: Vec<&str> = metrics.lines().take(50).collect();
    std::fs::write(dir.path().join("metrics.jsonl"), kept.join("\n") + "\n").unwrap();
    assert!(!page(dir.path()).contains("have no record"));
    std::fs::create_dir_all(dir.path().join(format!("checkpoints/{}/step-57", stage.name))).unwrap();
    assert!(page(dir.path()).contains("7 steps before the last checkpoints"));
}

#[test]
fn names_cannot_break_out_of_the_page() {
    let mut plan = plans::hostile();
    plan.stages[0].steps = 5;
    plan.stages[0].doc = "<script>alert(4)</script>".into();
    plan.params.insert("</style><script>".into(), "<script>alert(2)</script>".into());
    plan.stages[0].evals = vec![plans::eval("<script>", Some(1), true, &[7])];
    // A file with such names is no plan of midc's; what draws them stands in front of that.
    let dir = tempfile::tempdir().unwrap();
    runs::write(&plan, dir.path());
    let refused = Command::new(env!("CARGO_BIN_EXE_midc")).arg("report").arg(dir.path()).output().unwrap();
    assert!(!refused.status.success());
    let mut history = History::new(&plan);
    let losses = plan.stages[0].mix.iter().map(|m| (m.source.clone(), 2.0)).collect();
    let rows = plan.stages[0].mix.iter().map(|m| (m.source.clone(), 8)).collect();
    for step in 0..5 {
        history.step(Step {
            stage: &plan.stages[0].name,
            step,
            tokens: step * 4096,
            lr: 1e-3,
            batch_tokens: 4096,
            context: 256,
            loss: 2.0,
            loss_by_source: &losses,
            grad_norm: 1.0,
            tokens_per_second: 1e6,
            mix: &losses,
            rows: &rows,
            skipped: false,
        });
    }
    history.log("</pre><script>alert(3)</script>".into());
    history.log("\u{fffd}\0".into());
    let page = report_html(&plan, &history);
    assert_contained(&page);
    let data = data(&page);
    assert_eq!(data["sources"][0]["name"], "<script>alert(1)</script>");
}

#[test]
fn other_directories_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |dir: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_midc")).arg("report").arg(dir).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, message) = run(dir.path());
    assert_eq!(code, Some(2));
    assert!(message.contains("plan.json"), "{message}");
    std::fs::write(dir.path().join("plan.json"), "{\"v\": 1").unwrap();
    let (code, message) = run(dir.path());
    assert_eq!(code, Some(2));
    assert!(message.contains("is not a plan"), "{message}");
    assert!(!dir.path().join("report.html").exists());
}
