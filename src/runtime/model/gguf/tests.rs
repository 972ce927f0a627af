//! Files made here, byte by byte, read back; and files that lie.

use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::layers::LayerPattern;
use crate::rope::RopeScaling;
use crate::runtime::model::{Dtype, load, load_config};

/// Writes GGUF the way the specification says, mistakes included.
#[derive(Clone)]
struct Builder {
    version: u32,
    entries: Vec<(String, Vec<u8>)>,
    /// Name, extents innermost first, ggml's format, data.
    tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

impl Builder {
    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.entries.retain(|(k, _)| k != key);
        self.entries.push((key.into(), [&kind.to_le_bytes(), value].concat()));
    }

    fn whole(&mut self, key: &str, value: u32) {
        self.entry(key, 4, &value.to_le_bytes());
    }

    fn single(&mut self, key: &str, value: f32) {
        self.entry(key, 6, &value.to_le_bytes());
    }

    fn text(&mut self, key: &str, value: &str) {
        self.entry(key, 8, &text(value));
    }

    fn texts(&mut self, key: &str, values: &[&str]) {
        let list: Vec<u8> = values.iter().flat_map(|v| text(v)).collect();
        let head = [&8u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        self.entry(key, 9, &[head, list].concat());
    }

    fn tensor(&mut self, name: &str, extents: &[u64], numbers: &[f32]) {
        let data = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.retain(|(n, ..)| n != name);
        self.tensors.push((name.into(), extents.to_vec(), 0, data));
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            out.extend(text(key));
            out.extend(value);
        }
        let mut offset = 0u64;
        for (name, extents, kind, data) in &self.tensors {
            out.extend(text(name));
            out.extend((extents.len() as u32).to_le_bytes());
            extents.iter().for_each(|e| out.extend(e.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
            offset += (data.len() as u64).next_multiple_of(32);
        }
        for (.., data) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(data);
        }
        out
    }

    fn file(&self) -> tempfile::NamedTempFile {
        file(&self.bytes())
    }
}

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

const LLAMA: &[(&str, &[u64])] = &[
    ("token_embd.weight", &[8, 6]),
    ("blk.0.attn_norm.weight", &[8]),
    ("blk.0.attn_q.weight", &[8, 8]),
    ("blk.0.attn_k.weight", &[8, 4]),
    ("blk.0.attn_v.weight", &[8, 4]),
    ("blk.0.attn_output.weight", &[8, 8]),
    ("blk.0.ffn_norm.weight", &[8]),
    ("blk.0.ffn_gate.weight", &[8, 12]),
    ("blk.0.ffn_up.weight", &[8, 12]),
    ("blk.0.ffn_down.weight", &[12, 8]),
    ("output_norm.weight", &[8]),
];

/// One layer, 2 heads of 4, 1 of keys and values; every number is its own index.
fn model() -> Builder {
    let mut b = Builder { version: 3, entries: Vec::new(), tensors: Vec::new() };
    b.text("general.architecture", "llama");
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 64),
        ("embedding_length", 8),
        ("feed_forward_length", 12),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("vocab_size", 6),
    ] {
        b.whole(&format!("llama.{key}"), value);
    }
    b.single("llama.rope.freq_base", 10000.0);
    b.single("llama.attention.layer_norm_rms_epsilon", 1e-5);
    b.text("tokenizer.ggml.model", "gpt2");
    b.text("tokenizer.ggml.pre", "smollm");
    b.texts("tokenizer.ggml.tokens", &["<s>", "a", "b", "ab", "1", "2"]);
    let kinds: Vec<u8> = [3i32, 1, 1, 1, 1, 1].iter().flat_map(|v| v.to_le_bytes()).collect();
    let head = [&5u32.to_le_bytes()[..], &6u64.to_le_bytes()].concat();
    b.entry("tokenizer.ggml.token_type", 9, &[head, kinds].concat());
    b.texts("tokenizer.ggml.merges", &["a b"]);
    b.whole("tokenizer.ggml.bos_token_id", 0);
    b.whole("tokenizer.ggml.eos_token_id", 0);
    for (name, extents) in LLAMA {
        let count = extents.iter().product::<u64>() as usize;
        b.tensor(name, extents, &(0..count).map(|i| i as f32).collect::<Vec<_>>());
    }
    b
}

