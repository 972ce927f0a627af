//! A small valid file of every binary format midc reads, and how it is read. The property test beside
//! this mutates them, the fuzz targets begin with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use midc::plan::Architecture;
use midc::rope::{Rope, RopeScaling};
use midc::runtime::checkpoint::{self, CheckpointContents, OptimizerState, WithMoments};
use midc::runtime::data::readers::{self, Body, Stretch, View};
use midc::runtime::model::{Dtype, ModelConfig, TokenizerSource, load};
use midc::runtime::{engine, model};

/// One file, what must lie beside it, and how to read it.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    /// The file that is damaged.
    pub(crate) file: &'static str,
    /// All files, that one among them.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Whether the file stands in `checksums.json`, which is to be made to fit.
    summed: bool,
    read: fn(&Path, &str) -> Result<(), String>,
}

impl Format {
    /// The file as it should be.
    pub(crate) fn valid(&self) -> &[u8] {
        &self.files[self.file]
    }

    /// Lay the files in `dir`.
    pub(crate) fn lay(&self, dir: &Path) {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("a file in a directory")).expect("a directory");
            std::fs::write(path, bytes).expect("a file");
        }
    }

    /// Read the files in `dir` with `bytes` in the place of the one that is damaged.
    pub(crate) fn read(&self, dir: &Path, bytes: &[u8]) -> Result<(), String> {
        std::fs::write(dir.join(self.file), bytes).expect("the file");
        if self.summed {
            let mut sums: serde_json::Value =
                serde_json::from_slice(&self.files["checksums.json"]).expect("checksums");
            sums["files"][self.file] =
                serde_json::json!({ "bytes": bytes.len(), "blake3": blake3::hash(bytes).to_hex().as_str() });
            std::fs::write(dir.join("checksums.json"), sums.to_string()).expect("checksums");
        }
        (self.read)(dir, self.file)
    }
}

/// All of them.
pub(crate) fn formats() -> Vec<Format> {
    let whole = checkpoint();
    let only = |names: &[&str]| -> BTreeMap<String, Vec<u8>> {
        names.iter().map(|n| ((*n).to_owned(), whole[*n].clone())).collect()
    };
    let model = only(&["config.json", "model.safetensors"]);
    let one = |name: &str, bytes: Vec<u8>| BTreeMap::from([(name.to_owned(), bytes)]);
    let format = |name, file, files, summed, read| Format { name, file, files, summed, read };
    let in_checkpoint = |name, file, summed| format(name, file, whole.clone(), summed, read_checkpoint);
    vec![
        format("safetensors", "model.safetensors", model.clone(), false, read_model),
        format("config", "config.json", model, false, read_model),
        format("index", "model.safetensors.index.json", sharded(&whole), false, read_model),
        format("gguf", "model.gguf", one("model.gguf", gguf()), false, read_file),
        in_checkpoint("optimizer", "state/optimizer.safetensors", true),
        in_checkpoint("trainer", "state/trainer.json", true),
        in_checkpoint("checksums", "checksums.json", false),
        format("npy", "tokens.npy", one("tokens.npy", npy()), false, read_data),
        format("bin", "tokens.bin", one("tokens.bin", words(&ids())), false, read_data),
        format("llmc", "tokens.bin", one("tokens.bin", llmc()), false, read_data),
        format("megatron", "tokens.idx", megatron(), false, read_data),
        format("parquet", "rows.parquet", one("rows.parquet", parquet(false)), false, read_data),
        format("parquet_v2", "rows.parquet", one("rows.parquet", parquet(true)), false, read_data),
    ]
}

fn read_model(dir: &Path, _: &str) -> Result<(), String> {
    load(dir).map(drop).map_err(|e| e.to_string())
}

fn read_file(dir: &Path, file: &str) -> Result<(), String> {
    load(&dir.join(file)).map(drop).map_err(|e| e.to_string())
}

fn read_checkpoint(dir: &Path, _: &str) -> Result<(), String> {
    checkpoint::read(dir).map(drop).map_err(|e| e.to_string())
}

