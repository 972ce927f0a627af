//! Token files, damaged: NumPy's, raw ones, llm.c's and Megatron's.

use std::collections::BTreeMap;
use std::path::Path;

use super::common::graph;
use super::{Damage, change, files, midc, root, starts, truncate, words};

/// `midc data` of the graph with `shard` as one of its sources.
fn data(dir: &Path, shard: &str) -> std::process::Output {
    let text = graph();
    let prose = root().join("examples/data/prose.train.jsonl");
    let text = text.replace(prose.to_str().unwrap(), dir.join(shard).to_str().unwrap());
    let file = dir.join("graph.curriculum");
    std::fs::write(&file, text).unwrap();
    let cache = dir.join("cache");
    midc(&["data", file.to_str().unwrap(), "--source", "prose", "--cache-dir", cache.to_str().unwrap()])
}

/// Every 16-bit token of the part of a file behind `start` as one of 32 bits.
fn widened(bytes: &mut Vec<u8>, start: usize) {
    let wide: Vec<u8> = bytes[start..].chunks(2).flat_map(|b| [b[0], b[1], 0, 0]).collect();
    bytes.truncate(start);
    bytes.extend(wide);
}

#[test]
fn a_token_file_that_is_damaged_is_refused_by_name() {
    let out_of_range: Damage = |b| {
        let at = b.len() - 3;
        b[at] ^= 0x80;
    };
    let other_vocabulary: Damage = |b| {
        let at = b.len() - 40;
        b[at..at + 2].copy_from_slice(&4096u16.to_le_bytes());
    };
    // Format, file, damage, what must be said.
    let cases: [(&str, &str, Damage, &[&str]); 18] = [
        ("npy", "tokens.npy", truncate, &["tokens.npy", "promises 400 tokens"]),
        ("npy", "tokens.npy", |b| replace_bytes(b, b"(400", b"(404"), &["tokens.npy", "404"]),
        ("npy", "tokens.npy", out_of_range, &["tokens.npy", "position 398"]),
        ("npy", "tokens.npy", |b| replace_bytes(b, b"<u2", b"<f2"), &["tokens.npy", "<f2"]),
        ("npy", "tokens.npy", |b| replace_bytes(b, b"<u2", b"<u4"), &["tokens.npy", "promises 400 tokens"]),
        (
            "npy",
            "tokens.npy",
            other_vocabulary,
            &["tokens.npy", "token 4096", "position 380", "4096 embeddings"],
        ),
        ("bin", "tokens.bin", |b| b.truncate(b.len() - 1), &["tokens.bin", "799 bytes"]),
        ("bin", "tokens.bin", out_of_range, &["tokens.bin", "vocabulary"]),
        (
            "bin",
            "tokens.bin",
            |b| b.iter_mut().skip(1).step_by(2).for_each(|b| *b |= 0x3f),
            &["tokens.bin", "u32"],
        ),
        ("bin", "tokens.bin", other_vocabulary, &["tokens.bin", "4096"]),
        ("llmc", "tokens.bin", truncate, &["tokens.bin", "promises 400 tokens"]),
        ("llmc", "tokens.bin", |b| b[8] ^= 4, &["tokens.bin", "promises"]),
        ("llmc", "tokens.bin", other_vocabulary, &["tokens.bin", "token 4096", "position 380"]),
        ("megatron", "tokens.idx", truncate, &["tokens.idx"]),
        ("megatron", "tokens.bin", truncate, &["tokens.idx", "tokens.bin"]),
        // A length, then a pointer.
        ("megatron", "tokens.idx", |b| b[34 + 12] ^= 1, &["tokens.idx", "sequence 5"]),
        ("megatron", "tokens.idx", |b| b[17] = 4, &["tokens.idx", "tokens.bin"]),
        ("megatron", "tokens.bin", other_vocabulary, &["tokens.bin", "token 4096", "position 380"]),
    ];
    for (i, (name, file, damage, named)) in cases.into_iter().enumerate() {
        let (dir, shard) = laid(name);
        change(&dir.path().join(file), damage);
        let before = files(dir.path());
        let output = data(dir.path(), &shard);
        let said = words(&output);
        assert!(!output.status.success(), "{name}, {file}, case {i}: {said}");
        for word in named {
            assert!(said.contains(word), "{name}, {file}, case {i}: no `{word}` in {said}");
        }
        assert!(!said.contains("panicked"), "{said}");
        let after: BTreeMap<_, _> =
            files(dir.path()).into_iter().filter(|(p, _)| before.contains_key(p)).collect();
        assert!(after == before, "{name}, {file}, case {i}: a file changed");
        let made = std::fs::read_dir(dir.path().join("cache")).into_iter().flatten().flatten();
        let made: Vec<_> = made.filter(|e| e.path().extension().is_some_and(|x| x == "tokens")).collect();
        assert!(made.is_empty(), "{name}, {file}, case {i}: a shard of damaged tokens is kept");
    }
}

/// The files of a format with tokens below the 4,096 of the tokenizer, and the one that is a source.
fn laid(name: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let format = starts::format(name);
    format.lay(dir.path());
    let bin = if name == "npy" { "tokens.npy" } else { "tokens.bin" };
    change(&dir.path().join(bin), |bytes| {
        let start = bytes.len() - 800;
        for token in bytes[start..].chunks_mut(2) {
            token[1] &= 0x0f;
        }
    });
    (dir, bin.to_owned())
}

#[test]
fn the_same_files_whole_are_read() {
    for name in ["npy", "bin", "llmc", "megatron"] {
        let (dir, shard) = laid(name);
        let output = data(dir.path(), &shard);
        assert!(output.status.success(), "{name}: {}", words(&output));
        // A file without a header says its width by its content.
        if name == "bin" {
            change(&dir.path().join(&shard), |bytes| widened(bytes, 0));
            let output = data(dir.path(), &shard);
            assert!(output.status.success(), "{name}: {}", words(&output));
        }
    }
}

fn replace_bytes(bytes: &mut Vec<u8>, from: &[u8], to: &[u8]) {
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    bytes.splice(at..at + from.len(), to.iter().copied());
}
