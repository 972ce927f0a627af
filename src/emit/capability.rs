//! What each engine has a word for: a table of features, how to find them in a plan, and what the
//! engines make of them. One row per feature; the manual's table is written from it.

use super::{Engine, Finding, Kind, Place, hf, megatron_bridge, olmo_core};
use crate::plan::{Attention, FromKind, ModelPlan, Packing, Plan, RopePlan, SoupPlan, StagePlan, State};
use crate::rope::RopeScaling;

/// What an engine makes of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It does the same.
    Yes,
    /// The run is the same, but this is left out; what to do instead.
    Drops(&'static str),
    /// It does the same on a condition that midc cannot see.
    OnlyIf(&'static str),
    /// It trains the same and judges nothing, so that it goes on where the run would halt; what to do instead.
    Unjudged(&'static str),
    /// It cannot; the nearest thing it can do.
    No(&'static str),
}

/// A use of a feature: where, and what is to be seen there.
#[derive(Clone, Debug)]
pub struct Use {
    place: Place,
    label: String,
}

/// A row of [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct Capability {
    /// The feature, as in "the engine has no …".
    pub feature: &'static str,
    /// Its uses in a plan.
    pub uses: fn(&Plan) -> Vec<Use>,
    /// What transformers makes of it.
    pub transformers: Answer,
    /// What OLMo-core makes of it.
    pub olmo_core: Answer,
    /// What torchtitan makes of it.
    pub torchtitan: Answer,
    /// What Megatron-Bridge makes of it.
    pub megatron_bridge: Answer,
}

impl Capability {
    /// What `engine` makes of it.
    pub fn answer(&self, engine: Engine) -> Answer {
        match engine {
            Engine::Transformers => self.transformers,
            Engine::OlmoCore => self.olmo_core,
            Engine::Torchtitan => self.torchtitan,
            Engine::MegatronBridge => self.megatron_bridge,
        }
    }
}

use Answer::{Drops, No, OnlyIf, Unjudged, Yes};

const SPLIT_CONTEXT: Answer =
    No("split the stage where the context changes: a launch has rows of one length");
const SPLIT_BATCH: Answer = No("split the stage where the batch changes: a launch has one batch size");
const ROPE: Answer = No("use `rope`, `abf`, `pi`, `yarn` or `llama3`, or emit for `transformers`");
const MEASURE: Answer = Drops("run `midc eval` on the exported checkpoints");
const GATE: Answer =
    Unjudged("hold the exported checkpoint to it with `midc eval`, and launch with `-A gate_left_out`");
const AVERAGE: Answer =
    Drops("convert the checkpoints that go in to Hugging Face and average them with `midc soup`");

/// What OLMo-core exports to Hugging Face.
const OLMO: [&str; 2] = ["olmo2", "olmo3"];

/// Every feature that not all engines have.
pub const TABLE: &[Capability] = &[
    Capability {
        feature: "context that changes inside a stage",
        uses: |plan| stages(plan, "context", changes(|p| p.context, "tokens per row")),
        transformers: Yes,
        olmo_core: SPLIT_CONTEXT,
        torchtitan: SPLIT_CONTEXT,
        megatron_bridge: SPLIT_CONTEXT,
    },
    Capability {
        feature: "batch that changes inside a stage",
        uses: |plan| {
            stages(plan, "batch", |s| {
                // A batch in tokens changes its rows with the context, which is the row above.
                let contexts: Vec<u64> = s.phases.iter().map(|p| p.context).collect();
                if contexts.windows(2).all(|w| w[0] == w[1]) {
                    changes(|p| p.sequences, "rows per step")(s)
                } else {
                    None
                }
            })
        },
        transformers: Yes,
        olmo_core: SPLIT_BATCH,
        torchtitan: SPLIT_BATCH,
        megatron_bridge: SPLIT_BATCH,
    },
    Capability {
        feature: "mixture that changes inside a stage",
        uses: |plan| {
            stages(plan, "mix", |s| {
                let moves = s.mix.iter().any(|m| m.weight.as_constant().is_none());
                moves.then(|| "the weights move".to_owned())
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: No(
            "split the stage where the mixture changes, or emit for `transformers` or `olmo-core`",
        ),
        megatron_bridge: No(
            "split the stage where the mixture changes, or emit for `transformers` or `olmo-core`",
        ),
    },
    Capability {
        feature: "learning rate of this shape",
        uses: |plan| {
            stages(plan, "lr", |s| {
                megatron_bridge::schedule(s)
                    .is_none()
                    .then(|| "more than a warm-up, a plateau and a decay, or of another shape".to_owned())
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: No("split the stage, or use a linear warm-up, a plateau and one decay"),
    },
    Capability {
        feature: "optimizer state carried into the next stage",
        uses: |plan| {
            let keeps = |s: &&StagePlan| {
                matches!(s.from_kind, FromKind::Stage | FromKind::Checkpoint) && s.state == State::Keep
            };
            let stages = plan.stages.iter().filter(keeps);
            stages
                .map(|s| at(Place::Stage(s.name.clone(), "state"), format!("goes on from `{}`", s.from)))
                .collect()
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: No("write `state = weights_only` and a warm-up"),
    },
    Capability {
        feature: "planned order of the data",
        uses: |plan| stages(plan, "data_seed", |s| Some(format!("order {} is midc's own", s.data_seed))),
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: Drops("Megatron draws by the weights, in an order of its own"),
    },
    Capability {
        feature: "attention that stops at documents",
        uses: |plan| {
            stages(plan, "attention", |s| {
                (s.attention == Attention::Documents).then(|| "attention within documents".to_owned())
            })
        },
        transformers: Yes,
        olmo_core: OnlyIf("it needs flash-attention on a GPU, and the launch asks for that"),
        torchtitan: No("use `attention = causal`"),
        megatron_bridge: No("use `attention = causal`, or emit for `transformers`"),
    },
    Capability {
        feature: "best-fit packing",
        uses: |plan| {
            stages(plan, "packing", |s| {
                (s.packing == Packing::BestFit).then(|| "whole documents where they fit".to_owned())
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: No("use `packing = concat`"),
    },
    Capability {
        feature: "mean of the loss over all targets of a step where rows have different numbers of them",
        uses: |plan| {
            stages(plan, "mix", |s| {
                let masked =
                    |name: &str| plan.sources.iter().any(|p| p.name == name && !p.loss_on.is_empty());
                let marked = s.attention == Attention::Documents || s.mix.iter().any(|m| masked(&m.source));
                marked.then(|| "rows have different numbers of targets".to_owned())
            })
        },
        transformers: Yes,
        olmo_core: Drops("OLMo-core takes the mean of every process, then the mean of those"),
        torchtitan: Yes,
        megatron_bridge: Yes,
    },
    Capability {
        feature: "loss on some fields only",
        uses: |plan| {
            stages(plan, "mix", |s| {
                let masked =
                    |name: &str| plan.sources.iter().any(|p| p.name == name && !p.loss_on.is_empty());
                let source = s.mix.iter().find(|m| masked(&m.source))?;
                Some(format!("`{}` has `loss_on`", source.source))
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: No("emit for `transformers` or `olmo-core`"),
        megatron_bridge: No("emit for `transformers` or `olmo-core`"),
    },
    Capability {
        feature: "z-loss",
        uses: |plan| {
            stages(plan, "optimizer", |s| {
                s.optimizer.z_loss.filter(|z| *z > 0.0).map(|z| format!("`z_loss: {z}`"))
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: No("leave `z_loss` out"),
        megatron_bridge: No("leave `z_loss` out"),
    },
    Capability {
        feature: "embedding without weight decay",
        uses: |plan| {
            stages(plan, "optimizer", |s| {
                let o = &s.optimizer;
                (!o.decay_embeddings && o.weight_decay > 0.0).then(|| "`decay_embeddings: no`".to_owned())
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: No("leave `decay_embeddings` out: Megatron spares norms and biases only"),
    },
    Capability {
        feature: "Muon",
        uses: |plan| stages(plan, "optimizer", |s| s.optimizer.muon.as_ref().map(|_| "`muon(…)`".to_owned())),
        transformers: Yes,
        olmo_core: No("emit for `transformers`"),
        torchtitan: No("emit for `transformers`"),
        megatron_bridge: No("emit for `transformers`"),
    },
    Capability {
        feature: "weight decay of norms",
        uses: |plan| {
            stages(plan, "optimizer", |s| {
                let o = &s.optimizer;
                (o.decay_norms && o.weight_decay > 0.0).then(|| "`decay_norms: yes`".to_owned())
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: No("leave `decay_norms` out: Megatron spares norms and biases"),
    },
    Capability {
        feature: "GGUF checkpoint",
        uses: |plan| {
            let is_gguf = |path: &String| path.to_ascii_lowercase().ends_with(".gguf");
            let models = plan.models.iter().filter(|m| m.checkpoint.as_ref().is_some_and(is_gguf));
            models.map(|m| at(Place::Model(m.name.clone(), "checkpoint"), "a GGUF file".to_owned())).collect()
        },
        transformers: No("name the Hugging Face directory the file was made from"),
        olmo_core: No("name the Hugging Face directory the file was made from"),
        torchtitan: No("name the Hugging Face directory the file was made from"),
        megatron_bridge: No("name the Hugging Face directory the file was made from"),
    },
    Capability {
        feature: "checkpoint of a model",
        uses: |plan| {
            let models = plan.models.iter().filter_map(|m| Some((m, m.checkpoint.as_ref()?)));
            models
                .map(|(m, path)| {
                    at(Place::Model(m.name.clone(), "checkpoint"), format!("the shape of `{path}`"))
                })
                .collect()
        },
        transformers: Yes,
        olmo_core: OnlyIf(
            "its `model_type` is `olmo2` or `olmo3`; the launch refuses others, which OLMo-core cannot export",
        ),
        torchtitan: OnlyIf("it is a `llama` of the FLAVOR you name of torchtitan's registry"),
        megatron_bridge: OnlyIf("Megatron-Bridge can read its `model_type`"),
    },
    Capability {
        feature: "fresh weights",
        uses: |plan| {
            let models = plan.models.iter().filter(|m| m.init.is_some());
            models
                .map(|m| at(Place::Model(m.name.clone(), "init"), "a model from nothing".to_owned()))
                .collect()
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: No("name a Hugging Face directory as `checkpoint`"),
        megatron_bridge: No("name a Hugging Face directory as `checkpoint`"),
    },
    Capability {
        feature: "fresh weights of another shape than OLMo",
        uses: |plan| {
            let fresh =
                |m: &&ModelPlan| m.init.as_ref().is_some_and(|i| !OLMO.contains(&i.model_type.as_str()));
            let models = plan.models.iter().filter(fresh);
            models
                .map(|m| {
                    let kind = m.init.as_ref().map_or("", |i| i.model_type.as_str());
                    at(Place::Model(m.name.clone(), "init"), format!("a `{kind}` from nothing"))
                })
                .collect()
        },
        transformers: Yes,
        olmo_core: No(
            "use `olmo2(…)` or `olmo3(…)`, the shapes OLMo-core exports to Hugging Face, or emit for `transformers`",
        ),
        torchtitan: Yes,
        megatron_bridge: Yes,
    },
    Capability {
        feature: "RoPE of a checkpoint whose `config.json` is not there",
        uses: |plan| {
            let unknown = |s: &&StagePlan| hf::effective_rope(plan, s).is_none();
            let mut models: Vec<&ModelPlan> = Vec::new();
            for (model, _) in plan.stages.iter().filter(unknown).filter_map(|s| plan.lineage(s)) {
                if !models.iter().any(|m| m.name == model.name) {
                    models.push(model);
                }
            }
            let place = |m: &&ModelPlan| Place::Model(m.name.clone(), "checkpoint");
            models.iter().map(|m| at(place(m), "what it rotates by is not known here".to_owned())).collect()
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: No(
            "put the checkpoint's `config.json` in its place, or write `rope` in the model or the stage",
        ),
        megatron_bridge: OnlyIf(
            "Megatron-Bridge reads it as it is: it passes over `longrope` and takes 8Ki for the original length of `llama3`",
        ),
    },
    Capability {
        feature: "RoPE by this method",
        uses: |plan| ropes(plan, |_, rope| (!common(&rope.scaling)).then(|| format!("`{}`", rope.method))),
        transformers: Yes,
        olmo_core: ROPE,
        torchtitan: ROPE,
        megatron_bridge: ROPE,
    },
    Capability {
        feature: "`llama3` with bands or an original length of its own",
        uses: |plan| {
            ropes(plan, |_, rope| {
                let RopeScaling::Llama3 { low, high, original, .. } = rope.scaling else { return None };
                (low != 1.0 || high != 4.0 || original != 8192)
                    .then(|| format!("low {low}, high {high}, original {original}"))
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: No("the engine has low 1, high 4 and original 8Ki built in: use those, or `yarn`"),
    },
    Capability {
        feature: "position interpolation",
        uses: |plan| {
            ropes(plan, |_, rope| matches!(rope.scaling, RopeScaling::Pi { .. }).then(|| "`pi`".to_owned()))
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: No("use `yarn` or `llama3`, or emit for `transformers`"),
        megatron_bridge: Yes,
    },
    Capability {
        feature: "YaRN",
        uses: |plan| {
            ropes(plan, |_, rope| {
                matches!(rope.scaling, RopeScaling::Yarn { .. })
                    .then(|| format!("the attention factor is {}", rope.attention_factor))
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: OnlyIf(
            "the model has the attention factor in its softmax scale: torchtitan sets frequencies only",
        ),
        megatron_bridge: Yes,
    },
    Capability {
        feature: "attention factor of its own beside YaRN",
        uses: |plan| ropes(plan, |_, rope| own_attention_factor(rope).filter(|_| !factor_set_outright(rope))),
        transformers: Yes,
        olmo_core: No("leave `mscale` and `mscale_all_dim` out: the engine always takes 0.1·ln(factor) + 1"),
        torchtitan: No("leave `mscale` and `mscale_all_dim` out: the engine always takes 0.1·ln(factor) + 1"),
        megatron_bridge: Yes,
    },
    Capability {
        feature: "`attention_factor` set outright",
        uses: |plan| ropes(plan, |_, rope| own_attention_factor(rope).filter(|_| factor_set_outright(rope))),
        transformers: Yes,
        olmo_core: No("leave it out: the engine always takes 0.1·ln(factor) + 1"),
        torchtitan: No("leave it out: the engine always takes 0.1·ln(factor) + 1"),
        megatron_bridge: No("write `mscale` and `mscale_all_dim`, whose quotient the engine takes"),
    },
    Capability {
        feature: "base that `ntk` comes to without a known head",
        uses: |plan| {
            ropes(plan, |s, rope| {
                let ntk = matches!(rope.scaling, RopeScaling::Ntk { .. });
                (ntk && hf::head_dim(plan, s).is_none())
                    .then(|| "the head dimension is not known here".to_owned())
            })
        },
        transformers: No("put the checkpoint's `config.json` in its place, or write `abf(theta: …)`"),
        olmo_core: No("put the checkpoint's `config.json` in its place, or write `abf(theta: …)`"),
        torchtitan: No("put the checkpoint's `config.json` in its place, or write `abf(theta: …)`"),
        megatron_bridge: No("put the checkpoint's `config.json` in its place, or write `abf(theta: …)`"),
    },
    Capability {
        feature: "gate",
        uses: |plan| {
            let gates = plan.stages.iter().filter_map(|s| Some((s, s.gates.first()?)));
            gates
                .map(|(s, g)| {
                    at(Place::Stage(s.name.clone(), "gate"), format!("`{}` would not be judged", g.text))
                })
                .collect()
        },
        transformers: GATE,
        olmo_core: GATE,
        torchtitan: GATE,
        megatron_bridge: GATE,
    },
    Capability {
        feature: "limit on the periodic checkpoints that stay (`keep`)",
        uses: |plan| stages(plan, "keep", |s| s.keep.map(|n| format!("{n} stay"))),
        transformers: Yes,
        olmo_core: Drops("all periodic checkpoints stay: delete them by hand"),
        torchtitan: Drops("all periodic checkpoints stay: delete them by hand"),
        megatron_bridge: Drops("all periodic checkpoints stay: delete them by hand"),
    },
    Capability {
        feature: "checkpoint at a step of its own",
        uses: |plan| {
            let own = |s: &&StagePlan, step: u64| {
                step > 0 && step < s.steps && s.save_every.is_none_or(|every| !step.is_multiple_of(every))
            };
            let named = plan.stages.iter().flat_map(|s| s.checkpoints.iter().map(move |c| (s, c)));
            named
                .filter(|(s, c)| own(s, c.step))
                .map(|(s, c)| {
                    at(
                        Place::Stage(s.name.clone(), "checkpoint"),
                        format!("`{}` comes after {} of {} steps", c.name, c.step, s.steps),
                    )
                })
                .collect()
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: No("write a `save_every` that falls on it, or split the stage there"),
        megatron_bridge: No("write a `save_every` that falls on it, or split the stage there"),
    },
    Capability {
        feature: "source that is changed as it is read",
        uses: |plan| {
            let drawn = |name: &str| {
                plan.stages
                    .iter()
                    .find_map(|s| s.mix.iter().any(|m| m.source == name).then(|| s.name.clone()))
            };
            let changed = |p: &&crate::plan::SourcePlan| {
                let field = [
                    (p.filter.is_some(), "where"),
                    (p.text.is_some(), "text"),
                    (p.fim.is_some(), "fim"),
                    (p.dedup, "dedup"),
                    (!p.exclude.is_empty(), "exclude"),
                    (p.order != "shuffled", "order"),
                ];
                field.into_iter().find_map(|(set, name)| set.then_some(name))
            };
            plan.sources
                .iter()
                .filter_map(|p| {
                    let place = Place::Stage(drawn(&p.name)?, "mix");
                    Some(at(place, format!("`{}` has `{}`", p.name, changed(&p)?)))
                })
                .collect()
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: OnlyIf(
            "its `SOURCE_text_document` is made from what that leaves: Megatron reads documents as they are",
        ),
    },
    Capability {
        feature: "precision of its own",
        uses: |plan| {
            stages(plan, "precision", |s| {
                matches!(s.precision, Some(crate::plan::Precision::F32)).then(|| "f32 throughout".to_owned())
            })
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: Yes,
        megatron_bridge: No(
            "leave `precision` out, since the launch trains in bf16, or emit for `transformers`",
        ),
    },
    Capability {
        feature: "`eval` during a stage",
        uses: |plan| {
            let evals = plan.stages.iter().filter_map(|s| Some((s, s.evals.first()?)));
            evals
                .map(|(s, e)| {
                    at(Place::Stage(s.name.clone(), "eval"), format!("`{}` is not measured", e.name))
                })
                .collect()
        },
        transformers: MEASURE,
        olmo_core: MEASURE,
        torchtitan: MEASURE,
        megatron_bridge: MEASURE,
    },
    Capability {
        feature: "soup that a stage starts from",
        uses: |plan| {
            let from_soup = |s: &&StagePlan| s.from_kind == FromKind::Soup;
            let stages = plan.stages.iter().filter(from_soup);
            stages
                .map(|s| at(Place::Stage(s.name.clone(), "from"), format!("`{}` is a soup", s.from)))
                .collect()
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: No("make the soup with `midc soup` and name the result as a model"),
        megatron_bridge: No("make the soup with `midc soup` and name the result as a model"),
    },
    Capability {
        feature: "soup that no stage starts from",
        uses: |plan| {
            let last = |soup: &&SoupPlan| {
                !plan.stages.iter().any(|s| s.from_kind == FromKind::Soup && s.from == soup.name)
            };
            let soups = plan.soups.iter().filter(last);
            soups
                .map(|s| at(Place::Soup(s.name.clone()), format!("`{}` is not made", s.describe())))
                .collect()
        },
        transformers: Yes,
        olmo_core: Yes,
        torchtitan: AVERAGE,
        megatron_bridge: AVERAGE,
    },
];

/// The attention factor, where it is not the one that YaRN comes with.
fn own_attention_factor(rope: &RopePlan) -> Option<String> {
    let RopeScaling::Yarn { factor, .. } = rope.scaling else { return None };
    let standard = 0.1 * factor.ln() + 1.0;
    ((rope.attention_factor - standard).abs() > 1e-9)
        .then(|| format!("the attention factor is {}, not {standard}", rope.attention_factor))
}

fn factor_set_outright(rope: &RopePlan) -> bool {
    matches!(rope.scaling, RopeScaling::Yarn { attention_factor: Some(_), .. })
}

fn common(scaling: &RopeScaling) -> bool {
    matches!(
        scaling,
        RopeScaling::Default
            | RopeScaling::Pi { .. }
            | RopeScaling::Ntk { .. }
            | RopeScaling::Yarn { .. }
            | RopeScaling::Llama3 { .. }
    )
}

fn at(place: Place, label: String) -> Use {
    Use { place, label }
}

fn stages(plan: &Plan, field: &'static str, label: impl Fn(&StagePlan) -> Option<String>) -> Vec<Use> {
    let used = plan.stages.iter().filter_map(|s| Some((s, label(s)?)));
    used.map(|(s, label)| at(Place::Stage(s.name.clone(), field), label)).collect()
}

/// Uses of every RoPE that is trained with: where a stage writes it, and at its model where no stage on the way does.
fn ropes(plan: &Plan, label: impl Fn(&StagePlan, &RopePlan) -> Option<String>) -> Vec<Use> {
    let mut uses = stages(plan, "rope", |s| label(s, s.rope.as_ref()?));
    let mut seen: Vec<&str> = Vec::new();
    for stage in &plan.stages {
        let Some((model, on_the_way)) = plan.lineage(stage) else { continue };
        if on_the_way.iter().any(|s| s.rope.is_some()) || seen.contains(&model.name.as_str()) {
            continue;
        }
        seen.push(&model.name);
        let field = if model.checkpoint.is_some() { "checkpoint" } else { "rope" };
        let found = model.rope.as_ref().and_then(|rope| label(stage, rope));
        uses.extend(found.map(|label| at(Place::Model(model.name.clone(), field), label)));
    }
    uses
}

/// The label of a quantity that differs between phases.
fn changes(
    quantity: impl Fn(&crate::plan::Phase) -> u64,
    what: &'static str,
) -> impl Fn(&StagePlan) -> Option<String> {
    move |stage| {
        let first = quantity(stage.phases.first()?);
        let other = stage.phases.iter().find(|p| quantity(p) != first)?;
        Some(format!("{first} {what}, and {} from step {}", quantity(other), other.step))
    }
}

/// What of `plan` the engine has no word for, in the order of the table.
pub(super) fn findings(engine: Engine, plan: &Plan) -> Vec<Finding> {
    let mut out: Vec<Finding> = Vec::new();
    for row in TABLE {
        let (kind, help) = match row.answer(engine) {
            Yes => continue,
            Drops(help) | OnlyIf(help) => (Kind::Drops, help),
            Unjudged(help) => (Kind::Unjudged, help),
            No(help) => (Kind::Lacks, help),
        };
        let name = engine.name();
        let message = match row.answer(engine) {
            Drops(_) => format!("`{name}` leaves out: {}", row.feature),
            OnlyIf(_) => format!("`{name}` has this on a condition: {}", row.feature),
            _ => format!("`{name}` has no {}", row.feature),
        };
        out.extend((row.uses)(plan).into_iter().map(|found| Finding {
            kind,
            place: found.place,
            message: message.clone(),
            label: found.label,
            help: help.to_owned(),
        }));
    }
    if engine == Engine::OlmoCore {
        out.extend(plan.stages.iter().filter_map(|s| rope_mismatch(engine, s, s.rope.as_ref()?)));
    }
    out
}

/// What keeps `engine` from training checkpoints of these models, each with the `model_type` its configuration says. A
/// plan has no shapes of checkpoints: who has read the configurations adds this.
pub fn shapes<'a>(engine: Engine, models: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Finding> {
    let refused = |kind: &str| engine == Engine::Torchtitan && kind != "llama";
    let models = models.into_iter().filter(|(_, kind)| refused(kind));
    models
        .map(|(name, kind)| Finding {
            kind: Kind::Lacks,
            place: Place::Model(name.to_owned(), "checkpoint"),
            message: format!("the launch for `{}` has no `{kind}`", engine.name()),
            label: format!("a `{kind}`, and what the launch trains is a `llama`"),
            help: "start from one of Llama 3's flavors, or emit for `transformers`".to_owned(),
        })
        .collect()
}

/// Largest relative difference of a frequency that counts as the same.
const SAME: f64 = 1e-5;

/// Frequencies under the engine's own formula against the plan's.
fn rope_mismatch(engine: Engine, stage: &StagePlan, rope: &RopePlan) -> Option<Finding> {
    let theirs = olmo_core::inv_freq(rope)?;
    let worst = rope.inv_freq.iter().zip(&theirs).map(|(a, b)| ((a - b) / a).abs()).fold(0.0, f64::max);
    (worst > SAME).then(|| Finding {
        kind: Kind::RopeMismatch,
        place: Place::Stage(stage.name.clone(), "rope"),
        message: format!("`{}` computes other frequencies for this RoPE", engine.name()),
        label: format!("the worst differs by {worst:.1e} (relative)"),
        help: "use `llama3` or `abf`, whose formulas agree, or emit for `transformers`".to_owned(),
    })
}
