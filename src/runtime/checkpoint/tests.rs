//! Checkpoints come back as they were written, or not at all.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::*;
use crate::plan::Architecture;
use crate::rope::{Rope, RopeScaling};
use crate::runtime::model::layout;
use crate::runtime::model::tensor::{StateDict, Tensor};

fn architecture() -> Architecture {
    Architecture {
        model_type: "llama".into(),
        num_hidden_layers: 2,
        hidden_size: 8,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        intermediate_size: 12,
        vocab_size: 16,
        tie_word_embeddings: true,
        rms_norm_eps: 1e-5,
        initializer_range: 0.02,
        pattern: Default::default(),
    }
}

/// Numbers that bf16 cannot hold, different in every tensor.
fn state(architecture: &Architecture, seed: f32) -> StateDict {
    let mut next = seed;
    let mut fill = |n: usize| {
        (0..n)
            .map(|_| {
                next = (next * 1.7 + 0.123).rem_euclid(1.0);
                next - 0.5
            })
            .collect()
    };
    layout(architecture)
        .unwrap()
        .into_iter()
        .map(|(name, shape)| {
            let data = fill(shape.iter().product());
            (name, Tensor { shape, data })
        })
        .collect()
}

struct Run {
    config: ModelConfig,
    weights: StateDict,
    optimizer: OptimizerState,
    tokenizer: TokenizerSource,
    trainer: Value,
}

impl Run {
    fn new() -> Self {
        let a = architecture();
        let scaling = RopeScaling::Pi { factor: 2.0 };
        let mut config = ModelConfig::fresh(a.clone(), Rope { theta: 1e4, scaling, local_theta: None }, 256);
        config.eos = vec![2, 3];
        let mut tokenizer = TokenizerSource::default();
        tokenizer.files.insert("tokenizer.json".into(), b"{}".to_vec());
        Self {
            config,
            weights: state(&a, 0.1),
            optimizer: OptimizerState { first: state(&a, 0.2), second: state(&a, 0.3) },
            tokenizer,
            trainer: json!({ "step": 7, "loss": 0.1 + 0.2 }),
        }
    }

    fn state(&self) -> WithMoments<'_> {
        WithMoments { weights: &self.weights, moments: Some(&self.optimizer) }
    }

    fn contents<'a>(&'a self, state: &'a dyn State, dtype: Dtype) -> CheckpointContents<'a> {
        CheckpointContents {
            config: &self.config,
            state,
            dtype,
            tokenizer: &self.tokenizer,
            trainer: Some(&self.trainer),
        }
    }

    fn write(&self, series: &Path, step: u64) {
        write(&self.contents(&self.state(), Dtype::F32), &step_dir(series, step)).unwrap();
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn comes_back_bit_for_bit() {
    let run = Run::new();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("checkpoints/stage[1]/step-7");
        write(&run.contents(&run.state(), dtype), &dir).unwrap();
        let back = read(&dir).unwrap();
        assert_eq!(back.weights, run.weights, "{dtype:?}");
        assert_eq!(back.optimizer.as_ref(), Some(&run.optimizer));
        assert_eq!(back.trainer.as_ref(), Some(&run.trainer));
        assert_eq!(back.tokenizer.files, run.tokenizer.files);
        assert_eq!(back.dtype, dtype);
        assert_eq!(back.config.architecture, run.config.architecture);
        assert_eq!(back.config.rope, run.config.rope);
        assert_eq!((back.config.eos, back.config.context), (vec![2, 3], 256));
        assert_eq!(names_in(dir.parent().unwrap()), ["step-7"]);
        assert_eq!(dir.join(names::MASTER).exists(), dtype == Dtype::Bf16);
        // What transformers and midc find without the state is rounded.
        let model = crate::runtime::model::load(&dir).unwrap();
        assert_eq!(model.weights == run.weights, dtype == Dtype::F32);
    }
}

/// Weights that can no longer be read, as from a device that failed.
struct Lost<'a>(WithMoments<'a>);

