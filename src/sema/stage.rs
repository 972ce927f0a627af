//! `stage` blocks: fan-out, inheritance, the grid of steps, curves over it.

use crate::diag::Diagnostic;
use crate::schema;
use crate::source::Span;
use crate::syntax::ast::{self, Unit};

use super::attributes::has_assumed;
use super::chain::{Chain, Frame};
use super::checker::{Checker, Resolved};
use super::clock::{BatchPiece, Clock, Length};
use super::curriculum::{Architecture, From, Optimizer, Phase, Portion, Rope, Stage};
use super::eval::Scope;
use super::fields::Fields;
use super::mix::{Amount, Flat};
use super::numeric::Inherited;
use super::program::DefId;
use super::rope::RopeGround;
use super::show;
use super::value::{Entity, Kind, Val};
use crate::diag::codes;

/// A fan-out over more members than this is refused.
const MAX_MEMBERS: usize = 1000;

/// What a finished stage leaves to those that start from it.
#[derive(Clone, Debug)]
pub(crate) struct Legacy {
    pub(crate) batch: Vec<BatchPiece>,
    pub(crate) mix: Flat,
}

/// What a stage can take over.
#[derive(Clone, Debug)]
struct Ground {
    lr: Inherited,
    mix: Option<Flat>,
    /// Batch: value and whether it counts rows.
    batch: Option<(u64, bool)>,
    context: Option<u64>,
    rope: Option<Rope>,
    theta: Option<f64>,
    attention: Option<&'static str>,
    packing: Option<&'static str>,
    optimizer: Option<Optimizer>,
    precision: Option<&'static str>,
    architecture: Option<Architecture>,
    root: Option<usize>,
    start_tokens: u64,
    /// Fields whose value is assumed there.
    assumed: Vec<String>,
}

impl<'p> Checker<'p> {
    /// A `stage` block: its members.
    pub(crate) fn resolve_stage(
        &mut self,
        id: DefId,
        item: &'p ast::Item,
        block: &'p ast::Block,
        scope: &Scope<'p>,
    ) -> Vec<usize> {
        let Some(name) = &block.name else { return Vec::new() };
        let Some(fields) = self.fields(block) else { return Vec::new() };
        let Some(each) = &block.each else {
            let base = self.full_name(id);
            return self.member(id, item, block, name.span, &fields, scope, base, None).into_iter().collect();
        };
        let values = self.eval(&each.values, scope);
        let Kind::List(values) = &values.kind else {
            if !values.is_poison() {
                let found = values.describe();
                self.push(
                    Diagnostic::error(
                        codes::STAGE_EACH,
                        each.values.span,
                        format!("a fan-out over {found}"),
                        "a list is expected here",
                    )
                    .help(format!("write `stage {}[{} in [1, 2, 3]]`", name.text, each.var.text)),
                );
            }
            return Vec::new();
        };
        if values.is_empty() || values.len() > MAX_MEMBERS {
            self.push(Diagnostic::error(
                codes::STAGE_EACH,
                each.values.span,
                format!("a fan-out over {} values", values.len()),
                format!("between 1 and {MAX_MEMBERS} are possible"),
            ));
            return Vec::new();
        }
        let mut keys: Vec<String> = Vec::new();
        let mut members = Vec::new();
        for value in values.iter() {
            let key = super::params::print(value);
            if keys.contains(&key) {
                self.push(Diagnostic::error(
                    codes::STAGE_EACH,
                    value.span,
                    format!("`{key}` twice in one fan-out"),
                    "there is already a member with this value",
                ));
                continue;
            }
            let inner = Scope { local: Some((each.var.text.as_str(), value.clone())), ..scope.clone() };
            let base = self.full_name(id);
            members.extend(self.member(id, item, block, name.span, &fields, &inner, base, Some(key.clone())));
            keys.push(key);
        }
        // A fan-out with a broken member is broken as a whole: averages over it would be wrong.
        if members.len() == keys.len() { members } else { Vec::new() }
    }

