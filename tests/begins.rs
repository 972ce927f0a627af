//! What ends a run before its first step: found before anything is trained, said with the stage it is
//! about, and mended without a trace in the directory. What does not end one: that nobody listens. And what
//! `midc eval` takes for its data.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CURRICULUM: &str = r#"
lints { anneal_too_short = allow, missing_files = allow, unused_source = allow, long_only = allow }
model tiny {
  init      = llama(layers: 1, hidden: 32, heads: 2, kv_heads: 1, ffn: 64, vocab: 4096, tie_embeddings: yes)
  tokenizer = "DATA/tokenizer.json"
  context   = 2048
}
source prose { path = "DATA/prose.test.jsonl", kind = web, tokens = 1M, max_epochs = 4 }
stage one {
  from      = tiny
  steps     = 2
  context   = 64
  batch     = 2 seqs
  mix       = prose
  lr        = 1e-3 then linear(to: 5e-4)
  data_seed = 1
  init_seed = 1
}
stage two {
  from      = one
  steps     = 2
  context   = 2048
  batch     = 1 seqs
  lr        = inherit then linear(to: 0)
  data_seed = 2
}
"#;

/// A directory with a curriculum in it.
struct Place(tempfile::TempDir);

impl Place {
    /// [`CURRICULUM`] with `from` replaced by `to`.
    fn new(from: &str, to: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write(from, to);
        place
    }

