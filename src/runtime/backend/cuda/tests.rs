//! The backend on the host model of the device: every operation against the reference, and whole
//! training steps beside the CPU. `tests/kernels_host.sh` builds the model and runs these.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::arena::Arena;
use super::backend::Cuda;
use super::device::Device;
use super::host_model::HostModel;
use super::recorder::Recorder;
use crate::layers::LayerPattern;
use crate::plan::Architecture;
use crate::runtime::backend::conformance;
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::engine::{
    Engine, EngineError, EngineKind, EngineOptions, Hyper, Muon, Part, RopeTable, Rule, StepReport, engine,
    init_weights, training_memory,
};
use crate::runtime::model::decoder::Decoder;
use crate::runtime::model::tensor::StateDict;
use crate::runtime::random::philox;

/// The backend on the model, with or without Hopper's kernels; `None` where the model is not built.
fn model(hopper: bool) -> Option<Cuda> {
    let path = HostModel::path();
    assert!(
        path.is_some() || std::env::var_os("MIDC_REQUIRE_DEVICE_MODEL").is_none(),
        "the device model is not built: make -C kernels/host"
    );
    path.map(|p| Cuda::new(Arc::new(Recorder::new(Arc::new(HostModel::open(&p, hopper, 0))))))
}

#[test]
fn every_operation_on_ampere() {
    let Some(backend) = model(false) else { return };
    conformance::on_device(&backend);
}

#[test]
fn every_operation_on_hopper() {
    let Some(backend) = model(true) else { return };
    conformance::on_device(&backend);
}

/// Heads of 64 values, which Hopper's kernels take, and of 32, which they leave to the others.
fn architecture(model_type: &str, tied: bool) -> Architecture {
    let head_dim = if model_type == "qwen3" { 32 } else { 64 };
    Architecture {
        model_type: model_type.into(),
        num_hidden_layers: 2,
        hidden_size: 64,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim,
        intermediate_size: 96,
        vocab_size: 72,
        tie_word_embeddings: tied,
        rms_norm_eps: 1e-5,
        initializer_range: 0.1,
        pattern: match model_type {
            "olmo3" | "gemma3_text" => LayerPattern::windows(2, 19, 2),
            "smollm3" => LayerPattern::without_rope(2, 2),
            _ => LayerPattern::default(),
        },
    }
}

/// Two rows of 70 tokens in documents of 30, 1 and 39, different at each step.
fn batch(step: u32) -> Batch {
    let context = 70;
    let starts: Vec<u32> = (0..70)
        .map(|t| {
            if t < 30 {
                0
            } else if t < 31 {
                30
            } else {
                31
            }
        })
        .collect();
    let tokens: Vec<u32> = (0..2 * context as u32).map(|i| philox(5, [i, step, 0, 0])[0] % 72).collect();
    let mut targets = Vec::new();
    for row in tokens.chunks_exact(context) {
        targets.extend_from_slice(&row[1..]);
        targets.push(IGNORE);
    }
    targets[29] = IGNORE;
    let attend_from: Vec<u32> = starts.iter().chain(&starts).copied().collect();
    let positions = (0..2 * context as u32).map(|i| i % context as u32 - attend_from[i as usize]).collect();
    Batch { context, tokens, targets, attend_from, positions, source: vec![0, 0] }
}

fn train(engine: &mut dyn Engine, steps: RangeInclusive<u32>) -> Vec<StepReport> {
    train_by(None, engine, steps)
}

fn train_by(muon: Option<Muon>, engine: &mut dyn Engine, steps: RangeInclusive<u32>) -> Vec<StepReport> {
    let rope = rope(engine.architecture());
    steps
        .map(|step| {
            let hyper = Hyper {
                lr: 3e-3,
                muon,
                z_loss: Some(1e-4),
                optimizer_step: u64::from(step),
                ..Hyper::default()
            };
            // The same batch twice in a row, so that learning shows.
            engine.train_step(&batch(step / 3), &rope, &hyper).unwrap()
        })
        .collect()
}

fn on_model(
    a: &Architecture,
    weights: &StateDict,
    hopper: bool,
    memory: Option<u64>,
) -> Option<Box<dyn Engine>> {
    Some(Box::new(Decoder::new(model(hopper)?, a, weights, memory).unwrap()))
}

