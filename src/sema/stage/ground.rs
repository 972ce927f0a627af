//! What a stage starts from, and what it takes over from there.

use crate::diag::Diagnostic;
use crate::schema;
use crate::source::Span;

use crate::diag::codes;
use crate::sema::chain::Chain;
use crate::sema::checker::{Checker, Resolved};
use crate::sema::clock::BatchPiece;
use crate::sema::curriculum::{Architecture, Curriculum, From, Optimizer, Rope};
use crate::sema::eval::Scope;
use crate::sema::fields::Fields;
use crate::sema::mix::{Amount, Flat};
use crate::sema::numeric::Inherited;
use crate::sema::value::{Entity, Kind, Val};

/// What a finished stage leaves to those that start from it.
#[derive(Clone, Debug)]
pub(crate) struct Legacy {
    pub(crate) batch: Vec<BatchPiece>,
    pub(crate) mix: Flat,
}

impl Legacy {
    /// The piece of the batch curve that holds at a token.
    pub(crate) fn batch_piece(&self, at: u64) -> BatchPiece {
        self.batch[self.batch.partition_point(|p| p.start <= at).saturating_sub(1)]
    }
}

/// What a stage can take over.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    pub(super) lr: Inherited,
    pub(super) mix: Option<Flat>,
    /// Batch: value and whether it counts rows.
    pub(super) batch: Option<(u64, bool)>,
    pub(super) context: Option<u64>,
    pub(super) rope: Option<Rope>,
    pub(super) theta: Option<f64>,
    pub(super) attention: Option<&'static str>,
    pub(super) packing: Option<&'static str>,
    pub(super) optimizer: Option<Optimizer>,
    pub(super) precision: Option<&'static str>,
    pub(super) architecture: Option<Architecture>,
    pub(super) root: Option<usize>,
    pub(super) start_tokens: u64,
    /// Fields whose value is assumed there.
    pub(super) assumed: Vec<String>,
}

