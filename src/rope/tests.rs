//! Golden vectors: `golden.json` holds frequencies that transformers 5.23 computed in f32; the rest are
//! numbers from papers and from published mistakes.

use serde::Deserialize;
use serde_json::{Value, json};

use super::by_parts::Ramp;
use super::plain::Head;
use super::*;

#[derive(Deserialize)]
struct Golden {
    head_dim: usize,
    theta: f64,
    scaling: RopeScaling,
    seq_len: u64,
    attention_factor: f64,
    inv_freq: Vec<(usize, f64)>,
}

fn close(a: f64, b: f64, tolerance: f64) -> bool {
    (a / b - 1.0).abs() <= tolerance
}

fn yarn(factor: f64, original: u64) -> RopeScaling {
    RopeScaling::Yarn {
        factor,
        original,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: None,
        mscale_all_dim: None,
        attention_factor: None,
        truncate: true,
    }
}

#[test]
fn frequencies_equal_transformers() {
    let golden: Vec<Golden> = serde_json::from_str(include_str!("golden.json")).unwrap();
    assert_eq!(golden.len(), 11);
    for case in golden {
        let rope = inv_freq(case.head_dim, case.theta, &case.scaling, case.seq_len);
        assert_eq!(rope.inv_freq.len(), case.head_dim / 2);
        assert!(close(rope.attention_factor, case.attention_factor, 1e-12), "{:?}", case.scaling);
        for (d, expected) in case.inv_freq {
            assert!(close(rope.inv_freq[d], expected, 1e-6), "{:?} {d}", case.scaling);
        }
    }
}

/// A published implementation took half the head dimension (ramp 9..18) and the square root of the
/// temperature (1.099).
#[test]
fn yarn_ramp_and_temperature() {
    let ramp = Ramp { original: 8192, beta_fast: 32.0, beta_slow: 1.0, truncate: true };
    assert_eq!(ramp.ends(Head { dim: 128, theta: 5e5 }), (18.0, 35.0));
    let scaling = yarn(8.0, 8192);
    let rope = inv_freq(128, 5e5, &scaling, 65536);
    assert!((rope.attention_factor - 1.2079).abs() < 5e-5);
    let plain = inv_freq(128, 5e5, &RopeScaling::Default, 65536);
    for (d, (stretched, kept)) in rope.inv_freq.iter().zip(&plain.inv_freq).enumerate() {
        let ratio = stretched / kept;
        match d {
            0..=18 => assert!(close(ratio, 1.0, 1e-12)),
            35.. => assert!(close(ratio, 1.0 / 8.0, 1e-12)),
            _ => assert!(ratio < 1.0 && ratio > 1.0 / 8.0),
        }
    }
}

/// Kimi K2's `config.json` has 1 and 1: a ramp from one dimension to the next.
#[test]
fn equal_betas_are_a_step() {
    let mut scaling = yarn(32.0, 4096);
    if let RopeScaling::Yarn { beta_fast, .. } = &mut scaling {
        *beta_fast = 1.0;
    }
    check(Some(64), 5e4, &scaling).unwrap();
    let (stretched, plain) =
        [scaling, RopeScaling::Default].map(|s| inv_freq(64, 5e4, &s, 131_072).inv_freq).into();
    for (d, (stretched, kept)) in stretched.iter().zip(&plain).enumerate() {
        assert!(close(stretched / kept, if d < 20 { 1.0 } else { 1.0 / 32.0 }, 1e-12), "{d}");
    }
}

#[test]
fn deepseek_mscale() {
    assert!((yarn::attention_factor(40.0, None, None) - 1.368888).abs() < 1e-6);
    assert_eq!(yarn::attention_factor(40.0, Some(0.707), Some(0.707)), 1.0);
    assert_eq!(yarn::attention_factor(1.0, None, None), 1.0);
    assert!((yarn::attention_factor(40.0, Some(1.0), None) - 1.368888).abs() < 1e-6);
}