fn read_data(dir: &Path, file: &str) -> Result<(), String> {
    let path: PathBuf = match file.strip_suffix(".idx") {
        Some(stem) => dir.join(format!("{stem}.bin")),
        None => dir.join(file),
    };
    let format = readers::Format::of(&path).expect("a format");
    let view = View { vocab_size: VOCABULARY as usize, eos: 0, fields: None, needed: Vec::new() };
    let stretch = Stretch { path: path.clone(), format, range: None, records_before: 0 };
    let mut tokens = 0;
    for item in readers::open(&stretch, &view).map_err(|e| e.to_string())? {
        match item.map_err(|e| e.to_string())?.body {
            Body::Tokens(found) => {
                assert!(found.iter().all(|t| *t < VOCABULARY), "a token beyond the vocabulary");
                tokens += found.len() as u64;
            }
            _ => continue,
        }
    }
    let size = std::fs::metadata(&path).expect("the file").len();
    assert!(tokens <= size, "{tokens} tokens of {size} bytes");
    Ok(())
}

const VOCABULARY: u32 = 5000;

fn ids() -> Vec<u32> {
    (0..400u32).map(|i| if i % 40 == 39 { 0 } else { i * 37 % VOCABULARY }).collect()
}

fn words(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| (*id as u16).to_le_bytes()).collect()
}

fn npy() -> Vec<u8> {
    let mut header = b"{'descr': '<u2', 'fortran_order': False, 'shape': (400,), }".to_vec();
    header.resize(117, b' ');
    header.push(b'\n');
    [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), &header, &words(&ids())].concat()
}

fn llmc() -> Vec<u8> {
    let mut bytes: Vec<u8> = [20_240_520u32, 1, 400].iter().flat_map(|w| w.to_le_bytes()).collect();
    bytes.resize(1024, 0);
    bytes.extend(words(&ids()));
    bytes
}

/// Ten sequences of forty tokens in five documents.
fn megatron() -> BTreeMap<String, Vec<u8>> {
    let mut index = b"MMIDIDX\x00\x00".to_vec();
    index.extend(1u64.to_le_bytes());
    index.push(8);
    index.extend(10u64.to_le_bytes());
    index.extend(6u64.to_le_bytes());
    index.extend([40u32; 10].iter().flat_map(|n| n.to_le_bytes()));
    index.extend((0..10u64).flat_map(|s| (80 * s).to_le_bytes()));
    index.extend((0..6u64).flat_map(|d| (2 * d).to_le_bytes()));
    BTreeMap::from([("tokens.idx".to_owned(), index), ("tokens.bin".to_owned(), words(&ids()))])
}

/// Texts, numbers and nested lists in two row groups, compressed; in dictionaries and pages of the first
/// version, or as differences in those of the second.
fn parquet(second: bool) -> Vec<u8> {
    use ::parquet::basic::{Compression, ZstdLevel};
    use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
    use ::parquet::file::properties::{WriterProperties, WriterVersion};
    use ::parquet::file::writer::SerializedFileWriter;
    let schema = "message m { required binary text (UTF8); optional double score;
        optional group messages (LIST) { repeated group list { optional group element {
            optional binary role (UTF8); } } } }";
    let schema = ::parquet::schema::parser::parse_message_type(schema).expect("a schema");
    let mut out = Vec::new();
    let zstd = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder();
    let properties = match second {
        false => properties.set_compression(zstd),
        true => properties
            .set_writer_version(WriterVersion::PARQUET_2_0)
            .set_dictionary_enabled(false)
            .set_compression(Compression::SNAPPY),
    };
    let properties = properties.build();
    let mut writer =
        SerializedFileWriter::new(&mut out, schema.into(), properties.into()).expect("a writer of parquet");
    for group in 0..2 {
        let mut rows = writer.next_row_group().expect("a row group");
        let text = |t: &str| ByteArray::from(format!("{t}{group}").as_str());
        let mut column = rows.next_column().expect("a column").expect("a column");
        column.typed::<ByteArrayType>().write_batch(&[text("a"), text("b")], None, None).expect("texts");
        column.close().expect("a column");
        let mut column = rows.next_column().expect("a column").expect("a column");
        column.typed::<DoubleType>().write_batch(&[0.5], Some(&[1, 0]), None).expect("numbers");
        column.close().expect("a column");
        let mut column = rows.next_column().expect("a column").expect("a column");
        let values = [text("user"), text("model")];
        let levels = (Some(&[4i16, 4, 0][..]), Some(&[0i16, 1, 0][..]));
        column.typed::<ByteArrayType>().write_batch(&values, levels.0, levels.1).expect("lists");
        column.close().expect("a column");
        rows.close().expect("a row group");
    }
    writer.close().expect("a file");
    out
}

