//! What a mixture comes to: one share per source, exact where nothing moves.

use std::collections::HashMap;
use std::rc::Rc;

use crate::curve::{Blend, Curve, Segment, Shape, Term};
use crate::diag::Diagnostic;
use crate::schema::{Family, Ty};
use crate::source::Span;
use crate::syntax::ast::Rational;

use super::{MixEntry, MixSpec, Weight};
use crate::diag::codes;
use crate::sema::chain::{Chain, Frame};
use crate::sema::checker::{Checker, Resolved};
use crate::sema::program::DefId;
use crate::sema::show;
use crate::sema::value::{Entity, Kind, Val};

/// A moving mixture that unfolds to more products than this is refused.
const MAX_TERMS: usize = 100_000;

/// Shares of sources, by index, in the order of first mention.
pub(crate) type Flat = Rc<Vec<(usize, Amount)>>;

/// A share of one source.
#[derive(Clone, Debug)]
pub(crate) enum Amount {
    Exact(Rational),
    Moving(Blend),
}

impl Amount {
    /// As a sum of products.
    pub(crate) fn blend(&self) -> Blend {
        match self {
            Amount::Exact(n) => Blend::constant(show::real(*n)),
            Amount::Moving(blend) => blend.clone(),
        }
    }
}

/// A sum of weighted flat mixtures under construction.
#[derive(Default)]
pub(super) struct Sum {
    order: Vec<usize>,
    parts: HashMap<usize, (Rational, Vec<Term>)>,
    terms: usize,
}

impl Sum {
    pub(super) fn slot(&mut self, source: usize) -> &mut (Rational, Vec<Term>) {
        let order = &mut self.order;
        self.parts.entry(source).or_insert_with(|| {
            order.push(source);
            (Rational::ZERO, Vec::new())
        })
    }

    /// Add `weight · amount`; `false` when it grows too large.
    #[must_use]
    pub(super) fn add(&mut self, source: usize, weight: &Amount, amount: &Amount) -> bool {
        let slot = self.slot(source);
        let before = slot.1.len();
        match (weight, amount) {
            (Amount::Exact(w), Amount::Exact(a)) => {
                match w.checked_mul(*a).and_then(|p| slot.0.checked_add(p)) {
                    Some(sum) => slot.0 = sum,
                    None => slot
                        .1
                        .push(Term { coefficient: show::real(*w) * show::real(*a), factors: Vec::new() }),
                }
            }
            (Amount::Exact(w), Amount::Moving(b)) | (Amount::Moving(b), Amount::Exact(w)) => {
                let w = show::real(*w);
                if w != 0.0 {
                    slot.1.extend(
                        b.terms
                            .iter()
                            .map(|t| Term { coefficient: t.coefficient * w, factors: t.factors.clone() }),
                    );
                }
            }
            (Amount::Moving(a), Amount::Moving(b)) => {
                for x in &a.terms {
                    for y in &b.terms {
                        slot.1.push(Term {
                            coefficient: x.coefficient * y.coefficient,
                            factors: x.factors.iter().chain(&y.factors).cloned().collect(),
                        });
                        if slot.1.len() > MAX_TERMS {
                            return false;
                        }
                    }
                }
            }
        }
        let grown = slot.1.len() - before;
        self.terms += grown;
        self.terms <= MAX_TERMS
    }

    pub(super) fn finish(mut self) -> Flat {
        let flat = self
            .order
            .iter()
            .filter_map(|source| {
                let (exact, mut terms) = self.parts.remove(source)?;
                if terms.is_empty() {
                    return Some((*source, Amount::Exact(exact)));
                }
                if exact != Rational::ZERO {
                    terms.insert(0, Term { coefficient: show::real(exact), factors: Vec::new() });
                }
                Some((*source, Amount::Moving(Blend { terms })))
            })
            .collect();
        Rc::new(flat)
    }
}

impl<'p> Checker<'p> {
    /// Whether a mixture changes over a stage.
    pub(crate) fn moves(&self, value: &Val<'p>) -> bool {
        match &value.kind {
            Kind::Entity(Entity::Mix(id)) => match &self.resolved[id.index()] {
                Resolved::Mix(spec) => spec.still.is_none(),
                Resolved::Value(v) => self.moves(v),
                _ => false,
            },
            Kind::Mix(spec) => spec.still.is_none(),
            Kind::Chain(_) => true,
            Kind::Call(call) => call.function.family == Family::Curve,
            _ => false,
        }
    }

