//! Mixtures: entries to flat shares of sources, exact where nothing moves.

use std::collections::HashMap;
use std::rc::Rc;

use num_traits::{CheckedAdd, CheckedDiv, CheckedMul, CheckedSub};

use crate::curve::{Blend, Curve, Segment, Shape, Term};
use crate::diag::{Applicability, Diagnostic};
use crate::schema::{Family, Ty};
use crate::source::Span;
use crate::syntax::ast::{self, EntryKind, PathSegment, Rational};

use super::chain::{Chain, Frame};
use super::checker::{Checker, Resolved};
use super::eval::Scope;
use super::program::DefId;
use super::show;
use super::value::{Call, Entity, Kind, Val};
use crate::diag::codes;

/// Mixes nested deeper than this are refused.
const MAX_DEPTH: usize = 64;
/// A moving mixture that unfolds to more products than this is refused.
const MAX_TERMS: usize = 100_000;

/// A `mix` block.
#[derive(Debug)]
pub(crate) struct MixSpec<'p> {
    pub(crate) entries: Vec<MixEntry<'p>>,
    /// The shares, when nothing in it moves.
    pub(crate) still: Option<Flat>,
    pub(crate) depth: usize,
    pub(crate) span: Span,
}

/// One entry.
#[derive(Debug)]
pub(crate) struct MixEntry<'p> {
    /// As written: `s.web`.
    pub(crate) name: String,
    /// What it draws from.
    pub(crate) target: Val<'p>,
    pub(crate) weight: Weight<'p>,
    pub(crate) value_span: Span,
}

/// A weight as written.
#[derive(Debug)]
pub(crate) enum Weight<'p> {
    Share(Rational),
    Curve(Chain<'p>),
    Rest,
}

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
struct Sum {
    order: Vec<usize>,
    parts: HashMap<usize, (Rational, Vec<Term>)>,
    terms: usize,
}

impl Sum {
    fn slot(&mut self, source: usize) -> &mut (Rational, Vec<Term>) {
        let order = &mut self.order;
        self.parts.entry(source).or_insert_with(|| {
            order.push(source);
            (Rational::from_integer(0), Vec::new())
        })
    }