    #[allow(clippy::too_many_arguments)]
    fn member(
        &mut self,
        id: DefId,
        item: &'p ast::Item,
        block: &'p ast::Block,
        name_span: Span,
        fields: &Fields<'p>,
        scope: &Scope<'p>,
        base: String,
        key: Option<String>,
    ) -> Option<usize> {
        let complete = !block.incomplete && self.require(fields, block);
        let from_value = self.field(fields, "from", scope)?;
        let from = self.from(&from_value);
        let ground = from.as_ref().map(|f| self.ground(f, from_value.span));
        let mut inherited: Vec<&'static str> = Vec::new();
        let length = self.length(fields, scope, name_span);

        // Context and batch, then the grid.
        let spans = fields.spans();
        let length_span = spans.get("tokens").or(spans.get("steps")).copied().unwrap_or(name_span);
        let frame = Frame {
            field: "context",
            tokens: match length {
                Some(Length::Tokens(n)) => n,
                _ => 0,
            },
            length_span,
            clock: None,
            lr: None,
            total: self.total,
        };
        let context_chain =
            self.chain_or(fields, "context", scope, ground.as_ref().and_then(|g| g.context), |v, span| Val {
                kind: Kind::Number(ast::Rational::from_integer(i128::from(v))),
                span,
            });
        let batch_chain = self.chain_or(
            fields,
            "batch",
            scope,
            ground.as_ref().and_then(|g| g.batch),
            |(v, rows), span| {
                let unit = if rows { Unit::Seqs } else { Unit::Tokens };
                Val { kind: Kind::Quantity(ast::Rational::from_integer(i128::from(v)), unit), span }
            },
        );
        let mix_value = self.field(fields, "mix", scope);
        if let Some(g) = &ground {
            let mut gaps = Vec::new();
            for (name, gap) in [
                ("context", context_chain.is_none() && g.context.is_none()),
                ("batch", batch_chain.is_none() && g.batch.is_none()),
                ("mix", mix_value.is_none() && g.mix.is_none()),
            ] {
                if gap && fields.get(name).is_none() {
                    gaps.push(name);
                } else if fields.get(name).is_none() {
                    inherited.push(name);
                }
            }
            if !gaps.is_empty() && !fields.doubtful && complete {
                let list = gaps.iter().map(|g| format!("`{g}`")).collect::<Vec<_>>().join(" and ");
                self.push(
                    Diagnostic::error(
                        codes::STAGE_NOTHING_INHERITED,
                        name_span,
                        format!("stage `{base}` has no {list}"),
                        format!("{list} must be written here"),
                    )
                    .label(from_value.span, "there is nothing to inherit from this")
                    .help("only what starts from another stage inherits them"),
                );
            }
        }
        let context = match (&context_chain, length) {
            (Some(chain), Some(_)) => self.context(chain, frame),
            _ => None,
        };
        let pieces = match (&batch_chain, &context) {
            (Some(chain), Some(context)) => self.batch(chain, context, Frame { field: "batch", ..frame }),
            // The grid of steps has its own trouble; the batch's values speak for themselves.
            (Some(chain), None) => self.batch_values(chain),
            _ => None,
        };
        let clock = match (&pieces, &context, length) {
            (Some(pieces), Some(context), Some(length)) => {
                let batch_span = batch_chain.as_ref().map_or(name_span, |c| c.span);
                match Clock::lay(length, context, pieces) {
                    Ok(clock) => Some(clock),
                    Err(misfit) => self.misfit(misfit, batch_span, context_chain.as_ref().map(|c| c.span)),
                }
            }
            _ => None,
        };

        // Curves over the grid.
        let mut lr = None;
        let mut truncated = false;
        if let (Some(value), Some(clock), Some(ground)) = (self.field(fields, "lr", scope), &clock, &ground)
            && let Some(chain) = self.chain(&value, "lr")
        {
            truncated = chain.truncated;
            let frame = Frame { field: "lr", tokens: clock.tokens, clock: Some(clock), ..frame };
            lr = self.lr(&chain, frame, &ground.lr);
        }
        let mut mix = None;
        if let Some(clock) = &clock {
            let frame = Frame {
                field: "mix",
                tokens: clock.tokens,
                clock: Some(clock),
                lr: lr.as_ref().map(|(c, _)| c),
                ..frame
            };
            mix = match &mix_value {
                Some(value) if matches!(value.kind, Kind::Poison) => None,
                Some(value) => self.flatten(value, Some(frame)),
                None => ground.as_ref().and_then(|g| g.mix.clone()),
            };
        }

        // The rest.
        let ground_rope = ground.as_ref().map_or(RopeGround::default(), |g| RopeGround {
            theta: g.theta,
            head_dim: g.architecture.as_ref().map(|a| a.head_dim),
            context: context.as_ref().and_then(|c| c.iter().map(|p| p.1).max()),
        });
        let mut sound = complete;
        let rope = match self.field(fields, "rope", scope) {
            Some(value) => {
                let rope = self.rope(&value, ground_rope);
                sound &= rope.is_some();
                rope
            }
            None => {
                let rope = ground.as_ref().and_then(|g| g.rope.clone());
                if rope.is_some() {
                    inherited.push("rope");
                }
                rope
            }
        };
        macro_rules! word {
            ($field:ident, $words:expr) => {
                match self.field(fields, stringify!($field), scope) {
                    Some(value) => {
                        let word = self.word(&value, $words, stringify!($field));
                        sound &= word.is_some();
                        word
                    }
                    None => {
                        ground.as_ref().and_then(|g| g.$field).inspect(|_| inherited.push(stringify!($field)))
                    }
                }
            };
        }
        let attention = word!(attention, schema::ATTENTION).unwrap_or("causal");
        let packing = word!(packing, schema::PACKING).unwrap_or("concat");
        let precision = word!(precision, schema::PRECISION);
        let state = match self.field(fields, "state", scope) {
            Some(value) => {
                let word = self.word(&value, schema::STATE, "state");
                sound &= word.is_some();
                word.unwrap_or("keep")
            }
            None => "keep",
        };
        let optimizer =
            self.optimizer(fields, scope, ground.as_ref().and_then(|g| g.optimizer.clone()), &mut inherited);
        macro_rules! whole {
            ($field:literal) => {
                match self.field(fields, $field, scope) {
                    Some(value) => {
                        let n = self.whole(&value, $field);
                        sound &= n.is_some();
                        n
                    }
                    None => None,
                }
            };
        }
        let data_seed = whole!("data_seed").unwrap_or(0);
        let init_seed = whole!("init_seed").unwrap_or(0);
        let keep = whole!("keep");
        let clock = clock?;
        let frame = Frame { tokens: clock.tokens, clock: Some(&clock), ..frame };
        let save_every = match self.field(fields, "save_every", scope) {
            Some(value) => {
                let steps = self.every(&value, "save_every", frame);
                sound &= steps.is_some();
                steps
            }
            None => None,
        };
        let name = key.as_ref().map_or_else(|| base.clone(), |k| format!("{base}[{k}]"));
        let checkpoints = self.checkpoints(block, scope, frame);
        let (evals, evals_sound) = self.evals(block, scope, frame);
        let gates = self.gates(block, scope);
        let (from, ground) = (from?, ground?);
        let ((lr, lr_spans), mix, pieces, optimizer) = (lr?, mix?, pieces?, optimizer?);
        let (checkpoints, gates) = (checkpoints?, gates?);
        if !sound || !evals_sound {
            return None;
        }
        let total = clock.tokens + clock.overshoot;
        let mix_shares = portions(&mix, &clock, total);
        // Marked itself, with the whole stage, through a named value, or where it is inherited from.
        let whole = has_assumed(&item.preface);
        let mut assumed: Vec<String> = fields
            .iter()
            .filter(|(name, entry, value)| {
                has_assumed(&entry.preface)
                    || *name != "from" && (whole || self.mentions_assumed(value, scope))
            })
            .map(|(name, ..)| name.to_owned())
            .collect();
        assumed.extend(inherited.iter().map(|n| (*n).to_owned()).filter(|n| ground.assumed.contains(n)));
        assumed.sort();
        let model_theta = ground.theta;
        let rope = rope.map(|r| Rope { theta: r.theta.or(model_theta), ..r });
        self.out.stages.push(Stage {
            name,
            base,
            key,
            span: name_span,
            item: item.span,
            from,
            tokens: clock.tokens,
            steps: clock.steps,
            overshoot: clock.overshoot,
            start_tokens: ground.start_tokens,
            lr,
            lr_spans,
            lr_truncated: truncated,
            context: context?,
            phases: clock.phases,
            rope,
            mix: mix_shares,
            attention,
            packing,
            optimizer,
            state,
            precision,
            data_seed,
            init_seed,
            save_every,
            keep,
            checkpoints,
            evals,
            gates,
            assumed,
            inherited,
            architecture: ground.architecture,
            root: ground.root,
            fields: spans,
        });
        self.legacies.push(Legacy { batch: pieces, mix });
        self.member_defs.push(id);
        Some(self.out.stages.len() - 1)
    }

