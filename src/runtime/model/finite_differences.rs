//! Every gradient of every block against central differences of the f64 reference.

use super::decoder::Decoder;
use super::rope_table::RopeTable;
use crate::layers::LayerPattern;
use crate::plan::Architecture;
use crate::runtime::backend::cpu::Cpu;
use crate::runtime::backend::reference::Reference;
use crate::runtime::backend::{Backend, Load};
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::engine::{Engine, init_weights};
use crate::runtime::random::philox;

type Oracle = Decoder<Reference<f64>>;

pub(in crate::runtime) fn architecture(
    model_type: &str,
    heads: usize,
    kv_heads: usize,
    tied: bool,
) -> Architecture {
    Architecture {
        model_type: model_type.into(),
        num_hidden_layers: 2,
        hidden_size: 12,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: 4,
        intermediate_size: 10,
        vocab_size: 11,
        tie_word_embeddings: tied,
        rms_norm_eps: 1e-5,
        initializer_range: 0.4,
        pattern: pattern(model_type, 2),
    }
}

/// Every second layer is another, where the family has such.
fn pattern(model_type: &str, layers: usize) -> LayerPattern {
    match model_type {
        "olmo3" | "gemma3_text" => LayerPattern::windows(layers, 3, 2),
        "smollm3" => LayerPattern::without_rope(layers, 2),
        _ => LayerPattern::default(),
    }
}

/// The same with four layers.
fn deep(model_type: &str) -> Architecture {
    let a = architecture(model_type, 4, 2, true);
    Architecture { num_hidden_layers: 4, pattern: pattern(model_type, 4), ..a }
}

/// With angles of their own for layers that take no part in the scaling.
fn rope(attention_factor: f64) -> RopeTable {
    RopeTable::new(&[1.0, 0.1], attention_factor, 7).with_plain(&[0.7, 0.02])
}

/// Two rows of 7 tokens; documents of 3, 1 and 3 tokens when `documents`.
pub(in crate::runtime) fn batch(documents: bool) -> Batch {
    let context = 7;
    let starts: [u32; 7] = if documents { [0, 0, 0, 3, 4, 4, 4] } else { [0; 7] };
    let tokens: Vec<u32> = (0..2 * context as u32).map(|i| philox(5, [i, 0, 0, 0])[0] % 11).collect();
    let mut targets = Vec::new();
    for row in tokens.chunks_exact(context) {
        targets.extend_from_slice(&row[1..]);
        targets.push(IGNORE);
    }
    targets[4] = IGNORE;
    let attend_from: Vec<u32> = starts.iter().chain(&starts).copied().collect();
    let positions = (0..2 * context as u32).map(|i| i % context as u32 - attend_from[i as usize]).collect();
    Batch { context, tokens, targets, attend_from, positions, source: vec![0, 0] }
}

fn oracle(a: &Architecture) -> Oracle {
    let mut weights = init_weights(a, 3).unwrap();
    for (n, tensor) in weights.values_mut().enumerate().filter(|(_, t)| t.shape.len() == 1) {
        for (i, x) in tensor.data.iter_mut().enumerate() {
            *x += philox(9, [i as u32, n as u32, 0, 0])[0] as f32 / u32::MAX as f32 - 0.5;
        }
    }
    Decoder::new(Reference::default(), a, &weights, None).unwrap()
}

/// Mean loss in full precision.
fn loss(model: &mut Oracle, batch: &Batch, rope: &RopeTable) -> f64 {
    model.losses(batch, rope).unwrap();
    let nll = &model.workspace.as_ref().unwrap().nll;
    nll[..batch.tokens.len()].iter().sum::<f64>() / batch.predicted() as f64
}

