//! From a plan to its toy: same graph, same proportions, numbers a laptop runs in a minute.
//!
//! Kept: stages, lineage, soups, the shape of every curve, relative batch and context, RoPE methods
//! and factors, masks, packing, optimizer, state carried over, gates, measurements, the model's
//! family and its ratio of query to key heads. Scaled: tokens, batch, context, learning rate, width
//! and depth. Replaced: checkpoints by fresh weights, sources by stand-ins of their kind.

use crate::curve::{Blend, Curve, Segment, Shape};
use crate::layers::LayerPattern;
use crate::plan::{
    Architecture, BatchPlan, ContextPoint, GateMeasure, ModelPlan, Phase, Plan, RopePlan, SourcePlan,
    StagePlan,
};
use crate::rope::{self, RopeScaling};
use crate::runtime::rehearse::props;

/// Tokens of the longest toy row, and the fewest of the shortest.
pub(super) const CONTEXT: std::ops::RangeInclusive<u64> = 16..=256;
/// Rows of the largest toy batch.
const ROWS: u64 = 4;
/// Steps of the shortest toy stage: enough for a ramp, a plateau and a decay.
const FEWEST_STEPS: u64 = 12;
/// Learning rate of the largest peak.
const PEAK: f64 = 1e-3;

/// A toy plan and what it could not keep.
#[derive(Clone, Debug, PartialEq)]
pub struct Rehearsal {
    /// To be run in a directory with the stand-ins.
    pub plan: Plan,
    /// What a person must know: one sentence each.
    pub left_out: Vec<String>,
}

/// The toy of `plan` with about `steps` optimizer steps in all.
pub fn shrink(plan: &Plan, steps: u64) -> Rehearsal {
    let mut left_out = Vec::new();
    let contexts = || plan.stages.iter().flat_map(|s| &s.phases).map(|p| p.context);
    let scale = Scale {
        context: contexts().max().unwrap_or(1).max(1),
        rows: plan.stages.iter().flat_map(|s| &s.phases).map(|p| p.sequences).max().unwrap_or(1).max(1),
        lr: PEAK / plan.stages.iter().map(|s| s.lr.peak).fold(f64::MIN_POSITIVE, f64::max),
    };
    let longest = contexts().min().unwrap_or(1).max(1) * (CONTEXT.end() / CONTEXT.start());
    if scale.context > longest {
        left_out.push(format!(
            "context lengths span more than a factor of {}: the shortest are all {} tokens here",
            CONTEXT.end() / CONTEXT.start(),
            CONTEXT.start()
        ));
    }
    let total: f64 = plan.stages.iter().map(|s| s.tokens as f64).sum::<f64>().max(1.0);
    let mut stages = Vec::with_capacity(plan.stages.len());
    for stage in &plan.stages {
        let share = (steps as f64 * stage.tokens as f64 / total).round() as u64;
        let wanted = share.clamp(FEWEST_STEPS, steps.max(FEWEST_STEPS)).min(stage.steps.max(1));
        stages.push(toy_stage(stage, wanted, &scale, &mut left_out));
    }
    let models: Vec<ModelPlan> = plan.models.iter().map(|m| toy_model(m, &scale, &mut left_out)).collect();
    let sources = plan.sources.iter().map(|s| toy_source(s, &mut left_out)).collect();
    let mut toy = Plan { models, stages, sources, ..plan.clone() };
    toy.totals.tokens = toy.stages.iter().map(|s| s.tokens).sum();
    toy.totals.steps = toy.stages.iter().map(|s| s.steps).sum();
    toy.totals.flops = None;
    toy.hash = crate::plan::hash(&toy);
    Rehearsal { plan: toy, left_out }
}

/// What the real plan's largest numbers become.
struct Scale {
    /// Longest context of the plan.
    context: u64,
    /// Rows of its largest batch.
    rows: u64,
    /// Multiplies every learning rate.
    lr: f64,
}

impl Scale {
    /// A context length, in proportion, whole and at least the smallest.
    fn context(&self, real: u64) -> u64 {
        let toy = (real as f64 * *CONTEXT.end() as f64 / self.context as f64).round() as u64;
        toy.next_multiple_of(8).clamp(*CONTEXT.start(), *CONTEXT.end())
    }

    fn rows(&self, real: u64) -> u64 {
        ((real as f64 * ROWS as f64 / self.rows as f64).round() as u64).clamp(1, ROWS)
    }
}

