//! `examples/recipes/`: every file checks clean, says where its numbers come from, and gives the
//! numbers that its paper implies.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn recipes() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes");
    let mut files: Vec<PathBuf> = [dir.clone(), dir.join("shared")]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).expect("the directory is in the repository"))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "curriculum"))
        .collect();
    files.sort();
    files
}

fn midc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_midc"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(args)
        .output()
        .expect("midc runs")
}

fn json(args: &[&str]) -> Value {
    let output = midc(args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{args:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).expect("JSON")
}

fn file(recipe: &str) -> String {
    format!("examples/recipes/{recipe}.curriculum")
}

fn plan(recipe: &str) -> Value {
    json(&["plan", &file(recipe), "--format", "json"])
}

fn at(recipe: &str, moment: &str) -> Value {
    json(&["plan", &file(recipe), "--at", moment])
}

fn stage<'v>(plan: &'v Value, name: &str) -> &'v Value {
    let stages = plan["stages"].as_array().expect("stages");
    stages.iter().find(|stage| stage["name"] == name).unwrap_or_else(|| panic!("stage `{name}`"))
}

fn source<'v>(stage: &'v Value, name: &str) -> &'v Value {
    let mix = stage["mix"].as_array().expect("mix");
    mix.iter().find(|portion| portion["source"] == name).unwrap_or_else(|| panic!("source `{name}`"))
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("a number, not {value}"))
}

#[track_caller]
fn close(found: &Value, expected: f64, tolerance: f64) {
    let found = number(found);
    let error = (found - expected).abs() / expected.abs().max(f64::MIN_POSITIVE);
    assert!(error <= tolerance, "{found}, not {expected} within {tolerance}");
}

