//! What a stage changes in the `config.json` of a Hugging Face model, and the whole of it for a
//! fresh one. Knows keys, no engine.

use serde_json::{Map, Value, json};

use crate::layers;
use crate::plan::{Architecture, ModelPlan, Plan, RopePlan, StagePlan};
use crate::rope;

/// Width of a head, where the plan knows it: given with the architecture, or twice the number of
/// frequencies of the stage's RoPE or its model's.
pub(super) fn head_dim(plan: &Plan, stage: &StagePlan) -> Option<usize> {
    let (model, stages) = plan.lineage(stage)?;
    let of_rope = stages.iter().filter_map(|s| s.rope.as_ref()).chain(model.rope.as_ref());
    let frequencies = of_rope.map(|r| r.inv_freq.len()).find(|n| *n > 0);
    model.init.as_ref().map(|init| init.head_dim).or(frequencies.map(|n| 2 * n))
}

/// The RoPE a stage trains with: its own, else that of the nearest stage before it that writes one, else its model's;
/// `None` where the plan knows none.
pub(super) fn effective_rope<'a>(plan: &'a Plan, stage: &'a StagePlan) -> Option<&'a RopePlan> {
    if let Some(rope) = &stage.rope {
        return Some(rope);
    }
    let (model, stages) = plan.lineage(stage)?;
    stages.into_iter().find_map(|s| s.rope.as_ref()).or(model.rope.as_ref())
}

/// Longest rows a stage's model was meant for or trained at so far, tokens.
pub(super) fn reach(plan: &Plan, stage: &StagePlan) -> u64 {
    let Some((model, stages)) = plan.lineage(stage) else { return 0 };
    let trained = stages.iter().flat_map(|s| &s.phases).map(|p| p.context);
    trained.chain(model.context).max().unwrap_or_default()
}

/// The keys that the stage's RoPE puts over those of its model; none without one of its own.
pub(super) fn rope_keys(plan: &Plan, stage: &StagePlan) -> Map<String, Value> {
    let Some(rope) = &stage.rope else { return Map::new() };
    // Only `ntk` looks at the head dimension here, and `capability` has seen that it is known.
    let head_dim = head_dim(plan, stage).unwrap_or(128);
    rope::to_hf(head_dim, rope.theta, &rope.scaling, reach(plan, stage))
}

/// The `config.json` of a fresh model.
pub(super) fn fresh(model: &ModelPlan, a: &Architecture) -> Map<String, Value> {
    let class = match a.model_type.as_str() {
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        "olmo2" => "Olmo2ForCausalLM",
        "olmo3" => "Olmo3ForCausalLM",
        "smollm3" => "SmolLM3ForCausalLM",
        "gemma3_text" => "Gemma3ForCausalLM",
        _ => "LlamaForCausalLM",
    };
    let Value::Object(mut keys) = json!({
        "architectures": [class],
        "model_type": a.model_type,
        "hidden_act": "silu",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "vocab_size": a.vocab_size,
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_hidden_layers": a.num_hidden_layers,
        "num_attention_heads": a.num_attention_heads,
        "num_key_value_heads": a.num_key_value_heads,
        "head_dim": a.head_dim,
        "tie_word_embeddings": a.tie_word_embeddings,
        "rms_norm_eps": a.rms_norm_eps,
        "initializer_range": a.initializer_range,
        "bos_token_id": null,
        "eos_token_id": null,
        "pad_token_id": null,
    }) else {
        return Map::new();
    };
    if a.model_type == "qwen2" {
        keys.remove("attention_bias");
    }
    if a.model_type == "gemma3_text" {
        keys.remove("hidden_act");
        keys.insert("hidden_activation".into(), json!("gelu_pytorch_tanh"));
        keys.insert("query_pre_attn_scalar".into(), json!(a.head_dim));
    }
    let (theta, scaling) = match &model.rope {
        Some(rope) => (rope.theta, rope.scaling.clone()),
        None => (10_000.0, rope::RopeScaling::Default),
    };
    let rope = rope::to_hf(a.head_dim, theta, &scaling, model.context.unwrap_or_default());
    let local = rope::default_local_theta(&a.model_type).unwrap_or(theta);
    keys.extend(if a.has_plain_rope() { rope::nested(&a.model_type, rope, local) } else { rope });
    keys.extend(layers::to_hf(&a.model_type, &a.pattern, a.num_hidden_layers));
    keys
}