fn toy_stage(stage: &StagePlan, steps: u64, scale: &Scale, left_out: &mut Vec<String>) -> StagePlan {
    // Step by step: where the toy stands, the real stage stands at the same share of its steps.
    let real_step = |step: u64| ((step as u128 * stage.steps as u128) / steps.max(1) as u128) as u64;
    let mut phases: Vec<Phase> = Vec::new();
    let mut tokens = 0;
    for step in 0..steps {
        let real = stage.step_point(real_step(step));
        let (sequences, context) = (scale.rows(real.sequences), scale.context(real.context));
        if phases.last().is_none_or(|p| (p.sequences, p.context) != (sequences, context)) {
            phases.push(Phase { step, tokens, sequences, context });
        }
        tokens += sequences * context;
    }
    let ratio = tokens as f64 / stage.tokens.max(1) as f64;
    let move_to = |at: u64| ((at as f64 * ratio).round() as u64).min(tokens);
    let batch = |p: Option<&Phase>| p.map_or(0, |p| p.sequences * p.context);
    let mut toy = StagePlan {
        tokens,
        steps,
        overshoot_tokens: 0,
        start_tokens: 0,
        batch_tokens: BatchPlan {
            start: batch(phases.first()),
            end: batch(phases.last()),
            min: phases.iter().map(|p| p.sequences * p.context).min().unwrap_or(0),
            max: phases.iter().map(|p| p.sequences * p.context).max().unwrap_or(0),
        },
        context: context_points(&phases),
        rope: stage.rope.as_ref().map(|r| toy_rope(r, scale)),
        save_every: stage.save_every.map(|_| (steps / 3).max(1)),
        save_every_tokens: None,
        keep: stage.keep,
        phases,
        ..stage.clone()
    };
    toy.lr.curve = toy_curve(&stage.lr.curve, ratio, tokens, scale.lr);
    toy.lr.start = toy.lr.curve.value(0);
    toy.lr.end = toy.lr.curve.end_value();
    toy.lr.peak = stage.lr.peak * scale.lr;
    for mix in &mut toy.mix {
        mix.tokens = (mix.weight_mean * tokens as f64) as u64;
        mix.epochs = None;
        mix.weight = Blend { terms: mix.weight.terms.clone() };
        for curve in mix.weight.terms.iter_mut().flat_map(|t| &mut t.factors) {
            *curve = toy_curve(curve, ratio, tokens, 1.0);
        }
    }
    for checkpoint in &mut toy.checkpoints {
        let share = checkpoint.step as f64 / stage.steps.max(1) as f64;
        checkpoint.step = ((share * steps as f64).round() as u64).clamp(1, steps);
        checkpoint.tokens = move_to(checkpoint.tokens);
    }
    for eval in &mut toy.evals {
        let times = eval.every_steps.map_or(0, |every| stage.steps / every.max(1)).min(3);
        eval.every_steps = (times > 0).then(|| (steps / times).max(1));
        eval.every_tokens = None;
        for length in &mut eval.needle {
            *length = scale.context(*length).max(128);
        }
        if let Some(task) = eval.choice.take() {
            left_out.push(format!("stage `{}`: the task `{task}` needs the real vocabulary", stage.name));
        }
    }
    for gate in &mut toy.gates {
        if gate.measure == GateMeasure::Needle
            && let Ok(length) = gate.argument.parse::<u64>()
        {
            gate.argument = scale.context(length).max(128).to_string();
        }
    }
    toy.gates.retain(|g| {
        let keep = g.measure != GateMeasure::Choice;
        if !keep {
            left_out.push(format!("stage `{}`: the gate `{}` needs the real vocabulary", stage.name, g.text));
        }
        keep
    });
    toy
}

fn context_points(phases: &[Phase]) -> Vec<ContextPoint> {
    let mut points: Vec<ContextPoint> = Vec::new();
    for phase in phases {
        if points.last().is_none_or(|p| p.value != phase.context) {
            points.push(ContextPoint { at: phase.tokens, value: phase.context });
        }
    }
    points
}

/// The same shapes over fewer tokens; values times `factor`.
fn toy_curve(curve: &Curve, ratio: f64, tokens: u64, factor: f64) -> Curve {
    let at = |token: u64| ((token as f64 * ratio).round() as u64).min(tokens);
    let last = curve.segments.len().saturating_sub(1);
    let segments = curve.segments.iter().enumerate().map(|(i, s)| Segment {
        shape: match s.shape {
            Shape::HalfLife { half_life } => Shape::HalfLife { half_life: (half_life * ratio).max(1.0) },
            other => other,
        },
        from: s.from * factor,
        to: s.to * factor,
        start: at(s.start),
        end: if i == last { tokens } else { at(s.end) },
        horizon: s.horizon.map(|h| (h as f64 * ratio).round() as u64),
    });
    Curve { segments: segments.collect() }
}