fn config() -> ModelConfig {
    let architecture = Architecture {
        model_type: "llama".into(),
        num_hidden_layers: 1,
        hidden_size: 8,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 4,
        intermediate_size: 12,
        vocab_size: 6,
        tie_word_embeddings: true,
        rms_norm_eps: 1e-5,
        initializer_range: 0.02,
        pattern: Default::default(),
    };
    ModelConfig::fresh(
        architecture,
        Rope { theta: 10_000.0, scaling: RopeScaling::Default, local_theta: None },
        64,
    )
}

/// The files of a checkpoint.
fn checkpoint() -> BTreeMap<String, Vec<u8>> {
    let config = config();
    let weights = engine::init_weights(&config.architecture, 1).expect("weights");
    let state = OptimizerState { first: weights.clone(), second: weights.clone() };
    let trainer = serde_json::json!({ "v": 1, "step": 3, "tokens": 384, "sampler": { "sources": {} } });
    let contents = CheckpointContents {
        config: &config,
        state: &WithMoments { weights: &weights, moments: Some(&state) },
        dtype: Dtype::F32,
        tokenizer: &TokenizerSource::default(),
        trainer: Some(&trainer),
    };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("step-3");
    checkpoint::write(&contents, &path).expect("a checkpoint");
    let names = ["config.json", "generation_config.json", "model.safetensors", "checksums.json"];
    let state = ["state/optimizer.safetensors", "state/trainer.json"];
    let read = |name: &str| (name.to_owned(), std::fs::read(path.join(name)).expect("a file of it"));
    names.into_iter().chain(state).map(read).collect()
}

/// The same model in two files with an index.
fn sharded(whole: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, Vec<u8>> {
    let names: Vec<String> =
        model::layout(&config().architecture).expect("a layout").into_iter().map(|(name, _)| name).collect();
    let file = &whole["model.safetensors"];
    let length = u64::from_le_bytes(file[..8].try_into().expect("a length")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).expect("a header");
    let shard = |names: &[String]| {
        let (mut entries, mut data) = (serde_json::Map::new(), Vec::new());
        for name in names {
            let mut entry = header[name].clone();
            let at = |i: usize| 8 + length + entry["data_offsets"][i].as_u64().expect("an offset") as usize;
            let (start, end) = (at(0), at(1));
            entry["data_offsets"] = serde_json::json!([data.len(), data.len() + end - start]);
            data.extend(&file[start..end]);
            entries.insert(name.clone(), entry);
        }
        let text = serde_json::Value::Object(entries).to_string();
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &data].concat()
    };
    let (one, two) = names.split_at(names.len() / 2);
    let place = |names: &[String], file: &str| -> Vec<(String, serde_json::Value)> {
        names.iter().map(|n| (n.clone(), file.into())).collect()
    };
    let map: serde_json::Map<String, serde_json::Value> =
        place(one, "one.safetensors").into_iter().chain(place(two, "two.safetensors")).collect();
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    BTreeMap::from([
        ("config.json".to_owned(), whole["config.json"].clone()),
        ("one.safetensors".to_owned(), shard(one)),
        ("two.safetensors".to_owned(), shard(two)),
        ("model.safetensors.index.json".to_owned(), index.to_string().into_bytes()),
    ])
}

