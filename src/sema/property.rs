//! Properties of resolved items: `anneal.lr.end`, `s1.mix.web.epochs`.

use crate::curve::Curve;
use crate::diag::Diagnostic;
use crate::diag::suggest::nearest;
use crate::schema::Family;
use crate::source::Span;
use crate::syntax::ast::{self, PathSegment, Rational, Unit};

use super::checker::{Checker, Resolved};
use super::eval::Scope;
use super::program::suggest;
use super::query::number;
use super::stage::Members;
use super::value::{Entity, Kind, Val};
use crate::diag::codes;

/// Properties of a stage.
pub(crate) const STAGE: [&str; 12] = [
    "lr",
    "mix",
    "tokens",
    "steps",
    "overshoot",
    "start_tokens",
    "batch",
    "batch_tokens",
    "context",
    "drawn",
    "data_seed",
    "rope",
];
/// Properties of a position encoding.
pub(crate) const ROPE: [&str; 4] = ["theta", "factor", "original", "attention_factor"];
/// Properties of a moving quantity.
pub(crate) const CURVE: [&str; 5] = ["start", "end", "peak", "min", "max"];
/// Properties of a source in a stage.
pub(crate) const PORTION: [&str; 5] = ["weight", "tokens", "epochs", "start", "end"];

/// How the size of a source becomes known.
pub(crate) const COUNT: &str =
    "write `tokens = …` into the source, or let `midc data FILE --save` measure it";

/// Whether a name can begin a condition inside a stage.
pub(crate) fn is_property(name: &str) -> bool {
    STAGE.contains(&name)
}