fn reference(a: &Architecture, weights: &StateDict) -> Box<dyn Engine> {
    engine(EngineKind::Reference, a, weights, EngineOptions::default()).unwrap()
}

fn rope(a: &Architecture) -> RopeTable {
    let half = a.head_dim / 2;
    let inverse: Vec<f64> = (0..half).map(|i| 10_000f64.powf(-(i as f64) / half as f64)).collect();
    let plain: Vec<f64> = inverse.iter().map(|f| f * 0.7).collect();
    RopeTable::new(&inverse, 1.0, 70).with_plain(&plain)
}

/// Distance of two tensors relative to the second.
fn distance(got: &[f32], expected: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = got.iter().zip(expected).map(|(g, e)| square(f64::from(g - e))).sum();
    let size: f64 = expected.iter().map(|e| square(f64::from(*e))).sum();
    (error / size.max(1e-30)).sqrt()
}

/// Every family on both tiers: loss and the gradient of every weight, which may be no further from the
/// reference than twice what the CPU's bf16 is.
#[test]
fn gradients_match_the_reference() {
    for (model_type, tied) in [
        ("llama", true),
        ("llama", false),
        ("qwen2", true),
        ("qwen3", true),
        ("olmo2", false),
        ("olmo3", false),
        ("smollm3", true),
        ("gemma3_text", true),
    ] {
        let a = architecture(model_type, tied);
        let weights = init_weights(&a, 3).unwrap();
        let expected = reference(&a, &weights).gradients(&batch(0), &rope(&a)).unwrap();
        let mut cpu = engine(EngineKind::CpuBf16, &a, &weights, EngineOptions::default()).unwrap();
        let rounded = cpu.gradients(&batch(0), &rope(&a)).unwrap();
        for hopper in [false, true] {
            let Some(mut device) = on_model(&a, &weights, hopper, None) else { return };
            let got = device.gradients(&batch(0), &rope(&a)).unwrap();
            let name = format!("{model_type}, hopper {hopper}");
            let loss = (got.loss / expected.loss - 1.0).abs();
            assert!(loss < 1e-3, "{name}: loss {} beside {}", got.loss, expected.loss);
            for (tensor, want) in &expected.gradients {
                let error = distance(&got.gradients[tensor].data, &want.data);
                let allowed = 2.0 * distance(&rounded.gradients[tensor].data, &want.data) + 2e-3;
                assert!(error < allowed, "{name}: {tensor}: relative error {error:.2e} above {allowed:.2e}");
            }
        }
    }
}

#[test]
fn training_tracks_the_reference() {
    let muon = Some(Muon::default());
    for (model_type, tied, hopper, muon) in [
        ("llama", true, false, None),
        ("llama", false, true, None),
        ("qwen3", true, true, None),
        ("olmo2", false, false, None),
        ("olmo3", false, true, None),
        ("llama", false, true, muon),
    ] {
        let a = architecture(model_type, tied);
        let weights = init_weights(&a, 3).unwrap();
        let Some(mut device) = on_model(&a, &weights, hopper, None) else { return };
        let got = train_by(muon, &mut *device, 1..=6);
        let expected = train_by(muon, &mut *reference(&a, &weights), 1..=6);
        for (step, (g, e)) in got.iter().zip(&expected).enumerate() {
            let name = format!("{model_type}, hopper {hopper}, muon {}, step {step}", muon.is_some());
            assert!(g.finite && (g.loss / e.loss - 1.0).abs() < 0.01, "{name}: {} beside {}", g.loss, e.loss);
            assert!(
                (g.grad_norm / e.grad_norm - 1.0).abs() < 0.05,
                "{name}: gradient norm {} beside {}",
                g.grad_norm,
                e.grad_norm
            );
        }
        assert!(expected[1].loss < expected[0].loss - 0.02, "the test learns nothing");
    }
}

#[test]
fn runs_are_equal_to_the_bit_whatever_the_schedule() {
    let a = architecture("llama", false);
    let weights = init_weights(&a, 4).unwrap();
    let Some(mut first) = on_model(&a, &weights, true, None) else { return };
    let reports = train(&mut *first, 1..=3);
    let Some(mut second) = on_model(&a, &weights, true, None) else { return };
    assert_eq!(train(&mut *second, 1..=3), reports);
    assert_eq!(first.weights().unwrap(), second.weights().unwrap());
}