    /// Add `weight · amount`; `false` when it grows too large.
    fn add(&mut self, source: usize, weight: &Amount, amount: &Amount) -> bool {
        let slot = self.slot(source);
        let before = slot.1.len();
        match (weight, amount) {
            (Amount::Exact(w), Amount::Exact(a)) => {
                match w.checked_mul(a).and_then(|p| slot.0.checked_add(&p)) {
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

    fn finish(mut self) -> Flat {
        let flat = self
            .order
            .iter()
            .filter_map(|source| {
                let (exact, mut terms) = self.parts.remove(source)?;
                if terms.is_empty() {
                    return Some((*source, Amount::Exact(exact)));
                }
                if exact != Rational::from_integer(0) {
                    terms.insert(0, Term { coefficient: show::real(exact), factors: Vec::new() });
                }
                Some((*source, Amount::Moving(Blend { terms })))
            })
            .collect();
        Rc::new(flat)
    }
}

impl<'p> Checker<'p> {
    /// A `mix` block.
    pub(crate) fn resolve_mix(&mut self, block: &'p ast::Block, scope: &Scope<'p>) -> Option<MixSpec<'p>> {
        let name = block.name.as_ref()?;
        let mut relative = false;
        let mut entries: Vec<MixEntry<'p>> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut sound = !block.incomplete;
        for entry in &block.entries {
            let EntryKind::Field { key, value } = &entry.kind else {
                let span = entry.span;
                self.push(Diagnostic::error(
                    codes::UNKNOWN_FIELD,
                    span,
                    format!("`{}` holds something that is no share", name.text),
                    "entries of a mix are written `source = 20%`",
                ));
                sound = false;
                continue;
            };
            if let [PathSegment::Name(word)] = key.segments.as_slice()
                && word.text == "weights"
                && !self.program.modules[scope.module].names.contains_key("weights")
            {
                let value = self.eval_typed(value, Ty::Word(crate::schema::WEIGHTS), "weights", scope);
                relative = self.word(&value, crate::schema::WEIGHTS, "weights").is_some();
                continue;
            }
            let text = self.text(key.span);
            if let Some(first) = seen.insert(text.clone(), key.span) {
                self.push(
                    Diagnostic::error(
                        codes::DUPLICATE_FIELD,
                        key.span,
                        format!("`{text}` has two weights in `{}`", name.text),
                        "weighted again here",
                    )
                    .label(first, "first weighted here")
                    .help("keep one of them"),
                );
                sound = false;
                continue;
            }
            let target = self.eval_path(key, scope);
            let target = self.mix_target(&target, &text);
            let weight = self.weight(value, scope, relative, &text);
            match (target, weight) {
                (Some(target), Some(weight)) => {
                    entries.push(MixEntry { name: text, target, weight, value_span: value.span });
                }
                _ => sound = false,
            }
        }
        if !sound {
            return None;
        }
        if entries.is_empty() {
            self.push(
                Diagnostic::error(
                    codes::MIX_EMPTY,
                    name.span,
                    format!("mix `{}` is empty", name.text),
                    "nothing is mixed here",
                )
                .help("add entries such as `web = 80%`"),
            );
            return None;
        }
        if relative {
            self.normalise(&mut entries)?;
        } else {
            self.check_sum(name, &entries)?;
        }
        let mut depth = 1;
        for e in &entries {
            if let Kind::Entity(Entity::Mix(id)) = e.target.kind
                && let Resolved::Mix(inner) = &self.resolved[id.index()]
            {
                depth = depth.max(inner.depth + 1);
            }
        }
        if depth > MAX_DEPTH {
            self.push(Diagnostic::error(
                codes::MIX_SUM,
                name.span,
                format!("mixes are nested more than {MAX_DEPTH} deep"),
                "this one is the innermost too many",
            ));
            return None;
        }
        let mut spec = MixSpec { entries, still: None, depth, span: name.span };
        let moving =
            spec.entries.iter().any(|e| matches!(e.weight, Weight::Curve(_)) || self.moves(&e.target));
        if !moving {
            spec.still = self.flatten_entries(&spec.entries, None, name.span);
            spec.still.as_ref()?;
        }
        Some(spec)
    }

    /// What an entry of a mix draws from must be a source or a mix.
    fn mix_target(&mut self, target: &Val<'p>, text: &str) -> Option<Val<'p>> {
        match &target.kind {
            Kind::Entity(Entity::Source(_) | Entity::Mix(_) | Entity::StageMix(_) | Entity::ModelMix(_)) => {
                Some(target.clone())
            }
            Kind::Chain(_) => Some(target.clone()),
            Kind::Call(call) if call.function.family == Family::Mix => Some(target.clone()),
            Kind::Poison => None,
            _ => {
                let found = target.describe();
                let mut d = Diagnostic::error(
                    codes::WRONG_KIND,
                    target.span,
                    format!("`{text}` is {found}, not a source or a mix"),
                    "only sources and mixes can be weighted",
                );
                if matches!(target.kind, Kind::Entity(Entity::Stage(_) | Entity::Member(_))) {
                    d = d.help(format!("to replay what it saw, write `{text}.mix`")).fix(
                        "replay its mix",
                        Applicability::MaybeIncorrect,
                        target.span,
                        format!("{text}.mix"),
                    );
                }
                self.push(d);
                None
            }
        }
    }

    fn weight(
        &mut self,
        value: &'p ast::Expr,
        scope: &Scope<'p>,
        relative: bool,
        text: &str,
    ) -> Option<Weight<'p>> {
        let val = self.eval(value, scope);
        let zero = Rational::from_integer(0);
        let negative = |this: &mut Self| {
            this.push(Diagnostic::error(
                codes::MIX_WEIGHT,
                val.span,
                format!("the weight of `{text}` is negative"),
                "a share of tokens cannot be below zero",
            ));
            None
        };
        match &val.kind {
            Kind::Word("rest") if !relative => Some(Weight::Rest),
            Kind::Share(n) if !relative => {
                if *n < zero {
                    negative(self)
                } else {
                    Some(Weight::Share(*n))
                }
            }
            Kind::Number(n) if relative => {
                if *n < zero {
                    negative(self)
                } else {
                    Some(Weight::Share(*n))
                }
            }
            Kind::Chain(_) | Kind::Call(_) if !relative => self.chain(&val, text).map(Weight::Curve),
            Kind::Poison => None,
            Kind::Number(n) => {
                let written = self.text(val.span);
                let mut d = Diagnostic::error(
                    codes::MIX_WEIGHT,
                    val.span,
                    format!("the weight of `{text}` is not a share"),
                    "a plain number",
                )
                .help("write a share such as `20%`, or put `weights = relative` into the mix");
                let percent = show::checked_mul(*n, Rational::from_integer(100)).and_then(show::decimal);
                if let (true, Some(p)) = (*n <= Rational::from_integer(1), percent) {
                    d = d.fix(
                        format!("write {written} as a share"),
                        Applicability::MaybeIncorrect,
                        val.span,
                        format!("{p}%"),
                    );
                }
                self.push(d);
                None
            }
            Kind::Quantity(..) => {
                self.push(
                    Diagnostic::error(
                        codes::MIX_WEIGHT,
                        val.span,
                        format!("the weight of `{text}` is {}", val.describe()),
                        "a weight is a share of sampled tokens",
                    )
                    .help("write a share such as `20%`, or use `proportional(…)` for shares by size"),
                );
                None
            }
            _ => {
                let expected = if relative { Ty::Number } else { Ty::Share };
                self.wrong(&val, expected, text);
                None
            }
        }
    }

    /// `weights = relative`: divide by the sum.
    fn normalise(&mut self, entries: &mut [MixEntry<'p>]) -> Option<()> {
        let mut sum = Rational::from_integer(0);
        for e in entries.iter() {
            if let Weight::Share(n) = e.weight {
                sum = sum.checked_add(&n).or_else(|| self.mix_overflow(e.value_span))?;
            }
        }
        if sum == Rational::from_integer(0) {
            let span = entries[0].value_span;
            self.push(Diagnostic::error(
                codes::MIX_WEIGHT,
                span,
                "all weights are zero",
                "nothing can be drawn",
            ));
            return None;
        }
        for e in entries {
            if let Weight::Share(n) = &mut e.weight {
                *n = n.checked_div(&sum).or_else(|| self.mix_overflow(e.value_span))?;
            }
        }
        Some(())
    }

    fn mix_overflow<T>(&mut self, span: Span) -> Option<T> {
        self.push(Diagnostic::error(
            codes::OVERFLOW,
            span,
            "weights too precise to add up",
            "exact arithmetic ends here",
        ));
        None
    }

    /// Weights must sum to exactly 100%, or leave a `rest`.
    fn check_sum(&mut self, name: &ast::Ident, entries: &[MixEntry<'p>]) -> Option<()> {
        let one = Rational::from_integer(1);
        let rests: Vec<Span> =
            entries.iter().filter(|e| matches!(e.weight, Weight::Rest)).map(|e| e.value_span).collect();
        if let [first, second, ..] = rests.as_slice() {
            self.push(
                Diagnostic::error(
                    codes::MIX_REST,
                    *second,
                    format!("two entries of `{}` take the rest", name.text),
                    "this one as well",
                )
                .label(*first, "this one takes what the others leave")
                .help("give one of them a share"),
            );
            return None;
        }
        let mut sum = Rational::from_integer(0);
        let mut moving = false;
        for e in entries {
            match &e.weight {
                Weight::Share(n) => sum = sum.checked_add(n).or_else(|| self.mix_overflow(e.value_span))?,
                Weight::Curve(_) => moving = true,
                Weight::Rest => {}
            }
        }
        if let Some(rest) = rests.first() {
            if sum > one {
                self.push(
                    Diagnostic::error(
                        codes::MIX_REST,
                        *rest,
                        format!("nothing is left for the rest of `{}`", name.text),
                        format!("the others already take {}", show::exact_percent(sum)),
                    )
                    .help("lower the other weights"),
                );
                return None;
            }
            return Some(());
        }
        if moving || sum == one {
            return Some(());
        }
        let (word, off) = if sum > one { ("over", sum - one) } else { ("short", one - sum) };
        let mut d = Diagnostic::error(
            codes::MIX_SUM,
            name.span,
            format!("weights of `{}` sum to {}, not 100%", name.text, show::exact_percent(sum)),
            format!("{} {word}", show::exact_percent(off)),
        );
        let largest = entries.iter().max_by(|a, b| match (&a.weight, &b.weight) {
            (Weight::Share(a), Weight::Share(b)) => a.cmp(b),
            _ => std::cmp::Ordering::Equal,
        });
        if let Some(e) = largest {
            d = d.label(e.value_span, "the largest weight");
            if let Weight::Share(n) = e.weight {
                let others = sum - n;
                if others <= one {
                    d = d
                        .help(format!(
                            "`{} = rest` would make it {}",
                            e.name,
                            show::exact_percent(one - others)
                        ))
                        .fix(
                            format!("let `{}` take the rest", e.name),
                            Applicability::MaybeIncorrect,
                            e.value_span,
                            "rest",
                        );
                }
            }
        }
        self.push(d);
        None
    }

    /// Whether a mixture changes over a stage.
    pub(crate) fn moves(&self, value: &Val<'p>) -> bool {
        match &value.kind {
            Kind::Entity(Entity::Mix(id)) => match &self.resolved[id.index()] {
                Resolved::Mix(spec) => spec.still.is_none(),
                Resolved::Value(v) => self.moves(v),
                _ => false,
            },
            Kind::Chain(_) => true,
            Kind::Call(call) => call.function.family == Family::Curve,
            _ => false,
        }
    }

    /// Shares of sources of anything that can be mixed. `frame` is the stage, for what moves.
    pub(crate) fn flatten(&mut self, value: &Val<'p>, frame: Option<Frame<'_>>) -> Option<Flat> {
        let one = |source| Some(Rc::new(vec![(source, Amount::Exact(Rational::from_integer(1)))]));
        match &value.kind {
            Kind::Entity(Entity::Source(id)) => match self.resolved[id.index()] {
                Resolved::Source(index) => one(index),
                _ => None,
            },
            Kind::Entity(Entity::Mix(id)) => match self.resolved[id.index()].clone() {
                Resolved::Mix(spec) => match &spec.still {
                    Some(flat) => Some(flat.clone()),
                    None => self.flatten_entries(&spec.entries, frame, spec.span),
                },
                Resolved::Value(v) => self.flatten(&Val { span: value.span, ..v }, frame),
                _ => None,
            },
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

    fn flatten_model(&mut self, id: DefId, span: Span) -> Option<Flat> {
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

    fn flatten_entries(
        &mut self,
        entries: &[MixEntry<'p>],
        frame: Option<Frame<'_>>,
        span: Span,
    ) -> Option<Flat> {
        let mut sum = Sum::default();
        // 1 − the others, for the rest.
        let mut left = (Rational::from_integer(1), Vec::<Term>::new());
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
                    left.0 = left.0.checked_sub(n).or_else(|| self.mix_overflow(e.value_span))?;
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

    fn too_many_terms<T>(&mut self, span: Span) -> Option<T> {
        self.push(Diagnostic::error(
            codes::CURVE_SIZE,
            span,
            format!("this mixture unfolds to more than {MAX_TERMS} moving products"),
            "moving mixes inside moving mixes multiply",
        ));
        None
    }

    /// A curve of mixes: each mix on the way has a share that rises and falls; they sum to one.
    fn crossfade(&mut self, chain: &Chain<'p>, frame: Option<Frame<'_>>, span: Span) -> Option<Flat> {
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
        let segment = |shape, from, to, p: &super::chain::Placed<'p>| Segment {
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

    fn flatten_call(&mut self, call: &Call<'p>) -> Option<Flat> {
        match call.function.name {
            "upsample" => self.upsample(call),
            "proportional" => {
                let items = call.positional.clone();
                self.by_size(&items, 1.0, call.span)
            }
            _ => {
                let Some((last, items)) = call.positional.split_last() else {
                    self.no_sources(call);
                    return None;
                };
                let (last, items) = (last.clone(), items.to_vec());
                let exponent = self.non_negative(&last, "temperature")?;
                self.by_size(&items, exponent, call.span)
            }
        }
    }

    fn no_sources(&mut self, call: &Call<'p>) {
        self.push(Diagnostic::error(
            codes::MISSING_ARGUMENT,
            call.span,
            format!("`{}` of nothing", call.function.name),
            "sources are expected between the parentheses",
        ));
    }

    /// Shares by tokens to a power.
    fn by_size(&mut self, items: &[Val<'p>], exponent: f64, span: Span) -> Option<Flat> {
        if items.is_empty() {
            self.push(Diagnostic::error(
                codes::MISSING_ARGUMENT,
                span,
                "proportions of nothing",
                "sources are expected between the parentheses",
            ));
            return None;
        }
        let mut sizes: Vec<(usize, u64)> = Vec::new();
        for item in items {
            let Kind::Entity(Entity::Source(id)) = item.kind else {
                if !item.is_poison() {
                    let found = item.describe();
                    self.push(Diagnostic::error(
                        codes::WRONG_KIND,
                        item.span,
                        format!("{found} where a source is expected"),
                        "only sources have a size",
                    ));
                }
                return None;
            };
            let Resolved::Source(index) = self.resolved[id.index()] else { return None };
            let Some(tokens) = self.out.sources[index].tokens else {
                let (name, at) = (self.out.sources[index].name.clone(), self.out.sources[index].span);
                self.push(
                    Diagnostic::error(
                        codes::MIX_SIZES,
                        item.span,
                        format!("the size of `{name}` is not known"),
                        "proportions need the tokens of every source",
                    )
                    .label(at, "this source has no `tokens`")
                    .help("write `tokens = …` into the source; `midc data` measures it"),
                );
                return None;
            };
            if let Some((_, first)) = sizes.iter().zip(items).find(|((s, _), _)| *s == index) {
                let first = first.span;
                self.push(
                    Diagnostic::error(
                        codes::MIX_TWICE,
                        item.span,
                        "a source is named twice",
                        "named again here",
                    )
                    .label(first, "first named here"),
                );
                return None;
            }
            sizes.push((index, tokens));
        }
        if exponent == 1.0 {
            let total: i128 = sizes.iter().map(|(_, t)| i128::from(*t)).sum();
            let shares = sizes.iter().map(|(s, t)| (*s, Amount::Exact(Rational::new(i128::from(*t), total))));
            return Some(Rc::new(shares.collect()));
        }
        let powers: Vec<f64> = sizes.iter().map(|(_, t)| (*t as f64).powf(exponent)).collect();
        let total: f64 = powers.iter().sum();
        let shares =
            sizes.iter().zip(&powers).map(|((s, _), p)| (*s, Amount::Moving(Blend::constant(p / total))));
        Some(Rc::new(shares.collect()))
    }

    /// `upsample(decay, code: 2)`.
    fn upsample(&mut self, call: &Call<'p>) -> Option<Flat> {
        let [base] = call.positional.as_slice() else {
            self.push(Diagnostic::error(
                codes::MISSING_ARGUMENT,
                call.span,
                format!("`upsample` takes one mix, not {}", call.positional.len()),
                "write `upsample(MIX, entry: 2)`",
            ));
            return None;
        };
        let spec = match &base.kind {
            Kind::Entity(Entity::Mix(id)) => match &self.resolved[id.index()] {
                Resolved::Mix(spec) => Some(spec.clone()),
                _ => None,
            },
            _ => None,
        };
        let Some(spec) = spec.filter(|s| s.still.is_some()) else {
            if !base.is_poison() {
                let found = base.describe();
                self.push(Diagnostic::error(
                    codes::WRONG_KIND,
                    base.span,
                    format!("`upsample` of {found}"),
                    "a named mix with fixed weights is expected",
                ));
            }
            return None;
        };
        let mut taken = Rational::from_integer(0);
        for e in &spec.entries {
            if let Weight::Share(n) = e.weight {
                taken += n;
            }
        }
        let mut scaled: Vec<(usize, Rational)> = Vec::new();
        let mut total = Rational::from_integer(0);
        for (i, e) in spec.entries.iter().enumerate() {
            let weight = match e.weight {
                Weight::Share(n) => n,
                _ => Rational::from_integer(1) - taken,
            };
            let factor = match call.named.iter().find(|(n, _)| n.text == e.name) {
                Some((_, v)) => match v.kind {
                    Kind::Number(n) if n >= Rational::from_integer(0) => n,
                    _ => {
                        let v = v.clone();
                        self.wrong(&v, Ty::Number, &e.name);
                        return None;
                    }
                },
                None => Rational::from_integer(1),
            };
            let w = weight.checked_mul(&factor).or_else(|| self.mix_overflow(call.span))?;
            total = total.checked_add(&w).or_else(|| self.mix_overflow(call.span))?;
            scaled.push((i, w));
        }
        for (name, _) in &call.named {
            if spec.entries.iter().all(|e| e.name != name.text) {
                let d = Diagnostic::error(
                    codes::UNKNOWN_NAME,
                    name.span,
                    format!("the mix has no entry `{}`", name.text),
                    "not an entry of this mix",
                )
                .label(base.span, "the mix");
                let near =
                    crate::diag::suggest::nearest(&name.text, spec.entries.iter().map(|e| e.name.as_str()));
                self.push(super::program::suggest(d, name.span, near, ""));
                return None;
            }
        }
        if total == Rational::from_integer(0) {
            self.push(Diagnostic::error(
                codes::MIX_WEIGHT,
                call.span,
                "all weights are zero",
                "nothing can be drawn",
            ));
            return None;
        }
        let mut sum = Sum::default();
        for (i, w) in scaled {
            let share = w.checked_div(&total).or_else(|| self.mix_overflow(call.span))?;
            let flat = self.flatten(&spec.entries[i].target, None)?;
            for (source, amount) in flat.iter() {
                sum.add(*source, &Amount::Exact(share), amount);
            }
        }
        Some(sum.finish())
    }
}

/// The mean share of a source over a finished stage, exact where it never moved.
fn mean_amount(portion: &super::curriculum::Portion) -> Amount {
    match portion.exact {
        Some(n) => Amount::Exact(n),
        None => Amount::Moving(Blend::constant(portion.mean)),
    }
}
