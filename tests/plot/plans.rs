//! Plans built by hand after published recipes, so that figures are tested without the compiler.

use std::collections::BTreeMap;

use midc::curve::{Blend, Curve, Segment, Shape};
use midc::plan::{
    Attention, BatchPlan, CheckpointPlan, ContextPoint, EvalPlan, FromKind, GatePlan, LrPlan, MixPlan,
    ModelPlan, OptimizerPlan, Packing, Phase, Plan, RopePlan, SoupPlan, SourcePlan, StagePlan, State, Totals,
};
use midc::rope::RopeScaling;

const B: u64 = 1_000_000_000;
const T: u64 = 1000 * B;

/// Segments laid end to end: shape, end value, length.
fn curve(start: f64, segments: &[(Shape, f64, u64)]) -> Curve {
    let (mut from, mut at) = (start, 0);
    let segments = segments
        .iter()
        .map(|(shape, to, length)| {
            let segment =
                Segment { shape: *shape, from, to: *to, start: at, end: at + length, horizon: None };
            (from, at) = (*to, at + length);
            segment
        })
        .collect();
    Curve { segments }
}

/// A stage of constant batch, context and mixture; tests change the rest.
pub(crate) fn stage(name: &str, from: &str, tokens: u64, lr: Curve, mix: &[(&str, f64)]) -> StagePlan {
    let (sequences, context) = (1024, 4096);
    let ends: Vec<f64> = lr.segments.iter().flat_map(|s| [s.from, s.to]).collect();
    let steps = tokens.div_ceil(sequences * context);
    StagePlan {
        name: name.into(),
        doc: String::new(),
        from: from.into(),
        from_kind: FromKind::Stage,
        tokens,
        steps,
        overshoot_tokens: steps * sequences * context - tokens,
        start_tokens: 0,
        lr: LrPlan {
            start: ends.first().copied().unwrap_or(0.0),
            end: ends.last().copied().unwrap_or(0.0),
            peak: ends.iter().copied().fold(0.0, f64::max),
            curve: lr,
        },
        batch_tokens: BatchPlan {
            start: sequences * context,
            end: sequences * context,
            min: sequences * context,
            max: sequences * context,
        },
        context: vec![ContextPoint { at: 0, value: context }],
        phases: vec![Phase { step: 0, tokens: 0, sequences, context }],
        rope: None,
        mix: mix
            .iter()
            .map(|(source, weight)| MixPlan {
                source: (*source).into(),
                weight_mean: *weight,
                weight_start: *weight,
                weight_end: *weight,
                tokens: (tokens as f64 * weight) as u64,
                epochs: None,
                weight: Blend::constant(*weight),
            })
            .collect(),
        attention: Attention::Causal,
        packing: Packing::Concat,
        optimizer: OptimizerPlan {
            muon: None,
            betas: [0.9, 0.95],
            eps: 1e-8,
            weight_decay: 0.1,
            decay_embeddings: true,
            decay_norms: false,
            clip: Some(1.0),
            z_loss: None,
        },
        state: State::Keep,
        precision: None,
        data_seed: 1,
        init_seed: 1,
        save_every: None,
        save_every_tokens: None,
        keep: None,
        checkpoints: Vec::new(),
        evals: Vec::new(),
        gates: Vec::new(),
        assumed: Vec::new(),
        inherited: Vec::new(),
    }
}

/// Rows of `context` tokens, `sequences` of them a step, for the whole stage.
pub(crate) fn shape(stage: &mut StagePlan, sequences: u64, context: u64) {
    ramp(stage, &[(0, sequences)], context);
}

