//! From the checked curriculum to plain numbers.

use crate::curve::Curve;
use crate::rope;
use crate::sema::{self, Curriculum};

use super::{
    Architecture, Attention, BatchPlan, CheckpointPlan, Comparison, ContextPoint, EvalPlan, FimPlan,
    FromKind, GateMeasure, GatePlan, GateSource, LrPlan, MixPlan, ModelPlan, MuonPlan, OptimizerPlan,
    Packing, Phase, Plan, Precision, RopePlan, SoupPlan, SourcePlan, StagePlan, State, Totals,
};

/// The plan of a curriculum.
pub fn build(curriculum: &Curriculum) -> Plan {
    let drawn = drawn(curriculum);
    let stages: Vec<StagePlan> = curriculum.stages.iter().map(|s| stage(curriculum, s)).collect();
    let totals = Totals {
        tokens: stages.iter().map(|s| s.tokens).sum(),
        steps: stages.iter().map(|s| s.steps).sum(),
        flops: curriculum.flops(),
    };
    let mut plan = Plan {
        v: 1,
        curriculum: curriculum.name.clone(),
        hash: String::new(),
        params: curriculum.params.iter().map(|p| (p.name.clone(), p.value.clone())).collect(),
        models: curriculum.models.iter().map(model).collect(),
        stages,
        soups: curriculum.soups.iter().map(|s| soup(curriculum, s)).collect(),
        sources: curriculum
            .sources
            .iter()
            .zip(&drawn)
            .enumerate()
            .filter(|(index, (_, drawn))| **drawn > 0 || named(curriculum, *index))
            .map(|(index, (_, drawn))| source(curriculum, index, *drawn))
            .collect(),
        totals,
    };
    plan.hash = super::hash(&plan);
    plan
}

/// A plan of all sources of a curriculum, drawn from or not, and of what stages it has.
pub fn sources(curriculum: &Curriculum) -> Plan {
    let drawn = drawn(curriculum);
    let sources = drawn.into_iter().enumerate().map(|(i, drawn)| source(curriculum, i, drawn)).collect();
    Plan { sources, ..build(curriculum) }
}

/// `plan` with the declared shape of a model in place of its checkpoint, where that is `absent`: for what needs
/// no weights.
pub fn with_declared_shapes(plan: Plan, curriculum: &Curriculum, absent: impl Fn(&str) -> bool) -> Plan {
    let models = plan.models.into_iter().map(|model| {
        let declared = curriculum.models.iter().find(|m| m.name == model.name);
        match declared.and_then(|m| m.architecture.as_ref()) {
            Some(shape) if model.checkpoint.as_deref().is_some_and(&absent) => {
                ModelPlan { checkpoint: None, init: Some(architecture(shape)), ..model }
            }
            _ => model,
        }
    });
    Plan { models: models.collect(), ..plan }
}

/// Tokens drawn from each source by all stages.
fn drawn(curriculum: &Curriculum) -> Vec<u64> {
    let mut drawn = vec![0u64; curriculum.sources.len()];
    for portion in curriculum.stages.iter().flat_map(|s| &s.mix) {
        drawn[portion.source] = drawn[portion.source].saturating_add(portion.tokens);
    }
    drawn
}

/// Whether a source from which nothing is drawn is asked for: a mix has it with a weight of 0, or a gate or an eval is
/// on its loss.
fn named(curriculum: &Curriculum, source: usize) -> bool {
    curriculum.stages.iter().any(|stage| {
        let mut of_gates = stage.gates.iter().flat_map(|g| &g.sources);
        let of_evals = || stage.evals.iter().any(|e| e.sources.contains(&source));
        stage.mix.iter().any(|p| p.source == source) || of_gates.any(|(s, _)| *s == source) || of_evals()
    })
}

fn model(m: &sema::Model) -> ModelPlan {
    let context = m.context.unwrap_or(0);
    ModelPlan {
        name: m.name.clone(),
        doc: m.doc.clone(),
        checkpoint: m.checkpoint.clone(),
        init: m.architecture.as_ref().filter(|_| m.fresh).map(architecture),
        tokenizer: m.tokenizer.clone(),
        context: m.context,
        rope: m.rope.as_ref().and_then(|r| rope_plan(r, m.architecture.as_ref(), context)),
        lr: m.lr,
        seen_tokens: m.seen,
    }
}