impl State for Lost<'_> {
    fn shapes(&self, part: Part) -> Vec<(String, Vec<usize>)> {
        self.0.shapes(part)
    }

    fn tensor(&self, part: Part, name: &str) -> Result<Option<Cow<'_, [f32]>>, EngineError> {
        if part == Part::Second {
            return Err(EngineError::Device {
                device: "cuda:0".into(),
                reason: "it fell off the bus".into(),
            });
        }
        self.0.tensor(part, name)
    }
}

#[test]
fn what_cannot_be_read_is_not_written() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    run.write(root.path(), 3);
    for step in [3, 7] {
        let lost = Lost(run.state());
        let contents = run.contents(&lost, Dtype::F32);
        let error = write(&contents, &step_dir(root.path(), step)).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), "cuda:0 failed: it fell off the bus");
    }
    assert_eq!(names_in(root.path()), ["step-3"]);
    assert_eq!(read(&step_dir(root.path(), 3)).unwrap().weights, run.weights);
}

#[test]
fn weights_alone() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("soup");
    write(&CheckpointContents { trainer: None, ..run.contents(&run.weights, Dtype::Bf16) }, &dir).unwrap();
    assert!(!dir.join("state").exists());
    let back = read(&dir).unwrap();
    assert_eq!((back.optimizer, back.trainer), (None, None));
    let generation = fs::read_to_string(dir.join(names::GENERATION)).unwrap();
    assert!(generation.contains("eos_token_id"), "{generation}");
}

#[test]
fn an_existing_checkpoint_is_replaced() {
    let mut run = Run::new();
    let root = tempfile::tempdir().unwrap();
    run.write(root.path(), 5);
    run.trainer = json!("new");
    run.write(root.path(), 5);
    assert_eq!(read(&step_dir(root.path(), 5)).unwrap().trainer, Some(json!("new")));
    assert_eq!(names_in(root.path()), ["step-5"]);
}

/// Any change of any byte of any file is found, and the file named.
#[test]
fn damage_is_found_and_named() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    run.write(root.path(), 1);
    let dir = step_dir(root.path(), 1);
    for file in [
        names::CONFIG,
        names::WEIGHTS,
        names::OPTIMIZER,
        names::TRAINER,
        names::GENERATION,
        names::CHECKSUMS,
        "tokenizer.json",
    ] {
        let path = dir.join(file);
        let whole = fs::read(&path).unwrap();
        let stride = (whole.len() / 40).max(1);
        for at in (0..whole.len()).step_by(stride) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, &flipped).unwrap();
            let message = read(&dir).expect_err("damage goes unnoticed").to_string();
            // A flip inside checksums.json accuses the file whose sum it changed.
            assert!(message.contains(file) || file == names::CHECKSUMS, "{file}: {message}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&dir).unwrap_err().to_string().contains(file));
        }
        fs::remove_file(&path).unwrap();
        assert!(read(&dir).unwrap_err().to_string().contains(file));
        fs::write(&path, &whole).unwrap();
    }
    read(&dir).unwrap();
}

/// A list of checksums speaks of its own directory; reading `/dev/zero` would never end.
#[test]
fn a_list_that_points_elsewhere_is_refused() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    run.write(root.path(), 1);
    let path = step_dir(root.path(), 1).join(names::CHECKSUMS);
    let whole: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for file in ["/dev/zero", "../step-1/config.json", "state/../config.json", ""] {
        let mut sums = whole.clone();
        sums["files"][file] = json!({ "bytes": 1, "blake3": "" });
        fs::write(&path, sums.to_string()).unwrap();
        let message = read(&step_dir(root.path(), 1)).unwrap_err().to_string();
        assert!(message.contains(names::CHECKSUMS) || file.is_empty(), "{file}: {message}");
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    let series = root.path().join("stage");
    let latest = || Sound::default().latest(&series, |_| false).unwrap();
    assert!(latest().entry.is_none());
    for step in [2, 10, 9] {
        run.write(&series, step);
    }
    assert_eq!(list(&series).unwrap().iter().map(|e| e.step).collect::<Vec<_>>(), [2, 9, 10]);
    fs::write(step_dir(&series, 10).join(names::WEIGHTS), b"short").unwrap();
    let latest = latest();
    assert_eq!(latest.entry.unwrap().step, 9);
    assert_eq!(latest.damaged.len(), 1);
    let (entry, why) = &latest.damaged[0];
    let message = why.to_string();
    assert_eq!(entry.step, 10);
    assert!(message.contains("step-10") && message.contains("model.safetensors"), "{message}");
}