/// A Llama of one layer, its feed-forward part in three packed formats.
fn gguf() -> Vec<u8> {
    let text = |t: &str| [&(t.len() as u64).to_le_bytes()[..], t.as_bytes()].concat();
    let whole = |v: u32| [&4u32.to_le_bytes()[..], &v.to_le_bytes()].concat();
    let single = |v: f32| [&6u32.to_le_bytes()[..], &v.to_le_bytes()].concat();
    let words = |t: &str| [&8u32.to_le_bytes()[..], &text(t)].concat();
    let list = |all: &[&str]| {
        let head = [9u32.to_le_bytes(), 8u32.to_le_bytes()].concat();
        let body: Vec<u8> = all.iter().flat_map(|t| text(t)).collect();
        [&head[..], &(all.len() as u64).to_le_bytes(), &body].concat()
    };
    let mut kinds = [9u32.to_le_bytes(), 5u32.to_le_bytes()].concat();
    kinds.extend(6u64.to_le_bytes());
    kinds.extend([3i32, 1, 1, 1, 1, 1].iter().flat_map(|v| v.to_le_bytes()));
    let entries: Vec<(&str, Vec<u8>)> = vec![
        ("general.architecture", words("llama")),
        ("llama.block_count", whole(1)),
        ("llama.context_length", whole(64)),
        ("llama.embedding_length", whole(32)),
        ("llama.feed_forward_length", whole(32)),
        ("llama.attention.head_count", whole(2)),
        ("llama.attention.head_count_kv", whole(1)),
        ("llama.vocab_size", whole(6)),
        ("llama.rope.freq_base", single(10_000.0)),
        ("llama.attention.layer_norm_rms_epsilon", single(1e-5)),
        ("llama.rope.scaling.type", words("yarn")),
        ("llama.rope.scaling.factor", single(2.0)),
        ("tokenizer.ggml.model", words("gpt2")),
        ("tokenizer.ggml.pre", words("smollm")),
        ("tokenizer.ggml.tokens", list(&["<s>", "a", "b", "ab", "1", "2"])),
        ("tokenizer.ggml.token_type", kinds),
        ("tokenizer.ggml.merges", list(&["a b"])),
        ("tokenizer.ggml.eos_token_id", whole(0)),
    ];
    // Name, extents with the innermost first, ggml's number of the format, bytes for 32 numbers.
    let tensors: [(&str, &[u64], u32, u64); 11] = [
        ("token_embd.weight", &[32, 6], 0, 128),
        ("blk.0.attn_norm.weight", &[32], 0, 128),
        ("blk.0.attn_q.weight", &[32, 32], 1, 64),
        ("blk.0.attn_k.weight", &[32, 16], 30, 64),
        ("blk.0.attn_v.weight", &[32, 16], 1, 64),
        ("blk.0.attn_output.weight", &[32, 32], 8, 34),
        ("blk.0.ffn_norm.weight", &[32], 0, 128),
        ("blk.0.ffn_gate.weight", &[32, 32], 8, 34),
        ("blk.0.ffn_up.weight", &[32, 32], 2, 18),
        ("blk.0.ffn_down.weight", &[32, 32], 3, 20),
        ("output_norm.weight", &[32], 0, 128),
    ];
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((entries.len() as u64).to_le_bytes());
    for (key, value) in entries {
        out.extend(text(key));
        out.extend(value);
    }
    let mut data: Vec<u8> = Vec::new();
    for (name, extents, kind, block) in tensors {
        out.extend(text(name));
        out.extend((extents.len() as u32).to_le_bytes());
        extents.iter().for_each(|e| out.extend(e.to_le_bytes()));
        out.extend(kind.to_le_bytes());
        data.resize(data.len().next_multiple_of(32), 0);
        out.extend((data.len() as u64).to_le_bytes());
        let size = extents.iter().product::<u64>() / 32 * block;
        data.extend((0..size).map(|i| (i * 7 % 60) as u8));
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}