fn architecture(a: &sema::Architecture) -> Architecture {
    let size = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Architecture {
        model_type: a.model_type.clone(),
        num_hidden_layers: size(a.layers),
        hidden_size: size(a.hidden),
        num_attention_heads: size(a.heads),
        num_key_value_heads: size(a.kv_heads),
        head_dim: size(a.head_dim),
        intermediate_size: size(a.ffn),
        vocab_size: size(a.vocab),
        tie_word_embeddings: a.tie_embeddings,
        rms_norm_eps: a.eps,
        initializer_range: a.init_std,
        pattern: a.pattern.clone(),
    }
}

fn rope_plan(r: &sema::Rope, shape: Option<&sema::Architecture>, context: u64) -> Option<RopePlan> {
    let theta = r.theta?;
    let head_dim = shape.and_then(|a| usize::try_from(a.head_dim).ok());
    let computable = head_dim.is_some() && rope::check(head_dim, theta, &r.scaling).is_ok();
    // The attention factor of every method needs no head dimension.
    let frequencies =
        rope::inv_freq(head_dim.filter(|_| computable).unwrap_or(64), theta, &r.scaling, context);
    Some(RopePlan {
        method: r.method.to_owned(),
        theta,
        factor: r.scaling.factor(),
        original: r.scaling.original(),
        attention_factor: frequencies.attention_factor,
        inv_freq: if computable { frequencies.inv_freq } else { Vec::new() },
        scaling: r.scaling.clone(),
    })
}

fn stage(curriculum: &Curriculum, s: &sema::Stage) -> StagePlan {
    let batch: Vec<u64> = s.phases.iter().map(|p| p.sequences * p.context).collect();
    StagePlan {
        name: s.name.clone(),
        doc: s.doc.clone(),
        from: sema::place_name(curriculum, &s.from),
        from_kind: match s.from {
            sema::From::Model(_) => FromKind::Model,
            sema::From::Stage(_) => FromKind::Stage,
            sema::From::Checkpoint(..) => FromKind::Checkpoint,
            sema::From::Soup(_) => FromKind::Soup,
        },
        tokens: s.tokens,
        steps: s.steps,
        overshoot_tokens: s.overshoot,
        start_tokens: s.start_tokens,
        lr: LrPlan { start: s.lr.value(0), end: s.lr.end_value(), peak: peak(&s.lr), curve: s.lr.clone() },
        batch_tokens: BatchPlan {
            start: batch.first().copied().unwrap_or(0),
            end: batch.last().copied().unwrap_or(0),
            min: batch.iter().copied().min().unwrap_or(0),
            max: batch.iter().copied().max().unwrap_or(0),
        },
        context: s.context.iter().map(|(at, value)| ContextPoint { at: *at, value: *value }).collect(),
        phases: s
            .phases
            .iter()
            .map(|p| Phase { step: p.step, tokens: p.tokens, sequences: p.sequences, context: p.context })
            .collect(),
        rope: s.rope.as_ref().and_then(|r| rope_plan(r, s.architecture.as_ref(), s.context_max())),
        mix: s.mix.iter().map(|p| portion(curriculum, s, p)).collect(),
        attention: match s.attention {
            "documents" => Attention::Documents,
            _ => Attention::Causal,
        },
        packing: match s.packing {
            "best_fit" => Packing::BestFit,
            _ => Packing::Concat,
        },
        optimizer: OptimizerPlan {
            muon: s.optimizer.muon.as_ref().map(|m| MuonPlan {
                momentum: m.momentum,
                nesterov: m.nesterov,
                ns_steps: m.ns_steps,
                update_rms: m.update_rms,
            }),
            betas: s.optimizer.betas,
            eps: s.optimizer.eps,
            weight_decay: s.optimizer.weight_decay,
            decay_embeddings: s.optimizer.decay_embeddings,
            decay_norms: s.optimizer.decay_norms,
            clip: s.optimizer.clip,
            z_loss: s.optimizer.z_loss,
        },
        state: match s.state {
            "weights_only" => State::WeightsOnly,
            _ => State::Keep,
        },
        precision: s.precision.map(|p| if p == "f32" { Precision::F32 } else { Precision::Bf16 }),
        data_seed: s.data_seed,
        init_seed: s.init_seed,
        save_every: s.save_every.map(|e| e.steps),
        save_every_tokens: s.save_every.and_then(|e| e.tokens),
        keep: s.keep,
        checkpoints: s
            .checkpoints
            .iter()
            .map(|c| CheckpointPlan {
                name: c.name.clone(),
                tokens: c.tokens,
                step: c.step,
                forever: c.forever,
            })
            .collect(),
        evals: s
            .evals
            .iter()
            .map(|e| EvalPlan {
                name: e.name.clone(),
                every_steps: e.every.map(|e| e.steps),
                every_tokens: e.every.and_then(|e| e.tokens),
                heldout: e.heldout,
                sources: e.sources.iter().map(|s| curriculum.sources[*s].name.clone()).collect(),
                heldout_tokens: e.heldout_tokens,
                needle: e.needle.clone(),
                choice: e.choice.clone(),
            })
            .collect(),
        gates: s
            .gates
            .iter()
            .map(|g| GatePlan {
                text: g.text.clone(),
                measure: gate_measure(&g.measure),
                argument: match g.sources.as_slice() {
                    [(source, _)] => curriculum.sources[*source].name.clone(),
                    _ => g.argument.clone(),
                },
                sources: match g.sources.as_slice() {
                    [_] => Vec::new(),
                    several => several
                        .iter()
                        .map(|(s, share)| GateSource {
                            source: curriculum.sources[*s].name.clone(),
                            share: *share,
                        })
                        .collect(),
                },
                op: comparison(g.op),
                bound: g.bound,
                relative_to_from: g.relative_to_from,
            })
            .collect(),
        assumed: s.assumed.clone(),
        inherited: s.inherited.iter().map(|f| (*f).to_owned()).collect(),
    }
}

