//! Mixtures: the entries of a `mix` block and their weights. What they come to, source by source, is
//! in [`flat`]; the functions that make mixtures of mixtures in `functions`.

mod flat;
mod functions;
mod reweighted;

pub(crate) use flat::{Amount, Flat};

use std::collections::HashMap;

use crate::diag::{Applicability, Diagnostic};
use crate::schema::{Family, Ty};
use crate::source::Span;
use crate::syntax::ast::{self, EntryKind, PathSegment, Rational};

use crate::diag::codes;
use crate::sema::chain::Chain;
use crate::sema::checker::{Checker, Resolved};
use crate::sema::eval::Scope;
use crate::sema::program::Lookup;
use crate::sema::show;
use crate::sema::value::{Entity, Kind, Val};

/// Mixes nested deeper than this are refused.
const MAX_DEPTH: usize = 64;

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

impl MixSpec<'_> {
    /// The share of `entry`, one of its own, in this mix; `None` where it moves.
    pub(crate) fn share(&self, entry: &MixEntry<'_>) -> Option<Rational> {
        match entry.weight {
            Weight::Share(share) => Some(share),
            Weight::Curve(_) => None,
            Weight::Rest => {
                let others = self.entries.iter().filter(|e| !matches!(e.weight, Weight::Rest));
                others
                    .map(|e| self.share(e))
                    .try_fold(Rational::from_integer(1), |left, share| left.checked_sub(share?))
            }
        }
    }
}

impl<'p> Checker<'p> {
    /// A `mix` block, with a name or written where it is read.
    pub(crate) fn resolve_mix(&mut self, block: &'p ast::Block, scope: &Scope<'p>) -> Option<MixSpec<'p>> {
        let name = block.name.as_ref().unwrap_or(&block.kind);
        let setting = |key: &ast::Path| {
            matches!(key.segments.as_slice(), [PathSegment::Name(word)] if word.text == "weights")
                && !self.program.modules[scope.module].names.contains_key("weights")
        };
        let mut settings = block.entries.iter().filter_map(|entry| match &entry.kind {
            EntryKind::Field { key, value } if setting(key) => Some((key.span, value)),
            _ => None,
        });
        let (weights, again) = (settings.next(), settings.next());
        let mut entries: Vec<MixEntry<'p>> = Vec::new();
        let mut seen: HashMap<String, Span> = HashMap::new();
        let mut sound = !block.incomplete;
        let mut relative = false;
        if let Some((_, value)) = weights {
            let value = self.eval_typed(value, Ty::Word(crate::schema::WEIGHTS), "weights", scope);
            relative = self.word(&value, crate::schema::WEIGHTS, "weights").is_some();
            // Which of the two was meant is not known; the weights cannot be judged.
            if !relative {
                return None;
            }
        }
        if let (Some((first, _)), Some((second, _))) = (weights, again) {
            self.push(
                Diagnostic::error(
                    codes::DUPLICATE_FIELD,
                    second,
                    "`weights` is written twice",
                    "written again here",
                )
                .label(first, "first written here"),
            );
        }
        // One mistake in the notation of a mix, however many entries it has.
        let told = match relative {
            true => self.shares_in_relative(block, scope),
            false => self.numbers_for_shares(block),
        };
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
            if weights.is_some_and(|(at, _)| at == key.span) || again.is_some_and(|(at, _)| at == key.span) {
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
            if told.contains(&value.span) {
                sound = false;
                continue;
            }
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
        self.note_rest(&spec);
        let moving =
            spec.entries.iter().any(|e| matches!(e.weight, Weight::Curve(_)) || self.moves(&e.target));
        if !moving {
            spec.still = self.flatten_entries(&spec.entries, None, name.span);
            spec.still.as_ref()?;
        }
        Some(spec)
    }

    /// Keep what `rest` comes to, for those who show it.
    fn note_rest(&mut self, spec: &MixSpec<'p>) {
        let rest = spec.entries.iter().find(|entry| matches!(entry.weight, Weight::Rest));
        let Some((at, share)) = rest.and_then(|entry| Some((entry.value_span, spec.share(entry)?))) else {
            return;
        };
        let share = show::exact_percent(share);
        match self.rests.get_mut(&at) {
            // One block, resolved for each member of a fan-out.
            Some(shown) if shown.split(" | ").all(|other| other != share) => {
                shown.push_str(" | ");
                shown.push_str(&share);
            }
            Some(_) => {}
            None => drop(self.rests.insert(at, share)),
        }
    }