#[test]
fn a_resumed_run_is_equal_to_the_bit() {
    let a = architecture("qwen3", true);
    let weights = init_weights(&a, 5).unwrap();
    for (hopper, muon) in [(false, None), (true, None), (true, Some(Muon::default()))] {
        let Some(mut whole) = on_model(&a, &weights, hopper, None) else { return };
        let reports = train_by(muon, &mut *whole, 1..=4);
        let Some(mut before) = on_model(&a, &weights, hopper, None) else { return };
        train_by(muon, &mut *before, 1..=2);
        let (weights, moments) = (before.weights().unwrap(), before.moments().unwrap().unwrap());
        drop(before);
        let Some(mut after) = on_model(&a, &weights, hopper, None) else { return };
        after.load_moments(moments).unwrap();
        assert_eq!(train_by(muon, &mut *after, 3..=4), reports[2..]);
        assert_eq!(after.weights().unwrap(), whole.weights().unwrap());
        assert_eq!(after.moments().unwrap(), whole.moments().unwrap());
    }
}

/// Computing layers again changes what they add to the gradients by the rounding of the stream, and nothing else.
#[test]
fn a_memory_budget_changes_little() {
    let mut a = architecture("llama", true);
    // Few weights: what their gradients lie over is no less for being computed again.
    (a.num_hidden_layers, a.hidden_size) = (4, 16);
    let weights = init_weights(&a, 6).unwrap();
    let Some(mut free) = on_model(&a, &weights, false, None) else { return };
    let reports = train(&mut *free, 1..=2);
    assert_eq!((free.memory().layers_kept, free.memory().layers_recomputed), (4, 0));
    let within = |budget| training_memory(EngineKind::Cuda(0), &a, 2, 70, Rule::AdamW, budget).unwrap();
    let some = within(Some(within(None).total() - 1));
    let mut all = some;
    while all.layers_recomputed < 4 {
        all = within(Some(all.total() - 1));
    }
    for (budget, layers, feed_forwards) in [(some.total(), 0, 2), (all.total(), 4, 0)] {
        let Some(mut tight) = on_model(&a, &weights, false, Some(budget)) else { return };
        let recomputed = train(&mut *tight, 1..=2);
        assert_eq!(recomputed[0].rows, reports[0].rows);
        for (a, b) in recomputed.iter().zip(&reports) {
            assert!((a.loss / b.loss - 1.0).abs() < 1e-3, "{a:?} for {b:?}");
            assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 5e-3, "{a:?} for {b:?}");
        }
        let memory = tight.memory();
        assert_eq!((memory.layers_recomputed, memory.feed_forwards_recomputed), (layers, feed_forwards));
    }
}

/// From the second step on, what a step repeats is replayed, and no bit differs.
#[test]
fn steps_become_graphs() {
    let a = architecture("llama", true);
    let weights = init_weights(&a, 8).unwrap();
    let Some(path) = HostModel::path() else { return };
    let recorder = Arc::new(Recorder::new(Arc::new(HostModel::open(&path, true, 0))));
    let backend = Cuda::new(Arc::clone(&recorder) as Arc<dyn Device>);
    let mut recorded = Decoder::new(backend, &a, &weights, None).unwrap();
    let plain = Cuda::new(Arc::new(HostModel::open(&path, true, 0)));
    let mut plain = Decoder::new(plain, &a, &weights, None).unwrap();
    for steps in [1..=2, 3..=4, 5..=6] {
        assert_eq!(train(&mut recorded, steps.clone()), train(&mut plain, steps));
    }
    assert!(recorder.replays() >= 4, "{}", recorder.replays());
    assert_eq!(recorded.weights().unwrap(), plain.weights().unwrap());
}