impl<'p> Checker<'p> {
    /// Follow `segments` from `base`.
    pub(crate) fn properties(
        &mut self,
        base: Val<'p>,
        segments: &'p [PathSegment],
        scope: &Scope<'p>,
    ) -> Val<'p> {
        let span = base.span;
        let Some((first, rest)) = segments.split_first() else { return base };
        let Kind::Entity(entity) = base.kind else {
            if !base.is_poison() {
                let found = base.describe();
                self.unknown_property(first, span, &found, &[]);
            }
            return Val::poison(span);
        };
        match (entity, first) {
            (Entity::Stage(id), PathSegment::Pick(pick)) => match self.pick(id, pick, scope) {
                Some(Members::All) => self.properties(base, rest, scope),
                Some(Members::One(m)) => {
                    self.properties(Val { kind: Kind::Entity(Entity::Member(m)), span }, rest, scope)
                }
                Some(Members::Some(members)) if rest.is_empty() => {
                    let member = |m: &usize| Val { kind: Kind::Entity(Entity::Member(*m)), span };
                    Val { kind: Kind::List(members.iter().map(member).collect()), span }
                }
                Some(Members::Some(members)) => self.of_all(&members, span, rest, scope),
                None => Val::poison(span),
            },
            (Entity::Stage(id), PathSegment::Name(_)) => {
                let Resolved::Stage(members) = self.resolved[id.index()].clone() else {
                    return Val::poison(span);
                };
                self.of_all(&members, span, segments, scope)
            }
            (Entity::Member(m), PathSegment::Name(name)) => self.of_member(m, name, rest, span, scope),
            (Entity::Model(id), PathSegment::Name(name)) => {
                let Resolved::Model(i) = self.resolved[id.index()] else { return Val::poison(span) };
                let model = &self.out.models[i];
                let kind = match name.text.as_str() {
                    "mix" => Kind::Entity(Entity::ModelMix(id)),
                    "lr" => model.lr.map_or(Kind::Poison, Kind::Real),
                    "seen" => model.seen.map_or(Kind::Poison, tokens),
                    "context" => model.context.map_or(Kind::Poison, tokens),
                    _ => {
                        let names = ["mix", "lr", "seen", "context"];
                        self.unknown_property(first, span, "a model", &names);
                        return Val::poison(span);
                    }
                };
                if matches!(kind, Kind::Poison) {
                    let (model, at) = (model.name.clone(), model.span);
                    self.push(
                        Diagnostic::error(
                            codes::UNKNOWN_PROPERTY,
                            span,
                            format!("`{}` of `{model}` is not known", name.text),
                            "asked for here",
                        )
                        .label(at, format!("this model has no `{}`", name.text)),
                    );
                    return Val::poison(span);
                }
                self.properties(Val { kind, span }, rest, scope)
            }
            (Entity::Source(id), PathSegment::Name(name)) => {
                let Resolved::Source(i) = self.resolved[id.index()] else { return Val::poison(span) };
                self.of_source(i, name, first, rest, span)
            }
            (Entity::Mix(id), PathSegment::Name(_)) => {
                let Resolved::Mix(spec) = self.resolved[id.index()].clone() else { return Val::poison(span) };
                let key = join(segments);
                let Some(entry) = spec.entries.iter().find(|e| e.name == key) else {
                    let names: Vec<&str> = spec.entries.iter().map(|e| e.name.as_str()).collect();
                    self.unknown_property(first, span, "a mix", &names);
                    return Val::poison(span);
                };
                match spec.share(entry) {
                    Some(share) => Val { kind: Kind::Share(share), span },
                    None => {
                        self.push(
                            Diagnostic::error(
                                codes::ASSERT_UNDECIDED,
                                span,
                                format!("the weight of `{key}` moves"),
                                "not one number",
                            )
                            .label(entry.value_span, "its weight")
                            .help(format!(
                                "ask for it in a stage, such as `STAGE.mix.{key}`, its mean there, or \
                                 `STAGE.mix.{key}.end`"
                            )),
                        );
                        Val::poison(span)
                    }
                }
            }
            (Entity::StageMix(m), PathSegment::Name(_)) => self.of_portion(m, segments, span),
            _ => {
                let found = base.describe();
                self.unknown_property(first, span, &found, &[]);
                Val::poison(span)
            }
        }
    }

    /// A property of several members of a stage: they must agree.
    fn of_all(
        &mut self,
        members: &[usize],
        span: Span,
        segments: &'p [PathSegment],
        scope: &Scope<'p>,
    ) -> Val<'p> {
        let mut values = Vec::new();
        for m in members {
            let v = self.properties(Val { kind: Kind::Entity(Entity::Member(*m)), span }, segments, scope);
            if v.is_poison() {
                return v;
            }
            values.push(v);
        }
        let Some(first) = values.first().cloned() else { return Val::poison(span) };
        // Mixtures and checkpoints stand for those of the first member when all have the same.
        if let Kind::Entity(Entity::StageMix(a)) = first.kind {
            let same = members.iter().all(|m| {
                let (x, y) = (&self.out.stages[a].mix, &self.out.stages[*m].mix);
                x.len() == y.len()
                    && x.iter().zip(y).all(|(p, q)| p.source == q.source && p.weight == q.weight)
            });
            if same {
                return first;
            }
        } else if values.len() == 1
            || values.iter().all(|v| number(v) == number(&first) && number(v).is_some())
        {
            return first;
        }
        let base = self.out.stages[members[0]].base.clone();
        let name = self.out.stages[members[0]].name.clone();
        self.push(
            Diagnostic::error(
                codes::UNKNOWN_PROPERTY,
                span,
                format!("the members of `{base}` differ here"),
                "not the same for all members",
            )
            .help(format!("name one of them, such as `{name}.{}`", join(segments))),
        );
        Val::poison(span)
    }

    fn of_member(
        &mut self,
        m: usize,
        name: &'p ast::Ident,
        rest: &'p [PathSegment],
        span: Span,
        scope: &Scope<'p>,
    ) -> Val<'p> {
        let stage = &self.out.stages[m];
        if let Some(c) = stage.checkpoints.iter().position(|c| c.name == name.text) {
            let kind = Kind::Entity(Entity::Checkpoint(m, c));
            return self.properties(Val { kind, span }, rest, scope);
        }
        let part = match rest.first() {
            Some(PathSegment::Name(n)) => n.text.as_str(),
            _ => "",
        };
        let kind = match (name.text.as_str(), part) {
            ("mix", _) => {
                let kind = Kind::Entity(Entity::StageMix(m));
                return self.properties(Val { kind, span }, rest, scope);
            }
            ("tokens", "") => tokens(stage.tokens),
            ("drawn", "") => tokens(stage.drawn()),
            ("overshoot", "") => tokens(stage.overshoot),
            ("start_tokens", "") => tokens(stage.start_tokens),
            ("data_seed", "") => Kind::Number(Rational::from(stage.data_seed)),
            ("steps", "") => Kind::Quantity(Rational::from(stage.steps), Unit::Steps),
            ("lr", part) if CURVE.contains(&part) => Kind::Real(curve_part(&stage.lr, part)),
            ("context", part) if part.is_empty() || CURVE.contains(&part) => {
                let values: Vec<u64> = stage.context.iter().map(|c| c.1).collect();
                tokens(list_part(&values, part))
            }
            ("batch" | "batch_tokens", part) if part.is_empty() || CURVE.contains(&part) => {
                let values: Vec<u64> = stage.phases.iter().map(|p| p.sequences * p.context).collect();
                tokens(list_part(&values, part))
            }
            ("rope", part) if ROPE.contains(&part) => match self.rope_part(m, part, span) {
                Some(kind) => kind,
                None => return Val::poison(span),
            },
            ("rope", _) => {
                match rest.first() {
                    Some(segment) => self.unknown_property(segment, span, "a position encoding", &ROPE),
                    None => self.push(
                        Diagnostic::error(
                            codes::UNKNOWN_PROPERTY,
                            span,
                            "a position encoding cannot be compared",
                            "which number of it?",
                        )
                        .help(
                            "write `rope.theta`, `rope.factor`, `rope.original` or `rope.attention_factor`",
                        ),
                    ),
                }
                return Val::poison(span);
            }
            ("lr", _) => {
                let segment = rest.first();
                match segment {
                    Some(segment) => self.unknown_property(segment, span, "a curve", &CURVE),
                    None => self.push(
                        Diagnostic::error(
                            codes::UNKNOWN_PROPERTY,
                            span,
                            "a whole curve cannot be compared",
                            "which value of it?",
                        )
                        .help("write `lr.start`, `lr.end`, `lr.peak`, `lr.min` or `lr.max`"),
                    ),
                }
                return Val::poison(span);
            }
            _ if scope.family == Some(Family::Soup) && rest.is_empty() => {
                self.unknown_place(m, name);
                return Val::poison(span);
            }
            _ => {
                let names: Vec<&str> =
                    STAGE.iter().copied().chain(stage.checkpoints.iter().map(|c| c.name.as_str())).collect();
                let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.unknown_property(&PathSegment::Name(name.clone()), span, "a stage", &names);
                return Val::poison(span);
            }
        };
        Val { kind, span }
    }

    /// `from = main.mid`, where no checkpoint is called so.
    fn unknown_place(&mut self, m: usize, name: &ast::Ident) {
        let stage = &self.out.stages[m];
        let names: Vec<&str> = stage.checkpoints.iter().map(|c| c.name.as_str()).collect();
        let near = nearest(&name.text, names.iter().copied());
        let write = format!("write `checkpoint {} {{ at = 50% of stage }}` in `{}`", name.text, stage.base);
        let all = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let otherwise = if all.is_empty() { write } else { format!("{write}; its checkpoints are {all}") };
        let d = Diagnostic::error(
            codes::UNKNOWN_PROPERTY,
            name.span,
            format!("stage `{}` has no checkpoint `{}`", stage.name, name.text),
            "no such checkpoint",
        );
        let d = suggest(d, name.span, near, &otherwise);
        self.push(d);
    }

    /// A number of the position encoding a stage trains with, its own or the model's.
    fn rope_part(&mut self, m: usize, part: &str, span: Span) -> Option<Kind<'p>> {
        let stage = &self.out.stages[m];
        let own = stage.root.and_then(|r| self.out.models[r].rope.as_ref());
        let rope = stage.rope.as_ref().or(own);
        let value = rope.and_then(|r| match part {
            "theta" => r.theta,
            "factor" => r.scaling.factor(),
            "original" => r.scaling.original().map(|n| n as f64),
            // The factor depends on no head dimension; any will do.
            _ => Some(
                crate::rope::inv_freq(64, r.theta.unwrap_or(10_000.0), &r.scaling, stage.context_max())
                    .attention_factor,
            ),
        });
        if value.is_none() {
            let name = stage.name.clone();
            self.push(Diagnostic::error(
                codes::ASSERT_UNDECIDED,
                span,
                format!("the `{part}` of the RoPE of `{name}` is not known"),
                "neither the stage nor its model says it",
            ));
        }
        value.map(Kind::Real)
    }

    fn of_portion(&mut self, m: usize, segments: &'p [PathSegment], span: Span) -> Val<'p> {
        let stage = &self.out.stages[m];
        let whole = join(segments);
        let (source, part) = match whole.rsplit_once('.') {
            Some((source, part)) if PORTION.contains(&part) => (source, part),
            _ => (whole.as_str(), "weight"),
        };
        let found = stage.mix.iter().find(|p| self.out.sources[p.source].name == source);
        let Some(p) = found else {
            // A source defined and not drawn has a weight of zero.
            if self.out.sources.iter().any(|s| s.name == source) {
                return Val { kind: Kind::Share(Rational::ZERO), span };
            }
            let names: Vec<String> =
                stage.mix.iter().map(|p| self.out.sources[p.source].name.clone()).collect();
            // `main.mix.math` of a source that this file calls `s.math`.
            let ends = names.iter().find(|name| name.rsplit('.').next() == Some(source));
            let near = ends.map(String::as_str).or_else(|| nearest(source, names.iter().map(String::as_str)));
            let near = near.map(str::to_owned);
            let d = Diagnostic::error(
                codes::UNKNOWN_NAME,
                span,
                format!("`{}` draws nothing called `{source}`", stage.name),
                "no such source in its mix",
            );
            self.push(match near {
                Some(near) => d.help(format!("did you mean `{near}`?")),
                None => d,
            });
            return Val::poison(span);
        };
        let kind = match part {
            "tokens" => tokens(p.tokens),
            "epochs" => match self.out.epochs(p.source, p.tokens) {
                Some(epochs) => Kind::Real(epochs),
                None => {
                    let name = source.to_owned();
                    let at = self.out.sources[p.source].span;
                    self.push(
                        Diagnostic::error(
                            codes::ASSERT_UNDECIDED,
                            span,
                            format!("the epochs of `{name}` are not known"),
                            "its size is not declared",
                        )
                        .label(at, "write `tokens = …` here")
                        .help(COUNT),
                    );
                    Kind::Poison
                }
            },
            "start" => Kind::Real(p.weight.value(0)),
            "end" => Kind::Real(p.weight.value(stage.tokens)),
            _ => p.exact.map_or(Kind::Real(p.mean), Kind::Share),
        };
        Val { kind, span }
    }

    fn of_source(
        &mut self,
        i: usize,
        name: &'p ast::Ident,
        first: &'p PathSegment,
        rest: &'p [PathSegment],
        span: Span,
    ) -> Val<'p> {
        let drawn: u64 = self
            .out
            .stages
            .iter()
            .flat_map(|s| s.mix.iter())
            .filter(|p| p.source == i)
            .fold(0, |sum, p| sum.saturating_add(p.tokens));
        let size = self.out.sources[i].tokens;
        let kind = match (name.text.as_str(), rest.is_empty()) {
            ("drawn", true) => tokens(drawn),
            ("tokens" | "epochs", true) => match (size, name.text.as_str()) {
                (Some(size), "tokens") => tokens(size),
                (Some(_), _) => Kind::Real(self.out.epochs(i, drawn).unwrap_or(0.0)),
                (None, _) => {
                    let source = self.out.sources[i].name.clone();
                    let at = self.out.sources[i].span;
                    self.push(
                        Diagnostic::error(
                            codes::ASSERT_UNDECIDED,
                            span,
                            format!("the size of `{source}` is not known"),
                            "asked for here",
                        )
                        .label(at, "write `tokens = …` here")
                        .help(COUNT),
                    );
                    Kind::Poison
                }
            },
            _ => {
                self.unknown_property(first, span, "a source", &["tokens", "drawn", "epochs"]);
                Kind::Poison
            }
        };
        Val { kind, span }
    }

    fn unknown_property(&mut self, segment: &PathSegment, whole: Span, of: &str, names: &[&str]) {
        let (text, span) = match segment {
            PathSegment::Name(n) => (n.text.clone(), n.span),
            PathSegment::Pick(pick) => ("[…]".to_owned(), pick.span),
        };
        let d = Diagnostic::error(
            codes::UNKNOWN_PROPERTY,
            if span.file == whole.file { span } else { whole },
            format!("{of} has no `{text}`"),
            "unknown property",
        );
        let near = nearest(&text, names.iter().copied());
        let all = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let other = if all.is_empty() { String::new() } else { format!("it has {all}") };
        self.push(suggest(d, span, near, &other));
    }
}

fn tokens<'p>(n: u64) -> Kind<'p> {
    Kind::Quantity(Rational::from(n), Unit::Tokens)
}

fn curve_part(curve: &Curve, part: &str) -> f64 {
    match part {
        "start" => curve.value(0),
        "end" => curve.end_value(),
        "min" => curve.min(),
        _ => curve.max(),
    }
}

fn list_part(values: &[u64], part: &str) -> u64 {
    let pick = match part {
        "start" => values.first().copied(),
        "end" => values.last().copied(),
        "min" => values.iter().min().copied(),
        _ => values.iter().max().copied(),
    };
    pick.unwrap_or(0)
}

fn join(segments: &[PathSegment]) -> String {
    let names = segments.iter().filter_map(|s| match s {
        PathSegment::Name(n) => Some(n.text.as_str()),
        _ => None,
    });
    names.collect::<Vec<_>>().join(".")
}