#[test]
fn every_recipe_is_clean() {
    let mut wrong = Vec::new();
    for path in recipes() {
        let path = path.to_string_lossy();
        let output = midc(&["check", &path, "-D", "warnings", "--format", "concise"]);
        if !output.status.success() || !output.stdout.is_empty() {
            wrong.push(format!("{path}: {}", String::from_utf8_lossy(&output.stdout)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every silenced lint has a comment that says why, on its line.
#[test]
fn every_allow_says_why() {
    for path in recipes() {
        let text = std::fs::read_to_string(&path).expect("readable");
        for (number, line) in text.lines().enumerate() {
            let silenced = line.trim_start().starts_with("@allow(") || line.trim_end().ends_with("= allow");
            let explained = line.split_once('#').is_some_and(|(_, why)| why.trim().len() > 10);
            let level = line.contains("= allow");
            assert!(!(silenced || level) || explained, "{}:{}: {line}", path.display(), number + 1);
        }
    }
}

/// Every length, context, batch, learning rate and scaling of a stage is cited or marked as an
/// assumption, on its own or with the whole stage.
#[test]
fn every_number_of_a_stage_has_a_source() {
    const FIELDS: [&str; 6] = ["tokens", "steps", "context", "batch", "lr", "rope"];
    let mut wrong = Vec::new();
    for path in recipes() {
        let text = std::fs::read_to_string(&path).expect("readable");
        let (mut in_stage, mut cited, mut pending) = (false, false, false);
        for (number, line) in text.lines().enumerate() {
            let trimmed = line.trim();
            let attribute = trimmed.starts_with("@cite(") || trimmed.starts_with("@assumed(");
            if line.starts_with("stage ") {
                (in_stage, cited, pending) = (true, pending, false);
            } else if line.starts_with('}') {
                in_stage = false;
            } else if attribute {
                pending = true;
            } else if let Some((field, value)) = trimmed.split_once('=')
                && in_stage
                && line.starts_with("  ")
                && !line.starts_with("   ")
            {
                let field = field.trim();
                // What goes on from the stage before is no number of its own.
                let inherits = value.trim() == "inherit" || value.trim() == "inherit then linear(to: 0)";
                if FIELDS.contains(&field) && !pending && !cited && !inherits {
                    wrong.push(format!("{}:{}: {trimmed}", path.display(), number + 1));
                }
                pending = false;
            } else if trimmed.is_empty() || line.starts_with(|c: char| c.is_alphabetic()) {
                pending = false;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_eighteen_systems_are_there() {
    for name in [
        "qwen3",
        "phi4",
        "llama3_405b",
        "apple_afm",
        "deepseek_v3",
        "smollm2_1_7b",
        "nemotron4_340b",
        "reuse_dont_retrain",
        "olmo2_1b",
        "olmo2_7b",
        "olmo2_13b",
        "olmo2_32b",
        "yi_lightning",
        "zamba_7b",
        "pangu_pro_moe",
        "hunyuan_large",
        "minicpm_2_4b",
        "map_neo_7b",
        "mimo_7b",
        "kimi_k2",
        "olmo3_7b",
        "olmo3_32b",
        "smollm3_3b",
    ] {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file(name)).is_file(), "{name}");
    }
}

/// Table 5 of arXiv:2412.08905 prints 1.2, 5.2, 13.8, 2.4 and 1.7 epochs.
#[test]
fn phi4_epochs() {
    let plan = plan("phi4");
    let pretrain = stage(&plan, "pretrain");
    for (name, exact, printed) in [
        ("web", 1.1538, 1.2),
        ("web_rewrites", 5.1724, 5.2),
        ("synthetic", 13.7931, 13.8),
        ("code", 2.4390, 2.4),
        ("acquired", 1.7241, 1.7),
    ] {
        let epochs = number(&source(pretrain, name)["epochs"]);
        assert!((epochs - exact).abs() < 1e-3, "{name}: {epochs}");
        assert!((epochs - printed).abs() < 0.05, "{name}: {epochs}");
    }
    let midtrain = stage(&plan, "midtrain");
    close(&source(midtrain, "long_text")["tokens"], 75e9, 1e-3);
    close(&source(midtrain, "synthetic")["weight_mean"], 0.28, 1e-9);
    close(&midtrain["lr"]["peak"], 3e-5, 1e-12);
}

/// arXiv:2412.19437 section 4.2 and 4.3.
#[test]
fn deepseek_v3_spans() {
    let plan = plan("deepseek_v3");
    let pretrain = stage(&plan, "pretrain");
    assert_eq!(pretrain["tokens"], 14_800_000_000_000u64);
    for name in ["long_32k", "long_128k"] {
        let long = stage(&plan, name);
        assert_eq!(long["tokens"], 62_914_560_000u64, "1000 steps of 62.9M");
        assert_eq!(long["steps"], 1000);
        close(&long["rope"]["attention_factor"], 1.36888, 1e-5);
    }
    close(&at("deepseek_v3", "pretrain:5T")["lr"], 2.2e-4, 1e-12);
    close(&at("deepseek_v3", "pretrain:10T")["lr"], 2.2e-4, 1e-6);
    close(&at("deepseek_v3", "pretrain:14.4T")["lr"], 2.2e-5, 1e-9);
    close(&at("deepseek_v3", "pretrain:14.7T")["lr"], 7.3e-6, 1e-12);
    assert_eq!(at("deepseek_v3", "pretrain:1T")["batch_tokens"], 15_360 * 4096);
    assert_eq!(at("deepseek_v3", "pretrain:step 0")["batch_tokens"], 3072 * 4096);
}

/// arXiv:2507.20534 section 2.5.
#[test]
fn kimi_k2_spans() {
    let plan = plan("kimi_k2");
    let pretrain = stage(&plan, "pretrain");
    assert_eq!(pretrain["steps"], 230_968, "15.5T in steps of 67.1M");
    for (name, optimizer) in
        ["pretrain", "anneal", "long_32k"].map(|name| (name, &stage(&plan, name)["optimizer"]))
    {
        assert_eq!(optimizer["muon"]["update_rms"], 0.2, "{name}");
        assert_eq!(at("kimi_k2", &format!("{name}:step 9"))["batch_tokens"], 67_108_864, "{name}");
    }
    close(&at("kimi_k2", "pretrain:9.99T")["lr"], 2e-4, 1e-12);
    close(&at("kimi_k2", "pretrain:12.75T")["lr"], 1.1e-4, 1e-3);
    close(&stage(&plan, "long_32k")["lr"]["end"], 7e-6, 1e-12);
    let rope = &stage(&plan, "long_32k")["rope"];
    close(&rope["attention_factor"], 1.0, 1e-12);
}

/// allenai/OLMo-core `src/scripts/official/OLMo3`, arXiv:2512.13961: one epoch of 5.93T ends at step 1,413,814,
/// the 6T mixture reads its pools as often as its table says, mid-training starts above where
/// pre-training stopped.
#[test]
fn olmo3_spans() {
    let seven = plan("olmo3_7b");
    let [first, second] = ["pretrain_1", "pretrain_2"].map(|name| stage(&seven, name));
    assert_eq!(number(&first["steps"]) + number(&second["steps"]), 1_413_814.0);
    // The middle of the cosine; the scripts have 3.93e-5 where the epoch ends.
    close(&first["lr"]["end"], 1.65e-4, 1e-5);
    close(&second["lr"]["start"], number(&first["lr"]["end"]), 1e-12);
    close(&second["lr"]["end"], 3.93e-5, 2.6e-2);
    // Half a cosine to 7T, in steps from the middle to 1,668,931, against the power that stands for it.
    for part in [0.1, 0.3, 0.5, 0.7, 0.9] {
        let u = part * 816_768.0 / (1_668_931.0 - 597_046.0);
        let exact = 3e-5 + 1.35e-4 * (1.0 - (std::f64::consts::FRAC_PI_2 * u).sin());
        let token = part * number(&second["tokens"]);
        close(&at("olmo3_7b", &format!("pretrain_2:{token:.0}"))["lr"], exact, 2.6e-2);
    }
    for (name, tokens, pool) in [
        ("olmo.common_crawl", 4.51e12, 8.14e12),
        ("olmo.stack_edu", 409e9, 137e9),
        ("olmo.finemath", 152e9, 34.1e9),
        ("olmo.arxiv", 50.8e9, 21.4e9),
    ] {
        let drawn = number(&source(first, name)["tokens"]) + number(&source(second, name)["tokens"]);
        assert!((drawn / tokens - 1.0).abs() < 1e-3, "{name}: {drawn}");
        let epochs = number(&source(first, name)["epochs"]) + number(&source(second, name)["epochs"]);
        assert!((epochs - tokens / pool).abs() < 0.01, "{name}: {epochs}");
    }
    let midtrain = stage(&seven, "midtrain");
    assert_eq!(midtrain["steps"], 47_684);
    close(&midtrain["lr"]["peak"], 2.0712e-4, 1e-12);
    close(&source(midtrain, "olmo.dolmino_math")["epochs"], 1.0, 2e-3);
    let long = stage(&seven, "long");
    close(&long["rope"]["attention_factor"], 1.20794, 1e-5);
    let replayed: f64 = midtrain["mix"]
        .as_array()
        .expect("mix")
        .iter()
        .map(|portion| number(&source(long, portion["source"].as_str().expect("a name"))["weight_mean"]))
        .sum();
    assert!((replayed - 0.661).abs() < 1e-3, "{replayed}");

    let large = plan("olmo3_32b");
    close(&stage(&large, "pretrain")["tokens"], 5.503e12, 1e-4);
    close(&stage(&large, "pretrain")["lr"]["end"], 6.69e-5, 1e-3);
    // The merged checkpoints are those of steps 23,842, and 10,000, 11,000 and 11,921.
    assert_eq!(stage(&large, "midtrain[42069]")["steps"], 23_842);
    assert_eq!(stage(&large, "long")["steps"], 11_921);
    let ingredients: Vec<usize> = large["soups"]
        .as_array()
        .expect("soups")
        .iter()
        .filter_map(|soup| soup["ingredients"].as_array().map(Vec::len))
        .collect();
    assert_eq!(ingredients, [2, 3]);
}

/// huggingface/smollm `text/pretraining/smollm3`: 4,720,000 steps of 2,359,296 tokens, the last 522,000 a
/// decay to 0 with the third mixture, and the same tokens per step at 32K and 64K.
#[test]
fn smollm3_spans() {
    let plan = plan("smollm3_3b");
    let main = stage(&plan, "main");
    assert_eq!(main["tokens"], 4_720_000u64 * 2_359_296);
    for (name, steps) in [("long_32k", 20_000), ("long_64k", 22_000)] {
        let long = stage(&plan, name);
        assert_eq!(long["steps"], steps);
        assert_eq!(long["batch_tokens"]["end"], 2_359_296);
        close(&long["lr"]["peak"], 2e-5, 1e-12);
        assert_eq!(number(&long["lr"]["end"]), 0.0);
    }
    close(&at("smollm3_3b", "main:step 4198000")["lr"], 2e-4, 1e-12);
    close(&at("smollm3_3b", "main:step 4459000")["lr"], 1e-4, 1e-9);
    for (step, stack_edu) in [(3_449_999, 0.0), (3_450_000, 0.10561), (4_198_000, 0.2015 / 1.00565)] {
        let found = number(&at("smollm3_3b", &format!("main:step {step}"))["mix"]["stack_edu"]);
        assert!((found - stack_edu).abs() < 1e-5, "step {step}: {found}");
    }
    close(&stage(&plan, "long_64k")["rope"]["theta"], 5e6, 0.0);
    close(&source(stage(&plan, "reasoning"), "reasoning_traces")["epochs"], 4.0, 1e-4);
}

/// huggingface/smollm: 5,240,000 steps of 2,097,152 tokens, the last 524,000 a decay to 0.
#[test]
fn smollm2_totals() {
    let plan = plan("smollm2_1_7b");
    let main = stage(&plan, "main");
    assert_eq!(main["steps"], 5_240_000);
    assert_eq!(main["tokens"], 10_989_076_480_000u64);
    let decay = main["lr"]["segments"].as_array().expect("segments").last().expect("a decay").clone();
    assert_eq!(
        decay["end"].as_u64().zip(decay["start"].as_u64()).map(|(e, s)| e - s),
        Some(1_098_907_648_000)
    );
    // The decay begins before the last mixture does.
    let stable = at("smollm2_1_7b", "main:9.89T");
    close(&stable["lr"], 5e-4, 1e-12);
    let falling = at("smollm2_1_7b", "main:9.95T");
    assert!(number(&falling["lr"]) < 5e-4);
    close(&falling["mix"]["stack_edu"], 0.16, 1e-9);
    close(&at("smollm2_1_7b", "main:10.5T")["mix"]["stack_edu"], 0.24, 1e-9);
    // The long stage takes over 75B tokens before the end.
    let long = stage(&plan, "long");
    assert_eq!(long["from"], "main.before_long");
    close(&long["start_tokens"], 10_989_076_480_000.0 - 75e9, 1e-6);
    close(&long["lr"]["start"], 5e-4 * 75e9 / 1_098_907_648_000.0, 1e-4);
    close(&long["rope"]["theta"], 130_000.0, 0.0);
}

/// arXiv:2407.07263: the blend changes when the learning rate has fallen to a fifth, at 71.131%.
#[test]
fn reuse_switches_at_a_fifth() {
    let plan = plan("reuse_dont_retrain");
    let continued = stage(&plan, "continued");
    close(&continued["lr"]["end"], 4.5e-7, 1e-12);
    let switch = 0.71131 * 300e9;
    let qa = |tokens: f64| number(&at("reuse_dont_retrain", &format!("continued:{tokens:.0}"))["mix"]["qa"]);
    assert_eq!(qa(switch - 1e7), 0.0);
    assert!(qa(switch + 1e7) > 0.0);
    close(&at("reuse_dont_retrain", &format!("continued:{switch:.0}"))["lr"], 9e-6, 1e-3);
}

/// arXiv:2405.19327: 3,726B and 778B, two half-lives from 2e-4.
#[test]
fn map_neo_ends_at_a_quarter() {
    let plan = plan("map_neo_7b");
    let decay = stage(&plan, "decay");
    close(&decay["lr"]["end"], 5e-5, 1e-9);
    close(&decay["lr"]["start"], 2e-4, 1e-12);
    let sum: u64 = ["fundamental", "decay"].iter().filter_map(|s| stage(&plan, s)["tokens"].as_u64()).sum();
    assert_eq!(sum, 4_504_000_000_000);
    // About 365k and 148k steps.
    close(&stage(&plan, "fundamental")["steps"], 365e3, 2e-3);
    close(&decay["steps"], 148e3, 1e-3);
}

/// arXiv:2505.07608: 20.97M tokens per step at both contexts, spans of 23.784T.
#[test]
fn mimo_batches_and_spans() {
    let plan = plan("mimo_7b");
    for name in ["stage2", "stage3"] {
        assert_eq!(stage(&plan, name)["batch_tokens"]["end"], 20_971_520);
    }
    assert_eq!(stage(&plan, "stage1")["batch_tokens"]["end"], 20_971_520);
    let sum: u64 =
        ["stage1", "stage2", "stage3"].iter().filter_map(|s| stage(&plan, s)["tokens"].as_u64()).sum();
    assert_eq!(sum, 23_784_000_000_000);
    close(&stage(&plan, "stage3")["lr"]["end"], 1e-5, 1e-12);
    close(&stage(&plan, "stage3")["rope"]["theta"], 640_000.0, 0.0);
}

/// The anneals of OLMo 2 start where the cosine was cut: 6.1499e-5 in the configuration of the 7B,
/// 7.4487e-5 in that of the 1B, 9e-5 for the 13B.
#[test]
fn olmo2_cuts() {
    let seven = plan("olmo2_7b");
    let pretrain = stage(&seven, "pretrain");
    close(&pretrain["tokens"], 3.895e12, 1e-4);
    close(&pretrain["lr"]["end"], 6.135e-5, 1e-3);
    close(&pretrain["lr"]["end"], 6.1499e-5, 3e-3);
    close(&at("olmo2_7b", "pretrain:3.895T")["lr"], 6.135e-5, 1e-3);
    for order in [42, 42_069, 666] {
        let anneal = stage(&seven, &format!("anneal[{order}]"));
        assert_eq!(anneal["data_seed"], order);
        assert_eq!(anneal["steps"], 11_921);
        close(&anneal["lr"]["start"], number(&pretrain["lr"]["end"]), 1e-12);
        assert_eq!(number(&anneal["lr"]["end"]), 0.0);
    }
    assert_eq!(seven["soups"][0]["ingredients"].as_array().map(Vec::len), Some(3));
    close(&stage(&plan("olmo2_1b"), "pretrain")["lr"]["end"], 7.4487e-5, 1e-3);
    let thirteen = plan("olmo2_13b");
    close(&stage(&thirteen, "pretrain")["lr"]["end"], 9e-5, 1e-12);
    assert_eq!(thirteen["soups"][0]["ingredients"].as_array().map(Vec::len), Some(4));
}

/// The anneals of the 13B start at 9e-5 only from a peak of 9e-4, as the paper prints it: from the
/// 3e-4 of the configuration file the cosine would have ended at 3e-5.
#[test]
fn olmo2_13b_floor_needs_the_peak_of_the_paper() {
    let dir = tempfile::tempdir().expect("a directory");
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes");
    std::fs::create_dir(dir.path().join("shared")).expect("writable");
    std::fs::copy(recipes.join("shared/olmo2.curriculum"), dir.path().join("shared/olmo2.curriculum"))
        .expect("copied");
    let text = std::fs::read_to_string(recipes.join("olmo2_13b.curriculum")).expect("readable");
    let end = |text: &str| {
        let path = dir.path().join("olmo2_13b.curriculum");
        std::fs::write(&path, text).expect("writable");
        let plan = json(&["plan", &path.to_string_lossy(), "--format", "json"]);
        number(&stage(&plan, "pretrain")["lr"]["end"])
    };
    assert!((end(&text) - 9e-5).abs() < 1e-12);
    let other = text.replace("9e-4", "3e-4").replace("== 9e-5", "== 3e-5");
    assert_ne!(other, text);
    assert!((end(&other) - 3e-5).abs() < 1e-12);
}

/// arXiv:2405.16712: exponential to 1e-7, 60% replay.
#[test]
fn zamba_lands() {
    let plan = plan("zamba_7b");
    let anneal = stage(&plan, "anneal");
    close(&anneal["lr"]["end"], 1e-7, 1e-9);
    close(&anneal["lr"]["peak"], 1.1e-4, 1e-12);
    close(&source(anneal, "web")["weight_mean"], 0.6, 1e-12);
}

/// arXiv:2407.21783: the 40M tokens of the anneal are 2.5 steps of 16M, which warns and does not
/// fail; the parts sum to 15.6T.
#[test]
fn llama3_anneal_warns() {
    let path = file("llama3_405b");
    let output = midc(&["check", &path, "-W", "anneal_too_short", "--format", "concise"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("anneal_too_short"), "{text}");
    let plan = plan("llama3_405b");
    assert_eq!(stage(&plan, "anneal")["steps"], 3);
    let sum: u64 =
        plan["stages"].as_array().expect("stages").iter().filter_map(|s| s["tokens"].as_u64()).sum();
    assert_eq!(sum, 15_600_000_000_000);
    let extension = stage(&plan, "extension");
    assert_eq!(extension["context"].as_array().map(Vec::len), Some(6), "six increments");
    assert_eq!(at("llama3_405b", "extension:end")["context"], 131_072);
}

/// Assumed numbers are marked in the plan.
#[test]
fn assumptions_are_marked() {
    let plan = plan("qwen3");
    let assumed: Vec<&str> = stage(&plan, "general")["assumed"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert!(assumed.contains(&"lr") && assumed.contains(&"batch"), "{assumed:?}");
    assert!(!assumed.contains(&"tokens"), "{assumed:?}");
}

#[test]
fn other_totals() {
    for (recipe, stages, expected) in [
        ("apple_afm", vec!["core", "continued", "lengthen"], 7_400_000_000_000u64),
        ("pangu_pro_moe", vec!["general", "reasoning", "annealing"], 13_000_000_000_000),
        ("nemotron4_340b", vec!["pretrain", "continued"], 9_000_000_000_000),
        ("minicpm_2_4b", vec!["stable", "decay"], 1_100_000_000_000),
        ("zamba_7b", vec!["pretrain", "anneal"], 1_000_000_000_000),
    ] {
        let plan = plan(recipe);
        let sum: u64 = stages.iter().filter_map(|s| stage(&plan, s)["tokens"].as_u64()).sum();
        assert_eq!(sum, expected, "{recipe}");
    }
}

/// A source of 1.3T tokens at 15% is read through after 8.67T; one that is read often is used up.
#[test]
fn sources_run_out_where_their_shares_say() {
    let plan = plan("phi4");
    let of = |name: &str| {
        let all = plan["exhaustion"].as_array().expect("a list");
        all.iter().find(|e| e["source"] == name).unwrap_or_else(|| panic!("source `{name}`")).clone()
    };
    assert_eq!(of("web")["read_through"]["stage"], "pretrain");
    close(&of("web")["read_through"]["tokens"], 1.3e12 / 0.15, 1e-9);
    close(&of("synthetic")["read_through"]["tokens"], 290e9 / 0.40, 1e-9);
    assert_eq!(of("web")["exhausted"], Value::Null);
}

/// Model FLOPs over the peak of the accelerator, at the utilisation that was asked for.
#[test]
fn cost_on_a_named_accelerator() {
    let path = file("olmo2_7b");
    let args = ["plan", &path, "--format", "json", "--accelerator", "h100", "--mfu", "50%"];
    let plan = json(&args);
    let cost = &plan["cost"];
    close(&cost["gpu_hours"], number(&plan["totals"]["flops"]) / (989.4e12 * 0.5) / 3600.0, 1e-9);
    let stages = cost["stages"].as_array().expect("stages");
    let sum: f64 = stages.iter().map(|s| number(&s["gpu_hours"])).sum();
    close(&cost["gpu_hours"], sum, 1e-9);
    assert_eq!(stages.len(), plan["stages"].as_array().map_or(0, Vec::len));
    let output = midc(&["plan", &path, "--accelerator", "abacus"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("tpu_v5p"));
}