/// The prediction covers what a run takes, and is not far above: in an arena of just that size it runs.
#[test]
fn memory_is_predicted() {
    for (model_type, hopper) in [
        ("llama", true),
        ("qwen2", true),
        ("qwen3", false),
        ("olmo2", true),
        ("olmo3", true),
        ("gemma3_text", true),
    ] {
        let a = architecture(model_type, false);
        let weights = init_weights(&a, 7).unwrap();
        let Some(path) = HostModel::path() else { return };
        let predicted = training_memory(EngineKind::Cuda(0), &a, 2, 70, Rule::AdamW, None).unwrap().total();
        let arena = Arc::new(Arena::new(Arc::new(HostModel::open(&path, hopper, 0)), predicted).unwrap());
        let backend = Cuda::new(Arc::clone(&arena) as Arc<dyn Device>);
        let mut device = Decoder::new(backend, &a, &weights, Some(predicted)).unwrap();
        assert!(train(&mut device, 1..=2).iter().all(|r| r.finite));
        let free = arena.free_bytes().unwrap();
        // The part for rounding is 1 MiB, whatever the size.
        assert!(free < (1 << 20) + predicted / 10, "{model_type}: {free} of {predicted} bytes are free");
        drop(device);
        assert_eq!(arena.free_bytes().unwrap(), predicted / 256 * 256);
    }
}

/// Tables of RoPE go to the device once, and again when others follow.
#[test]
fn rope_tables_are_copied_when_they_change() {
    let a = architecture("gemma3_text", true);
    let weights = init_weights(&a, 10).unwrap();
    let Some(path) = HostModel::path() else { return };
    let model = Arc::new(HostModel::open(&path, false, 0));
    let fresh = || {
        let backend = Cuda::new(Arc::clone(&model) as Arc<dyn Device>);
        Decoder::new(backend, &a, &weights, None).unwrap()
    };
    let (short, halved) = (rope(&a), RopeTable::new(&vec![0.25; a.head_dim / 2], 1.0, 70));
    // Cosines and sines of two kinds of layers.
    let table = 4 * 70 * (a.head_dim / 2) * 4;
    let mut device = fresh();
    for (table_now, copied) in [(&short, true), (&short, false), (&halved, true), (&short, true)] {
        let before = model.uploaded.load(Ordering::Relaxed);
        let losses = device.losses(&batch(0), table_now).unwrap();
        let uploaded = model.uploaded.load(Ordering::Relaxed) - before;
        assert_eq!(uploaded >= table, copied, "{uploaded} bytes beside {table}");
        assert_eq!(fresh().losses(&batch(0), table_now).unwrap(), losses);
    }
    // Training has another workspace.
    let trained = device.gradients(&batch(0), &short).unwrap();
    assert_eq!(fresh().gradients(&batch(0), &short).unwrap().gradients, trained.gradients);
}

/// What could not be copied from the device is no zeros, which would make a sound checkpoint of a lost model.
#[test]
fn what_cannot_be_read_is_an_error() {
    let a = architecture("llama", true);
    let weights = init_weights(&a, 9).unwrap();
    let Some(path) = HostModel::path() else { return };
    let model = Arc::new(HostModel::open(&path, false, 0));
    let backend = Cuda::new(Arc::clone(&model) as Arc<dyn Device>);
    let mut device = Decoder::new(backend, &a, &weights, None).unwrap();
    train(&mut device, 1..=1);
    model.mute.store(true, Ordering::Relaxed);
    let name = "model.norm.weight";
    for error in [
        device.weights().unwrap_err(),
        device.moments().unwrap_err(),
        device.tensor(Part::Weight, name).unwrap_err(),
        device.tensor(Part::Second, name).unwrap_err(),
        device.gradients(&batch(0), &rope(&a)).unwrap_err(),
    ] {
        assert!(error.to_string().ends_with("copying from the model: it is mute"), "{error}");
    }
    model.mute.store(false, Ordering::Relaxed);
    assert_ne!(device.weights().unwrap(), weights);
}

/// Rows of one document.
fn rows_of(rows: usize, context: usize, step: u32) -> Batch {
    let token = |i: usize| philox(5, [i as u32, step, 1, 0])[0] % 72;
    Batch {
        context,
        tokens: (0..rows * context).map(token).collect(),
        targets: (1..=rows * context).map(token).collect(),
        attend_from: vec![0; rows * context],
        positions: (0..rows * context).map(|i| (i % context) as u32).collect(),
        source: vec![0; rows],
    }
}

