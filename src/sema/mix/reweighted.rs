//! Functions that change the weights of a mix's entries: `upsample` by a factor, `reweight` to a share.

use std::rc::Rc;

use crate::diag::{Diagnostic, codes, suggest};
use crate::schema::Ty;
use crate::source::Span;
use crate::syntax::ast::Rational;

use super::MixSpec;
use super::flat::{Amount, Flat, Sum};
use crate::sema::checker::{Checker, Resolved};
use crate::sema::program::suggest as did_you_mean;
use crate::sema::value::{Call, Entity, Kind, Val};

impl<'p> Checker<'p> {
    /// `upsample(decay, code: 2)`, `reweight(decay, code: 30%)`.
    pub(super) fn reweighted(&mut self, call: &Call<'p>) -> Option<Flat> {
        let spec = self.weighed(call)?;
        let mut shares = Vec::with_capacity(spec.entries.len());
        for entry in &spec.entries {
            shares.push(spec.share(entry).or_else(|| self.mix_overflow(call.span))?);
        }
        let given = self.given(call, &spec)?;
        let weights = match call.function.name {
            "upsample" => self.multiplied(call, &spec, &shares, &given)?,
            _ => self.set(call, &shares, &given)?,
        };
        self.combined(call.span, &spec, &weights)
    }

    /// The mix whose entries are weighed anew.
    fn weighed(&mut self, call: &Call<'p>) -> Option<Rc<MixSpec<'p>>> {
        let name = call.function.name;
        let value = if name == "upsample" { "2" } else { "30%" };
        let [base] = call.positional.as_slice() else {
            self.push(Diagnostic::error(
                codes::MISSING_ARGUMENT,
                call.span,
                format!("`{name}` takes one mix, not {}", call.positional.len()),
                format!("write `{name}(MIX, entry: {value})`"),
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
        let still = spec.filter(|spec| spec.still.is_some());
        if still.is_none() && !base.is_poison() {
            let found = base.describe();
            self.push(
                Diagnostic::error(
                    codes::WRONG_KIND,
                    base.span,
                    format!("`{name}` of {found}"),
                    "a named mix with fixed weights is expected",
                )
                .help(format!(
                    "write its shares into a block, `mix base {{ … }}`, and take `{name}(base, …)` of that"
                )),
            );
        }
        still
    }

    /// What is said of each entry, in their order.
    fn given<'c>(&mut self, call: &'c Call<'p>, spec: &MixSpec<'p>) -> Option<Vec<Option<&'c Val<'p>>>> {
        // An imported entry by its own name, where no other has it: an argument's name has no dots.
        let ends = |entry: &str, name: &str| entry.rsplit('.').next() == Some(name);
        let alone = |name: &str| spec.entries.iter().filter(|e| ends(&e.name, name)).count() == 1;
        let means = |name: &str, entry: &str| entry == name || ends(entry, name) && alone(name);
        for (name, _) in &call.named {
            if spec.entries.iter().any(|e| means(&name.text, &e.name)) {
                continue;
            }
            let d = Diagnostic::error(
                codes::UNKNOWN_NAME,
                name.span,
                format!("the mix has no entry `{}`", name.text),
                "not an entry of this mix",
            )
            .label(call.positional.first().map_or(call.span, |base| base.span), "the mix");
            let near = suggest::nearest(&name.text, spec.entries.iter().map(|e| e.name.as_str()));
            let all = spec.entries.iter().map(|e| format!("`{}`", e.name)).collect::<Vec<_>>().join(", ");
            let d = d.note(format!("its entries are {all}"));
            self.push(did_you_mean(d, name.span, near, ""));
            return None;
        }
        let of = |entry: &str| call.named.iter().find(|(name, _)| means(&name.text, entry)).map(|(_, v)| v);
        Some(spec.entries.iter().map(|e| of(&e.name)).collect())
    }

    /// The shares times what is given, not yet divided by their sum.
    fn multiplied(
        &mut self,
        call: &Call<'p>,
        spec: &MixSpec<'p>,
        shares: &[Rational],
        given: &[Option<&Val<'p>>],
    ) -> Option<Vec<Rational>> {
        let mut weights = Vec::with_capacity(shares.len());
        for ((entry, share), value) in spec.entries.iter().zip(shares).zip(given) {
            let factor = match value {
                Some(Val { kind: Kind::Number(n), .. }) if *n >= Rational::ZERO => *n,
                Some(Val { kind: Kind::Number(_), span }) => {
                    self.push(Diagnostic::error(
                        codes::OUT_OF_RANGE,
                        *span,
                        format!("`{}` times a number below zero", entry.name),
                        "must not be negative",
                    ));
                    return None;
                }
                Some(value) => {
                    self.wrong(value, Ty::Number, &entry.name);
                    return None;
                }
                None => Rational::ONE,
            };
            weights.push(share.checked_mul(factor).or_else(|| self.mix_overflow(call.span))?);
        }
        Some(weights)
    }

    /// The shares that are given, and of the others their parts of what is left.
    fn set(
        &mut self,
        call: &Call<'p>,
        shares: &[Rational],
        given: &[Option<&Val<'p>>],
    ) -> Option<Vec<Rational>> {
        let (mut taken, mut others) = (Rational::ZERO, Rational::ZERO);
        let mut set = Vec::with_capacity(given.len());
        for (share, value) in shares.iter().zip(given) {
            let own = match value {
                Some(value) => Some(self.share(value, "share")?),
                None => None,
            };
            let sum = if own.is_some() { &mut taken } else { &mut others };
            *sum = sum.checked_add(own.unwrap_or(*share)).or_else(|| self.mix_overflow(call.span))?;
            set.push(own);
        }
        let left = Rational::ONE.checked_sub(taken).or_else(|| self.mix_overflow(call.span))?;
        let wrong = if left < Rational::ZERO {
            Some("the shares given here come to more than 100%")
        } else if left > Rational::ZERO && others == Rational::ZERO {
            Some("the shares given here come to less than 100%, and no other entry takes the rest")
        } else {
            None
        };
        if let Some(why) = wrong {
            self.push(Diagnostic::error(codes::MIX_SUM, call.span, why, "shares of one mix"));
            return None;
        }
        let mut weights = Vec::with_capacity(set.len());
        for (own, share) in set.into_iter().zip(shares) {
            let part = || share.checked_mul(left)?.checked_div(others);
            weights.push(match own {
                Some(own) => own,
                None if left == Rational::ZERO => Rational::ZERO,
                None => part().or_else(|| self.mix_overflow(call.span))?,
            });
        }
        Some(weights)
    }

    /// The sources of the entries, each by its part of all weights.
    fn combined(&mut self, span: Span, spec: &MixSpec<'p>, weights: &[Rational]) -> Option<Flat> {
        let mut total = Rational::ZERO;
        for weight in weights {
            total = total.checked_add(*weight).or_else(|| self.mix_overflow(span))?;
        }
        if total == Rational::ZERO {
            return self.all_zero(span);
        }
        let mut sum = Sum::default();
        for (entry, weight) in spec.entries.iter().zip(weights) {
            let share = weight.checked_div(total).or_else(|| self.mix_overflow(span))?;
            let flat = self.flatten(&entry.target, None)?;
            for (source, amount) in flat.iter() {
                if !sum.add(*source, &Amount::Exact(share), amount) {
                    return self.too_many_terms(span);
                }
            }
        }
        Some(sum.finish())
    }
}