/// The same under the keys of another family.
fn model_of(family: &str) -> Builder {
    let mut b = model();
    b.text("general.architecture", family);
    for (key, value) in b.entries.clone() {
        if let Some(rest) = key.strip_prefix("llama.") {
            b.entries.push((format!("{family}.{rest}"), value));
        }
    }
    b
}

fn message(builder: &Builder) -> String {
    let file = builder.file();
    let error = load(file.path()).unwrap_err().to_string();
    assert!(error.contains(file.path().to_str().unwrap()), "no file in: {error}");
    error
}

#[test]
fn reads_a_whole_model() {
    for version in [2, 3] {
        let file = Builder { version, ..model() }.file();
        let loaded = load(file.path()).unwrap();
        let a = &loaded.config.architecture;
        assert_eq!((a.hidden_size, a.head_dim, a.num_key_value_heads), (8, 4, 1));
        assert!(a.tie_word_embeddings);
        assert_eq!(a.rms_norm_eps, 1e-5);
        assert_eq!(loaded.config.rope.scaling, RopeScaling::Default);
        assert_eq!(loaded.config.context, 64);
        assert_eq!((loaded.config.bos, loaded.config.eos.as_slice()), (Some(0), &[0][..]));
        assert_eq!(loaded.weights["model.layers.0.mlp.down_proj.weight"].shape, [8, 12]);
        // Rows of a head are stored 0, half, 1, half + 1.
        let q = &loaded.weights["model.layers.0.self_attn.q_proj.weight"];
        let rows: Vec<_> = q.data.chunks(8).map(|row| row[0] / 8.0).collect();
        assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
        let v = &loaded.weights["model.layers.0.self_attn.v_proj.weight"];
        assert_eq!(v.data, (0..32).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(load_config(file.path()).unwrap(), loaded.config);
    }
}

#[test]
fn an_output_layer_unties() {
    let mut b = model();
    b.tensor("output.weight", &[8, 6], &[0.5; 48]);
    let loaded = load(b.file().path()).unwrap();
    assert!(!loaded.config.architecture.tie_word_embeddings);
    assert_eq!(loaded.weights["lm_head.weight"].data, [0.5; 48]);
}

#[test]
fn other_families_are_not_permuted() {
    let mut b = model_of("qwen3");
    b.tensor("blk.0.attn_q_norm.weight", &[4], &[1.0; 4]);
    b.tensor("blk.0.attn_k_norm.weight", &[4], &[1.0; 4]);
    let loaded = load(b.file().path()).unwrap();
    assert_eq!(loaded.config.architecture.model_type, "qwen3");
    let q = &loaded.weights["model.layers.0.self_attn.q_proj.weight"];
    assert_eq!(q.data, (0..64).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn an_olmo2_with_windows_is_an_olmo3() {
    let mut b = model_of("olmo2");
    b.whole("olmo2.attention.sliding_window", 32);
    b.text("olmo2.rope.scaling.type", "yarn");
    b.single("olmo2.rope.scaling.factor", 4.0);
    b.whole("olmo2.rope.scaling.original_context_length", 16);
    let config = load_config(b.file().path()).unwrap();
    assert_eq!(config.architecture.model_type, "olmo3");
    assert_eq!(config.architecture.pattern, LayerPattern::windows(1, 32, 4));
    assert_eq!((config.rope.scaling.factor(), config.rope.local_theta), (Some(4.0), None));
}

#[test]
fn a_qwen2_has_biases() {
    let mut b = model_of("qwen2");
    assert!(message(&b).contains("has no tensor `blk.0.attn_q.bias`, [8] in this model"));
    b.tensor("blk.0.attn_q.bias", &[8], &[0.5; 8]);
    b.tensor("blk.0.attn_k.bias", &[4], &[1.5; 4]);
    b.tensor("blk.0.attn_v.bias", &[4], &[2.5; 4]);
    let loaded = load(b.file().path()).unwrap();
    assert_eq!(loaded.config.architecture.model_type, "qwen2");
    assert_eq!(loaded.weights["model.layers.0.self_attn.k_proj.bias"].data, [1.5; 4]);
    let q = &loaded.weights["model.layers.0.self_attn.q_proj.weight"];
    assert_eq!(q.data, (0..64).map(|i| i as f32).collect::<Vec<_>>());
}

#[test]
fn a_smollm3_is_permuted_and_has_layers_without_rope() {
    let b = model_of("smollm3");
    let loaded = load(b.file().path()).unwrap();
    assert_eq!(loaded.config.architecture.model_type, "smollm3");
    assert_eq!(
        loaded.config.architecture.pattern,
        LayerPattern::default(),
        "the fourth layer is the first without"
    );
    let q = &loaded.weights["model.layers.0.self_attn.q_proj.weight"];
    let rows: Vec<_> = q.data.chunks(8).map(|row| row[0] / 8.0).collect();
    assert_eq!(rows, [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]);
}

#[test]
fn a_gemma3_stores_what_its_norms_multiply_by() {
    let mut b = model_of("gemma3");
    b.whole("gemma3.attention.sliding_window", 32);
    for (name, len) in
        [("post_attention_norm", 8), ("post_ffw_norm", 8), ("attn_q_norm", 4), ("attn_k_norm", 4)]
    {
        b.tensor(&format!("blk.0.{name}.weight"), &[len as u64], &vec![1.5; len]);
    }
    let loaded = load(b.file().path()).unwrap();
    let config = &loaded.config;
    assert_eq!(config.architecture.model_type, "gemma3_text");
    assert_eq!(config.architecture.pattern, LayerPattern::windows(1, 32, 6));
    assert_eq!((config.rope.theta, config.rope.local_theta), (1e4, None));
    let weights = |name: &str| &loaded.weights[&format!("model.layers.0.{name}.weight")].data;
    assert_eq!(weights("post_attention_layernorm"), &[0.5; 8]);
    assert_eq!(weights("self_attn.k_norm"), &[0.5; 4]);
    // Numbered from 0 in the file.
    assert_eq!(weights("pre_feedforward_layernorm")[..3], [-1.0, 0.0, 1.0]);
    assert_eq!(weights("self_attn.q_proj"), &(0..64).map(|i| i as f32).collect::<Vec<_>>());
    b.whole("gemma3.attention.key_length", 4);
    b.whole("gemma3.block_count", 62);
    b.whole("gemma3.embedding_length", 10);
    assert!(
        message(&b).contains("`query_pre_attn_scalar` is 5: midc divides scores by the root of `head_dim`")
    );
}

#[test]
fn tokenizer_becomes_a_hugging_face_one() {
    let loaded = load(model().file().path()).unwrap();
    let tokenizer = tokenizers::Tokenizer::from_bytes(loaded.tokenizer.tokenizer_json().unwrap()).unwrap();
    let ids = |t: &tokenizers::Tokenizer, text: &str| t.encode(text, true).unwrap().get_ids().to_vec();
    assert_eq!(ids(&tokenizer, "ab<s>12a"), [3, 0, 4, 5, 1]);
    for (pre, expected) in [("llama-bpe", &[0, 3][..]), ("qwen2", &[3]), ("dbrx", &[3]), ("gpt-2", &[3])] {
        let mut b = model();
        b.text("tokenizer.ggml.pre", pre);
        let loaded = load(b.file().path()).unwrap();
        let tokenizer =
            tokenizers::Tokenizer::from_bytes(loaded.tokenizer.tokenizer_json().unwrap()).unwrap();
        assert_eq!(ids(&tokenizer, "ab"), expected, "{pre}");
    }
}

/// The user may name another tokenizer, so this is an error only where one is asked for.
#[test]
fn an_unknown_tokenizer_is_reported_when_needed() {
    for (key, value, expected) in [
        ("tokenizer.ggml.model", "llama", "has a tokenizer of the kind `llama`"),
        ("tokenizer.ggml.pre", "viking", "splits text as `viking`"),
    ] {
        let mut b = model();
        b.text(key, value);
        let error = load(b.file().path()).unwrap().tokenizer.tokenizer_json().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn llama3_factors_are_recognised() {
    let mut b = model();
    b.single("llama.rope.freq_base", 5e9);
    let scaling = RopeScaling::Llama3 { factor: 32.0, low: 1.0, high: 4.0, original: 8192 };
    let plain = crate::rope::inv_freq(4, 5e9, &RopeScaling::Default, 0).inv_freq;
    let scaled = crate::rope::inv_freq(4, 5e9, &scaling, 0).inv_freq;
    let divisors: Vec<f32> = plain.iter().zip(&scaled).map(|(p, s)| (p / s) as f32).collect();
    b.tensor("rope_freqs.weight", &[2], &divisors);
    assert_eq!(load(b.file().path()).unwrap().config.rope.scaling, scaling);
    b.tensor("rope_freqs.weight", &[2], &[1.5, 3.0]);
    let rope = load(b.file().path()).unwrap().config.rope;
    let stretched = crate::rope::inv_freq(4, rope.theta, &rope.scaling, 64);
    assert_eq!(stretched.attention_factor, 1.0);
    assert!((stretched.inv_freq[1] * 3.0 - plain[1]).abs() < 1e-12);
}

/// Blocks that ggml's Python reference quantised, and what it makes of them.
#[test]
fn blocks_decode_as_the_reference_does() {
    let at = [0, 1, 2, 15, 16, 31, 32, 47, 63];
    for (quant, hex, expected) in [
        (
            Quant::Q8_0,
            "be210008111208f6e3dbe60121353214e8c2b7cf033a5a501ed9a193ba06547f6e279f25e4beb6d20539544718dbaca4c8084767561bd19b93bf0c567a641ec78981b610",
            [
                0.0,
                0.0897216796875,
                0.1906585693359375,
                -0.695343017578125,
                -0.8187103271484375,
                0.4373931884765625,
                -0.61480712890625,
                2.2616119384765625,
                0.351318359375,
            ],
        ),
        (
            Quant::Q4_0,
            "b3b1d8b7874727396aaaeaf8c68535071a6c9335d6a45325184c9ddcfae6a34204093c9e",
            [
                -0.0,
                0.1781005859375,
                0.1781005859375,
                -0.71240234375,
                -0.8905029296875,
                0.356201171875,
                -0.69677734375,
                2.09033203125,
                0.348388671875,
            ],
        ),
        (
            Quant::Q4_1,
            "a431e2bc274778b8d7c695451507297acaf8e593d33593c1d6945325184b8ddcf9e5934204083c9e",
            [
                0.01318359375,
                0.01318359375,
                0.189453125,
                -0.69189453125,
                -0.8681640625,
                0.36572265625,
                -0.60302734375,
                2.30908203125,
                0.489013671875,
            ],
        ),
    ] {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
        assert_eq!(quant.bytes(&[64]), Some(bytes.len()));
        let mut out = [0.0; 64];
        quant.decode(&bytes, &mut out);
        for (i, expected) in at.into_iter().zip(expected) {
            assert_eq!(f64::from(out[i]), expected, "{quant:?} {i}");
        }
    }
    assert_eq!(Quant::Q8_0.bytes(&[33, 2]), None);
    assert_eq!(Quant::Plain(Dtype::F32).bytes(&[usize::MAX, 2]), None);
}

#[test]
fn errors_name_what_is_wrong() {
    type Change = fn(&mut Builder);
    let cases: &[(Change, &str)] = &[
        (|b| b.version = 1, "it has version 1; midc reads 2 and 3"),
        (|b| b.version = 0x0300_0000, "it is a big-endian file of version 3"),
        (|b| b.text("general.architecture", "gemma"), "metadata `gemma.attention.head_count`: it is missing"),
        (|b| b.whole("llama.expert_count", 8), "metadata `llama.expert_count`: 8 is not supported"),
        (|b| b.whole("llama.attention.sliding_window", 4096), "4096 is not supported"),
        (|b| b.whole("llama.attention.head_count", 0), "`num_attention_heads` is 0"),
        (|b| b.text("llama.block_count", "1"), "metadata `llama.block_count`: expected a whole number"),
        (|b| b.whole("llama.block_count", 2), "has no tensor `blk.1.attn_q.weight`, [8, 8] in this model"),
        (
            |b| b.whole("llama.vocab_size", 7),
            "tensor `token_embd.weight` has shape [6, 8]; the configuration asks for [7, 8]",
        ),
        (|b| b.whole("llama.vocab_size", 5), "tensor `token_embd.weight` has shape [6, 8]"),
        (
            |b| b.tensor("blk.0.attn_q.bias", &[8], &[0.0; 8]),
            "has tensor `blk.0.attn_q.bias`, which no layer of this model uses",
        ),
        (|b| b.tensors[2].2 = 14, "tensor `blk.0.attn_q.weight` is stored as Q6_K, which midc does not read"),
        (|b| b.tensors[2].2 = 99, "is stored as ggml's format 99"),
        (|b| b.tensors[2].2 = 8, "tensor `blk.0.attn_q.weight`: extents [8, 8] do not fit Q8_0"),
        (|b| b.tensors[2].1 = vec![u64::MAX, 8], "do not fit F32"),
        (|b| b.tensors[2].1 = vec![8, 800], "go past the end of the file"),
        (|b| b.tensors[2].1 = vec![8, 9], "shares bytes with `blk.0.attn_q.weight`"),
        (|b| b.tensors[2].1 = vec![1; 5], "it has 5 dimensions"),
        (
            |b| b.tensors[1].0 = "blk.0.attn_q.weight".into(),
            "tensor `blk.0.attn_q.weight`: it is there twice",
        ),
        (|b| b.entries.push(b.entries[0].clone()), "metadata `general.architecture`: it is there twice"),
        (|b| b.entry("x", 7, &[2]), "metadata `x`: a flag is 2"),
        (|b| b.entry("x", 13, &[]), "metadata `x`: it has the unknown type 13"),
        (|b| b.whole("general.alignment", 48), "metadata `general.alignment`: 48 is not a power of two"),
        (
            |b| b.texts("tokenizer.ggml.tokens", &["a", "a"]),
            "metadata `tokenizer.ggml.token_type`: 6 kinds for 2 tokens",
        ),
        (
            |b| b.texts("tokenizer.ggml.tokens", &["<s>", "a", "b", "a", "1", "2"]),
            "tokens 1 and 3 are both \"a\"",
        ),
        (
            |b| b.whole("tokenizer.ggml.bos_token_id", 6),
            "metadata `tokenizer.ggml.bos_token_id`: token 6 of 6",
        ),
        (
            |b| b.text("llama.rope.scaling.type", "longrope"),
            "metadata `llama.rope.scaling.type`: `longrope` is not supported here",
        ),
        (
            |b| b.single("llama.rope.freq_base", f32::NAN),
            "metadata `llama.rope.freq_base`: expected a finite number",
        ),
    ];
    for (change, expected) in cases {
        let mut b = model();
        change(&mut b);
        let error = message(&b);
        assert!(error.contains(expected), "expected {expected:?} in: {error}");
    }
}

/// Either refused or right: no file makes tensors of other shapes than the configuration's.
fn sound_or_refused(bytes: &[u8]) {
    let file = file(bytes);
    if let Ok(loaded) = load(file.path()) {
        for (name, shape) in layout(&loaded.config.architecture).unwrap() {
            let tensor = &loaded.weights[&name];
            assert_eq!(tensor.shape, shape);
            assert_eq!(tensor.data.len(), shape.iter().product::<usize>());
        }
    }
}

#[test]
fn truncation_is_refused_everywhere() {
    let whole = model().bytes();
    for length in 0..whole.len() {
        assert!(load(file(&whole[..length]).path()).is_err(), "{length} of {} bytes", whole.len());
    }
    load(file(&whole).path()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn flipped_bits_never_panic(flips in prop::collection::vec((0usize..2400, 0u8..8), 1..6)) {
        let mut bytes = model().bytes();
        let length = bytes.len();
        for (at, bit) in flips {
            bytes[at % length] ^= 1 << bit;
        }
        sound_or_refused(&bytes);
    }

    #[test]
    fn overwritten_counts_never_panic(at in 0usize..2400, value in any::<u64>()) {
        let mut bytes = model().bytes();
        let at = at % (bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        sound_or_refused(&bytes);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        sound_or_refused(&noise);
        sound_or_refused(&[b"GGUF\x03\0\0\0".as_slice(), &noise].concat());
    }
}