/// The number of rows from each token position on.
fn ramp(stage: &mut StagePlan, rows: &[(u64, u64)], context: u64) {
    let (mut step, mut at) = (0, 0);
    stage.phases = rows
        .iter()
        .enumerate()
        .map(|(i, (_, sequences))| {
            let phase = Phase { step, tokens: at, sequences: *sequences, context };
            let end = rows.get(i + 1).map_or(stage.tokens, |next| next.0);
            let steps = end.saturating_sub(at).div_ceil(sequences * context);
            step += steps;
            at += steps * sequences * context;
            phase
        })
        .collect();
    stage.steps = step;
    stage.overshoot_tokens = at - stage.tokens;
    stage.context = vec![ContextPoint { at: 0, value: context }];
    let size = |p: &Phase| p.sequences * p.context;
    stage.batch_tokens = BatchPlan {
        start: stage.phases.first().map_or(0, size),
        end: stage.phases.last().map_or(0, size),
        min: stage.phases.iter().map(size).min().unwrap_or(0),
        max: stage.phases.iter().map(size).max().unwrap_or(0),
    };
}

fn rope(method: &str, theta: f64, factor: Option<f64>, scaling: RopeScaling) -> RopePlan {
    RopePlan {
        method: method.into(),
        theta,
        factor,
        original: Some(4096),
        attention_factor: 1.0,
        inv_freq: Vec::new(),
        scaling,
    }
}

fn yarn(factor: f64) -> RopePlan {
    let scaling = RopeScaling::Yarn {
        factor,
        original: 4096,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: None,
        mscale_all_dim: None,
        attention_factor: None,
        truncate: true,
    };
    rope("yarn", 1e4, Some(factor), scaling)
}

pub(crate) fn eval(name: &str, every_steps: Option<u64>, heldout: bool, needle: &[u64]) -> EvalPlan {
    EvalPlan {
        name: name.into(),
        every_steps,
        every_tokens: None,
        sources: Vec::new(),
        heldout_tokens: None,
        heldout: heldout.then_some(0.01),
        needle: needle.to_vec(),
        choice: None,
    }
}

pub(crate) fn gate(
    text: &str,
    measure: &str,
    argument: &str,
    op: &str,
    bound: f64,
    relative: bool,
) -> GatePlan {
    GatePlan {
        text: text.into(),
        measure: serde_json::from_value(measure.into()).expect("a measure"),
        argument: argument.into(),
        sources: Vec::new(),
        op: serde_json::from_value(op.into()).expect("a comparison"),
        bound,
        relative_to_from: relative,
    }
}

/// A plan of `stages`, with sources and totals filled in from them.
pub(crate) fn plan(name: &str, stages: Vec<StagePlan>, soups: Vec<SoupPlan>) -> Plan {
    let mut drawn: BTreeMap<String, u64> = BTreeMap::new();
    let mut order = Vec::new();
    for mix in stages.iter().flat_map(|s| &s.mix) {
        if !drawn.contains_key(&mix.source) {
            order.push(mix.source.clone());
        }
        *drawn.entry(mix.source.clone()).or_default() += mix.tokens;
    }
    let sources = order
        .into_iter()
        .map(|name| SourcePlan {
            doc: String::new(),
            kind: "web".into(),
            tokens: Some(2 * drawn[&name] / 3 + 1),
            drawn_tokens: drawn[&name],
            epochs: Some(drawn[&name] as f64 / (2 * drawn[&name] / 3 + 1) as f64),
            path: vec![format!("{name}/*.jsonl")],
            text: None,
            filter: None,
            max_epochs: Some(4.0),
            order: "shuffled".into(),
            loss_on: Vec::new(),
            today: None,
            fim: None,
            validation: false,
            dedup: false,
            exclude: Vec::new(),
            name,
        })
        .collect();
    let totals = Totals {
        tokens: stages.iter().map(|s| s.tokens).sum(),
        steps: stages.iter().map(|s| s.steps).sum(),
        flops: None,
    };
    let model = ModelPlan {
        name: "base".into(),
        doc: String::new(),
        checkpoint: Some("checkpoints/base".into()),
        init: None,
        tokenizer: None,
        context: Some(4096),
        rope: None,
        lr: None,
        seen_tokens: None,
    };
    Plan {
        v: 1,
        curriculum: name.into(),
        hash: "blake3:00".into(),
        params: BTreeMap::new(),
        models: vec![model],
        stages,
        soups,
        sources,
        totals,
    }
}