#[test]
fn ntk_divides_the_lowest_frequency_by_the_factor() {
    let plain = inv_freq(64, 1e4, &RopeScaling::Default, 0).inv_freq;
    let ntk = inv_freq(64, 1e4, &RopeScaling::Ntk { factor: 4.0 }, 0).inv_freq;
    assert_eq!(ntk[0], plain[0]);
    assert!(close(plain[31] / ntk[31], 4.0, 1e-12));
    let same = inv_freq(64, 1e4, &RopeScaling::DynamicNtk { factor: 4.0, original: 100 }, 100).inv_freq;
    assert_eq!(same, plain);
}

#[test]
fn config_round_trips() {
    let golden: Vec<Golden> = serde_json::from_str(include_str!("golden.json")).unwrap();
    for case in golden {
        if matches!(case.scaling, RopeScaling::NtkByParts { .. }) {
            continue; // comes back as the yarn it amounts to, below
        }
        let keys = to_hf(case.head_dim, case.theta, &case.scaling, 131_072);
        let back = from_hf(&keys).unwrap();
        assert_eq!((back.theta, back.scaling), (case.theta, case.scaling));
        // As transformers 5 saves it: one dictionary.
        let mut keys = keys;
        keys.remove("rope_scaling");
        keys.remove("rope_theta");
        assert_eq!(from_hf(&keys).unwrap().theta, case.theta);
    }
}

#[test]
fn methods_without_a_name_elsewhere_are_written_as_what_they_amount_to() {
    let ntk = to_hf(128, 1e4, &RopeScaling::Ntk { factor: 8.0 }, 4096);
    assert_eq!(ntk["rope_scaling"], Value::Null);
    assert!(close(ntk["rope_theta"].as_f64().unwrap(), 1e4 * 8f64.powf(128.0 / 126.0), 1e-15));
    let by_parts = RopeScaling::NtkByParts { factor: 4.0, original: 2048, beta_fast: 32.0, beta_slow: 1.0 };
    let keys = to_hf(64, 1e4, &by_parts, 4096);
    assert_eq!(keys["rope_scaling"]["rope_type"], "yarn");
    assert_eq!(keys["rope_scaling"]["attention_factor"], 1.0);
    assert_eq!(keys["max_position_embeddings"], 8192);
    let read = from_hf(&keys).unwrap();
    let (a, b) = (inv_freq(64, 1e4, &by_parts, 0), inv_freq(64, read.theta, &read.scaling, 0));
    assert_eq!(a, b);
    let dynamic = to_hf(64, 1e4, &RopeScaling::DynamicNtk { factor: 4.0, original: 2048 }, 8192);
    assert_eq!(dynamic["max_position_embeddings"], 2048);
}

/// Spellings found in published files.
#[test]
fn reads_older_spellings() {
    let read = |config: Value| match config {
        Value::Object(map) => from_hf(&map),
        _ => unreachable!("the test writes objects"),
    };
    assert_eq!(
        read(json!({})).unwrap(),
        Rope { theta: 1e4, scaling: RopeScaling::Default, local_theta: None }
    );
    assert_eq!(
        read(json!({ "rope_theta": 5e5, "rope_scaling": { "type": "linear", "factor": 2 } })).unwrap(),
        Rope { theta: 5e5, scaling: RopeScaling::Pi { factor: 2.0 }, local_theta: None }
    );
    let phi3 = json!({
        "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
        "rope_scaling": { "type": "su", "short_factor": [1.0, 1.0], "long_factor": [2, 3.5] },
    });
    let expected = RopeScaling::Longrope {
        short: vec![1.0, 1.0],
        long: vec![2.0, 3.5],
        original: 4096,
        factor: 32.0,
        attention_factor: None,
    };
    assert_eq!(read(phi3).unwrap().scaling, expected);
    let qwen = json!({
        "rope_theta": 1e6, "max_position_embeddings": 32768.0,
        "rope_scaling": { "rope_type": "yarn", "factor": 4.0 },
    });
    assert_eq!(read(qwen).unwrap().scaling, yarn(4.0, 32768));
}

