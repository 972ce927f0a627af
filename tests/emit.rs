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
    // `main` writes no `rope`: it goes on with its model's.
    let plain = out.join("out/main/step-12/hf/config.json");
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
        (
            "main: the RoPE of the exported",
            (plain.as_path(), std::fs::read_to_string(&plain).unwrap().replace("10000.0", "20000.0")),
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
    std::fs::write(&log, &text).unwrap();
    assert_eq!(verify().0, Some(0));

    // A last line that is cut, of which the rest is judged, and the other stages.
    let half = edit_lines(|l| l[6]["lr"] = json!(1.0));
    std::fs::write(&log, &half[..half.len() - 20]).unwrap();
    let (code, found) = verify();
    std::fs::write(&log, &text).unwrap();
    assert!(code == Some(1) && found.contains("main.rank0.jsonl` is cut"), "{found}");
    assert!(
        found.contains("step 6 used the learning rate") && found.contains("logged no step 11"),
        "{found}"
    );
    assert_eq!(found.lines().filter(|l| l.starts_with("ok ")).count(), 2, "{found}");

    // An export that is not there, and a wrong learning rate where the rows are not.
    let aside = out.join("aside");
    std::fs::rename(&plain, &aside).unwrap();
    let (code, found) = verify();
    std::fs::rename(&aside, &plain).unwrap();
    assert!(code == Some(1) && found.contains("main: there is no export"), "{found}");
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, edit_lines(|l| l[6]["lr"] = json!(1.0))).unwrap();
    std::fs::rename(out.join("rows"), &aside).unwrap();
    let (code, found) = verify();
    std::fs::rename(&aside, out.join("rows")).unwrap();
    std::fs::write(&log, text).unwrap();
    assert!(code == Some(1) && found.contains("step 6 used the learning rate"), "{found}");
    assert!(found.contains("rows cannot be compared") && !found.contains("rows of `"), "{found}");

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
#[test]
fn a_launch_makes_way_for_another_until_it_is_started() {
    let dir = workplace(&CURRICULUM.replace("main", "old"));
    let (done, text) = emit(dir.path(), "transformers", &[]);
    assert!(done, "{text}");
    let out = dir.path().join("out");
    // A file that is of no launch is somebody's.
    let plan_json = std::fs::read(out.join("plan.json")).unwrap();
    std::fs::remove_file(out.join("plan.json")).unwrap();
    let (done, text) = emit(dir.path(), "transformers", &[]);
    assert!(!done && text.contains("is there already"), "{text}");
    std::fs::write(out.join("plan.json"), plan_json).unwrap();
    std::fs::write(out.join("models/mine.json"), "{}").unwrap();
    std::fs::write(dir.path().join("run.curriculum"), CURRICULUM).unwrap();
    std::fs::create_dir(out.join("out")).unwrap();
    let (done, text) = emit(dir.path(), "transformers", &[]);
    assert!(!done && text.contains("that has been started"), "{text}");
    assert!(out.join("stages/old.json").exists());
    std::fs::remove_dir(out.join("out")).unwrap();
    let (done, text) = emit(dir.path(), "transformers", &[]);
    assert!(done, "{text}");
    assert!(out.join("stages/main.json").exists() && !out.join("stages/old.json").exists());
    // What no launch named is somebody's.
    assert!(out.join("models/mine.json").exists());
}

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
            "  eval e { loss = heldout 5% }\n  gate { loss(prose) <= 200% of from }\n  rope      = yarn",
            "E0951",
            "gate {",
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