fn check(a: &Architecture, documents: bool) {
    let batch = batch(documents);
    let rope = rope(1.2);
    let mut model = oracle(a);
    model.gradients(&batch, &rope).unwrap();
    let gradients = model.weight_gradients().unwrap().clone();
    let slots = model.slots.clone();
    let step = 1e-5;
    for (n, slot) in slots.iter().enumerate() {
        let gradient = gradients.iter().nth(n).unwrap();
        for (i, got) in gradient.iter().enumerate().take(slot.len) {
            let mut at = |offset: f64| {
                model.weights.iter_mut().nth(n).unwrap()[i] += offset;
                let loss = loss(&mut model, &batch, &rope);
                model.weights.iter_mut().nth(n).unwrap()[i] -= offset;
                loss
            };
            // Of fourth order: where a norm's input is small, the third derivative counts.
            let [near, far] = [step, 2.0 * step].map(|step| at(step) - at(-step));
            let expected = (8.0 * near - far) / (12.0 * step);
            assert!(
                (got - expected).abs() <= 1e-8 + 1e-6 * expected.abs(),
                "{} documents={documents} {} [{i}]: {} instead of {expected}",
                a.model_type,
                slot.pieces[0].name,
                got,
            );
        }
    }
}

#[test]
fn llama_multi_head() {
    check(&architecture("llama", 2, 2, true), false);
}

#[test]
fn llama_groups_of_three_with_documents() {
    check(&architecture("llama", 3, 1, false), true);
}

#[test]
fn llama_groups_of_four() {
    check(&architecture("llama", 4, 1, true), true);
}

#[test]
fn qwen3_normalises_each_head() {
    check(&architecture("qwen3", 4, 2, true), true);
}

#[test]
fn olmo2_normalises_behind_the_blocks() {
    check(&architecture("olmo2", 2, 1, false), true);
}

#[test]
fn qwen2_has_biases() {
    check(&architecture("qwen2", 2, 1, true), true);
}

#[test]
fn olmo3_looks_back_over_a_window() {
    check(&architecture("olmo3", 2, 1, false), false);
    check(&architecture("olmo3", 2, 2, true), true);
}

#[test]
fn smollm3_leaves_rope_out() {
    check(&architecture("smollm3", 2, 1, true), true);
}

#[test]
fn gemma3_normalises_around_its_blocks() {
    check(&architecture("gemma3_text", 4, 2, true), true);
    check(&architecture("gemma3_text", 2, 1, false), false);
}

/// A layer that sees `window` tokens carries nothing further, and with two layers it goes twice as far.
#[test]
fn a_window_ends_where_it_should() {
    for (layers, reach) in [(1, 2), (2, 4)] {
        let pattern = LayerPattern::windows(layers, 3, layers + 1);
        let a = Architecture { num_hidden_layers: layers, pattern, ..architecture("olmo3", 2, 1, false) };
        let (mut batch, rope) = (batch(false), rope(1.0));
        batch.targets.fill(3);
        let mut model = oracle(&a);
        let before = model.token_losses(&batch, &rope).unwrap();
        batch.tokens[0] = (batch.tokens[0] + 1) % 11;
        let after = model.token_losses(&batch, &rope).unwrap();
        let changed: Vec<bool> = before.iter().zip(&after).map(|(a, b)| a != b).collect();
        let expected: Vec<bool> = (0..14).map(|t| t <= reach).collect();
        assert_eq!(changed, expected, "{layers} layers");
    }
}

#[test]
fn recomputed_layers_give_the_same_gradients() {
    for model_type in ["llama", "qwen2", "qwen3", "olmo2", "olmo3", "smollm3", "gemma3_text"] {
        let a = deep(model_type);
        let (batch, rope) = (batch(true), rope(1.0));
        let mut model = oracle(&a);
        let kept = model.gradients(&batch, &rope).unwrap();
        let mut memory = model.memory();
        let mut again = vec![(memory.layers_recomputed, memory.feed_forwards_recomputed)];
        while memory.layers_recomputed < 4 {
            // Just too little for what was used: parameters count four times while training.
            let budget = memory.parameters_bytes * 2 + memory.activations_bytes - 1;
            let mut tight =
                Decoder::new(Reference::<f64>::default(), &a, &model.weights().unwrap(), Some(budget))
                    .unwrap();
            tight.weights = model.weights.clone();
            let recomputed = tight.gradients(&batch, &rope).unwrap();
            assert_eq!(kept.loss, recomputed.loss);
            assert_eq!(kept.gradients, recomputed.gradients);
            memory = tight.memory();
            again.push((memory.layers_recomputed, memory.feed_forwards_recomputed));
        }
        // Where the gradients alone take the room of what layers keep, one row at a time comes before the last.
        again.dedup();
        assert_eq!(again, [(0, 0), (0, 2), (0, 3), (0, 4), (2, 2), (3, 1), (4, 0)]);
    }
}