/// One short stage: the first file somebody writes.
pub(crate) fn one_stage() -> Plan {
    let lr = curve(0.0, &[(Shape::Linear, 3e-4, 50_000_000), (Shape::Cosine, 3e-5, 950_000_000)]);
    let mut only = stage("train", "base", B, lr, &[("web", 0.7), ("code", 0.2), ("math", 0.1)]);
    only.from_kind = FromKind::Model;
    shape(&mut only, 128, 2048);
    plan("first", vec![only], Vec::new())
}

/// DeepSeek-V3 (arXiv:2412.19437 section 4.2): a five-piece schedule and a batch ramp in one stage,
/// then two short stages that stretch the context.
pub(crate) fn deepseek_v3() -> Plan {
    let lr = curve(
        0.0,
        &[
            (Shape::Linear, 2.2e-4, 25_165_824_000),
            (Shape::Hold, 2.2e-4, 10 * T - 25_165_824_000),
            (Shape::Cosine, 2.2e-5, 4300 * B),
            (Shape::Hold, 2.2e-5, 333 * B),
            (Shape::Step, 7.3e-6, 0),
            (Shape::Hold, 7.3e-6, 167 * B),
        ],
    );
    let mixture = [("web", 0.52), ("code", 0.23), ("math", 0.13), ("multilingual", 0.12)];
    let mut main = stage("pretrain", "base", 14_800 * B, lr, &mixture);
    main.from_kind = FromKind::Model;
    let rows: Vec<(u64, u64)> =
        (0..=96).map(|i| (i * 469 * B / 96, 3072 + (15_360 - 3072) * i / 96)).collect();
    ramp(&mut main, &rows, 4096);
    main.assumed = vec!["mix".into()];
    let hold = || curve(7.3e-6, &[(Shape::Hold, 7.3e-6, 62_914_560_000)]);
    let mut long1 = stage("long_32k", "pretrain", 62_914_560_000, hold(), &mixture);
    shape(&mut long1, 1920, 32_768);
    long1.rope = Some(yarn(40.0));
    long1.assumed = vec!["mix".into()];
    long1.inherited = vec!["mix".into()];
    let mut long2 = stage("long_128k", "long_32k", 62_914_560_000, hold(), &mixture);
    shape(&mut long2, 480, 131_072);
    long2.rope = Some(yarn(40.0));
    long2.assumed = vec!["mix".into()];
    long2.inherited = vec!["mix".into(), "rope".into()];
    long2.evals = vec![eval("reach", Some(100), false, &[4096, 32_768, 131_072])];
    long2.gates = vec![gate("needle(128Ki) >= 95%", "needle", "131072", ">=", 0.95, false)];
    plan("deepseek-v3", vec![main, long1, long2], Vec::new())
}