    /// A field as a chain, or the inherited value as a chain without segments.
    fn chain_or<T>(
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
    fn from(&mut self, value: &Val<'p>) -> Option<From> {
        let Kind::Entity(entity) = value.kind else {
            if !value.is_poison() {
                self.wrong(value, schema::Ty::From, "from");
            }
            return None;
        };
        match self.places(entity, value.span)?.as_slice() {
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

    fn ground(&self, from: &From, span: Span) -> Ground {
        match from {
            From::Model(i) => {
                let m = &self.out.models[*i];
                let value = if m.fresh { None } else { m.lr };
                Ground {
                    lr: Inherited {
                        value,
                        reason: format!("model `{}` does not say its learning rate", m.name),
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

    fn stage_ground(&self, index: usize, step: Option<u64>, span: Span) -> Ground {
        let s = &self.out.stages[index];
        let legacy = &self.legacies[index];
        let at = step.map_or(s.drawn(), |step| s.tokens_at(step)).min(s.drawn());
        let last = legacy.batch.partition_point(|p| p.start <= at).saturating_sub(1);
        let piece = legacy.batch[last];
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

    /// `tokens` or `steps`, exactly one.
    fn length(&mut self, fields: &Fields<'p>, scope: &Scope<'p>, name_span: Span) -> Option<Length> {
        match (fields.get("tokens"), fields.get("steps")) {
            (Some(tokens), Some(steps)) => {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_LENGTH,
                        steps.span,
                        "a stage with two lengths",
                        "the length in steps",
                    )
                    .label(tokens.span, "the length in tokens")
                    .help("keep one; the plan prints the other"),
                );
                None
            }
            (Some(_), None) => {
                let value = self.field(fields, "tokens", scope)?;
                if let Kind::Relative { .. } = value.kind {
                    self.push(
                        Diagnostic::error(
                            codes::STAGE_LENGTH,
                            value.span,
                            format!("a stage's length as {}", value.describe()),
                            "this depends on the length itself",
                        )
                        .help("define `param total: tokens = …` and write `5% of total`"),
                    );
                    return None;
                }
                self.tokens(&value, "tokens").map(Length::Tokens)
            }
            (None, Some(_)) => {
                let value = self.field(fields, "steps", scope)?;
                match value.kind {
                    Kind::Number(n) | Kind::Quantity(n, Unit::Steps) => {
                        self.positive_count(n, value.span, "steps").map(Length::Steps)
                    }
                    _ => {
                        self.wrong(&value, schema::Ty::Steps, "steps");
                        None
                    }
                }
            }
            (None, None) => {
                if !fields.doubtful {
                    self.push(
                        Diagnostic::error(
                            codes::STAGE_LENGTH,
                            name_span,
                            "a stage without a length",
                            "`tokens` or `steps` must be written",
                        )
                        .help("for example `tokens = 50B`"),
                    );
                }
                None
            }
        }
    }

    fn optimizer(
        &mut self,
        fields: &Fields<'p>,
        scope: &Scope<'p>,
        ground: Option<Optimizer>,
        inherited: &mut Vec<&'static str>,
    ) -> Option<Optimizer> {
        let default =
            Optimizer { betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip: Some(1.0), z_loss: None };
        let mut optimizer = match self.field(fields, "optimizer", scope) {
            Some(value) => {
                let call = match &value.kind {
                    Kind::Call(call) if call.function.family == schema::Family::Optimizer => call.clone(),
                    _ => {
                        self.wrong(&value, schema::Ty::Optimizer, "optimizer");
                        return None;
                    }
                };
                let mut o = default;
                if let Some(v) = call.arg("betas").cloned() {
                    let betas = self.numbers(&v, "betas")?;
                    match betas.as_slice() {
                        [a, b] if (0.0..1.0).contains(a) && (0.0..1.0).contains(b) => o.betas = [*a, *b],
                        _ => {
                            self.push(Diagnostic::error(
                                codes::OUT_OF_RANGE,
                                v.span,
                                "`betas` are not two numbers in [0, 1)",
                                "for example `[0.9, 0.95]`",
                            ));
                            return None;
                        }
                    }
                }
                if let Some(v) = call.arg("eps").cloned() {
                    o.eps = self.positive(&v, "eps")?;
                }
                if let Some(v) = call.arg("weight_decay").cloned() {
                    o.weight_decay = self.non_negative(&v, "weight_decay")?;
                }
                if let Some(v) = call.arg("clip").cloned() {
                    o.clip = Some(self.positive(&v, "clip")?);
                }
                if let Some(v) = call.arg("z_loss").cloned() {
                    o.z_loss = Some(self.non_negative(&v, "z_loss")?);
                }
                o
            }
            None => match ground {
                Some(o) => {
                    inherited.push("optimizer");
                    o
                }
                None => default,
            },
        };
        if let Some(v) = self.field(fields, "clip", scope) {
            optimizer.clip = Some(self.positive(&v, "clip")?);
        }
        if let Some(v) = self.field(fields, "z_loss", scope) {
            optimizer.z_loss = Some(self.non_negative(&v, "z_loss")?);
        }
        Some(optimizer)
    }

    /// An interval in steps.
    pub(crate) fn every(&mut self, value: &Val<'p>, field: &str, frame: Frame<'_>) -> Option<u64> {
        if let Kind::Quantity(n, Unit::Steps) = value.kind {
            return self.positive_count(n, value.span, field);
        }
        let tokens = self.span(value, field, frame, |clock, steps| clock.span(0, steps))?;
        let steps = frame.clock?.step_at(tokens.ceil().to_integer().max(0) as u64);
        if steps == 0 {
            self.push(Diagnostic::error(
                codes::OUT_OF_RANGE,
                value.span,
                format!("`{field}` is zero"),
                "must be at least one step",
            ));
            return None;
        }
        Some(steps)
    }

    /// Named checkpoints.
    fn checkpoints(
        &mut self,
        block: &'p ast::Block,
        scope: &Scope<'p>,
        frame: Frame<'_>,
    ) -> Option<Vec<super::curriculum::Checkpoint>> {
        let mut out: Vec<super::curriculum::Checkpoint> = Vec::new();
        let mut sound = true;
        for entry in &block.entries {
            let ast::EntryKind::Block(inner) = &entry.kind else { continue };
            if inner.kind.text != "checkpoint" {
                continue;
            }
            let Some(name) = self.named(inner) else {
                sound = false;
                continue;
            };
            let Some(fields) = self.fields(inner) else { continue };
            sound &= self.require(&fields, inner) && !inner.incomplete;
            if let Some(first) = out.iter().find(|c| c.name == name.text) {
                let first = first.span;
                self.push(
                    Diagnostic::error(
                        codes::DUPLICATE_NAME,
                        name.span,
                        format!("checkpoint `{}` twice in one stage", name.text),
                        "named again here",
                    )
                    .label(first, "first named here"),
                );
                sound = false;
                continue;
            }
            let Some(at) = self.field(&fields, "at", scope) else { continue };
            let forever = match self.field(&fields, "keep", scope) {
                Some(v) => self.word(&v, schema::KEEP, "keep").is_some(),
                None => false,
            };
            let Some(position) = self.span(&at, "at", frame, |clock, steps| clock.tokens_at(steps)) else {
                sound = false;
                continue;
            };
            let tokens = position.floor().to_integer().max(0) as u64;
            if tokens > frame.tokens {
                self.push(
                    Diagnostic::error(
                        codes::STAGE_CHECKPOINT,
                        at.span,
                        format!(
                            "checkpoint `{}` lies {} tokens after the end of the stage",
                            name.text,
                            show::count(tokens - frame.tokens)
                        ),
                        format!("at token {}", show::count(tokens)),
                    )
                    .label(frame.length_span, format!("the stage has {} tokens", show::count(frame.tokens))),
                );
                sound = false;
                continue;
            }
            let step = frame.clock.map_or(0, |c| c.step_at(tokens));
            out.push(super::curriculum::Checkpoint {
                name: name.text.clone(),
                span: name.span,
                tokens,
                step,
                forever,
            });
        }
        sound.then_some(out)
    }

    /// The name of an inner block that must have one.
    pub(crate) fn named(&mut self, block: &'p ast::Block) -> Option<&'p ast::Ident> {
        if block.name.is_none() {
            self.push(
                Diagnostic::error(
                    codes::BLOCK_NAME,
                    block.kind.span,
                    format!("`{}` without a name", block.kind.text),
                    "a name is missing after this",
                )
                .help(format!("write `{} NAME {{ … }}`", block.kind.text)),
            );
        }
        block.name.as_ref()
    }

    /// Members of a stage picked by `[42]`.
    pub(crate) fn pick(&mut self, id: DefId, index: &'p ast::Expr, scope: &Scope<'p>) -> Option<usize> {
        let value = self.eval(index, scope);
        if value.is_poison() {
            return None;
        }
        let key = super::params::print(&value);
        let Resolved::Stage(members) = &self.resolved[id.index()] else { return None };
        let members = members.clone();
        let found =
            members.iter().copied().find(|m| self.out.stages[*m].key.as_deref() == Some(key.as_str()));
        if found.is_none() {
            let base = self.out.stages[members[0]].base.clone();
            let keys: Vec<String> = members.iter().filter_map(|m| self.out.stages[*m].key.clone()).collect();
            let d = Diagnostic::error(
                codes::UNKNOWN_NAME,
                index.span,
                format!("`{base}` has no member `{key}`"),
                "no member with this value",
            );
            self.push(if keys.is_empty() {
                d.help(format!("`{base}` is a single stage: write `{base}`"))
            } else {
                d.help(format!(
                    "its members are {}",
                    keys.iter().map(|k| format!("`{base}[{k}]`")).collect::<Vec<_>>().join(", ")
                ))
            });
        }
        found
    }
}

/// As the plan spells it.
pub(crate) fn place_name(out: &super::curriculum::Curriculum, from: &From) -> String {
    match from {
        From::Model(i) => out.models[*i].name.clone(),
        From::Stage(i) => out.stages[*i].name.clone(),
        From::Checkpoint(i, c) => format!("{}.{}", out.stages[*i].name, out.stages[*i].checkpoints[*c].name),
        From::Soup(i) => out.soups[*i].name.clone(),
    }
}

/// Tokens of each source over the stage: the whole, split by mean weight with largest remainders,
/// so that they sum to what the steps draw.
fn portions(mix: &Flat, clock: &Clock, total: u64) -> Vec<Portion> {
    let mut out: Vec<Portion> = mix
        .iter()
        .map(|(source, amount)| {
            let weight = amount.blend();
            let (exact, mean) = match amount {
                Amount::Exact(n) => (Some(*n), show::real(*n)),
                Amount::Moving(_) => (None, mean_over_steps(&weight, &clock.phases, clock.steps, total)),
            };
            Portion { source: *source, weight, exact, mean, tokens: 0 }
        })
        .collect();
    let mut remainders: Vec<(f64, usize)> = Vec::with_capacity(out.len());
    let mut given = 0u64;
    for (i, p) in out.iter_mut().enumerate() {
        let (whole, fraction) = match p.exact {
            Some(n) => {
                let product = n * ast::Rational::from_integer(i128::from(total));
                (product.floor().to_integer().max(0) as u64, show::real(product.fract()))
            }
            None => {
                let product = p.mean.max(0.0) * total as f64;
                (product.floor() as u64, product.fract())
            }
        };
        p.tokens = whole;
        given = given.saturating_add(whole);
        remainders.push((fraction, i));
    }
    remainders.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut left = total.saturating_sub(given);
    for (_, i) in &remainders {
        if left == 0 {
            break;
        }
        out[*i].tokens += 1;
        left -= 1;
    }
    out
}

/// The mean of a weight over the tokens that the steps read: each step uses the value at its
/// beginning. Step by step while that is cheap, else the integral, which differs by less than one
/// step's move.
fn mean_over_steps(weight: &crate::curve::Blend, phases: &[Phase], steps: u64, total: u64) -> f64 {
    const EXACT_STEPS: u64 = 20_000;
    if let Some(value) = weight.as_constant() {
        return value;
    }
    if steps > EXACT_STEPS {
        return weight.mean(total);
    }
    let mut sum = 0.0;
    for (i, p) in phases.iter().enumerate() {
        let end = phases.get(i + 1).map_or(steps, |n| n.step);
        let size = p.sequences * p.context;
        for step in p.step..end {
            sum += weight.value(p.tokens + (step - p.step) * size) * size as f64;
        }
    }
    sum / total as f64
}
