//! `midc emit` and `midc verify` from the command line, without any engine: what is written, what is
//! refused and where, and which logs pass. `tests/emit_engines.sh` trains.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

#[path = "common/launch.rs"]
mod launch;

use launch::{CURRICULUM, QUIET, at, midc, read, workplace, write_logs};

fn emit(dir: &Path, engine: &str, more: &[&str]) -> (bool, String) {
    let output = midc(dir, &[&["emit", engine, "run.curriculum", "-o", "out"], &QUIET[..], more].concat());
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn tables_rows_and_order_are_those_of_the_plan() {
    for engine in ["transformers", "olmo-core"] {
        let dir = workplace(CURRICULUM);
        let (done, text) = emit(dir.path(), engine, &["--data"]);
        assert!(done, "{text}");
        let out = dir.path().join("out");
        let expected = read(&out.join("expected.json"));
        let main = read(&out.join("stages/main.json"));
        for step in 0..12 {
            let moment = midc(
                dir.path(),
                &[
                    "plan",
                    "run.curriculum",
                    "-A",
                    "lr_jump",
                    "-A",
                    "lr_never_lands",
                    "--at",
                    &format!("main:step {step}"),
                ],
            );
            let moment: Value = serde_json::from_slice(&moment.stdout).expect("JSON");
            assert_eq!(moment["lr"].as_f64().unwrap(), at(&main["lr"], step), "step {step}");
            assert_eq!(moment["lr"].as_f64().unwrap(), at(&expected["stages"][0]["lr"], step));
        }
        let phases = expected["stages"][0]["phases"].as_array().unwrap();
        assert_eq!(phases.len(), 2);
        assert_eq!(phases[0]["rows"], json!({ "code": 12, "prose": 36 }));
        assert_eq!(phases[1]["rows"], json!({ "code": 48, "prose": 0 }));
        let long = read(&out.join("stages/long-11.json"));
        assert_eq!(long["from"], json!({ "kind": "stage", "name": "main", "step": 6 }));
        assert_eq!(long["config"]["rope_parameters"]["factor"], 2.0);
        assert_eq!(main["checkpoints"], json!({ "half": 6 }));
        let run = std::fs::read_to_string(out.join("run.sh")).unwrap();
        let order: Vec<&str> =
            run.lines().filter(|l| l.starts_with("stage ") || l.starts_with("soup ")).collect();
        let wanted = [
            "stage stages/main.json",
            "stage stages/long-11.json",
            "stage stages/long-12.json",
            "soup soups/final.json",
        ];
        assert_eq!(order, wanted);
        let syntax = Command::new("bash").arg("-n").arg(out.join("run.sh")).status().expect("bash");
        assert!(syntax.success());
        // Both orders go on from the middle of `main`, whose second half none of them has read.
        let rows = |stage: &str| std::fs::read(out.join("rows").join(stage).join("tokens.bin")).unwrap();
        assert_eq!(rows("main").len(), 12 * 8 * 128 * 2);
        assert_eq!(rows("long-11").len(), 10 * 4 * 256 * 2);
        assert_ne!(rows("long-11"), rows("long-12"));
    }
}

#[test]
fn verify_passes_what_is_right_and_finds_each_mistake() {
    let dir = workplace(CURRICULUM);
    let (done, text) = emit(dir.path(), "transformers", &["--data"]);
    assert!(done, "{text}");
    let out = dir.path().join("out");
    write_logs(&out);
    let verify = || {
        let output = midc(dir.path(), &["verify", "out"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = verify();
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text.lines().filter(|l| l.starts_with("ok ")).count(), 3, "{text}");

    let log = out.join("logs/main.rank0.jsonl");
    let config = out.join("out/long-11/step-10/hf/config.json");
    let edit_lines = |edit: fn(&mut Vec<Value>)| {
        let text = std::fs::read_to_string(&log).unwrap();
        let mut lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        edit(&mut lines);
        lines.iter().map(|l| format!("{l}\n")).collect::<String>()
    };
    let mistakes: BTreeMap<&str, (&Path, String)> = BTreeMap::from([
        (
            "used the learning rate",
            (
                log.as_path(),
                edit_lines(|l| {
                    let (a, b) = (l[4]["lr"].clone(), l[5]["lr"].clone());
                    l[4]["lr"] = b;
                    l[5]["lr"] = a;
                }),
            ),
        ),
        (
            "elsewhere or not at all",
            (log.as_path(), edit_lines(|l| l[3]["rows"][0] = l[2]["rows"][0].clone())),
        ),
        ("logged no step", (log.as_path(), edit_lines(|l| drop(l.remove(5))))),
        (
            "rows of `code`, not",
            (
                log.as_path(),
                edit_lines(|l| {
                    let late = l[9]["rows"].clone();
                    l[1]["rows"] = late;
                }),
            ),
        ),
        ("logged 13 steps", (log.as_path(), edit_lines(|l| l.push(l[11].clone())))),
        (
            "RoPE of the exported",
            (
                config.as_path(),
                std::fs::read_to_string(&config).unwrap().replace("\"factor\":2.0", "\"factor\":4.0"),
            ),
        ),
    ]);
    for (wanted, (path, text)) in mistakes {
        let before = std::fs::read_to_string(path).unwrap();
        assert_ne!(before, text, "{wanted}");
        std::fs::write(path, text).unwrap();
        let (code, found) = verify();
        std::fs::write(path, before).unwrap();
        assert_eq!(code, Some(1), "{wanted}: {found}");
        assert!(found.contains(wanted), "{wanted}: {found}");
    }

    // One part in 10^11 is too much.
    let text = std::fs::read_to_string(&log).unwrap();
    let nudged = edit_lines(|l| l[6]["lr"] = json!(l[6]["lr"].as_f64().unwrap() * (1.0 + 1e-11)));
    std::fs::write(&log, nudged).unwrap();
    assert_eq!(verify().0, Some(1));
    std::fs::write(&log, text).unwrap();
    assert_eq!(verify().0, Some(0));

    // Rows of another plan.
    let other = CURRICULUM.replace("prose = 75%", "prose = 50%");
    std::fs::write(dir.path().join("other.curriculum"), other).unwrap();
    let export = midc(
        dir.path(),
        &[
            "data",
            "other.curriculum",
            "--quiet",
            "-A",
            "lr_jump",
            "-A",
            "lr_never_lands",
            "--export",
            "out/rows",
        ],
    );
    assert!(export.status.success(), "{}", String::from_utf8_lossy(&export.stderr));
    let (code, found) = verify();
    assert_eq!(code, Some(1));
    assert!(found.contains("rows of another plan"), "{found}");
}

/// Line of the first occurrence of `text` in the curriculum, from 1.
fn line_of(curriculum: &str, text: &str) -> usize {
    curriculum.lines().position(|l| l.contains(text)).expect("in the file") + 1
}

#[test]
fn what_an_engine_lacks_is_said_where_it_is_written() {
    for (engine, from, to, code, field) in [
        (
            "olmo-core",
            "  context   = 128\n  batch     = 8 seqs",
            "  context   = 128 then hold(over: 6144 tokens) then step(to: 256) then hold\n  batch     = 8 seqs",
            "E0901",
            "context   = 128 then",
        ),
        ("olmo-core", "olmo2(layers", "llama(layers", "E0901", "llama(layers"),
        (
            "olmo-core",
            "yarn(factor: 2, original: 128)",
            "longrope(short: [1,1,1,1,1,1,1,1], long: [1,1,2,2,2,2,2,2], original: 128)",
            "E0901",
            "longrope",
        ),
        (
            "olmo-core",
            "yarn(factor: 2, original: 128)",
            "yarn(factor: 2, original: 128, beta_slow: 0.00001)",
            "E0902",
            "beta_slow",
        ),
        (
            "transformers",
            "  rope      = yarn",
            "  gate { loss(prose) <= 200% of from }\n  rope      = yarn",
            "E0901",
            "stage long",
        ),
        ("torchtitan", "init      = olmo2", "init      = olmo2", "E0901", "init      ="),
        ("megatron-bridge", "init      = olmo2", "init      = olmo2", "E0901", "init      ="),
    ] {
        let curriculum = CURRICULUM.replace(from, to);
        assert!(from == to || curriculum != CURRICULUM, "{from}");
        let dir = workplace(&curriculum);
        let (done, text) = emit(
            dir.path(),
            engine,
            &["-A", "batch_changes_tokens", "-A", "rope_reach", "-A", "rope_transition"],
        );
        assert!(!done, "{engine}, {to}");
        assert!(text.contains(&format!("[{code}] error")), "{engine}, {to}: {text}");
        let place = format!("run.curriculum:{}:", line_of(&curriculum, field));
        assert!(text.contains(&place), "{engine}, {to}: not at {place}\n{text}");
        assert!(!dir.path().join("out").exists());
    }
}

#[test]
fn what_is_left_out_warns_and_can_be_denied() {
    let curriculum =
        CURRICULUM.replace("checkpoint half", "eval held { loss = heldout 5% }\n  checkpoint half");
    let dir = workplace(&curriculum);
    let (done, text) = emit(dir.path(), "transformers", &[]);
    assert!(done && text.contains("[E0950] warning"), "{text}");
    let (done, _) = emit(dir.path(), "transformers", &["-D", "target_drops"]);
    assert!(!done);
    let (done, text) = emit(dir.path(), "transformers", &["-A", "target_drops"]);
    assert!(done && !text.contains("E0950"), "{text}");
}