    /// Shares of sources of anything that can be mixed. `frame` is the stage, for what moves.
    pub(crate) fn flatten(&mut self, value: &Val<'p>, frame: Option<Frame<'_>>) -> Option<Flat> {
        let one = |source| Some(Rc::new(vec![(source, Amount::Exact(Rational::ONE))]));
        match &value.kind {
            Kind::Entity(Entity::Source(id)) => match self.resolved[id.index()] {
                Resolved::Source(index) => {
                    self.is_trained_on(index, value.span)?;
                    one(index)
                }
                _ => None,
            },
            Kind::Entity(Entity::Mix(id)) => match self.resolved[id.index()].clone() {
                Resolved::Mix(spec) => self.flatten_spec(&spec, frame),
                Resolved::Value(v) => self.flatten(&Val { span: value.span, ..v }, frame),
                _ => None,
            },
            Kind::Mix(spec) => self.flatten_spec(spec, frame),
            Kind::Entity(Entity::StageMix(member)) => {
                let stage = self.out.stages.get(*member)?;
                Some(Rc::new(stage.mix.iter().map(|p| (p.source, mean_amount(p))).collect()))
            }
            Kind::Entity(Entity::ModelMix(id)) => self.flatten_model(*id, value.span),
            Kind::Call(call) if call.function.family == Family::Mix => {
                let call = call.clone();
                self.flatten_call(&call)
            }
            Kind::Chain(_) | Kind::Call(_) => {
                let chain = self.chain(value, "mix")?;
                self.crossfade(&chain, frame, value.span)
            }
            _ => {
                self.wrong(value, Ty::Mix, "mix");
                None
            }
        }
    }

    fn flatten_spec(&mut self, spec: &MixSpec<'p>, frame: Option<Frame<'_>>) -> Option<Flat> {
        match &spec.still {
            Some(flat) => Some(flat.clone()),
            None => self.flatten_entries(&spec.entries, frame, spec.span),
        }
    }

    /// Refuse a source in a mix that is for validation.
    pub(super) fn is_trained_on(&mut self, source: usize, span: Span) -> Option<()> {
        let source = &self.out.sources[source];
        if !source.validation {
            return Some(());
        }
        let (name, at) =
            (source.name.clone(), source.fields.get("validation").copied().unwrap_or(source.span));
        self.push(
            Diagnostic::error(
                codes::WRONG_KIND,
                span,
                format!("`{name}` is for validation, and in a mix"),
                "would be trained on",
            )
            .label(at, "for evals and gates alone")
            .help("take it out of the mix, or `validation` out of the source"),
        );
        None
    }

    pub(super) fn flatten_model(&mut self, id: DefId, span: Span) -> Option<Flat> {
        let Resolved::Model(index) = self.resolved[id.index()] else { return None };
        match &self.out.models[index].mix {
            Some(shares) => {
                Some(Rc::new(shares.iter().map(|(s, w)| (*s, Amount::Moving(Blend::constant(*w)))).collect()))
            }
            None => {
                let (name, at) = (self.out.models[index].name.clone(), self.out.models[index].span);
                self.push(
                    Diagnostic::error(
                        codes::MIX_REPLAY,
                        span,
                        format!("what `{name}` saw is not known"),
                        "a replay of this needs its mix",
                    )
                    .label(at, "this model has no `mix`")
                    .help("write `mix = …` into the model: what it was trained on last"),
                );
                None
            }
        }
    }