/// Permissions, a failing disk, a later midc: none of them says that a checkpoint is damaged, and the one before must
/// not be taken instead.
#[test]
fn a_checkpoint_that_cannot_be_read_now_is_not_passed_over() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    for step in [1, 2] {
        run.write(root.path(), step);
    }
    let dir = step_dir(root.path(), 2);
    let refused = |what: &str| {
        for enough in [true, false] {
            let error = Sound::default().latest(root.path(), |_| enough).unwrap_err();
            assert!(!error.is_damage() && error.to_string().contains(what), "{error}");
        }
        assert!(Sound::default().is_sound(&dir).is_err());
    };
    let sums = dir.join(names::CHECKSUMS);
    let whole = fs::read_to_string(&sums).unwrap();
    fs::write(&sums, whole.replacen("\"v\": 1", "\"v\": 2", 1)).unwrap();
    refused("version 2");
    fs::write(&sums, r#"{ "v": 2, "sums": "of another kind" }"#).unwrap();
    refused("version 2");
    fs::write(&sums, &whole).unwrap();
    // A loop of links cannot be opened by anybody, whoever runs this.
    #[cfg(unix)]
    for file in [names::CHECKSUMS, names::WEIGHTS] {
        let path = dir.join(file);
        fs::rename(&path, root.path().join("away")).unwrap();
        std::os::unix::fs::symlink(path.file_name().unwrap(), &path).unwrap();
        refused(file);
        fs::rename(root.path().join("away"), &path).unwrap();
    }
    assert_eq!(Sound::default().latest(root.path(), |_| false).unwrap().entry.unwrap().step, 2);
}

/// A kill between the two renames that put a checkpoint in the place of another loses neither.
#[test]
fn what_stepped_aside_is_put_back() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    run.write(root.path(), 3);
    let aside = root.path().join(".tmp-was-123-step-3");
    fs::rename(step_dir(root.path(), 3), &aside).unwrap();
    assert!(clean(root.path()).unwrap().is_empty());
    read(&step_dir(root.path(), 3)).unwrap();
    fs::create_dir(&aside).unwrap();
    assert_eq!(clean(root.path()).unwrap(), [aside]);
    assert_eq!(names_in(root.path()), ["step-3"]);
}

/// What was read through is not a second time before it is used, and is after that.
#[test]
fn a_checkpoint_is_read_through_once() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    run.write(root.path(), 1);
    let dir = step_dir(root.path(), 1);
    let flip = || {
        let mut bytes = fs::read(dir.join(names::OPTIMIZER)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(dir.join(names::OPTIMIZER), bytes).unwrap();
    };
    let sound = Sound::default();
    sound.verify(&dir).unwrap();
    flip();
    sound.verify(&dir).unwrap();
    assert_eq!(sound.latest(root.path(), |_| false).unwrap().entry.unwrap().step, 1);
    sound.read(&dir).unwrap();
    assert!(sound.read(&dir).unwrap_err().to_string().contains("checksum"));
    // Where lengths are enough nothing is read through, and nothing is taken for sound.
    assert!(sound.latest(root.path(), |_| true).unwrap().damaged.is_empty());
    assert!(sound.latest(root.path(), |_| false).unwrap().entry.is_none());
    fs::write(dir.join(names::OPTIMIZER), b"short").unwrap();
    assert!(sound.latest(root.path(), |_| true).unwrap().entry.is_none());
    flip();
    sound.forget(&dir);
    assert!(sound.verify(&dir).is_err());
}