/// The same method and factor over the toy's lengths. Frequencies are left to the run, whose heads
/// are narrower.
fn toy_rope(plan: &RopePlan, scale: &Scale) -> RopePlan {
    let mut scaling = plan.scaling.clone();
    match &mut scaling {
        RopeScaling::DynamicNtk { original, .. }
        | RopeScaling::NtkByParts { original, .. }
        | RopeScaling::Yarn { original, .. }
        | RopeScaling::Llama3 { original, .. } => *original = scale.context(*original),
        RopeScaling::Longrope { short, long, original, .. } => {
            *original = scale.context(*original);
            short.truncate(HEAD_DIM / 2);
            long.truncate(HEAD_DIM / 2);
            short.resize(HEAD_DIM / 2, 1.0);
            long.resize(HEAD_DIM / 2, 1.0);
        }
        RopeScaling::Default | RopeScaling::Pi { .. } | RopeScaling::Ntk { .. } => {}
    }
    let attention_factor = rope::inv_freq(HEAD_DIM, plan.theta, &scaling, *CONTEXT.end()).attention_factor;
    let original = plan.original.map(|l| scale.context(l));
    RopePlan { original, attention_factor, inv_freq: Vec::new(), scaling, ..plan.clone() }
}

/// Width of a toy head.
const HEAD_DIM: usize = 16;
/// Most layers of a toy model.
const LAYERS: usize = 2;

fn toy_model(model: &ModelPlan, scale: &Scale, left_out: &mut Vec<String>) -> ModelPlan {
    if let Some(checkpoint) = &model.checkpoint {
        left_out.push(format!("model `{}`: fresh weights instead of `{checkpoint}`", model.name));
    }
    // Of a model that is shallower still, the pattern says nothing of further layers.
    let layers = model.init.as_ref().map_or(LAYERS, |a| a.num_hidden_layers.min(LAYERS));
    let grouped = model.init.as_ref().is_none_or(|a| a.num_key_value_heads < a.num_attention_heads);
    let architecture = Architecture {
        model_type: model.init.as_ref().map_or("llama".into(), |a| a.model_type.clone()),
        num_hidden_layers: layers,
        hidden_size: 4 * HEAD_DIM,
        num_attention_heads: 4,
        num_key_value_heads: if grouped { 2 } else { 4 },
        head_dim: HEAD_DIM,
        intermediate_size: 10 * HEAD_DIM,
        vocab_size: props::VOCAB_SIZE,
        tie_word_embeddings: model.init.as_ref().is_none_or(|a| a.tie_word_embeddings),
        rms_norm_eps: 1e-5,
        initializer_range: 0.02,
        pattern: model.init.as_ref().map_or_else(LayerPattern::default, |a| {
            // The layers of full attention and those without RoPE come last.
            let mut pattern = a.pattern.last(layers);
            pattern.sliding_window = pattern.sliding_window.map(|window| scale.context(window));
            pattern
        }),
    };
    ModelPlan {
        checkpoint: None,
        init: Some(architecture),
        tokenizer: Some(props::TOKENIZER.into()),
        context: model.context.map(|c| scale.context(c)),
        rope: model.rope.as_ref().map(|r| toy_rope(r, scale)),
        ..model.clone()
    }
}

fn toy_source(source: &SourcePlan, left_out: &mut Vec<String>) -> SourcePlan {
    if let Some(filter) = &source.filter {
        left_out.push(format!("source `{}`: the filter `{filter}`", source.name));
    }
    if source.order.contains('(') {
        left_out.push(format!("source `{}`: the order {}", source.name, source.order));
    }
    for (what, there) in [("exclude", !source.exclude.is_empty()), ("loss_on", !source.loss_on.is_empty())] {
        if there {
            left_out.push(format!("source `{}`: `{what}`", source.name));
        }
    }
    SourcePlan {
        path: vec![props::file_for(&source.kind, source.validation).into()],
        tokens: None,
        epochs: None,
        max_epochs: None,
        text: None,
        filter: None,
        order: if source.order == "as_written" { source.order.clone() } else { "shuffled".into() },
        loss_on: Vec::new(),
        today: None,
        // The stand-in tokenizer has no special tokens for it.
        fim: None,
        exclude: Vec::new(),
        ..source.clone()
    }
}
