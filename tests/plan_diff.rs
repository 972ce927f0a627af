//! `midc plan --diff`: golden text and JSON for `tests/golden/diff/*.curriculum`, each against
//! `old.curriculum` there, for runs that have come to several places.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use midc::plan::{self, Plan, Standing};
use midc::sema::Options;
use midc::source::MemoryFiles;
use serde_json::Value;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/diff")
}

fn midc(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_midc"))
        .current_dir(golden())
        .env("NO_COLOR", "1")
        .args(args)
        .output()
        .expect("midc runs")
}

fn stdout(args: &[&str]) -> String {
    let output = midc(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A run directory with the plan of `old.curriculum` and empty checkpoints.
fn run_dir(checkpoints: &[(&str, u64)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let plan = stdout(&["plan", "old.curriculum", "--format", "json"]);
    std::fs::write(dir.path().join("plan.json"), plan).expect("writable");
    for (stage, step) in checkpoints {
        let path = dir.path().join("checkpoints").join(stage).join(format!("step-{step}"));
        std::fs::create_dir_all(path).expect("writable");
    }
    dir
}

fn diff(new: &str, dir: &tempfile::TempDir, more: &[&str]) -> String {
    let old = dir.path().join("plan.json").display().to_string();
    let mut args = vec!["plan", new, "--diff", &old];
    args.extend(more);
    stdout(&args)
}

fn json(new: &str, dir: &tempfile::TempDir, more: &[&str]) -> Value {
    let mut args = vec!["--format", "json"];
    args.extend(more);
    serde_json::from_str(&diff(new, dir, &args)).expect("JSON")
}

fn stage<'v>(diff: &'v Value, name: &str) -> &'v Value {
    let stages = diff["stages"].as_array().expect("stages");
    stages.iter().find(|s| s["stage"] == name).unwrap_or_else(|| panic!("stage `{name}`"))
}

#[test]
fn texts_read_as_blessed() {
    let unknown = run_dir(&[]);
    let early = run_dir(&[("main", 2000)]);
    let late = run_dir(&[("main", 23_842), ("decay[1]", 4769), ("decay[2]", 100)]);
    let mut wrong = Vec::new();
    for name in [
        "old",
        "later_decay",
        "longer_stage",
        "other_order",
        "other_mix",
        "other_batch",
        "watched",
        "held_out",
        "graph",
    ] {
        let new = format!("{name}.curriculum");
        let text = format!(
            "== nothing known ==\n{}\n== main under way ==\n{}\n== decays under way ==\n{}",
            diff(&new, &unknown, &[]),
            diff(&new, &early, &[]),
            diff(&new, &late, &[])
        );
        let path = golden().join(format!("{name}.txt"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&path, text).expect("writable");
        } else if std::fs::read_to_string(&path).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\n(BLESS=1 rewrites them)", wrong.join("\n"));
}

#[test]
fn a_later_decay_leaves_the_past_alone() {
    let dir = run_dir(&[("main", 2000)]);
    let diff = json("later_decay.curriculum", &dir, &[]);
    let main = stage(&diff, "main");
    assert_eq!(main["standing"], "goes_on");
    assert_eq!(main["done"]["step"], 2000);
    assert_eq!(main["done"]["tokens"], 2000 * 1024 * 4096u64);
    // The first step whose rate differs is the first that begins after token 80B.
    let step = 80_000_000_000u64.div_ceil(1024 * 4096);
    assert_eq!(main["same_until"]["step"], step);
    assert_eq!(main["lr"]["next"]["before"], main["lr"]["next"]["after"]);
    // The branch point lies where both are the same.
    assert_eq!(stage(&diff, "decay[1]")["standing"], "kept");
    assert_eq!(stage(&diff, "long")["standing"], "kept");
    assert_eq!(diff["same_outcome"], false);
    // Past the place where they part, the end of `main` is stale.
    let late = run_dir(&[("main", 23_842)]);
    assert_eq!(stage(&json("later_decay.curriculum", &late, &[]), "main")["standing"], "stale");
}

#[test]
fn a_changed_past_makes_everything_after_it_stale() {
    let dir = run_dir(&[("main", 23_842), ("decay[1]", 4769), ("decay[2]", 100)]);
    let diff = json("other_order.curriculum", &dir, &[]);
    for name in ["main", "decay[1]", "decay[2]"] {
        assert_eq!(stage(&diff, name)["standing"], "stale", "{name}");
    }
    assert_eq!(stage(&diff, "long")["standing"], "ahead");
    let why = stage(&diff, "long")["why"][0].as_str().expect("a reason");
    assert!(why.contains("soup `final`") && why.contains("decay[1]"), "{why}");
    // Everything read of a source whose documents change may come again.
    let sources = stage(&diff, "main")["sources"].as_array().expect("sources").clone();
    let code = sources.iter().find(|s| s["source"] == "code").expect("code");
    assert_eq!(code["reordered"], true);
    assert_eq!(code["reread"], code["drawn"]["before"]);
}

#[test]
fn tokens_read_again_and_skipped_are_counted() {
    let dir = run_dir(&[]);
    let diff = json("other_mix.curriculum", &dir, &["--at", "main:80B"]);
    let main = stage(&diff, "main");
    assert_eq!(main["standing"], "stale");
    let tokens = main["done"]["tokens"].as_u64().expect("a number");
    let moved = |source: &str, way: &str| {
        let sources = main["sources"].as_array().expect("sources");
        let found = sources.iter().find(|s| s["source"] == source).expect("the source");
        found[way].as_u64().expect("a number")
    };
    // From 60B on web falls from 80% to 50% and code rises by as much.
    let expected = (tokens - 60_000_000_000) * 3 / 10;
    assert!(moved("web", "reread").abs_diff(expected) <= 2);
    assert!(moved("code", "skipped").abs_diff(expected) <= 2);
    assert_eq!(moved("web", "skipped"), 0);
}

#[test]
fn what_only_watches_changes_no_hash_and_what_is_held_out_does() {
    let dir = run_dir(&[("main", 2000)]);
    let watched = json("watched.curriculum", &dir, &[]);
    assert_eq!(watched["same_outcome"], true);
    assert_eq!(stage(&watched, "long")["watching"][0], "eval");
    let held_out = json("held_out.curriculum", &dir, &[]);
    assert_eq!(held_out["same_outcome"], false);
    assert_eq!(stage(&held_out, "main")["standing"], "stale");
    assert_eq!(stage(&held_out, "main")["changes"][0]["what"], "heldout");
}

#[test]
fn all_is_done_at_the_end_of_a_stage() {
    let dir = run_dir(&[]);
    for end in ["main:end", "main:100B", "main:100%"] {
        let diff = json("later_decay.curriculum", &dir, &["--at", end]);
        assert_eq!(stage(&diff, "main")["done"]["step"], 23_842, "{end}");
    }
}

fn plan_of(text: &str) -> Plan {
    let mut files = MemoryFiles::new();
    let file = files.add("run.curriculum", text.to_owned());
    let (curriculum, diagnostics) = midc::sema::check(&mut files, file, &Options::default());
    let Some(curriculum) = curriculum else { panic!("{diagnostics:#?}") };
    plan::build(&curriculum)
}

/// Both say the same: that the stages are kept, and that the hash is. Each edit is a text, what is put in its
/// place and whether the run goes on.
#[test]
fn stages_are_kept_where_the_hash_is() {
    let text = std::fs::read_to_string(golden().join("old.curriculum")).expect("readable");
    let text = format!("lints {{ missing_files = allow }}\n{text}")
        .replace("  data_seed = 3\n", "  data_seed = 3\n  checkpoint there {\n    at = 5B tokens\n  }\n");
    let edits: [(&str, &str, bool); 16] = [
        ("", "", true),
        ("at = 79B tokens", "at = 79B tokens, keep = forever", true),
        ("model base", "model other { init = smollm2_135m, context = 2Ki }\nmodel base", true),
        ("  checkpoint there {\n    at = 5B tokens\n  }\n", "", false),
        ("at = 5B tokens", "at = 6B tokens", false),
        ("data_seed = 3", "data_seed = 3, save_every = 100 steps, keep = 2", true),
        ("data_seed = 3", "data_seed = 3, eval needles { needle = [4Ki] }", true),
        ("data_seed = 3", "data_seed = 4", false),
        ("kind   = code", "kind   = math", true),
        ("tokens = 200B", "tokens = 300B", true),
        ("path   = \"code/*.jsonl\"", "path   = \"other/*.jsonl\"", false),
        ("tokens    = 10B", "tokens    = 11B", false),
        ("seen       = 1T tokens", "seen       = 2T tokens", false),
        ("  web  = 80%\n  code = 20%", "  code = 20%\n  web  = 80%", false),
        ("average(decay)", "average(decay[1])", false),
        ("order in [1, 2]", "order in [1, 3]", false),
    ];
    let old = plan_of(&text);
    for (before, after, goes_on) in edits {
        assert!(text.contains(before), "{before}");
        let new = plan_of(&text.replacen(before, after, 1));
        for (old, new) in [(&old, &new), (&new, &old)] {
            let diff = plan::diff(old, new, None);
            let kept = diff.stages.iter().all(|s| s.standing == Standing::Kept) && diff.soups.is_empty();
            assert_eq!((kept, diff.same_outcome), (goes_on, goes_on), "{before} -> {after}: {diff:#?}");
        }
    }
}

/// No step is taken differently for a named checkpoint, but one in the past can no longer be written.
#[test]
fn a_moved_checkpoint_leaves_the_steps_alone() {
    let text = std::fs::read_to_string(golden().join("old.curriculum")).expect("readable");
    let old = plan_of(&text);
    let done = |steps: u64| plan::StepsDone::from([("main".to_owned(), steps)]);
    let diff = |mark: &str, steps: u64| {
        let mark =
            if mark.is_empty() { String::new() } else { format!("checkpoint stable_end {{ at = {mark} }}") };
        let text = text.replace("checkpoint stable_end {\n    at = 79B tokens\n  }", &mark);
        let text = if mark.is_empty() { text.replace("main.stable_end", "main") } else { text };
        plan::diff(&old, &plan_of(&text), Some(&done(steps)))
    };
    let missed = "the steps up to `checkpoint stable_end` are done, so it can no longer be written";
    for (mark, steps, standing, says) in [
        ("78B tokens", 2000, Standing::GoesOn, false),
        ("78B tokens", 18_700, Standing::GoesOn, true),
        ("78B tokens", 23_842, Standing::GoesOn, true),
        ("78B tokens", 0, Standing::Ahead, false),
        ("", 23_842, Standing::GoesOn, false),
    ] {
        let diff = diff(mark, steps);
        let main = diff.stages.iter().find(|s| s.stage == "main").expect("main");
        assert_eq!((main.standing, main.same_until), (standing, None), "{mark} {steps}");
        assert_eq!(main.why.iter().any(|why| why == missed), says, "{mark} {steps}: {:?}", main.why);
        // What starts from it starts from other weights.
        let decay = diff.stages.iter().find(|s| s.stage == "decay[1]").expect("decay");
        assert_eq!(decay.standing, Standing::Ahead, "{mark} {steps}");
    }
}

/// What is drawn at the end is what the plan says, also where weights move.
#[test]
fn what_is_drawn_is_what_the_plan_says() {
    let text = std::fs::read_to_string(golden().join("old.curriculum")).expect("readable");
    let moving = "web  = 80% then linear(to: 10%)\n  code = rest";
    let old = plan_of(&text.replace("web  = 50%\n  code = 50%", moving));
    let new = plan_of(&text.replace("web  = 50%\n  code = 50%", &moving.replace("10%", "20%")));
    let diff = plan::diff(&old, &new, None);
    let decay = diff.stages.iter().find(|s| s.stage == "decay[1]").expect("decay");
    for (plan, pick) in [(&old, true), (&new, false)] {
        // `main` up to the checkpoint, and all of the decay.
        let drawn = |stage: &str, source: &str| {
            let stage = plan.stages.iter().find(|s| s.name == stage).expect("the stage");
            stage.mix.iter().find(|m| m.source == source).map_or(0, |m| m.tokens)
        };
        let (main, step) = plan.stage_point("main.stable_end").expect("the checkpoint");
        let before = main.step_point(step).tokens as f64;
        for (source, share) in [("web", 0.8), ("code", 0.2)] {
            let told = decay.sources.iter().find(|s| s.source == source).expect("the source").end;
            let told = if pick { told.before } else { told.after };
            let expected = (before * share).round() as u64 + drawn("decay[1]", source);
            assert!(told.abs_diff(expected) <= 1, "{source}: {told} is not {expected}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_said() {
    let output = midc(&["plan", "old.curriculum", "--diff", "old.curriculum"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not a plan"));
}