/// Where buffers really lie over one another, whatever is computed again.
#[test]
fn gradients_over_activations_are_those_of_the_oracle() {
    for model_type in ["llama", "qwen3", "olmo2", "olmo3", "smollm3", "gemma3_text"] {
        let a = deep(model_type);
        let (batch, rope) = (batch(true), rope(1.0));
        let mut model = oracle(&a);
        let expected = model.gradients(&batch, &rope).unwrap();
        let (mut budget, mut recomputed) = (None, Vec::new());
        loop {
            let cpu = Cpu::<f32>::new(Some(2)).unwrap();
            let mut device = Decoder::new(cpu, &a, &model.weights().unwrap(), budget).unwrap();
            // Twice: the second time there is something to be spoilt.
            device.gradients(&batch, &rope).unwrap();
            let got = device.gradients(&batch, &rope).unwrap();
            assert!((got.loss - expected.loss).abs() < 1e-5);
            for (name, tensor) in &expected.gradients {
                let size = tensor.data.iter().map(|x| x * x).sum::<f32>().sqrt();
                for (x, y) in tensor.data.iter().zip(&got.gradients[name].data) {
                    assert!((x - y).abs() < 1e-4 * size, "{model_type} {budget:?} {name}: {y} for {x}");
                }
            }
            let memory = device.memory();
            // One row at a time, nothing lies over anything.
            if memory.rows_at_once == 1 {
                break;
            }
            recomputed.push(memory.layers_recomputed);
            let load = Load { tokens: 14, ..super::memory::load(&a, 0, 7).unwrap() };
            let held = memory.parameters_bytes * 2 + Cpu::<f32>::overhead_bytes(load);
            budget = Some(held + training(&device) - 1);
        }
        assert_eq!(recomputed, [0, 0, 0, 0, 2, 3], "{model_type}");
    }
}

/// Bytes of activations, without the backend's scratch.
fn training<B: Backend>(model: &Decoder<B>) -> u64 {
    model.workspace.as_ref().unwrap().bytes
}

#[test]
fn a_batch_in_parts_gives_the_same_gradients() {
    let a = architecture("llama", 4, 2, true);
    let (batch, rope) = (batch(true), RopeTable::new(&[1.0, 0.1], 1.0, 7));
    let mut model = oracle(&a);
    let whole = model.gradients(&batch, &rope).unwrap();
    let held = model.memory().parameters_bytes * 2;
    let (mut budget, mut parts) = (held + model.memory().activations_bytes, None);
    while parts.is_none() {
        budget -= 8;
        let mut tight =
            Decoder::new(Reference::<f64>::default(), &a, &model.weights().unwrap(), Some(budget)).unwrap();
        tight.weights = model.weights.clone();
        let gradients = tight.gradients(&batch, &rope).unwrap();
        parts = (tight.memory().rows_at_once == 1).then_some(gradients);
    }
    let parts = parts.unwrap();
    assert!((whole.loss - parts.loss).abs() < 1e-6);
    for (name, tensor) in &whole.gradients {
        for (x, y) in tensor.data.iter().zip(&parts.gradients[name].data) {
            assert!((x - y).abs() < 1e-6, "{name}");
        }
    }
}

#[test]
fn a_step_with_a_broken_loss_changes_nothing() {
    let a = architecture("llama", 4, 2, true);
    let (batch, rope) = (batch(false), RopeTable::new(&[1.0, 0.1], 1.0, 7));
    let mut model = oracle(&a);
    let hyper = crate::runtime::engine::Hyper { lr: 0.1, ..crate::runtime::engine::Hyper::default() };
    let before = loss(&mut model, &batch, &rope);
    let report = model.train_step(&batch, &rope, &hyper).unwrap();
    assert!(report.finite && (report.loss - before).abs() < 1e-6);
    assert!(loss(&mut model, &batch, &rope) < before);
    let weights = model.weights().unwrap();
    model.weights.norm[0] = f64::INFINITY;
    let broken = model.weights().unwrap();
    assert!(!model.train_step(&batch, &rope, &hyper).unwrap().finite);
    assert_eq!(model.weights().unwrap(), broken);
    assert_ne!(weights, broken);
}