    /// Several plain numbers where shares are meant: one message for all of them.
    fn numbers_for_shares(&mut self, block: &'p ast::Block) -> Vec<Span> {
        let mut plain = Vec::new();
        let mut others = 0;
        for entry in &block.entries {
            let EntryKind::Field { key, value } = &entry.kind else { continue };
            match &value.kind {
                ast::ExprKind::Quantity(q) if !q.percent && q.unit.is_none() => {
                    plain.push((key, q.value, value.span))
                }
                _ => others += 1,
            }
        }
        let [(key, _, first), rest @ ..] = plain.as_slice() else { return Vec::new() };
        if rest.is_empty() {
            return Vec::new();
        }
        let name = self.text(key.span);
        let mut d = Diagnostic::error(
            codes::MIX_WEIGHT,
            *first,
            format!("the weights of `{name}` and {} more are not shares", rest.len()),
            "a plain number",
        );
        for (_, _, span) in rest.iter().take(3) {
            d = d.label(*span, "a plain number");
        }
        d = d.help("write shares such as `20%`, or put `weights = relative` into the mix");
        let sum = plain.iter().try_fold(Rational::ZERO, |n, (_, v, _)| n.checked_add(*v));
        let hundred = Rational::from_integer(100);
        let factor = match sum {
            Some(n) if n == Rational::ONE => Some(hundred),
            Some(n) if n == hundred || others > 0 && n < hundred && n > Rational::ONE => Some(Rational::ONE),
            _ => None,
        };
        let shares: Option<Vec<crate::diag::Edit>> = factor.and_then(|factor| {
            let percent = |v: &Rational| show::checked_mul(*v, factor).and_then(show::decimal);
            plain
                .iter()
                .map(|(_, v, span)| {
                    Some(crate::diag::Edit { span: *span, text: format!("{}%", percent(v)?) })
                })
                .collect()
        });
        match shares {
            Some(edits) => d.fixes.push(crate::diag::Fix {
                title: "write them as shares".to_owned(),
                applicability: Applicability::MaybeIncorrect,
                edits,
            }),
            None if others == 0 => {
                let at = Span { start: key.span.start, end: key.span.start, ..key.span };
                d = d.fix(
                    "make the weights relative",
                    Applicability::MaybeIncorrect,
                    at,
                    "weights = relative, ",
                );
            }
            None => {}
        }
        self.push(d);
        plain.iter().map(|(_, _, span)| *span).collect()
    }

    /// Shares or a `rest` in a mix whose weights are relative: one message for all of them.
    fn shares_in_relative(&mut self, block: &'p ast::Block, scope: &Scope<'p>) -> Vec<Span> {
        let wrong: Vec<Span> = block
            .entries
            .iter()
            .filter_map(|entry| match &entry.kind {
                EntryKind::Field { value, .. } => Some(value),
                _ => None,
            })
            .filter(|value| match &value.kind {
                ast::ExprKind::Quantity(q) => q.percent,
                ast::ExprKind::Path(path) => {
                    matches!(path.segments.as_slice(), [PathSegment::Name(word)] if word.text == "rest")
                        && matches!(self.program.lookup(scope.module, path), Lookup::Unknown)
                }
                _ => false,
            })
            .map(|value| value.span)
            .collect();
        if let Some((first, rest)) = wrong.split_first() {
            let mut d = Diagnostic::error(
                codes::MIX_WEIGHT,
                *first,
                format!("`{}` in a mix of relative weights", self.text(*first)),
                "relative weights are plain numbers",
            );
            for span in rest.iter().take(3) {
                d = d.label(*span, "this as well");
            }
            self.push(d.help("take `weights = relative` out, or write numbers such as `3`"));
        }
        wrong
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
        let zero = Rational::ZERO;
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
                if let (true, Some(p)) = (*n <= Rational::ONE, percent) {
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
        let mut sum = Rational::ZERO;
        for e in entries.iter() {
            if let Weight::Share(n) = e.weight {
                sum = sum.checked_add(n).or_else(|| self.mix_overflow(e.value_span))?;
            }
        }
        if sum == Rational::ZERO {
            return self.all_zero(entries[0].value_span);
        }
        for e in entries {
            if let Weight::Share(n) = &mut e.weight {
                *n = n.checked_div(sum).or_else(|| self.mix_overflow(e.value_span))?;
            }
        }
        Some(())
    }

    fn all_zero<T>(&mut self, span: Span) -> Option<T> {
        self.push(Diagnostic::error(codes::MIX_WEIGHT, span, "all weights are zero", "nothing can be drawn"));
        None
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
        let one = Rational::ONE;
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
        let mut sum = Rational::ZERO;
        let mut moving = false;
        for e in entries {
            match &e.weight {
                Weight::Share(n) => sum = sum.checked_add(*n).or_else(|| self.mix_overflow(e.value_span))?,
                Weight::Curve(_) => moving = true,
                Weight::Rest => {}
            }
        }
        if let Some(rest) = rests.first() {
            // Weights that are computed may leave nothing for once: a parameter was set so.
            let written = |e: &MixEntry<'p>| {
                matches!(e.weight, Weight::Rest)
                    || self.text(e.value_span).bytes().all(|b| b"0123456789_.%".contains(&b))
            };
            if sum > one || sum == one && entries.iter().all(written) {
                self.push(
                    Diagnostic::error(
                        codes::MIX_REST,
                        *rest,
                        format!("nothing is left for the rest of `{}`", name.text),
                        format!("the others already take {}", show::exact_percent(sum)),
                    )
                    .help("lower the other weights; a source that is to have nothing is written `0%`"),
                );
                return None;
            }
            return Some(());
        }
        if moving || sum == one {
            return Some(());
        }
        let (word, off) = match sum > one {
            true => ("over", sum.checked_sub(one)),
            false => ("short", one.checked_sub(sum)),
        };
        let off = off.or_else(|| self.mix_overflow(name.span))?;
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
                let left = sum.checked_sub(n).and_then(|others| one.checked_sub(others));
                if let Some(left) = left.filter(|left| *left >= Rational::ZERO) {
                    d = d
                        .help(format!("`{} = rest` would make it {}", e.name, show::exact_percent(left)))
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
}
