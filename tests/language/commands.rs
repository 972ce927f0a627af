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