    fn write(&self, from: &str, to: &str) {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data");
        assert!(CURRICULUM.contains(from));
        let text = CURRICULUM.replacen(from, to, 1).replace("DATA", data.to_str().unwrap());
        std::fs::write(self.at("c.curriculum"), text).unwrap();
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn midc(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_midc")).current_dir(self.0.path()).args(arguments).output().unwrap()
    }

    /// `midc exec` with `more`, which must fail and say `words`.
    fn refused(&self, more: &[&str], words: &[&str]) {
        let output = self.midc(&[&["exec", "c.curriculum"], more].concat());
        let said = said(&output);
        assert!(!output.status.success(), "{said}");
        for word in words {
            assert!(said.contains(word), "no `{word}` in {said}");
        }
        assert!(!said.contains("panicked") && !self.at("runs/c/checkpoints/one/step-2").exists(), "{said}");
    }

    /// That what is there now stays.
    fn refused_again(&self) {
        let before = std::fs::read(self.at("runs/c/metrics.jsonl")).unwrap();
        let output = self.midc(&["exec", "c.curriculum"]);
        assert!(!output.status.success() && said(&output).contains("--resume"), "{}", said(&output));
        assert_eq!(std::fs::read(self.at("runs/c/metrics.jsonl")).unwrap(), before);
    }

    fn runs(&self, more: &[&str]) {
        let output = self.midc(&[&["exec", "c.curriculum"], more].concat());
        assert!(output.status.success(), "{}", said(&output));
    }
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.replace(['│', '×', '├', '─', '▶', '╰'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_curriculum_that_is_mended_takes_the_directory() {
    let place = Place::new("prose.test", "none.test");
    place.refused(&[], &["source `prose`", "none.test.jsonl"]);
    place.write("", "");
    place.runs(&[]);
    place.refused_again();
}

#[test]
fn memory_that_a_later_stage_lacks_is_known_before_the_first() {
    let place = Place::new("", "");
    let limits = ["--device", "cpu", "--memory", "60MiB"];
    place.refused(&limits, &["stage `two`", "one row of 2048 tokens needs", "62914560"]);
    // What is not to be trained need not fit.
    place.runs(&[&limits[..], &["--only", "one"]].concat());
    place.runs(&["--device", "cpu", "--memory", "1GiB", "--resume"]);
}

#[test]
fn text_that_a_later_stage_lacks_is_known_before_the_first() {
    // What is declared would be enough.
    let place = Place::new("batch     = 1 seqs", "batch     = 32 seqs");
    place.refused(&[], &["source `prose` is used up", "by stage `two`"]);
}

#[test]
fn a_number_of_threads_has_bounds() {
    let place = Place::new("", "");
    for wrong in ["0", "100000"] {
        place.refused(&["--threads", wrong], &["from 1 to 1024"]);
    }
}

#[test]
fn eval_reads_files_directories_and_globs_and_stops_where_it_is_told() {
    let place = Place::new("", "");
    place.runs(&["--only", "one"]);
    std::fs::create_dir(place.at("data")).unwrap();
    for (name, words) in [("a", 30), ("b", 40), ("c", 1)] {
        std::fs::write(place.at(&format!("data/{name}.txt")), "word ".repeat(words)).unwrap();
    }
    let eval = |data: &str, more: &[&str]| -> serde_json::Value {
        let checkpoint = "runs/c/checkpoints/one/step-2";
        let output = place.midc(&[&["eval", checkpoint, "--format", "json", "--data", data], more].concat());
        assert!(output.status.success(), "{data}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (a, b) = (eval("data/a.txt", &[]), eval("data/b.txt", &[]));
    let (both, all) = (eval("data/[ab].txt", &[]), eval("data", &[]));
    let sum = |field: &str| a[field].as_u64().unwrap() + b[field].as_u64().unwrap();
    assert_eq!(both["tokens"], sum("tokens"));
    assert_eq!((both["documents"].as_u64(), all["documents"].as_u64()), (Some(2), Some(3)));
    let mean = |e: &serde_json::Value| e["loss"].as_f64().unwrap() * e["tokens"].as_u64().unwrap() as f64;
    assert!((mean(&both) - mean(&a) - mean(&b)).abs() < 1e-3);
    assert_eq!(eval("data", &["--max-tokens", "7"])["tokens"], 7);
    let long = a["tokens"].as_u64().unwrap() + 3;
    assert_eq!(eval("data", &["--max-tokens", &long.to_string()])["tokens"], long);
    let output = place.midc(&["eval", "runs/c/checkpoints/one/step-2", "--data", "none.txt"]);
    assert!(said(&output).contains("cannot open `none.txt` No such file"), "{}", said(&output));
}

/// A log on a full disk, a pager that was closed: nothing of the run hangs on who reads along.
#[cfg(target_os = "linux")]
#[test]
fn a_run_goes_on_when_nobody_can_be_told() {
    let place = Place::new("", "");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut exec = Command::new(env!("CARGO_BIN_EXE_midc"));
    exec.current_dir(place.0.path()).args(["exec", "c.curriculum"]).stdout(full()).stderr(full());
    assert_eq!(exec.status().unwrap().code(), Some(0));
    assert!(place.at("runs/c/checkpoints/two/step-2/model.safetensors").exists());
    // What was asked for is another matter.
    let mut eval = Command::new(env!("CARGO_BIN_EXE_midc"));
    eval.current_dir(place.0.path()).args([
        "eval",
        "runs/c/checkpoints/two/step-2",
        "--data",
        "c.curriculum",
    ]);
    let output = eval.stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("cannot write to standard output"), "{}", said(&output));
}

/// A terminal that goes away asks for a checkpoint, as ctrl-C does; under `nohup` it asks for nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_hangup_saves_what_was_trained() {
    let place = Place::new("max_epochs = 4 ", "max_epochs = 4000 ");
    let text = std::fs::read_to_string(place.at("c.curriculum")).unwrap();
    std::fs::write(place.at("c.curriculum"), text.replacen("steps     = 2", "steps     = 50000", 1)).unwrap();
    let metrics = place.at("runs/c/metrics.jsonl");
    let begin = |program: &str, first: &[&str]| {
        let mut command = Command::new(program);
        command.current_dir(place.0.path()).args(first).args(["exec", "c.curriculum", "--quiet", "--resume"]);
        let nobody = std::process::Stdio::null;
        let mut child = command.stdout(nobody()).stderr(nobody()).spawn().unwrap();
        let lines = || std::fs::read(&metrics).map_or(0, |m| m.iter().filter(|b| **b == b'\n').count());
        let before = lines();
        while lines() < before + 3 {
            assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child
    };
    let signal = |child: &std::process::Child, name: &str| {
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    };
    // These tests may be run under `nohup` themselves, which their children would inherit.
    let mut child = begin("env", &["--default-signal=HUP", env!("CARGO_BIN_EXE_midc")]);
    signal(&child, "-HUP");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(place.at("runs/c/checkpoints/one")).unwrap().count(), 1);
    let mut child = begin("nohup", &[env!("CARGO_BIN_EXE_midc")]);
    signal(&child, "-HUP");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "a hangup ended a run under nohup");
    signal(&child, "-TERM");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A rehearsal that is ended leaves nothing behind.
#[cfg(target_os = "linux")]
#[test]
fn a_rehearsal_that_is_stopped_removes_its_directory() {
    let place = Place::new("", "");
    let scratch = place.at("scratch");
    std::fs::create_dir(&scratch).unwrap();
    let mut rehearse = Command::new(env!("CARGO_BIN_EXE_midc"));
    rehearse.current_dir(place.0.path()).env("TMPDIR", &scratch);
    let nobody = std::process::Stdio::null;
    rehearse.args(["rehearse", "c.curriculum", "--minutes", "30"]).stdout(nobody()).stderr(nobody());
    let mut child = rehearse.spawn().unwrap();
    let stepped = || {
        let dirs = std::fs::read_dir(&scratch).unwrap();
        dirs.flatten().any(|d| d.path().join("run/metrics.jsonl").metadata().is_ok_and(|m| m.len() > 0))
    };
    while !stepped() {
        assert!(child.try_wait().unwrap().is_none(), "the rehearsal ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0);
}

/// What the stand-ins and the toy model must bear: something is held out of each source that a gate measures,
/// and a model of one layer stays one.
#[test]
fn a_rehearsal_runs_gates_on_long_documents_and_models_of_one_layer() {
    let family = |name: &str| format!("{name}(layers: 1, hidden: 32, heads: 2, ffn: 64, vocab: 4096)");
    let llama =
        "llama(layers: 1, hidden: 32, heads: 2, kv_heads: 1, ffn: 64, vocab: 4096, tie_embeddings: yes)";
    let gate =
        ("init_seed = 1\n}", "init_seed = 1\n eval h { loss = heldout 5% }\n gate { loss(prose) <= 100 }\n}");
    let long = [("kind = web", "kind = long"), gate];
    let families = ["gemma3", "olmo3", "smollm3"].map(family);
    let cases = std::iter::once(long.to_vec()).chain(families.iter().map(|f| vec![(llama, f.as_str())]));
    for changes in cases {
        let place = Place::new("", "");
        let text = std::fs::read_to_string(place.at("c.curriculum")).unwrap();
        let changed = changes.iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        std::fs::write(place.at("c.curriculum"), changed).unwrap();
        let output = place.midc(&["rehearse", "c.curriculum", "--minutes", "0.01"]);
        assert!(output.status.success(), "{changes:?}: {}", said(&output));
    }
}
