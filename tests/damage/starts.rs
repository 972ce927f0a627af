//! Models that a run is to start from, damaged: Hugging Face directories in one file and in shards, GGUF
//! files, and midc's own checkpoints.

#[path = "../hostile/formats.rs"]
#[allow(dead_code, reason = "this binary reads the files with midc itself")]
mod formats;

use super::{Damage, change, copy, files, graph_from, header, midc, replace, root, truncate, words};

/// One of the small valid files.
pub(super) fn format(name: &str) -> formats::Format {
    formats::formats().into_iter().find(|f| f.name == name).unwrap()
}

/// Where `from` stands in `bytes`.
fn find(bytes: &[u8], from: &[u8]) -> usize {
    bytes.windows(from.len()).position(|w| w == from).unwrap()
}

/// A metadata number of a GGUF file.
fn gguf_number(bytes: &mut [u8], key: &str, value: u32) {
    let at = find(bytes, key.as_bytes()) + key.len() + 4;
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// The place behind the name of a tensor of two dimensions in a GGUF file: their number, the extents,
/// the format, the offset.
fn gguf_entry(bytes: &[u8], tensor: &str) -> usize {
    find(bytes, tensor.as_bytes()) + tensor.len()
}

#[test]
fn a_start_that_is_damaged_is_refused_by_name() {
    const ONE: &str = "model.safetensors";
    const INDEX: &str = "model.safetensors.index.json";
    // Format, file, damage, what must be said.
    let cases: [(&str, &str, Damage, &[&str]); 14] = [
        ("safetensors", ONE, truncate, &["model.safetensors", "tensor"]),
        // A bit of the header: 0 becomes 4, 1 becomes 5.
        (
            "safetensors",
            ONE,
            |b| header(b, |h| h.replacen("offsets\":[0", "offsets\":[4", 1)),
            &["model.safetensors", "tensor"],
        ),
        (
            "safetensors",
            ONE,
            |b| header(b, |h| h.replacen("\"F32\"", "\"I32\"", 1)),
            &["model.safetensors", "tensor", "I32"],
        ),
        (
            "safetensors",
            "config.json",
            |b| replace(b, "\"vocab_size\": 6", "\"vocab_size\": 7"),
            &["model.safetensors", "embed_tokens", "[7, 8]", "[6, 8]"],
        ),
        ("index", "two.safetensors", truncate, &["two.safetensors"]),
        ("index", INDEX, truncate, &["index.json"]),
        (
            "index",
            INDEX,
            |b| replace(b, "two.safe", "one.safe"),
            &["index.json", "two.safetensors", "tensor"],
        ),
        (
            "index",
            "one.safetensors",
            |b| header(b, |h| h.replacen("\"F32\"", "\"U32\"", 1)),
            &["one.safetensors", "tensor", "U32"],
        ),
        (
            "index",
            "config.json",
            |b| replace(b, "\"vocab_size\": 6", "\"vocab_size\": 7"),
            &["one.safetensors", "embed_tokens", "[7, 8]", "[6, 8]"],
        ),
        ("gguf", "model.gguf", truncate, &["model.gguf", "tensor", "past the end"]),
        ("gguf", "model.gguf", |b| b[8] ^= 4, &["model.gguf"]),
        (
            "gguf",
            "model.gguf",
            // Q6_K, which midc does not read.
            |b| {
                let at = gguf_entry(b, "blk.0.attn_q.weight") + 4 + 16;
                b[at..at + 4].copy_from_slice(&14u32.to_le_bytes());
            },
            &["model.gguf", "blk.0.attn_q.weight", "Q6_K"],
        ),
        (
            "gguf",
            "model.gguf",
            |b| {
                let at = gguf_entry(b, "blk.0.attn_k.weight") + 4 + 16 + 4;
                b[at] ^= 32;
            },
            &["model.gguf", "blk.0.attn_k.weight"],
        ),
        (
            "gguf",
            "model.gguf",
            |b| gguf_number(b, "llama.vocab_size", 7),
            &["model.gguf", "token_embd.weight", "[7, 32]", "[6, 32]"],
        ),
    ];
    for (i, (name, file, damage, named)) in cases.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        format(name).lay(&model);
        change(&model.join(file), damage);
        let start = if name == "gguf" { "model/model.gguf" } else { "model" };
        let said = refused(dir.path(), start);
        for word in named {
            assert!(said.contains(word), "{name}, {file}, case {i}: no `{word}` in {said}");
        }
    }
}

/// Begin a run from `start`; what it says. It must say no and change nothing.
fn refused(dir: &std::path::Path, start: &str) -> String {
    let tokenizer = root().join("examples/data/tokenizer.json");
    let model = format!("checkpoint = \"{start}\"\n  tokenizer = \"{}\"", tokenizer.display());
    let file = dir.join("graph.curriculum");
    std::fs::write(&file, graph_from(&model)).unwrap();
    let before = files(&dir.join("model"));
    let (run, cache) = (dir.join("run"), dir.join("cache"));
    let mut arguments = vec!["exec", file.to_str().unwrap(), "--until", "trunk"];
    // The graph stretches another length than that of these models.
    arguments.extend(["-A", "rope_transition", "--set", "scale=8192", "--run-dir", run.to_str().unwrap()]);
    arguments.extend(["--cache-dir", cache.to_str().unwrap()]);
    let output = midc(&arguments);
    let said = words(&output);
    assert!(!output.status.success(), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(files(&dir.join("model")) == before, "the model changed");
    assert!(!run.join("checkpoints/trunk").exists(), "a checkpoint of a run that did not begin");
    said
}

/// A bit among the numbers, which no header tells of: midc's own checkpoints have checksums.
#[test]
fn a_checkpoint_of_a_run_is_compared_with_its_checksums_before_it_is_used() {
    let finished = super::Finished::new();
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    copy(&finished.last(), &model);
    change(&model.join("model.safetensors"), super::turn_a_bit);
    let said = refused(dir.path(), "model");
    assert!(said.contains("model.safetensors") && said.contains("checksum"), "{said}");
    let model = model.to_str().unwrap();
    let output = midc(&["eval", model, "--data", "examples/data/qa.test.jsonl"]);
    let said = words(&output);
    assert!(!output.status.success() && said.contains("model.safetensors"), "{said}");
    let out = dir.path().join("soup");
    let whole = finished.last();
    let output = midc(&["soup", model, whole.to_str().unwrap(), "-o", out.to_str().unwrap()]);
    let said = words(&output);
    assert!(!output.status.success() && said.contains("model.safetensors"), "{said}");
    assert!(!out.exists());
}
