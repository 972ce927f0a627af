//! Curves of numbers: learning rates and weights.

use crate::curve::{Curve, Shape};
use crate::diag::Diagnostic;
use crate::schema::Ty;
use crate::source::Span;
use crate::syntax::ast::Rational;

use super::chain::{Chain, Frame, Placed, curve};
use super::checker::Checker;
use super::show;
use super::value::{Call, Kind, Val, Whole};
use crate::diag::codes;

/// The learning rate at the end of `from`, or why there is none.
#[derive(Clone, Debug)]
pub(crate) struct Inherited {
    pub(crate) value: Option<f64>,
    /// Why there is none, and what to do.
    pub(crate) reason: String,
    pub(crate) help: String,
    /// Where `from` stands.
    pub(crate) span: Span,
}

impl<'p> Checker<'p> {
    /// A chain of numbers as a curve, with the place of each segment. `read` turns a written value
    /// into a number.
    pub(crate) fn numeric(
        &mut self,
        chain: &Chain<'p>,
        frame: Frame<'_>,
        mut read: impl FnMut(&mut Self, &Val<'p>) -> Option<f64>,
    ) -> Option<(Curve, Vec<Span>)> {
        let start = read(self, &chain.start)?;
        let placed = self.place(chain, frame)?;
        let mut values = vec![start];
        let mut shapes = Vec::new();
        let mut here = start;
        for p in &placed {
            let (shape, to) = self.shape(p, here, frame, &mut read)?;
            shapes.push(shape);
            values.push(to);
            here = if p.horizon.is_some() {
                let full = (p.horizon.unwrap_or(p.end) - p.start) as f64;
                shape.value(here, to, (p.end - p.start) as f64, full)
            } else {
                to
            };
        }
        let spans = if placed.is_empty() {
            vec![chain.start.span]
        } else {
            placed.iter().map(|p| p.call.span).collect()
        };
        Some((curve(&placed, &shapes, &values, frame.tokens), spans))
    }

    fn shape(
        &mut self,
        p: &Placed<'p>,
        from: f64,
        frame: Frame<'_>,
        read: &mut impl FnMut(&mut Self, &Val<'p>) -> Option<f64>,
    ) -> Option<(Shape, f64)> {
        let call = p.call.clone();
        let name = call.function.name;
        if name == "hold" {
            return Some((Shape::Hold, from));
        }
        if name == "exp" {
            return self.exponential(p, from, frame, read);
        }
        let to = read(self, call.arg("to")?)?;
        let shape = match name {
            "step" => Shape::Step,
            "linear" => Shape::Linear,
            "cosine" => Shape::Cosine,
            "one_minus_sqrt" => Shape::OneMinusSqrt,
            "exp_floor" => Shape::ExpFloor { gamma: self.positive(&call.arg("gamma")?.clone(), "gamma")? },
            "poly" => Shape::Poly { power: self.positive(&call.arg("power")?.clone(), "power")? },
            "inv_sqrt" => Shape::InvSqrt,
            _ => {
                let b = call.arg("b")?.clone();
                let exponent = self.number(&b, "b")?;
                if exponent >= 0.0 {
                    self.push(Diagnostic::error(
                        codes::OUT_OF_RANGE,
                        b.span,
                        "`b` of a power schedule is not negative",
                        format!("this is {}", show::number(exponent)),
                    ));
                    return None;
                }
                Shape::Power { b: exponent }
            }
        };
        if matches!(shape, Shape::InvSqrt | Shape::Power { .. }) && !(0.0 < to && to <= from) {
            return self.impossible(&call, from, to, "it only falls, and never to zero");
        }
        Some((shape, to))
    }

    fn exponential(
        &mut self,
        p: &Placed<'p>,
        from: f64,
        frame: Frame<'_>,
        read: &mut impl FnMut(&mut Self, &Val<'p>) -> Option<f64>,
    ) -> Option<(Shape, f64)> {
        let call = p.call.clone();
        match (call.arg("to"), call.arg("half_life")) {
            (Some(to), None) => {
                let to = read(self, to)?;
                if from <= 0.0 || to <= 0.0 {
                    return self.impossible(
                        &call,
                        from,
                        to,
                        "a geometric curve never reaches or leaves zero",
                    );
                }
                Some((Shape::Exp, to))
            }
            (None, Some(half)) => {
                let half = half.clone();
                let length =
                    self.span(&half, "half_life", frame, |clock, steps| clock.span(p.start, steps))?;
                if length <= Rational::ZERO {
                    self.push(Diagnostic::error(
                        codes::OUT_OF_RANGE,
                        half.span,
                        "a half-life of zero",
                        "must be above zero",
                    ));
                    return None;
                }
                let half_life = show::real(length);
                let full = (p.horizon.unwrap_or(p.end) - p.start) as f64;
                Some((Shape::HalfLife { half_life }, from * 0.5f64.powf(full / half_life)))
            }
            (Some(to), Some(half)) => {
                let (to, half) = (to.span, half.span);
                self.push(
                    Diagnostic::error(
                        codes::CURVE_SHAPE,
                        half,
                        "`exp` with both `to` and `half_life`",
                        "this already decides where it ends",
                    )
                    .label(to, "so does this")
                    .help("keep one of them"),
                );
                None
            }
            (None, None) => {
                self.push(Diagnostic::error(
                    codes::MISSING_ARGUMENT,
                    call.span,
                    "`exp` needs `to` or `half_life`",
                    "how far it falls is not said",
                ));
                None
            }
        }
    }

    fn impossible<T>(&mut self, call: &Call<'p>, from: f64, to: f64, why: &str) -> Option<T> {
        self.push(
            Diagnostic::error(
                codes::CURVE_SHAPE,
                call.span,
                format!(
                    "`{}` cannot go from {} to {}",
                    call.function.name,
                    show::number(from),
                    show::number(to)
                ),
                why.to_owned(),
            )
            .help("use `linear`, `cosine` or `one_minus_sqrt`, or end above zero"),
        );
        None
    }

    /// The learning rate of a stage.
    pub(crate) fn lr(
        &mut self,
        chain: &Chain<'p>,
        frame: Frame<'_>,
        inherited: &Inherited,
    ) -> Option<(Curve, Vec<Span>)> {
        // The peak is the largest value that does not itself speak of the peak.
        let mut peak: Option<(f64, Option<Rational>)> = None;
        let mut relative = None;
        let targets = std::iter::once(&chain.start).chain(chain.segments.iter().filter_map(|c| c.arg("to")));
        for value in targets {
            let found = match value.kind {
                // More than the peak would be the peak itself.
                Kind::Relative { share, whole: Whole::Peak, .. } if share > Rational::ONE => {
                    self.push(
                        Diagnostic::error(
                            codes::CURVE_PEAK,
                            value.span,
                            "a learning rate above its own peak",
                            format!("this is {} of the largest value", show::exact_percent(share)),
                        )
                        .help("write the highest value as a number; shares of `peak` go up to 100%"),
                    );
                    return None;
                }
                Kind::Word("peak") | Kind::Relative { whole: Whole::Peak, .. } => {
                    relative = relative.or(Some(value.span));
                    continue;
                }
                Kind::Number(n) => (show::real(n), Some(n)),
                _ => (self.lr_value(value, inherited, None)?, None),
            };
            if peak.is_none_or(|(p, _)| found.0 > p) {
                peak = Some(found);
            }
        }
        if let Some(span) = relative
            && peak.is_none_or(|(p, _)| p <= 0.0)
        {
            self.push(
                Diagnostic::error(
                    codes::CURVE_PEAK,
                    span,
                    "`peak` of a curve that never says a value",
                    match peak {
                        None => "no part of this curve is an absolute learning rate",
                        Some(_) => "every absolute learning rate of this curve is 0",
                    },
                )
                .help("write the highest value as a number: `0 then linear(to: 3e-4, over: 1% of stage) then …`"),
            );
            return None;
        }
        self.numeric(chain, frame, |this, v| this.lr_value(v, inherited, peak))
    }

    fn lr_value(
        &mut self,
        value: &Val<'p>,
        inherited: &Inherited,
        peak: Option<(f64, Option<Rational>)>,
    ) -> Option<f64> {
        let number = match value.kind {
            Kind::Number(n) => show::real(n),
            Kind::Real(v) => v,
            Kind::Word("inherit") => self.inherit(value.span, inherited)?,
            Kind::Relative { share, whole: Whole::Inherit, .. } => {
                self.inherit(value.span, inherited)? * show::real(share)
            }
            Kind::Word("peak") => peak?.0,
            Kind::Relative { share, whole: Whole::Peak, .. } => match peak? {
                // Exact while it can be: 10% of 3e-4 is 3e-5 and nothing else.
                (_, Some(p)) => {
                    show::checked_mul(p, share).map(show::real).unwrap_or(show::real(p) * show::real(share))
                }
                (p, None) => p * show::real(share),
            },
            _ => {
                self.wrong(value, Ty::Lr, "lr");
                return None;
            }
        };
        if number < 0.0 || !number.is_finite() {
            self.push(Diagnostic::error(
                codes::OUT_OF_RANGE,
                value.span,
                "a negative learning rate",
                format!("this is {}", show::number(number)),
            ));
            return None;
        }
        Some(number)
    }

    fn inherit(&mut self, span: Span, inherited: &Inherited) -> Option<f64> {
        if inherited.value.is_none() {
            self.push(
                Diagnostic::error(
                    codes::CURVE_INHERIT,
                    span,
                    "`inherit` has nothing to inherit",
                    inherited.reason.clone(),
                )
                .label(inherited.span, "the stage starts from this")
                .help(inherited.help.clone()),
            );
        }
        inherited.value
    }
}
