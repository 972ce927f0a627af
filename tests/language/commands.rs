//! What the commands say to what they cannot do, and which files they change.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Run `midc`: its exit code, and stdout and stderr together.
fn midc(dir: &Path, args: &[&str], input: &str) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_midc"))
        .current_dir(dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("midc runs");
    // A command that refuses does not read.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" ");
    (output.status.code(), text)
}

#[test]
fn fixes_name_the_files_they_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("writable");
    write("main.curriculum", "use \"lib.curriculum\" as s\nlet x = s.y;\n");
    write("lib.curriculum", "let y = 5;\nlet z = 6;\n");
    let (_, out) = midc(dir.path(), &["check", "--fix", "main.curriculum", "-A", "unused_let"], "");
    assert!(out.contains("applied 1 fix to main.curriculum"), "{out}");
    assert!(out.contains("applied 2 fixes to lib.curriculum"), "{out}");
    let (code, out) = midc(dir.path(), &["check", "--fix", "-"], "let x = 5;\n");
    assert_eq!(code, Some(2), "{out}");
    assert!(out.contains("`-` is standard input"), "{out}");
}

#[test]
fn a_plan_takes_no_settings() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("plan.json"), "{}").expect("writable");
    let (code, out) = midc(dir.path(), &["graph", "plan.json", "--set", "a=1"], "");
    assert_eq!(code, Some(2), "{out}");
    assert!(out.contains("`--set` changes a curriculum"), "{out}");
    let (code, out) = midc(dir.path(), &["graph", "plan.json"], "");
    assert_eq!(code, Some(2), "{out}");
    assert!(out.contains("is not a plan") && !out.contains("--run-dir"), "{out}");
}

#[test]
fn settings_say_how_they_are_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "param path: text = \"a\"\nparam on: bool = yes\nparam n: tokens = 5B\nlet aa = 1\n";
    std::fs::write(dir.path().join("a.curriculum"), text).expect("writable");
    let check =
        |set: &str| midc(dir.path(), &["check", "a.curriculum", "-A", "unused_let", "--set", set], "").1;
    let found = check("path=data/x.jsonl");
    assert!(found.contains("`--set 'path=\"data/x.jsonl\"'`") && found.ends_with("1 error"), "{found}");
    assert!(check("on=false").contains("write `--set on=no`"));
    let found = check("n=ab");
    assert!(found.contains("is written out") && !found.contains("did you mean"), "{found}");
    for right in ["path=\"b\"", "on=no", "n=6B"] {
        assert!(!check(right).contains("error"), "{right}");
    }
}

const SOUND: &str = "model base { init = smollm2_135m }
## Pages of the web.
source web { kind = web, tokens = 60B }
## One stage for
## three seeds.
stage main[seed in [1, 2, 3]] {
  from      = base
  tokens    = 10B
  batch     = 512 seqs
  mix       = web
  lr        = 3e-4 then linear(to: 0)
  data_seed = seed
}
budget { accelerator = a100, mfu = 50%, gpu_hours <= 100 }
";

#[test]
fn plans_tell_what_is_said_of_things_and_what_they_cost() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.curriculum"), SOUND).expect("writable");
    let (code, out) = midc(dir.path(), &["plan", "-v", "a.curriculum"], "");
    assert_eq!(code, Some(0), "{out}");
    assert!(
        out.contains("web: Pages of the web. main: One stage for three seeds. main[1]: context"),
        "{out}"
    );
    assert!(out.contains("cost: 88.504 GPU-hours on a100 at 50%"), "{out}");
    // What is said of things is no part of what they do.
    let hash = |out: &str| out.split("blake3:").nth(1).map(str::to_owned);
    let silent: String = SOUND.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    std::fs::write(dir.path().join("a.curriculum"), silent).expect("writable");
    let (_, again) = midc(dir.path(), &["plan", "-v", "a.curriculum"], "");
    assert!(hash(&out).is_some() && hash(&out) == hash(&again), "{again}");
}