    pub(super) fn flatten_entries(
        &mut self,
        entries: &[MixEntry<'p>],
        frame: Option<Frame<'_>>,
        span: Span,
    ) -> Option<Flat> {
        let mut sum = Sum::default();
        // 1 − the others, for the rest.
        let mut left = (Rational::ONE, Vec::<Term>::new());
        let mut rest = None;
        let mut curves = Vec::new();
        for e in entries {
            let flat = self.flatten(&e.target, frame)?;
            let weight = match &e.weight {
                Weight::Rest => {
                    rest = Some((flat, e.value_span));
                    continue;
                }
                Weight::Share(n) => {
                    left.0 = left.0.checked_sub(*n).or_else(|| self.mix_overflow(e.value_span))?;
                    Amount::Exact(*n)
                }
                Weight::Curve(chain) => {
                    let frame = frame?;
                    let (curve, _) =
                        self.numeric(chain, Frame { field: &e.name, ..frame }, |this, v| match v.kind {
                            Kind::Share(n) => Some(show::real(n)),
                            _ => {
                                this.wrong(v, Ty::Share, "weight");
                                None
                            }
                        })?;
                    if curve.min() < 0.0 || curve.max() > 1.0 {
                        self.push(Diagnostic::error(
                            codes::MIX_WEIGHT,
                            e.value_span,
                            format!("the weight of `{}` leaves 0% to 100%", e.name),
                            format!(
                                "goes from {} to {}",
                                show::percent(curve.min()),
                                show::percent(curve.max())
                            ),
                        ));
                        return None;
                    }
                    left.1.push(Term { coefficient: -1.0, factors: vec![curve.clone()] });
                    curves.push(e.value_span);
                    Amount::Moving(Blend { terms: vec![Term { coefficient: 1.0, factors: vec![curve] }] })
                }
            };
            for (source, amount) in flat.iter() {
                if !sum.add(*source, &weight, amount) {
                    return self.too_many_terms(span);
                }
            }
        }
        let tokens = frame.map_or(0, |f| f.tokens);
        if !left.1.is_empty() {
            let mut terms = left.1;
            terms.push(Term { coefficient: show::real(left.0), factors: Vec::new() });
            let blend = Blend { terms };
            // Between knots every weight is monotone; ten points find a bend between two curves.
            let knots = blend.knots(tokens);
            let probes = knots.windows(2).flat_map(|w| (0..=10).map(|i| w[0] + (w[1] - 1 - w[0]) / 10 * i));
            for at in probes.chain([tokens]) {
                let v = blend.value(at);
                if rest.is_some() && v >= -1e-9 || rest.is_none() && v.abs() <= 1e-9 {
                    continue;
                }
                let d = Diagnostic::error(
                    codes::MIX_SUM,
                    *curves.first().unwrap_or(&span),
                    format!("weights sum to {} at token {}", show::percent(1.0 - v), show::count(at)),
                    "this weight moves",
                )
                .label(span, "the mix")
                .help("let one entry take the `rest`");
                self.push(d);
                return None;
            }
            if let Some((flat, _)) = rest {
                let weight = Amount::Moving(blend);
                for (source, amount) in flat.iter() {
                    if !sum.add(*source, &weight, amount) {
                        return self.too_many_terms(span);
                    }
                }
            }
        } else if let Some((flat, _)) = rest {
            for (source, amount) in flat.iter() {
                if !sum.add(*source, &Amount::Exact(left.0), amount) {
                    return self.too_many_terms(span);
                }
            }
        }
        Some(sum.finish())
    }

    pub(super) fn too_many_terms<T>(&mut self, span: Span) -> Option<T> {
        self.push(Diagnostic::error(
            codes::CURVE_SIZE,
            span,
            format!("this mixture unfolds to more than {MAX_TERMS} moving products"),
            "moving mixes inside moving mixes multiply",
        ));
        None
    }

    /// A curve of mixes: each mix on the way has a share that rises and falls; they sum to one.
    pub(super) fn crossfade(
        &mut self,
        chain: &Chain<'p>,
        frame: Option<Frame<'_>>,
        span: Span,
    ) -> Option<Flat> {
        let frame = frame.or_else(|| {
            self.push(Diagnostic::error(
                codes::WRONG_VALUE,
                span,
                "a moving mix where no stage says how long it is",
                "this needs a fixed mix",
            ));
            None
        })?;
        let placed = self.place(chain, Frame { field: "mix", ..frame })?;
        let first = self.flatten(&chain.start, Some(frame))?;
        let mut flats = vec![first];
        // For each mix its share as segments; `current` is the mix that rules between segments.
        let mut shares: Vec<Vec<Segment>> = vec![Vec::new()];
        let segment = |shape, from, to, p: &crate::sema::chain::Placed<'p>| Segment {
            shape,
            from,
            to,
            start: p.start,
            end: p.end,
            horizon: p.horizon,
        };
        for p in &placed {
            let current = flats.len() - 1;
            let idle = |shares: &mut Vec<Vec<Segment>>, upto: usize| {
                for s in &mut shares[..upto] {
                    s.push(segment(Shape::Hold, 0.0, 0.0, p));
                }
            };
            if p.call.function.name == "hold" {
                idle(&mut shares, current);
                shares[current].push(segment(Shape::Hold, 1.0, 1.0, p));
                continue;
            }
            let shape = match p.call.function.name {
                "step" => Shape::Step,
                "linear" => Shape::Linear,
                "cosine" => Shape::Cosine,
                "one_minus_sqrt" => Shape::OneMinusSqrt,
                other => {
                    self.push(
                        Diagnostic::error(
                            codes::CURVE_SEGMENT,
                            p.call.name_span,
                            format!("mixes cannot follow `{other}`"),
                            "not a way from one mix to another",
                        )
                        .help("use `hold`, `step`, `linear`, `cosine` or `one_minus_sqrt`"),
                    );
                    return None;
                }
            };
            let target = p.call.arg("to")?.clone();
            flats.push(self.flatten(&target, Some(frame))?);
            let before: Vec<Segment> = shares[current]
                .iter()
                .map(|s| Segment { shape: Shape::Hold, from: 0.0, to: 0.0, ..s.clone() })
                .collect();
            idle(&mut shares, current);
            shares[current].push(segment(shape, 1.0, 0.0, p));
            shares.push(before);
            if let Some(new) = shares.last_mut() {
                new.push(segment(shape, 0.0, 1.0, p));
            }
        }
        if placed.is_empty() {
            return flats.into_iter().next();
        }
        let mut sum = Sum::default();
        for (flat, segments) in flats.iter().zip(shares) {
            let curve = Curve { segments };
            if curve.max() == 0.0 {
                continue;
            }
            let weight =
                Amount::Moving(Blend { terms: vec![Term { coefficient: 1.0, factors: vec![curve] }] });
            for (source, amount) in flat.iter() {
                if !sum.add(*source, &weight, amount) {
                    return self.too_many_terms(span);
                }
            }
        }
        Some(sum.finish())
    }
}

/// The mean share of a source over a finished stage, exact where it never moved.
fn mean_amount(portion: &crate::sema::curriculum::Portion) -> Amount {
    match portion.exact {
        Some(n) => Amount::Exact(n),
        None => Amount::Moving(Blend::constant(portion.mean)),
    }
}