/// Gemma 3's two bases, before transformers 5 and since.
#[test]
fn reads_a_base_for_layers_with_a_window() {
    let read = |config: Value| match config {
        Value::Object(map) => from_hf(&map).map(|rope| (rope.theta, rope.scaling, rope.local_theta)),
        _ => unreachable!("the test writes objects"),
    };
    let gemma = |mut keys: Value| {
        keys["model_type"] = json!("gemma3_text");
        read(keys)
    };
    let linear = json!({ "rope_type": "linear", "factor": 8.0 });
    let scaled = RopeScaling::Pi { factor: 8.0 };
    assert_eq!(gemma(json!({})).unwrap(), (1e6, RopeScaling::Default, Some(1e4)));
    let old = json!({ "rope_theta": 2e6, "rope_local_base_freq": 3e4, "rope_scaling": linear });
    assert_eq!(gemma(old).unwrap(), (2e6, scaled.clone(), Some(3e4)));
    let mut full = linear;
    full["rope_theta"] = json!(1e6);
    let new =
        json!({ "rope_parameters": { "full_attention": full, "sliding_attention": { "rope_theta": 2e4 } } });
    assert_eq!(gemma(new).unwrap(), (1e6, scaled.clone(), Some(2e4)));
    let new = json!({ "rope_local_base_freq": 5e4, "rope_parameters": { "full_attention": full } });
    assert_eq!(gemma(new).unwrap(), (1e6, scaled, Some(5e4)));
    assert_eq!(gemma(json!({ "rope_theta": 1e4 })).unwrap(), (1e4, RopeScaling::Default, None));
}

#[test]
fn errors_name_key_and_value() {
    for (config, expected) in [
        (json!({ "rope_theta": "big" }), "`rope_theta` is \"big\": expected a number"),
        (
            json!({ "rope_theta": 0.5 }),
            "`rope_parameters` is rope_theta 0.5: `theta` must be a finite number greater than 1, not 0.5",
        ),
        (
            json!({ "partial_rotary_factor": 0.5 }),
            "`partial_rotary_factor` is 0.5: rotating part of a head is not supported",
        ),
        (
            json!({ "rope_scaling": { "rope_type": "mrope" } }),
            "`rope_scaling.rope_type` is \"mrope\": not one of default, linear, dynamic, yarn, llama3, longrope",
        ),
        (
            json!({ "rope_scaling": { "type": "linear" } }),
            "`rope_scaling.factor` is missing: this method needs it",
        ),
        (
            json!({ "rope_parameters": { "full_attention": { "rope_theta": 1e6 } } }),
            "`rope_parameters.full_attention` is {\"rope_theta\":1000000.0}: a RoPE of its own per layer type is not supported",
        ),
        (json!({ "rope_scaling": [1] }), "`rope_scaling` is [1]: expected a dictionary"),
    ] {
        let Value::Object(map) = config else { unreachable!("the test writes objects") };
        assert_eq!(from_hf(&map).unwrap_err().to_string(), expected);
    }
}

#[test]
fn check_rejects_what_has_no_meaning() {
    let ok = |dim, theta, scaling: &RopeScaling| check(Some(dim), theta, scaling).is_ok();
    assert!(ok(64, 1e4, &yarn(4.0, 4096)));
    assert!(!ok(63, 1e4, &RopeScaling::Default));
    assert!(!ok(2, 1e4, &RopeScaling::Default));
    assert!(!ok(64, 1.0, &RopeScaling::Default));
    assert!(!ok(64, f64::NAN, &RopeScaling::Default));
    assert!(!ok(64, 1e4, &RopeScaling::Pi { factor: 0.5 }));
    assert!(!ok(64, 1e4, &yarn(4.0, 0)));
    assert!(!ok(64, 1e4, &RopeScaling::Llama3 { factor: 8.0, low: 4.0, high: 1.0, original: 8192 }));
    let longrope = |n: usize| RopeScaling::Longrope {
        short: vec![1.0; n],
        long: vec![1.0; n],
        original: 4096,
        factor: 2.0,
        attention_factor: None,
    };
    assert!(ok(64, 1e4, &longrope(32)));
    assert_eq!(
        check(Some(64), 1e4, &longrope(31)).unwrap_err().to_string(),
        "`short` must have one factor per dimension pair, 32, not 31"
    );
    // Unchecked nonsense computes to nonsense, not to a panic.
    assert_eq!(inv_freq(64, 1e4, &longrope(3), 5000).inv_freq.len(), 32);
    assert_eq!(inv_freq(0, 0.0, &yarn(f64::NAN, 0), 0).inv_freq.len(), 0);
}