#[test]
fn leftovers_of_a_kill_are_cleaned() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    run.write(root.path(), 3);
    let left = root.path().join(".tmp-new-123-step-4/state");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("x"), b"half").unwrap();
    assert_eq!(list(root.path()).unwrap().len(), 1);
    assert_eq!(clean(root.path()).unwrap().len(), 1);
    assert_eq!(names_in(root.path()), ["step-3"]);
    assert!(clean(&root.path().join("nowhere")).unwrap().is_empty());
}

/// Outside the directory of a run another process may be writing beside it.
#[cfg(target_os = "linux")]
#[test]
fn beside_a_directory_only_what_processes_that_are_over_left_goes() {
    let root = tempfile::tempdir().unwrap();
    let (over, alive) = (u32::MAX, std::process::id());
    let gone = [format!(".tmp-new-{over}-o"), format!(".tmp-old-{over}-o")];
    let mut left = vec![
        format!(".tmp-new-{alive}-o"),
        format!(".tmp-new-{over}-other-o"),
        format!(".tmp-was-{over}-o"),
        ".tmp-new-o".to_owned(),
        "o".to_owned(),
    ];
    for name in gone.iter().chain(&left) {
        fs::create_dir_all(root.path().join(name).join("state")).unwrap();
    }
    clean_beside(&root.path().join("o")).unwrap();
    left.sort();
    assert_eq!(names_in(root.path()), left);
    clean_beside(&root.path().join("no/such")).unwrap();
}

#[test]
fn pruning_keeps_the_latest_and_the_protected() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    for step in 1..=6 {
        run.write(root.path(), step);
    }
    let purpose = |step| if [1, 6].contains(&step) { Purpose::Lasting } else { Purpose::Periodic };
    let removed = prune(root.path(), 2, purpose).unwrap();
    assert_eq!(removed, [step_dir(root.path(), 2), step_dir(root.path(), 3)]);
    assert_eq!(names_in(root.path()), ["step-1", "step-4", "step-5", "step-6"]);
}

#[test]
fn what_an_interruption_left_goes_with_the_periodic_ones() {
    let run = Run::new();
    let root = tempfile::tempdir().unwrap();
    let even = |step| if step % 2 == 0 { Purpose::Periodic } else { Purpose::Interruption };
    for (step, keep, left) in [
        (2, 2, vec!["step-2"]),
        // There are not as many yet as are to stay.
        (3, 2, vec!["step-2", "step-3"]),
        (4, 2, vec!["step-2", "step-4"]),
        // No place of a periodic one is taken.
        (5, 2, vec!["step-2", "step-4", "step-5"]),
        (6, 2, vec!["step-4", "step-6"]),
        // What is continued from stays, whatever is asked for.
        (7, 0, vec!["step-7"]),
    ] {
        run.write(root.path(), step);
        prune(root.path(), keep, even).unwrap();
        assert_eq!(names_in(root.path()), left, "{step}");
    }
}

/// `/dev/full` answers every write as a full disk does.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing() {
    let mut run = Run::new();
    let root = tempfile::tempdir().unwrap();
    run.write(root.path(), 3);
    run.tokenizer.files.insert("/dev/full".into(), vec![0; 1 << 21]);
    for step in [3, 4] {
        let error = write(&run.contents(&run.state(), Dtype::F32), &step_dir(root.path(), step)).unwrap_err();
        assert!(matches!(error, CheckpointError::Full { .. }), "{error:?}");
        assert!(error.to_string().starts_with("no space left for checkpoint `"), "{error}");
        assert_eq!(names_in(root.path()), ["step-3"]);
    }
    read(&step_dir(root.path(), 3)).unwrap();
}
