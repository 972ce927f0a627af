//! Files that were cut short, had a bit turned, or hold another model: each is named, nothing that was
//! there is lost, and a run that can go on from what is left does.
//!
//! | | cut short | a bit turned | another type | another vocabulary |
//! |---|---|---|---|---|
//! | checkpoint, optimizer state | passed over, made again | the same | the same | the same |
//! | the same with false checksums | refused | the same if it is seen | refused | refused |
//! | model to start from | refused | refused in headers, and everywhere where it has checksums | refused | refused |
//! | token file | refused where the format says its length | refused in headers, and as a token out of range | refused | refused |
//! | token cache | made again | made again | made again | made again |

#[path = "../common/mod.rs"]
mod common;
mod shards;
mod starts;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::graph;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn midc(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_midc")).current_dir(root()).args(arguments).output().unwrap()
}

fn words(output: &Output) -> String {
    // Reports break lines where the terminal would.
    let text = String::from_utf8_lossy(&output.stderr);
    text.replace(['│', '×', '├', '─', '▶', '╰'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every file under `dir` with its content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), std::fs::read(path).unwrap())),
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    for (path, content) in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::write(target, content).unwrap();
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// What happens to the bytes of a file.
type Damage = fn(&mut Vec<u8>);

fn truncate(bytes: &mut Vec<u8>) {
    bytes.truncate(bytes.len() * 2 / 3);
}

#[expect(clippy::ptr_arg, reason = "a `Damage`, some of which change the length")]
fn turn_a_bit(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
}

/// A finished run of the trunk of the graph, its cache, and the checkpoints of its stage.
struct Finished {
    dir: tempfile::TempDir,
}