/// No engine judges gates: a launch without them is written where that is allowed, and who holds the logs to the plan is
/// told of them.
#[test]
fn gates_are_left_out_where_that_is_allowed() {
    let gate =
        "  eval e { loss = heldout 5% }\n  ALLOW\n  gate { loss(prose) <= 200% of from }\n  rope      = yarn";
    let curriculum = |allow: &str| CURRICULUM.replace("  rope      = yarn", &gate.replace("ALLOW", allow));
    let (done, text) = emit(workplace(&curriculum("")).path(), "transformers", &["-A", "target_drops"]);
    assert!(!done && text.contains("[E0951] error"), "{text}");
    for (allow, more) in [("@allow(gate_left_out)", &[][..]), ("", &["-A", "gate_left_out"][..])] {
        let dir = workplace(&curriculum(allow));
        let (done, text) = emit(dir.path(), "transformers", more);
        assert!(done && !text.contains("E0951") && !text.contains("unused_allow"), "{text}");
        let expected = read(&dir.path().join("out/expected.json"));
        assert_eq!(expected["stages"][1]["gates"], json!(["loss(prose) <= 200% of from"]));
        assert!(expected["stages"][0].get("gates").is_none());
        let verified = midc(dir.path(), &["verify", "out", "--stage", "long[11]"]);
        let told = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(told.contains("gate   long[11]: `loss(prose) <= 200% of from` was not judged\n"), "{told}");
    }
}