/// Rows that become longer find, in the engine that trained the shorter ones, the memory that was predicted for them
/// alone, whatever was measured in between.
#[test]
fn a_longer_context_finds_the_memory_that_was_predicted() {
    for (head_dim, hopper, muon) in [(64, false, None), (128, true, Some(Muon::default()))] {
        let a = Architecture { head_dim, ..architecture("llama", true) };
        let weights = init_weights(&a, 11).unwrap();
        let Some(path) = HostModel::path() else { return };
        let rule = if muon.is_some() { Rule::Muon } else { Rule::AdamW };
        let predicted = |rows, context| {
            training_memory(EngineKind::Cuda(0), &a, rows, context, rule, None).unwrap().total()
        };
        let most = predicted(2, 140);
        assert!(most > predicted(2, 35));
        // So small a model needs little of the part for rounding.
        let bytes = most - (1 << 20) + (64 << 10);
        let arena = Arc::new(Arena::new(Arc::new(HostModel::open(&path, hopper, 0)), bytes).unwrap());
        let backend = Cuda::new(Arc::clone(&arena) as Arc<dyn Device>);
        let mut device = Decoder::new(backend, &a, &weights, Some(most)).unwrap();
        let table = |positions| RopeTable::new(&vec![0.1; head_dim / 2], 1.0, positions);
        // Losses alone take neither moments nor scratch of the backward pass.
        device.losses(&rows_of(1, 35, 0), &table(35)).unwrap();
        assert!(device.moments().unwrap().is_none());
        let values: usize = weights.values().map(|tensor| tensor.data.len()).sum();
        assert_eq!(device.memory().parameters_bytes, 4 * values as u64);
        let mut free = Vec::new();
        for (step, (rows, context)) in [(2, 35), (2, 140), (2, 35), (2, 140)].into_iter().enumerate() {
            let hyper = Hyper { lr: 1e-3, muon, optimizer_step: step as u64 + 1, ..Hyper::default() };
            let batch = rows_of(rows, context, step as u32);
            let report = device.train_step(&batch, &table(context), &hyper).unwrap();
            assert!(report.finite, "{report:?}");
            free.push(arena.free_bytes().unwrap());
            // Longer texts than it is trained on, and a table for longer ones.
            device.losses(&rows_of(1, 100, 0), &table(1000)).unwrap();
        }
        assert_eq!(free[1], free[3], "a part of the memory is not found again");
    }
}

/// One row of 128Ki tokens on a GPU of 80 GiB, less a reserve, for models to about 1.5B parameters.
#[test]
fn long_contexts_fit_one_gpu() {
    let model = |[layers, hidden, heads, kv_heads, head_dim, ffn, vocab]: [usize; 7]| Architecture {
        num_hidden_layers: layers,
        hidden_size: hidden,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        intermediate_size: ffn,
        vocab_size: vocab,
        ..architecture("llama", true)
    };
    let fit = |a: &Architecture, gib: u64| {
        training_memory(EngineKind::Cuda(0), a, 1, 131_072, Rule::AdamW, Some(gib << 30))
    };
    // Llama 3.2 1B, and the dimensions of Qwen2.5 1.5B.
    for dimensions in [[16, 2048, 32, 8, 64, 8192, 128_256], [28, 1536, 12, 2, 128, 8960, 151_936]] {
        let a = model(dimensions);
        let memory = fit(&a, 78).unwrap();
        let recomputed = memory.layers_recomputed + memory.feed_forwards_recomputed;
        assert!(memory.total() < 78 << 30 && recomputed > 0, "{memory:?}");
        assert!(matches!(fit(&a, 40), Err(EngineError::Budget { .. })));
    }
}

#[test]
fn dimensions_no_kernel_has_are_refused() {
    let mut a = architecture("llama", true);
    a.head_dim = 48;
    let weights = init_weights(&a, 3).unwrap();
    let Some(mut device) = on_model(&a, &weights, false, None) else { return };
    let inverse = vec![0.5; 24];
    let error = device.losses(&batch(0), &RopeTable::new(&inverse, 1.0, 70)).unwrap_err();
    assert!(
        matches!(&error, EngineError::Device { reason, .. } if reason.contains("heads of 48")),
        "{error}"
    );
}

/// Where there is no driver, the answer says so.
#[test]
fn a_missing_driver_is_an_error() {
    // SAFETY: only tries to load a library by name.
    if unsafe { cudarc::driver::sys::is_culib_present() } {
        return;
    }
    let error = super::open(0, 1 << 20).unwrap_err();
    assert!(error.to_string().contains("libcuda.so.1"), "{error}");
}