impl Finished {
    fn new() -> Self {
        let finished = Self { dir: tempfile::tempdir().unwrap() };
        let output = finished.exec("run", &[]);
        assert!(output.status.success(), "{}", words(&output));
        finished
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn exec(&self, run: &str, more: &[&str]) -> Output {
        let (run, cache) = (self.at(run), self.at("cache"));
        let mut arguments = vec!["exec", "tests/kill_resume/graph.curriculum"];
        if !more.contains(&"--until") {
            arguments.extend(["--until", "trunk"]);
        }
        arguments.extend(["--set", "scale=8192", "--run-dir", run.to_str().unwrap()]);
        arguments.extend(["--cache-dir", cache.to_str().unwrap()]);
        arguments.extend(more);
        midc(&arguments)
    }

    /// Another directory with the same run.
    fn again(&self, name: &str) -> PathBuf {
        copy(&self.at("run"), &self.at(name));
        self.at(name).join("checkpoints/trunk")
    }

    fn last(&self) -> PathBuf {
        self.at("run/checkpoints/trunk/step-16")
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_made_again() {
    let finished = Finished::new();
    let other_type: Damage = |bytes| header(bytes, |h| h.replacen("\"F32\"", "\"I32\"", 1));
    let other_vocabulary: Damage = |bytes| header(bytes, |h| h.replacen("[4096,64]", "[2048,128]", 1));
    let damages: [(&str, Damage); 11] = [
        ("model.safetensors", truncate),
        ("model.safetensors", turn_a_bit),
        ("model.safetensors", other_type),
        ("model.safetensors", other_vocabulary),
        ("state/optimizer.safetensors", truncate),
        ("state/optimizer.safetensors", turn_a_bit),
        ("state/optimizer.safetensors", other_type),
        ("state/optimizer.safetensors", other_vocabulary),
        ("state/trainer.json", truncate),
        ("config.json", Vec::clear),
        ("checksums.json", truncate),
    ];
    let whole = files(&finished.last());
    for (i, (file, damage)) in damages.into_iter().enumerate() {
        let series = finished.again(&format!("damaged-{i}"));
        change(&series.join("step-16").join(file), damage);
        let output = finished.exec(&format!("damaged-{i}"), &["--resume"]);
        let said = words(&output);
        assert!(output.status.success(), "{file}: {said}");
        assert!(said.contains("passed over a damaged checkpoint") && said.contains(file), "{file}: {said}");
        let again = files(&series.join("step-16"));
        assert_eq!(again.len(), whole.len());
        for (a, b) in again.iter().zip(&whole) {
            assert!(a.1 == b.1, "{} differs", a.0.display());
        }
        assert!(said.contains("is kept as") && series.join("was-step-16").is_dir(), "{file}: {said}");
    }
}

/// One that cannot be read now may be whole, and one under another's name is not what it says: the run ends before it
/// makes another in its place.
#[test]
fn a_checkpoint_of_which_nothing_is_known_is_not_made_again() {
    let finished = Finished::new();
    type Change = fn(&Path);
    let cases: [(Change, &[&str]); 2] = [
        (
            |series| change(&series.join("step-16/checksums.json"), |b| replace(b, "\"v\": 1", "\"v\": 2")),
            &["checksums.json", "version 2"],
        ),
        (
            |series| {
                std::fs::remove_dir_all(series.join("step-16")).unwrap();
                std::fs::rename(series.join("step-14"), series.join("step-16")).unwrap();
            },
            &["`trunk` after step 16", "`trunk` after step 14"],
        ),
    ];
    for (i, (happen, named)) in cases.into_iter().enumerate() {
        let run = format!("unknown-{i}");
        let series = finished.again(&run);
        happen(&series);
        let before = files(&finished.at(&run).join("checkpoints"));
        let output = finished.exec(&run, &["--resume"]);
        let said = words(&output);
        assert!(!output.status.success(), "{said}");
        for word in named {
            assert!(said.contains(word), "no `{word}` in {said}");
        }
        assert!(files(&finished.at(&run).join("checkpoints")) == before, "changed: {said}");
    }
}

/// The end of a stage that another is made of already is not read through: nothing would come of it. It is once
/// something more is to be made of it.
#[test]
fn a_checkpoint_that_is_behind_the_run_is_read_when_it_is_needed() {
    let finished = Finished::new();
    assert!(finished.exec("run", &["--resume", "--until", "branch[2]"]).status.success());
    let whole = files(&finished.last());
    change(&finished.last().join("state/optimizer.safetensors"), turn_a_bit);
    let before = files(&finished.at("run/checkpoints"));
    let output = finished.exec("run", &["--resume", "--until", "branch[2]"]);
    assert!(
        output.status.success() && files(&finished.at("run/checkpoints")) == before,
        "{}",
        words(&output)
    );
    let output = finished.exec("run", &["--resume", "--until", "mean"]);
    let said = words(&output);
    assert!(output.status.success(), "{said}");
    for word in
        ["step 16 of stage `trunk`", "`branch[3]` starts from", "optimizer.safetensors", "taken up again"]
    {
        assert!(said.contains(word), "no `{word}` in {said}");
    }
    assert!(files(&finished.last()) == whole, "another checkpoint");
}

/// The lines around a damaged one are kept, and what else was written for a person.
#[test]
fn a_damaged_line_of_a_journal_costs_no_other() {
    let finished = Finished::new();
    finished.again("torn");
    let metrics = finished.at("torn/metrics.jsonl");
    let whole = std::fs::read_to_string(&metrics).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    change(&metrics, |bytes| *bytes = whole.replacen(lines[3], &lines[3][5..], 1).into_bytes());
    let output = finished.exec("torn", &["--resume"]);
    let said = words(&output);
    assert!(output.status.success() && said.contains("damaged lines left out of"), "{said}");
    let left = std::fs::read_to_string(&metrics).unwrap();
    assert_eq!(left, whole.replacen(&format!("{}\n", lines[3]), "", 1));
    let log = std::fs::read_to_string(finished.at("torn/log.txt")).unwrap();
    assert!(log.contains("metrics.jsonl`: 1") && log.contains("no record of 1 of the 16 steps"), "{log}");
}

/// A journal that is gone, or ends in what a crash of the machine left, is no reason to stop, and is not passed over.
#[test]
fn steps_without_a_record_are_said() {
    let finished = Finished::new();
    type Loss = fn(&Path);
    let losses: [(Loss, u64); 3] = [
        (|path| std::fs::remove_file(path).unwrap(), 16),
        (|path| std::fs::write(path, "").unwrap(), 16),
        (
            |path| {
                let whole = std::fs::read_to_string(path).unwrap();
                let kept: Vec<&str> = whole.lines().take(9).collect();
                std::fs::write(path, kept.join("\n") + "\n\0\0\0\0").unwrap();
            },
            7,
        ),
    ];
    for (i, (lose, missing)) in losses.into_iter().enumerate() {
        let name = format!("lost-{i}");
        finished.again(&name);
        lose(&finished.at(&name).join("metrics.jsonl"));
        let output = finished.exec(&name, &["--resume"]);
        let said = words(&output);
        let note = format!("no record of {missing} of the 16 steps of stage `trunk`");
        assert!(output.status.success() && said.contains(&note), "{said}");
        let page = std::fs::read_to_string(finished.at(&name).join("report.html")).unwrap();
        assert!(page.contains(&format!("{missing} steps before the last checkpoints")));
    }
}

#[test]
fn a_run_is_never_overwritten() {
    let finished = Finished::new();
    let before = files(&finished.at("run"));
    let output = finished.exec("run", &[]);
    assert!(!output.status.success());
    assert!(words(&output).contains("--resume"), "{}", words(&output));
    assert!(files(&finished.at("run")) == before, "the run changed");
}

#[test]
fn models_that_are_not_whole_are_named() {
    let finished = Finished::new();
    type Change = Box<dyn Fn(&mut Vec<u8>)>;
    let cases: [(&str, Change, &str); 6] = [
        ("model.safetensors", Box::new(truncate), "model.safetensors"),
        ("model.safetensors", Box::new(|b| header(b, |h| h.replacen("\"F32\"", "\"I64\"", 1))), "I64"),
        (
            "model.safetensors",
            Box::new(|b| header(b, |h| h.replacen("embed_tokens", "embed_tokenz", 1))),
            "embed_tokens",
        ),
        ("model.safetensors", Box::new(|b| b[..8].fill(0xff)), "model.safetensors"),
        ("config.json", Box::new(|b| replace(b, "\"vocab_size\": 4096", "\"vocab_size\": 4000")), "4000"),
        ("tokenizer.json", Box::new(truncate), "tokenizer.json"),
    ];
    for (i, (file, damage, named)) in cases.iter().enumerate() {
        let model = finished.at(&format!("model-{i}"));
        copy(&finished.last(), &model);
        // As a directory from elsewhere, which has no checksums to tell.
        std::fs::remove_file(model.join("checksums.json")).unwrap();
        change(&model.join(file), |bytes| damage(bytes));
        let before = files(&model);
        let output = midc(&["eval", model.to_str().unwrap(), "--data", "examples/data/qa.test.jsonl"]);
        let said = words(&output);
        assert!(!output.status.success(), "{file}, case {i}");
        assert!(said.contains(named) && !said.contains("panicked"), "{file}, case {i}: {said}");
        assert!(files(&model) == before);
    }
}

/// Put `f` of the header of a safetensors file in its place, with its length.
fn header(bytes: &mut Vec<u8>, f: impl FnOnce(&str) -> String) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let before = std::str::from_utf8(&bytes[8..8 + length]).unwrap();
    let text = f(before);
    assert!(text != before, "the header is as it was: {before}");
    let data = bytes.split_off(8 + length);
    *bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes.extend(data);
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(std::mem::take(bytes)).unwrap();
    assert!(text.contains(from), "{text}");
    *bytes = text.replacen(from, to, 1).into_bytes();
}

#[test]
fn a_damaged_cache_is_made_again() {
    let finished = Finished::new();
    let cache = files(&finished.at("cache"));
    let shards: Vec<&PathBuf> = cache.keys().filter(|p| cache[*p].len() > 1000).collect();
    assert!(!shards.is_empty());
    let weights = std::fs::read(finished.last().join("model.safetensors")).unwrap();
    let damages: [Damage; 2] = [truncate, turn_a_bit];
    for (i, damage) in damages.into_iter().enumerate() {
        for shard in &shards {
            change(shard, damage);
        }
        let run = format!("fresh-{i}");
        let output = finished.exec(&run, &[]);
        assert!(output.status.success(), "{}", words(&output));
        let again = finished.at(&run).join("checkpoints/trunk/step-16/model.safetensors");
        assert!(std::fs::read(again).unwrap() == weights, "other weights from a damaged cache");
        assert!(files(&finished.at("cache")) == cache, "the cache was not made again");
    }
    // Whole, but made of something else: of another width, tokenizer or text.
    std::fs::write(shards[0], &cache[shards[1]]).unwrap();
    let output = finished.exec("exchanged", &[]);
    assert!(output.status.success(), "{}", words(&output));
    let said = words(&output);
    assert!(said.contains("made anew") && said.contains("other input"), "{said}");
    assert!(files(&finished.at("cache")) == cache, "the cache was not made again");
}

/// With checksums that fit, only what the files say can give them away; the run then stops and leaves
/// them as they are.
#[test]
fn a_state_that_is_not_the_models_is_refused() {
    let finished = Finished::new();
    let optimizer = "state/optimizer.safetensors";
    let cases: [(&str, Damage, &[&str]); 5] = [
        (optimizer, truncate, &["optimizer.safetensors"]),
        (optimizer, |b| b[8] ^= 1, &["optimizer.safetensors"]),
        (
            optimizer,
            |b| header(b, |h| h.replacen("\"F32\"", "\"I32\"", 1)),
            &["optimizer.safetensors", "m.", "I32"],
        ),
        (
            optimizer,
            |b| header(b, |h| h.replacen("[4096,64]", "[2048,128]", 1)),
            &["optimizer.safetensors", "embed_tokens", "[2048, 128]", "[4096, 64]"],
        ),
        (
            "model.safetensors",
            |b| header(b, |h| h.replacen("[4096,64]", "[2048,128]", 1)),
            &["embed_tokens", "4096"],
        ),
    ];
    for (i, (file, damage, named)) in cases.into_iter().enumerate() {
        let run = format!("false-{i}");
        let checkpoint = finished.again(&run).join("step-16");
        change(&checkpoint.join(file), damage);
        let content = std::fs::read(checkpoint.join(file)).unwrap();
        change(&checkpoint.join("checksums.json"), |bytes| {
            let mut sums: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            let hash = blake3::hash(&content).to_hex();
            sums["files"][file] = serde_json::json!({ "bytes": content.len(), "blake3": hash.as_str() });
            *bytes = sums.to_string().into_bytes();
        });
        // The stage is done; the next one reads it.
        let before = files(&finished.at(&run).join("checkpoints"));
        let output = finished.exec(&run, &["--resume", "--until", "branch[2]"]);
        let said = words(&output);
        assert!(!output.status.success(), "{file}, case {i}: {said}");
        for word in named {
            assert!(said.contains(word), "{file}, case {i}: no `{word}` in {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
        assert!(files(&finished.at(&run).join("checkpoints")) == before, "{file}, case {i}: changed");
    }
}

/// A soup that was damaged is made again, and what follows from it is not touched.
#[test]
fn a_damaged_soup_is_made_again() {
    let finished = Finished::new();
    assert!(finished.exec("run", &["--resume", "--until", "mean"]).status.success());
    let soup = finished.at("run/checkpoints/mean/step-0");
    let whole = files(&soup);
    for damage in [truncate as Damage, turn_a_bit] {
        change(&soup.join("model.safetensors"), damage);
        let output = finished.exec("run", &["--resume", "--until", "mean"]);
        let said = words(&output);
        assert!(output.status.success() && said.contains("model.safetensors"), "{said}");
        assert!(files(&soup) == whole, "another soup");
    }
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let finished = Finished::new();
    let model = finished.at("small");
    copy(&finished.last(), &model);
    std::fs::remove_file(model.join("checksums.json")).unwrap();
    // One token more than the embedding has rows.
    change(&model.join("tokenizer.json"), |bytes| {
        let mut json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        json["model"]["vocab"]["no such token"] = 4096.into();
        *bytes = serde_json::to_vec(&json).unwrap();
    });
    let text = graph_from("checkpoint = \"small\"");
    let file = finished.at("other.curriculum");
    std::fs::write(&file, text).unwrap();
    let (run, cache) = (finished.at("other"), finished.at("cache"));
    let output = midc(&[
        "exec",
        file.to_str().unwrap(),
        "--until",
        "trunk",
        "--run-dir",
        run.to_str().unwrap(),
        "--cache-dir",
        cache.to_str().unwrap(),
    ]);
    let said = words(&output);
    assert!(!output.status.success());
    assert!(said.contains("4096") && said.contains("tokenizer"), "{said}");
    assert!(!run.join("checkpoints/trunk").exists(), "a checkpoint of a run that did not begin");
}

/// The graph with these settings of its model, to lie anywhere.
fn graph_from(model: &str) -> String {
    let curriculum = graph();
    let (head, rest) = curriculum.split_once("model tiny {").unwrap();
    let (_, tail) = rest.split_once("\n}\n").unwrap();
    format!("{head}model tiny {{\n  {model}\n}}\n{tail}")
}