impl<'p> Checker<'p> {
    /// A field as a chain, or the inherited value as a chain without segments.
    pub(super) fn chain_or<T>(
        &mut self,
        fields: &Fields<'p>,
        field: &str,
        scope: &Scope<'p>,
        inherited: Option<T>,
        value: impl Fn(T, Span) -> Val<'p>,
    ) -> Option<Chain<'p>> {
        match self.field(fields, field, scope) {
            Some(v) => self.chain(&v, field),
            None => {
                let span = fields.entry("from").map_or(Span::new(crate::source::FileId(0), 0, 0), |e| e.span);
                inherited.map(|v| Chain {
                    start: value(v, span),
                    segments: Vec::new(),
                    truncated: false,
                    span,
                })
            }
        }
    }

    /// What a stage or soup starts from; exactly one thing.
    pub(super) fn from(&mut self, value: &Val<'p>) -> Option<From> {
        let places = match &value.kind {
            Kind::Poison => return None,
            Kind::Entity(entity) => self.places(*entity, value.span)?,
            Kind::List(list) if is_members(list) => {
                let mut places = Vec::new();
                for member in list.iter() {
                    let Kind::Entity(entity) = member.kind else { continue };
                    places.extend(self.places(entity, value.span)?);
                }
                places
            }
            _ => {
                self.wrong(value, schema::Ty::From, "from");
                return None;
            }
        };
        match places.as_slice() {
            [one] => Some(one.clone()),
            many => {
                let names: Vec<String> = many.iter().take(3).map(|f| self.place_name(f)).collect();
                self.push(
                    Diagnostic::error(
                        codes::STAGE_FROM,
                        value.span,
                        format!("a stage cannot start from {} stages at once", many.len()),
                        format!("this is {} members", many.len()),
                    )
                    .help(format!(
                        "name one of them, such as `{}`, or average them: `soup NAME = average(…)`",
                        names[0]
                    )),
                );
                None
            }
        }
    }

    /// Everything a reference stands for.
    pub(crate) fn places(&mut self, entity: Entity, span: Span) -> Option<Vec<From>> {
        match entity {
            Entity::Model(id) => match self.resolved[id.index()] {
                Resolved::Model(i) => Some(vec![From::Model(i)]),
                _ => None,
            },
            Entity::Stage(id) => match &self.resolved[id.index()] {
                Resolved::Stage(members) => Some(members.iter().map(|m| From::Stage(*m)).collect()),
                _ => None,
            },
            Entity::Member(m) => Some(vec![From::Stage(m)]),
            Entity::Checkpoint(m, c) => Some(vec![From::Checkpoint(m, c)]),
            Entity::Soup(id) => match self.resolved[id.index()] {
                Resolved::Soup(i) => Some(vec![From::Soup(i)]),
                _ => None,
            },
            Entity::Source(_) | Entity::Mix(_) | Entity::StageMix(_) | Entity::ModelMix(_) => {
                let value = Val { kind: Kind::Entity(entity), span };
                self.wrong(&value, schema::Ty::From, "from");
                None
            }
        }
    }

    /// As the plan spells it.
    pub(crate) fn place_name(&self, from: &From) -> String {
        place_name(&self.out, from)
    }

    pub(super) fn ground(&self, from: &From, span: Span) -> Ground {
        match from {
            From::Model(i) => {
                let m = &self.out.models[*i];
                let value = if m.fresh { None } else { m.lr };
                Ground {
                    lr: Inherited {
                        value,
                        reason: if m.fresh {
                            format!("model `{}` is fresh", m.name)
                        } else {
                            format!("model `{}` does not say its learning rate", m.name)
                        },
                        help: if m.fresh {
                            "a fresh model has none; start with a value: `0 then linear(to: 3e-4, over: 1% of stage) then …`".to_owned()
                        } else {
                            format!("write `lr = …` into model `{}`, or start with a value", m.name)
                        },
                        span,
                    },
                    mix: None,
                    batch: None,
                    context: m.context,
                    rope: None,
                    theta: m.rope.as_ref().and_then(|r| r.theta),
                    attention: None,
                    packing: None,
                    optimizer: None,
                    precision: None,
                    architecture: m.architecture.clone(),
                    root: Some(*i),
                    start_tokens: m.seen.unwrap_or(0),
                    assumed: Vec::new(),
                }
            }
            From::Stage(i) => self.stage_ground(*i, None, span),
            From::Checkpoint(i, c) => {
                self.stage_ground(*i, Some(self.out.stages[*i].checkpoints[*c].step), span)
            }
            From::Soup(i) => {
                let soup = &self.out.soups[*i];
                let grounds: Vec<Ground> = soup.ingredients.iter().map(|f| self.ground(f, span)).collect();
                let rates: Vec<Option<f64>> = grounds.iter().map(|g| g.lr.value).collect();
                let agree = rates.windows(2).all(|w| w[0] == w[1]);
                let start = grounds.iter().map(|g| g.start_tokens).max().unwrap_or(0);
                let name = soup.name.clone();
                let Some(mut first) = grounds.into_iter().next() else {
                    return self.ground(&From::Model(0), span);
                };
                first.start_tokens = start;
                if !agree {
                    first.lr = Inherited {
                        value: None,
                        reason: format!("the ingredients of `{name}` end at different learning rates"),
                        help: "start with a value".to_owned(),
                        span,
                    };
                }
                first
            }
        }
    }

    pub(super) fn stage_ground(&self, index: usize, step: Option<u64>, span: Span) -> Ground {
        let s = &self.out.stages[index];
        let legacy = &self.legacies[index];
        let at = step.map_or(s.drawn(), |step| s.tokens_at(step)).min(s.drawn());
        let piece = legacy.batch_piece(at);
        let batch = if piece.end == u64::MAX || at >= piece.end {
            Some((piece.to, piece.rows))
        } else {
            let p = s.phases[s.phases.partition_point(|p| p.tokens <= at).saturating_sub(1)];
            Some(if piece.rows { (p.sequences, true) } else { (p.sequences * p.context, false) })
        };
        let mix = legacy.mix.iter().map(|(source, amount)| {
            let amount = match amount {
                Amount::Exact(n) => Amount::Exact(*n),
                Amount::Moving(b) => Amount::Moving(crate::curve::Blend::constant(b.value(at.min(s.tokens)))),
            };
            (*source, amount)
        });
        let context = s.context[s.context.partition_point(|(p, _)| *p <= at).saturating_sub(1)].1;
        let model_theta = s.root.and_then(|m| self.out.models[m].rope.as_ref()).and_then(|r| r.theta);
        Ground {
            lr: Inherited {
                value: Some(s.lr.value(at.min(s.tokens))),
                reason: String::new(),
                help: String::new(),
                span,
            },
            mix: Some(mix.collect::<Vec<_>>().into()),
            batch,
            context: Some(context),
            rope: s.rope.clone(),
            theta: s.rope.as_ref().and_then(|r| r.theta).or(model_theta),
            attention: Some(s.attention),
            packing: Some(s.packing),
            optimizer: Some(s.optimizer.clone()),
            precision: s.precision,
            architecture: s.architecture.clone(),
            root: s.root,
            start_tokens: s.start_tokens + at,
            assumed: s.assumed.clone(),
        }
    }
}

/// As the plan spells it.
pub(crate) fn place_name(out: &Curriculum, from: &From) -> String {
    match from {
        From::Model(i) => out.models[*i].name.clone(),
        From::Stage(i) => out.stages[*i].name.clone(),
        From::Checkpoint(i, c) => format!("{}.{}", out.stages[*i].name, out.stages[*i].checkpoints[*c].name),
        From::Soup(i) => out.soups[*i].name.clone(),
    }
}

/// Whether a list holds members of a fan-out.
fn is_members(list: &[Val<'_>]) -> bool {
    list.iter().all(|value| matches!(value.kind, Kind::Entity(Entity::Member(_))))
}