/// SmolLM2 1.7B (arXiv:2502.02737 section 4): four stages under one trapezoid whose decay begins
/// inside the third, and a long-context branch that replaces the tail.
pub(crate) fn smollm2() -> Plan {
    let peak = 5e-4;
    let constant = |t| curve(peak, &[(Shape::Hold, peak, t)]);
    let warm =
        curve(0.0, &[(Shape::Linear, peak, 4_194_304_000), (Shape::Hold, peak, 6 * T - 4_194_304_000)]);
    let mix = |web: f64, edu: f64, code: f64, math: f64, cosmo: f64| {
        vec![
            ("fineweb_edu", web * edu),
            ("dclm", web * (1.0 - edu)),
            ("starcoder", code),
            ("math", math),
            ("cosmopedia", cosmo),
        ]
    };
    let mut s1 = stage("stable_1", "base", 6 * T, warm, &mix(0.90, 0.6, 0.10, 0.0, 0.0));
    s1.from_kind = FromKind::Model;
    let s2 = stage("stable_2", "stable_1", 2 * T, constant(2 * T), &mix(0.75, 0.6, 0.20, 0.05, 0.0));
    let bend = curve(peak, &[(Shape::Hold, peak, 1890 * B), (Shape::Linear, peak / 11.0 * 10.0, 110 * B)]);
    let s3 = stage("stable_3", "stable_2", 2 * T, bend, &mix(0.74, 0.4, 0.16, 0.10, 0.0));
    let down = curve(peak / 11.0 * 10.0, &[(Shape::Linear, 0.0, T)]);
    let mut s4 = stage("decay", "stable_3", T, down, &mix(0.58, 0.5, 0.24, 0.14, 0.04));
    s4.checkpoints =
        vec![CheckpointPlan { name: "before_tail".into(), tokens: 925 * B, step: 441_070, forever: true }];
    let mut long_mix = mix(0.58 * 0.6, 0.5, 0.24 * 0.6, 0.14 * 0.6, 0.04 * 0.6);
    long_mix.extend([("dclm_long", 0.1), ("fineweb_long", 0.1), ("dolma_books", 0.2)]);
    let from = peak / 11.0 * 10.0 * 0.075;
    let tail = curve(from, &[(Shape::Linear, 0.0, 75 * B)]);
    let mut long = stage("long", "decay.before_tail", 75 * B, tail, &long_mix);
    long.from_kind = FromKind::Checkpoint;
    shape(&mut s4, 1024, 2048);
    s4.save_every = Some(20_000);
    s4.evals = vec![eval("heldout", Some(40_000), true, &[])];
    let mut stages = vec![s1, s2, s3, s4, long];
    for stage in &mut stages[..3] {
        shape(stage, 1024, 2048);
        stage.save_every = Some(100_000);
        stage.evals = vec![eval("heldout", Some(200_000), true, &[])];
    }
    shape(&mut stages[4], 256, 8192);
    stages[4].rope = Some(rope("abf", 130_000.0, None, RopeScaling::Default));
    stages[4].assumed = vec!["lr".into(), "mix".into()];
    plan("smollm2-1.7b", stages, Vec::new())
}

/// OLMo 2 13B (arXiv:2501.00656): three data orders of 100B and one run of 300B, averaged, and a
/// long-context stage after the soup.
pub(crate) fn olmo2() -> Plan {
    let down = |t| curve(9e-5, &[(Shape::Linear, 0.0, t)]);
    let mix100 = [
        ("dclm", 0.502),
        ("flan", 0.167),
        ("pes2o", 0.0952),
        ("wiki", 0.0357),
        ("stackexchange", 0.0247),
        ("math", 0.1754),
    ];
    let mix300 = [
        ("dclm", 0.519),
        ("flan", 0.113),
        ("pes2o", 0.194),
        ("wiki", 0.0486),
        ("stackexchange", 0.0168),
        ("math", 0.1086),
    ];
    let mut stages = Vec::new();
    for seed in [1110, 2662, 6209] {
        stages.push(stage(&format!("anneal[{seed}]"), "base", 100 * B, down(100 * B), &mix100));
    }
    stages.push(stage("anneal_long", "base", 300 * B, down(300 * B), &mix300));
    for stage in &mut stages {
        stage.from_kind = FromKind::Model;
        stage.from = "olmo2_13b_stage1".into();
        stage.start_tokens = 5 * T;
        shape(stage, 2048, 4096);
        stage.save_every = Some(1000);
        stage.evals = vec![eval("heldout", Some(2000), true, &[])];
    }
    let up = curve(0.0, &[(Shape::Linear, 1e-5, 2 * B), (Shape::Linear, 0.0, 18 * B)]);
    let mut long =
        stage("long", "ingredients", 20 * B, up, &[("dclm", 0.4), ("books", 0.35), ("repositories", 0.25)]);
    long.from_kind = FromKind::Soup;
    shape(&mut long, 128, 32_768);
    long.rope = Some(yarn(8.0));
    long.evals = vec![eval("reach", Some(500), false, &[4096, 16_384, 32_768])];
    long.gates = vec![
        gate("needle(32Ki) >= 95%", "needle", "32768", ">=", 0.95, false),
        gate("loss(dclm) <= 101% of from", "loss", "dclm", "<=", 1.01, true),
    ];
    stages.push(long);
    let soup = SoupPlan {
        name: "ingredients".into(),
        doc: String::new(),
        method: "average".into(),
        ingredients: vec![
            "anneal[1110]".into(),
            "anneal[2662]".into(),
            "anneal[6209]".into(),
            "anneal_long".into(),
        ],
        weights: vec![0.25; 4],
    };
    let mut plan = plan("olmo2-13b", stages, vec![soup]);
    plan.models[0].name = "olmo2_13b_stage1".into();
    plan.models[0].seen_tokens = Some(5 * T);
    plan
}