/// Each stage has a function of its own, under a name that Python leaves free.
#[test]
fn functions_of_torchtitan_are_those_of_the_stages() {
    let stage = |name: &str| {
        format!(
            "stage {name} {{ from = base, tokens = 20M, context = 2Ki, batch = 8 seqs, mix = web, data_seed = 1,
               lr = inherit then linear(to: 0), optimizer = adamw(eps: 1e-8) }}\n"
        )
    };
    let mut text = "lints { missing_files = allow }
        model base { checkpoint = \"base\", init = smollm2_135m, context = 2Ki, lr = 1e-3 }
        source web { path = \"web/*.jsonl\" }\n"
        .to_owned();
    for name in ["a_42", "a_42_2", "os", "class", "plain"] {
        text.push_str(&stage(name));
    }
    text.push_str(&stage("a[n in [42, 43]]").replace("data_seed = 1", "data_seed = n"));
    let mut files = midc::source::MemoryFiles::new();
    let file = files.add("run.curriculum", text);
    let (curriculum, diagnostics) = midc::sema::check(&mut files, file, &midc::sema::Options::default());
    let Some(curriculum) = curriculum else { panic!("{diagnostics:#?}") };
    let plan = midc::plan::build(&curriculum);
    let launch = midc::emit::emit(midc::emit::Engine::Torchtitan, &plan, ".", &|_| None);
    let named = |path: &str, before: &str, after: &str| -> Vec<String> {
        let file = launch.files.iter().find(|f| f.path == path).expect("it is written");
        let names = file.text.lines().filter_map(|l| l.strip_prefix(before)?.strip_suffix(after));
        names.map(str::to_owned).collect()
    };
    let functions = named("midc_stages.py", "def ", "():");
    let names = ["a_42", "a_42_2", "os", "class", "plain", "a_42_3", "a_43"];
    assert_eq!(functions, names.map(|name| format!("stage_{name}")));
    assert_eq!(named("run.sh", "stage ", " \"$@\""), functions);
}

/// The launch of one stage from a checkpoint, and one after it; `model` and `stage` are further fields.
fn launch_of(engine: midc::emit::Engine, model: &str, stage: &str) -> midc::emit::Launch {
    let text = format!(
        "lints {{ missing_files = allow }}
        model base {{ checkpoint = \"base\", context = 2Ki, lr = 1e-3, {model} }}
        source web {{ path = [\"web/*.jsonl\", \"more.jsonl\"] }}
        stage main {{ from = base, tokens = 20M, context = 2Ki, batch = 8 seqs, mix = web, data_seed = 1,
               lr = inherit then linear(to: 0), state = weights_only {stage} }}
        stage next {{ from = main, tokens = 20M, lr = 0 then linear(to: 1e-3, over: 2M) then linear(to: 0), data_seed = 2,
               state = weights_only }}\n"
    );
    let mut files = midc::source::MemoryFiles::new();
    let file = files.add("run.curriculum", text);
    let (curriculum, diagnostics) = midc::sema::check(&mut files, file, &midc::sema::Options::default());
    let Some(curriculum) = curriculum else { panic!("{diagnostics:#?}") };
    midc::emit::emit(engine, &midc::plan::build(&curriculum), ".", &|_| None)
}

fn file<'a>(launch: &'a midc::emit::Launch, path: &str) -> &'a str {
    let lacks: Vec<_> = launch.findings.iter().map(|f| (&f.message, &f.label)).collect();
    &launch.files.iter().find(|f| f.path == path).unwrap_or_else(|| panic!("no {path}: {lacks:?}")).text
}

/// What a model rotates by is written also where no stage writes it: a flavor of torchtitan has a RoPE of its own.
#[test]
fn the_rope_of_the_checkpoint_is_written() {
    use midc::emit::Engine::{MegatronBridge, Torchtitan};
    let plain = "init = smollm2_135m, rope = rope(theta: 10_000)";
    let stages = launch_of(Torchtitan, plain, "");
    let stages = file(&stages, "midc_stages.py");
    let wanted = "stretched(model_registry(FLAVOR), dict(theta=10000, scaling=\"none\"), 2048)";
    assert_eq!(stages.matches(wanted).count(), 2, "{stages}");
    // A stage goes on with the RoPE of the one before.
    let stages = launch_of(Torchtitan, plain, ", rope = abf(theta: 300_000)");
    let stages = file(&stages, "midc_stages.py");
    assert_eq!(stages.matches("dict(theta=300000, scaling=\"none\"), 2048)").count(), 2, "{stages}");

    let llama3 = "init = smollm2_135m, rope = llama3(factor: 8, original: 8Ki)";
    let yaml = launch_of(MegatronBridge, llama3, "");
    let yaml = file(&yaml, "stages/main.yaml");
    assert!(yaml.contains("  rope_scaling: true\n  rope_scaling_factor: 8\n"), "{yaml}");
    let yaml = launch_of(MegatronBridge, llama3, ", rope = yarn(factor: 2, original: 2Ki)");
    for stage in ["stages/main.yaml", "stages/next.yaml"] {
        let yaml = file(&yaml, stage);
        for line in [
            "position_embedding_type: yarn",
            "seq_len_interpolation_factor: null",
            "rope_scaling: false",
            "rope_scaling_factor: 1",
            "yarn_rotary_scaling_factor: 2",
            "yarn_original_max_position_embeddings: 2048",
            "yarn_beta_fast: 32",
            "yarn_beta_slow: 1",
            "yarn_mscale: null",
            "yarn_mscale_all_dim: null",
            "yarn_correction_range_round_to_int: true",
        ] {
            assert!(yaml.contains(&format!("  {line}\n")), "{line}\n{yaml}");
        }
    }
    let yaml = launch_of(
        MegatronBridge,
        "init = smollm2_135m, rope = yarn(factor: 2, original: 2Ki)",
        ", rope = abf(theta: 300_000)",
    );
    let yaml = file(&yaml, "stages/main.yaml");
    assert!(yaml.contains("  position_embedding_type: rope\n  rotary_base: 300000\n"), "{yaml}");
    assert_eq!(yaml.matches("  yarn_").count(), 7, "{yaml}");
    assert_eq!(
        yaml.lines().filter(|l| l.starts_with("  yarn_") && l.ends_with(": null")).count(),
        7,
        "{yaml}"
    );

    for (engine, model, words) in [
        (
            MegatronBridge,
            "init = smollm2_135m, rope = llama3(factor: 4, original: 4Ki)",
            "bands or an original length",
        ),
        (Torchtitan, "init = smollm2_135m, rope = pi(factor: 2)", "position interpolation"),
        (Torchtitan, "", "RoPE of a checkpoint whose"),
    ] {
        let launch = launch_of(engine, model, "");
        let lacks = |f: &&midc::emit::Finding| f.kind == midc::emit::Kind::Lacks;
        let found: Vec<_> = launch.findings.iter().filter(lacks).collect();
        assert!(found.len() == 1 && found[0].message.contains(words), "{model}: {found:?}");
        assert_eq!(found[0].place, midc::emit::Place::Model("base".into(), "checkpoint"));
        // A stage that writes its own has nothing to do with it.
        let launch = launch_of(engine, model, ", rope = abf(theta: 300_000)");
        assert!(launch.faithful(), "{model}: {:?}", launch.findings);
    }
}

/// One command per source makes what the stages read, and nothing but `DATA` has to be named.
#[test]
fn the_launch_of_megatron_says_how_its_data_is_made() {
    let launch = launch_of(midc::emit::Engine::MegatronBridge, "init = smollm2_135m", "");
    let run = file(&launch, "run.sh");
    let wanted = "#   cat \"$BASE\"/web/*.jsonl \"$BASE\"/more.jsonl > \"$DATA\"/web.jsonl\n\
                  #   python tools/preprocess_data.py --input \"$DATA\"/web.jsonl --json-keys text --append-eod --workers 8 \
                  --tokenizer-type HuggingFaceTokenizer --tokenizer-model \"$BASE\"/base --output-prefix \"$DATA\"/web\n";
    assert!(run.contains(wanted) && run.contains("Python 3.12") && !run.contains("${HF"), "{run}");
    let syntax = Command::new("bash").args(["-n", "-c", run]).status().expect("bash");
    assert!(syntax.success());
    assert_eq!(file(&launch, "requirements.txt"), "megatron-bridge[te]==0.6.2\nmegatron-core==0.19.2\n");
    for stage in ["stages/main.yaml", "stages/next.yaml"] {
        assert!(file(&launch, stage).contains("\nhf: \"${BASE}/base\"\n"));
    }
    let launch = launch_of(midc::emit::Engine::MegatronBridge, "init = smollm2_135m", ", precision = f32");
    let found = launch.findings.iter().any(|f| f.message.contains("has no precision of its own"));
    assert!(found, "{:?}", launch.findings);
}

/// The launch for torchtitan builds a Llama, whatever the checkpoint is of.
#[test]
fn torchtitan_is_refused_another_shape() {
    let curriculum = MEGATRON
        .replace("LR", "1e-3 then linear(to: 0)")
        .replace("ROPE", "abf(theta: 2_000_000)")
        .replace("MORE", "");
    for (init, words) in [("qwen3_0_6b", Some("has no `qwen3`")), ("smollm2_135m", None)] {
        let curriculum = curriculum.replace("smollm2_135m", init);
        let dir = workplace(&curriculum);
        let (done, text) = emit(dir.path(), "torchtitan", &["-A", "optimizer_reset_without_warmup"]);
        assert_eq!(done, words.is_none(), "{text}");
        if let Some(words) = words {
            let place = format!("run.curriculum:{}:", line_of(&curriculum, "checkpoint ="));
            assert!(text.contains(words) && text.contains(&place), "{text}");
        }
    }
}

/// The learning rate that Megatron's scheduler gives after `rows` rows, from the settings of a launch.
fn megatron_lr(settings: &BTreeMap<String, String>, rows: f64) -> f64 {
    let get = |key: &str| settings.get(key).map(|v| v.parse::<f64>().expect("a number"));
    let (peak, least) = (get("lr").unwrap(), get("min_lr").unwrap());
    let (warmup, decay) = (get("lr_warmup_samples").unwrap_or(0.0), get("lr_decay_samples").unwrap());
    if warmup > 0.0 && rows <= warmup {
        let first = get("lr_warmup_init").unwrap();
        return first + (peak - first) * rows / warmup;
    }
    let style = settings["lr_decay_style"].as_str();
    if style == "constant" {
        return peak;
    }
    if rows > decay {
        return least;
    }
    let share = match style {
        "WSD" => (rows - decay) / get("lr_wsd_decay_samples").unwrap() + 1.0,
        _ => (rows - warmup) / (decay - warmup),
    };
    let style = if style == "WSD" { settings["lr_wsd_decay_style"].as_str() } else { style };
    let left = match (style, share) {
        (_, share) if share <= 0.0 => 1.0,
        ("linear", share) => 1.0 - share,
        ("cosine", share) => 0.5 * ((std::f64::consts::PI * share).cos() + 1.0),
        ("minus_sqrt", share) => 1.0 - share.sqrt(),
        other => panic!("{other:?}"),
    };
    least + left * (peak - least)
}

const MEGATRON: &str = r#"lints { missing_files = allow, anneal_too_short = allow, decay_too_short = allow, rope_reach = allow, target_drops = allow }
model base { checkpoint = "checkpoints/base", init = smollm2_135m, context = 2Ki, lr = 1e-3 }
source web { path = "web/*.jsonl" }
stage main {
  from      = base
  tokens    = 20_100_000
  context   = 1Ki
  batch     = 16 seqs
  mix       = web
  lr        = LR
  state     = weights_only
  data_seed = 1
  rope      = ROPE
  MORE
}
"#;

#[test]
fn paths_of_megatron_are_what_they_are() {
    for (checkpoint, wanted) in
        [("ck/my dir: x #1", r#""${BASE}/ck/my dir: x #1""#), ("/models/base-$1", r#""/models/base-$1""#)]
    {
        let file = MEGATRON
            .replace("checkpoints/base", checkpoint)
            .replace("LR", "1e-3 then linear(to: 0)")
            .replace("ROPE", "abf(theta: 200_000)")
            .replace("MORE", "");
        let dir = workplace(&file);
        let more = ["-A", "optimizer_reset_without_warmup", "--data"];
        let (done, text) = emit(dir.path(), "megatron-bridge", &more);
        assert!(done, "{text}");
        let yaml = std::fs::read_to_string(dir.path().join("out/stages/main.yaml")).unwrap();
        assert!(yaml.contains(&format!("  pretrained_checkpoint: {wanted}\n")), "{yaml}");
        assert!(yaml.contains("  - [\"${DATA}/web_text_document\"]\n"), "{yaml}");
        assert!(yaml.contains(&format!("\nhf: {wanted}\n")), "{yaml}");
        assert!(yaml.contains("  calculate_per_token_loss: true\n"), "{yaml}");
        // It reads data sets of its own.
        assert!(!dir.path().join("out/rows").exists());
    }
}

#[test]
fn what_torchtitan_leaves_out_and_what_it_may_be_called() {
    let file = MEGATRON
        .replace("LR", "1e-3 then linear(to: 0)")
        .replace("ROPE", "abf(theta: 200_000)")
        .replace("MORE", "")
        .replace("target_drops = allow", "target_drops = warn")
        + "stage lambda { from = main, tokens = 20_100_000, lr = 0 then linear(to: 1e-3, over: 2M) then linear(to: 0), data_seed = 2 }\nsoup last = average(main, lambda)\n";
    let dir = workplace(&file);
    let (done, text) = emit(dir.path(), "torchtitan", &["-A", "optimizer_reset_without_warmup"]);
    assert!(done, "{text}");
    let place = format!("run.curriculum:{}:", line_of(&file, "soup last"));
    assert!(text.contains("leaves out: soup that no stage starts from") && text.contains(&place), "{text}");
    let out = dir.path().join("out");
    assert!(!out.join("soups").exists());
    let stages = std::fs::read_to_string(out.join("midc_stages.py")).unwrap();
    assert!(stages.contains("\ndef stage_lambda():\n"), "{stages}");
    let run = std::fs::read_to_string(out.join("run.sh")).unwrap();
    assert!(run.contains("\nstage stage_lambda \"$@\"\n"), "{run}");
    let verify = midc(dir.path(), &["verify", "out"]);
    let said = String::from_utf8_lossy(&verify.stderr).into_owned();
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("launches of other engines log nothing"), "{said}");
}

#[test]
fn a_job_of_slurm_has_a_name_without_blanks() {
    let dir = workplace(CURRICULUM);
    std::fs::rename(dir.path().join("run.curriculum"), dir.path().join("my run.curriculum")).unwrap();
    let args = [&["emit", "transformers", "my run.curriculum", "-o", "out"], &QUIET[..]].concat();
    let done = midc(dir.path(), &args);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let job = std::fs::read_to_string(dir.path().join("out/slurm.sbatch")).unwrap();
    assert!(job.contains("\n#SBATCH --job-name=my-run\n"), "{job}");
}

#[test]
fn settings_of_megatron_give_the_learning_rates_of_the_plan() {
    for lr in [
        "0 then linear(to: 1e-3, over: 1_234_567) then linear(to: 0)",
        "0 then linear(to: 1e-3, over: 100 steps) then cosine(to: 10% of peak)",
        "0 then linear(to: 1e-3, over: 2M) then hold then linear(to: 1e-5, over: 4_321_000)",
        "0 then linear(to: 1e-3, over: 2M) then hold then one_minus_sqrt(to: 0, over: 25% of stage)",
        "inherit then hold then cosine(to: 0, over: 30% of stage)",
        "inherit",
    ] {
        let file = MEGATRON.replace("LR", lr).replace("ROPE", "abf(theta: 200_000)").replace("MORE", "");
        let dir = workplace(&file);
        let (done, text) = emit(dir.path(), "megatron-bridge", &["-A", "optimizer_reset_without_warmup"]);
        assert!(done, "{lr}: {text}");
        let yaml = std::fs::read_to_string(dir.path().join("out/stages/main.yaml")).unwrap();
        let settings: BTreeMap<String, String> = yaml
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        // YAML takes a number with an exponent and no point for a string.
        for key in ["lr", "min_lr", "adam_eps", "start_weight_decay", "end_weight_decay"] {
            let value = &settings[key];
            assert!(value.bytes().all(|b| b.is_ascii_digit() || b == b'.'), "{key}: {value}");
        }
        let csv = midc(dir.path(), &["plan", "run.curriculum", "--csv", "--points", "5000"]);
        let csv = String::from_utf8(csv.stdout).unwrap();
        let mut steps = 0;
        for line in csv.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let (tokens, planned): (f64, f64) = (cells[2].parse().unwrap(), cells[3].parse().unwrap());
            let theirs = megatron_lr(&settings, tokens / 1024.0);
            // Its clock counts whole rows: an edge is half a row off at most.
            let slope = if lr.contains("sqrt") { 0.02 } else { 1e-3 };
            assert!(
                (planned - theirs).abs() <= slope * 1e-3,
                "{lr}: {planned} and {theirs} at {tokens}\n{yaml}"
            );
            steps += 1;
        }
        assert_eq!(steps, 1227, "{lr}");
    }
}

#[test]
fn what_the_written_engines_would_do_otherwise_is_refused() {
    let half = "checkpoint half { at = 600 steps }";
    for (engine, lr, rope, more, words) in [
        (
            "megatron-bridge",
            "0 then linear(to: 1e-3, over: 2M) then hold then exp(to: 1e-5, over: 4M)",
            "abf(theta: 200_000)",
            "",
            "has no learning rate of this shape",
        ),
        (
            "megatron-bridge",
            "1e-3 then linear(to: 0)",
            "yarn(factor: 2, original: 2Ki, attention_factor: 1.2)",
            "",
            "has no `attention_factor` set outright",
        ),
        (
            "megatron-bridge",
            "1e-3 then linear(to: 0)",
            "abf(theta: 200_000)",
            half,
            "has no checkpoint at a step",
        ),
        ("torchtitan", "1e-3 then linear(to: 0)", "abf(theta: 200_000)", half, "has no checkpoint at a step"),
        (
            "megatron-bridge",
            "1e-3 then linear(to: 0)",
            "abf(theta: 200_000)",
            "optimizer = adamw(decay_embeddings: no)",
            "has no embedding without weight decay",
        ),
        (
            "megatron-bridge",
            "1e-3 then linear(to: 0)",
            "abf(theta: 200_000)",
            "optimizer = adamw(decay_norms: yes)",
            "has no weight decay of norms",
        ),
        (
            "megatron-bridge",
            "1e-3 then linear(to: 0)",
            "abf(theta: 200_000)",
            "optimizer = muon()",
            "has no Muon",
        ),
        ("torchtitan", "1e-3 then linear(to: 0)", "abf(theta: 200_000)", "optimizer = muon()", "has no Muon"),
        (
            "megatron-bridge",
            "1e-3 then linear(to: 0)",
            "abf(theta: 200_000)",
            "attention = documents",
            "has no attention that stops at documents",
        ),
    ] {
        let file = MEGATRON.replace("LR", lr).replace("ROPE", rope).replace("MORE", more);
        let dir = workplace(&file);
        let (done, text) = emit(dir.path(), engine, &["-A", "optimizer_reset_without_warmup"]);
        assert!(!done && text.contains(words), "{engine}, {words}: {text}");
        assert_eq!(text.matches("[E0901]").count(), 1, "{engine}: {text}");
    }
    // On a periodic checkpoint a name costs nothing.
    let file = MEGATRON
        .replace("LR", "1e-3 then linear(to: 0)")
        .replace("ROPE", "abf(theta: 200_000)")
        .replace("MORE", &format!("{half}\n  save_every = 200 steps"));
    let dir = workplace(&file);
    let (done, text) = emit(dir.path(), "torchtitan", &["-A", "optimizer_reset_without_warmup"]);
    assert!(done, "{text}");
    let stages = std::fs::read_to_string(dir.path().join("out/midc_stages.py")).unwrap();
    assert!(stages.contains("spared=[\"norm\"],"), "{stages}");
    let file = file.replace(half, "optimizer = adamw(decay_embeddings: no, decay_norms: yes)");
    let dir = workplace(&file);
    let (done, text) = emit(dir.path(), "torchtitan", &["-A", "optimizer_reset_without_warmup"]);
    assert!(done, "{text}");
    let stages = std::fs::read_to_string(dir.path().join("out/midc_stages.py")).unwrap();
    assert!(stages.contains("spared=[\"tok_embeddings\"],"), "{stages}");
}

/// A runner ends where a package is of another version than the launch was written for.
#[test]
fn runners_look_at_the_versions() {
    const SCRIPT: &str = r#"
import midc_versions
found = {"megatron-bridge": "0.5.0", "megatron-core": "0.19.2+abc", "torch": "2.15.0a0+cu", "numpy": "2.4", "five": "5.0rc1"}
def version(package):
    if package not in found:
        raise midc_versions.PackageNotFoundError(package)
    return found[package]
midc_versions.version = version
lines = ["megatron-bridge[te]==0.6.2\n", "megatron-core==0.19.2\n", "torch>=2.6\n", "numpy\n", "five>=5.0\n", "gone==1\n", "numpy>=2.10\n"]
told = list(midc_versions.differing(lines))
assert told == ["written for megatron-bridge 0.6.2, found 0.5.0", "written for numpy 2.10 or later, found 2.4"], told
"#;
    let runners = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/emit");
    let python = Command::new("python3")
        .env("PYTHONPATH", runners)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-c", SCRIPT])
        .output();
    if let Ok(output) = python {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[cfg(target_os = "linux")]
/// What the runners publish is on the disk before it has its name, and what a power cut emptied is not taken for done.
#[test]
fn checkpoints_of_the_runners_survive_a_power_cut() {
    const SCRIPT: &str = r#"
import os, midc_stage
stage = {"name": "a", "plan": "p"}
target = midc_stage.checkpoint(".", "a", 3)
os.makedirs(os.path.join(target + ".partial", "hf"))
for name in ("hf/model.safetensors", "state"):
    with open(os.path.join(target + ".partial", name), "w") as file:
        file.write(name)
synced, fsync, rename = [], os.fsync, os.rename
os.fsync = lambda d: (synced.append(os.readlink(f"/proc/self/fd/{d}")), fsync(d))
def renamed(old, new):
    missing = {os.path.join(f, n) for f, _, ns in os.walk(os.path.abspath(old)) for n in [*ns, "."]}
    missing = {os.path.normpath(path) for path in missing} - set(synced)
    assert not missing, missing
    rename(old, new)
os.rename = renamed
midc_stage.publish(target + ".partial", target, "p", "a", 3)
assert synced[-1] == os.path.abspath("out/a"), synced
assert midc_stage.done_steps(stage, ".") == [3]
open(os.path.join(target, "step.json"), "w").close()
assert midc_stage.done_steps(stage, ".") == [] and midc_stage.told(target) is None
"#;
    let dir = tempfile::tempdir().unwrap();
    let runners = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/emit");
    let python = Command::new("python3")
        .current_dir(dir.path())
        .env("PYTHONPATH", runners)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-c", SCRIPT])
        .output();
    // The scripts that need more of Python say what they skip; this needs only that there is one.
    if let Ok(output) = python {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