#[test]
fn standard_output_takes_one_thing() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.curriculum"), SOUND).expect("writable");
    for args in [&["-o", "-", "--svg", "-"][..], &["--csv", "--svg", "-"]] {
        let (code, out) = midc(dir.path(), &[&["plan", "a.curriculum"], args].concat(), "");
        assert!(code == Some(2) && out.contains("standard output takes one"), "{args:?}: {out}");
    }
    let (code, out) = midc(dir.path(), &["plan", "a.curriculum", "-o", "-", "--svg", "a.svg"], "");
    assert!(code == Some(0) && out.starts_with('{') && dir.path().join("a.svg").is_file(), "{out}");
}

#[test]
fn a_launch_is_not_written_over_a_run() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.curriculum"), SOUND).expect("writable");
    let run = dir.path().join("run");
    std::fs::create_dir(&run).expect("a directory");
    std::fs::write(run.join("metrics.jsonl"), "").expect("writable");
    let (code, out) = midc(dir.path(), &["emit", "transformers", "a.curriculum", "-o", "run"], "");
    assert!(code == Some(2) && out.contains("`run` holds a run"), "{out}");
    assert!(!run.join("plan.json").exists());
}

#[test]
fn numbers_that_no_measurement_can_take_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for args in [
        &["bench", "train", "--context", "0"][..],
        &["bench", "train", "--steps", "0"],
        &["bench", "train", "--context", "16777216", "--rows", "16777216"],
        &["bench", "kernels", "--seconds", "nan"],
        &["bench", "kernels", "--seconds", "inf"],
        &["eval", "x", "--max-tokens", "0", "y"],
    ] {
        let (code, out) = midc(dir.path(), args, "");
        assert!(code == Some(2) && !out.contains("panicked"), "{args:?}: {out}");
    }
    let (code, out) = midc(dir.path(), &["bench", "check", "nowhere.curriculum"], "");
    assert!(code == Some(2) && out.contains("nowhere.curriculum"), "{out}");
}

#[cfg(unix)]
#[test]
fn what_a_shell_pipes_in_under_a_name_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let (code, out) = midc(dir.path(), &["check", "/dev/stdin", "-A", "unused_let"], "let x = wibble\n");
    assert!(code == Some(1) && out.contains("unknown name `wibble`"), "{out}");
    // There is nothing that it could be written back to.
    let (code, out) = midc(dir.path(), &["fmt", "/dev/stdin"], "let   x=5\n");
    assert!(code == Some(0) && out == "let x = 5", "{out}");
}

#[test]
fn a_source_may_take_a_value_that_is_defined_after_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = SOUND
        .replace("mix       = web", "mix       = blend")
        .replace("kind = web,", "kind = web, loss_on = answer, order = ord,")
        + "let blend = proportional(web, other)\nlet ord = ascending(answer)\nlet answer = \"reply\"\n\
           source other { tokens = 60B }\n";
    // The mix comes before the source, and the source before what it takes.
    let text = format!("let early = blend\n{text}");
    std::fs::write(dir.path().join("a.curriculum"), text).expect("writable");
    let args = ["plan", "a.curriculum", "--format", "json", "-A", "unused_let", "-A", "missing_files"];
    let (code, out) = midc(dir.path(), &args, "");
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("\"loss_on\": [ \"reply\" ]") && out.contains("ascending(reply)"), "{out}");
}

#[test]
fn the_utilisation_of_a_budget_may_be_another() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("a.curriculum"), SOUND).expect("writable");
    let plan = |more: &[&str]| midc(dir.path(), &[&["plan", "a.curriculum"], more].concat(), "").1;
    assert!(plan(&["--mfu", "25%"]).contains("on a100 at 25%"));
    assert!(plan(&["--accelerator", "h100"]).contains("on h100 at 50%"));
}