/// Ramps of mixtures, over `sources` sources with names of `length` letters.
pub(crate) fn wide(sources: usize, length: usize) -> Plan {
    let names: Vec<String> = (0..sources)
        .map(|i| {
            format!("s{i}_{}", "long_source_name_".repeat(length).chars().take(length).collect::<String>())
        })
        .collect();
    let each = 1.0 / sources as f64;
    let mixture: Vec<(&str, f64)> = names.iter().map(|n| (n.as_str(), each)).collect();
    let hold = curve(1e-3, &[(Shape::Hold, 1e-3, 10 * T)]);
    let mut first = stage(&"a_stage_with_quite_a_name_".repeat(4), "base", 10 * T, hold, &mixture);
    first.from_kind = FromKind::Model;
    let down = curve(1e-3, &[(Shape::OneMinusSqrt, 0.0, T)]);
    let mut second = stage("anneal", &first.name.clone(), T, down, &mixture);
    for (i, mix) in second.mix.iter_mut().enumerate() {
        let to = if i == 0 { 0.5 } else { 0.5 / (sources - 1).max(1) as f64 };
        mix.weight.terms[0].coefficient = 1.0;
        mix.weight.terms[0].factors = vec![curve(each, &[(Shape::Linear, to, T)])];
    }
    plan(&"a curriculum with a long name ".repeat(6), vec![first, second], Vec::new())
}

/// `count` stages one after another.
pub(crate) fn many(count: usize) -> Plan {
    let mut stages: Vec<StagePlan> = Vec::new();
    for i in 0..count {
        let from = stages.last().map_or("base".to_owned(), |s| s.name.clone());
        let web = 0.3 + 0.4 * (i % 7) as f64 / 7.0;
        let lr = curve(1e-3 / (1 + i) as f64, &[(Shape::Exp, 1e-3 / (2 + i) as f64, B)]);
        stages.push(stage(&format!("s{i}"), &from, B, lr, &[("web", web), ("code", 1.0 - web)]));
    }
    stages[0].from_kind = FromKind::Model;
    plan("many", stages, Vec::new())
}

/// `count` branches of different lengths from one model.
pub(crate) fn bush(count: usize) -> Plan {
    let branch = |i: usize| {
        let t = (i as u64 + 1) * B;
        let lr = curve(1e-4, &[(Shape::Linear, 0.0, t)]);
        let mut stage = stage(&format!("probe[{i}]"), "base", t, lr, &[("web", 0.5), ("new", 0.5)]);
        stage.from_kind = FromKind::Model;
        stage
    };
    plan("bush", (0..count).map(branch).collect(), Vec::new())
}

/// Names that try to break out of markup.
pub(crate) fn hostile() -> Plan {
    let evil = "<script>alert(1)</script>";
    let lr = curve(1e-3, &[(Shape::Hold, 1e-3, B)]);
    let mut only = stage("</title>\"'&\u{0}", "base", B, lr, &[(evil, 0.5), ("]]>--><svg onload=x>", 0.5)]);
    only.from_kind = FromKind::Model;
    only.gates = vec![gate("loss(<b>) <= 1", "loss", evil, "<=", 1.0, false)];
    let mut plan = plan("</script><img src=x onerror=alert(1)>", vec![only], Vec::new());
    plan.models[0].name = "\"]; click x \"javascript:alert(1)".into();
    plan.stages[0].from = plan.models[0].name.clone();
    plan
}

/// A short warmup and a constant rate.
pub(crate) fn trapezoid(tokens: u64) -> Curve {
    let warm = tokens / 20;
    curve(0.0, &[(Shape::Linear, 3e-3, warm), (Shape::Hold, 3e-3, tokens - warm)])
}

/// From the end of [`trapezoid`] to nothing.
pub(crate) fn decay(tokens: u64) -> Curve {
    curve(3e-3, &[(Shape::Linear, 0.0, tokens)])
}
