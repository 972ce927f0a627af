//! Functions that make a mixture of sources by their sizes: `proportional`, `temperature`.

use std::rc::Rc;

use crate::curve::Blend;
use crate::diag::Diagnostic;
use crate::source::Span;
use crate::syntax::ast::Rational;

use super::flat::{Amount, Flat};
use crate::diag::codes;
use crate::sema::checker::{Checker, Resolved};
use crate::sema::show;
use crate::sema::value::{Call, Entity, Kind, Val};

impl<'p> Checker<'p> {
    pub(super) fn flatten_call(&mut self, call: &Call<'p>) -> Option<Flat> {
        match call.function.name {
            "upsample" | "reweight" => self.reweighted(call),
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
                if exponent > 1.0 {
                    self.push(
                        Diagnostic::error(
                            codes::OUT_OF_RANGE,
                            last.span,
                            format!("`temperature` with an exponent of {}", show::number(exponent)),
                            "large sources would weigh more than their tokens",
                        )
                        .help(format!(
                            "the exponent is the inverse of the temperature, from 0 (equal) to 1 (by tokens): of a temperature of {} it is `{}`",
                            show::number(exponent),
                            show::number(1.0 / exponent)
                        )),
                    );
                    return None;
                }
                self.by_size(&items, exponent, call.span)
            }
        }
    }

    pub(super) fn no_sources(&mut self, call: &Call<'p>) {
        self.push(Diagnostic::error(
            codes::MISSING_ARGUMENT,
            call.span,
            format!("`{}` of nothing", call.function.name),
            "sources are expected between the parentheses",
        ));
    }

    /// Shares by tokens to a power.
    pub(super) fn by_size(&mut self, items: &[Val<'p>], exponent: f64, span: Span) -> Option<Flat> {
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
            self.is_trained_on(index, item.span)?;
            let Some(tokens) = self.out.sources[index].tokens else {
                let source = &self.out.sources[index];
                let (name, at, part) = (source.name.clone(), source.span, source.parent.is_some());
                let source = source.clone();
                let mut d = Diagnostic::error(
                    codes::MIX_SIZES,
                    item.span,
                    format!("the size of `{name}` is not known"),
                    "proportions need the tokens of every source",
                )
                .label(at, "this source has no `tokens`")
                .help(if part {
                    "let `midc data FILE --save` measure how much of the source its condition passes"
                } else {
                    crate::sema::property::COUNT
                });
                if self.counted_otherwise(&source) {
                    d = d.note("what `midc data --save` counted is of other settings of this source");
                }
                self.push(d);
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
            let shares = sizes.iter().map(|(s, t)| {
                let share = Rational::new(i128::from(*t), total).or_else(|| self.mix_overflow(span))?;
                Some((*s, Amount::Exact(share)))
            });
            return shares.collect::<Option<Vec<_>>>().map(Rc::new);
        }
        let powers: Vec<f64> = sizes.iter().map(|(_, t)| (*t as f64).powf(exponent)).collect();
        let total: f64 = powers.iter().sum();
        let shares =
            sizes.iter().zip(&powers).map(|((s, _), p)| (*s, Amount::Moving(Blend::constant(p / total))));
        Some(Rc::new(shares.collect()))
    }
}