fn gate_measure(name: &str) -> GateMeasure {
    match name {
        "needle" => GateMeasure::Needle,
        "loss" => GateMeasure::Loss,
        _ => GateMeasure::Choice,
    }
}

fn comparison(sign: &str) -> Comparison {
    match sign {
        "<=" => Comparison::AtMost,
        ">=" => Comparison::AtLeast,
        "<" => Comparison::Below,
        ">" => Comparison::Above,
        "==" => Comparison::Equal,
        _ => Comparison::Unequal,
    }
}

fn peak(lr: &Curve) -> f64 {
    lr.max()
}

fn portion(curriculum: &Curriculum, s: &sema::Stage, p: &sema::Portion) -> MixPlan {
    let source = &curriculum.sources[p.source];
    MixPlan {
        source: source.name.clone(),
        weight_mean: p.mean,
        weight_start: p.weight.value(0),
        weight_end: p.weight.value(s.tokens),
        tokens: p.tokens,
        epochs: curriculum.epochs(p.source, p.tokens),
        weight: p.weight.clone(),
    }
}

fn soup(curriculum: &Curriculum, s: &sema::Soup) -> SoupPlan {
    SoupPlan {
        name: s.name.clone(),
        doc: s.doc.clone(),
        method: s.method.to_owned(),
        ingredients: s.ingredients.iter().map(|f| sema::place_name(curriculum, f)).collect(),
        weights: s.weights.clone(),
    }
}

fn source(curriculum: &Curriculum, index: usize, drawn: u64) -> SourcePlan {
    let s = &curriculum.sources[index];
    SourcePlan {
        name: s.name.clone(),
        doc: s.doc.clone(),
        kind: s.kind.to_owned(),
        tokens: s.tokens,
        drawn_tokens: drawn,
        epochs: curriculum.epochs(index, drawn),
        path: s.path.clone(),
        text: s.text.clone(),
        filter: s.filter.clone(),
        max_epochs: Some(s.max_epochs),
        order: s.order.clone(),
        loss_on: s.loss_on.clone(),
        today: s.today.clone(),
        fim: s.fim.map(|(rate, style)| FimPlan { rate, style: style.to_owned() }),
        validation: s.validation,
        dedup: s.dedup,
        exclude: s.exclude.clone(),
    }
}
