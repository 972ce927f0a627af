//! Sums of products of curves: the weight of one source in nested, moving mixtures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Curve, Shape};

/// Σ coefficient · Π factors. A constant is one term without factors; `rest` is `1 − Σ others`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Blend {
    /// The summands.
    pub terms: Vec<Term>,
}

/// One summand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Term {
    /// Constant factor.
    pub coefficient: f64,
    /// Moving factors.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub factors: Vec<Curve>,
}

/// Abscissae and weights of the five-point Gauss-Legendre rule on [0, 1].
const GAUSS: [(f64, f64); 5] = [
    (0.046_910_077_030_668, 0.118_463_442_528_094_5),
    (0.230_765_344_947_158_45, 0.239_314_335_249_683_25),
    (0.5, 0.284_444_444_444_444_4),
    (0.769_234_655_052_841_5, 0.239_314_335_249_683_25),
    (0.953_089_922_969_332, 0.118_463_442_528_094_5),
];

/// Panels per smooth piece: with five points each, polynomials up to degree nine are exact and a
/// half cosine is to 1e-15; the square root's corner costs about 1e-5 of its piece.
const PANELS: u32 = 16;

impl Blend {
    /// The weight that does not move.
    pub fn constant(value: f64) -> Self {
        Self { terms: vec![Term { coefficient: value, factors: Vec::new() }] }
    }

    /// Value at token `at`.
    pub fn value(&self, at: u64) -> f64 {
        self.terms.iter().map(|t| t.factors.iter().fold(t.coefficient, |v, c| v * c.value(at))).sum()
    }

    /// The value, when nothing in it moves.
    pub fn as_constant(&self) -> Option<f64> {
        self.terms.iter().all(|t| t.factors.is_empty()).then(|| self.value(0))
    }

    /// Positions in `(0, end)` where some factor changes its shape, sorted, with 0 and `end`.
    pub fn knots(&self, end: u64) -> Vec<u64> {
        let mut knots: Vec<u64> = self
            .terms
            .iter()
            .flat_map(|t| &t.factors)
            .flat_map(|c| c.segments.iter().flat_map(|s| [s.start, s.end]))
            .filter(|at| *at < end)
            .chain([0, end])
            .collect();
        knots.sort_unstable();
        knots.dedup();
        knots
    }

    /// Mean over the tokens `[0, end)`.
    pub fn mean(&self, end: u64) -> f64 {
        if let Some(value) = self.as_constant() {
            return value;
        }
        if end == 0 {
            return self.value(0);
        }
        let knots = self.knots(end);
        let area: f64 = knots.windows(2).map(|w| self.area(w[0], w[1])).sum();
        area / end as f64
    }

    /// ∫ over `[a, b)`, in which no factor changes its shape.
    fn area(&self, a: u64, b: u64) -> f64 {
        let width = (b - a) as f64;
        let resting = self.terms.iter().flat_map(|t| &t.factors).all(|c| c.segment(a).shape == Shape::Hold);
        if resting {
            return self.value(a) * width;
        }
        let panel = width / f64::from(PANELS);
        (0..PANELS)
            .flat_map(|i| GAUSS.map(|(x, w)| ((f64::from(i) + x) * panel, w * panel)))
            .map(|(t, w)| w * self.value_between(a, t))
            .sum()
    }

    /// Value `t` tokens (not necessarily whole) after `a`, in the pieces that hold at `a`.
    fn value_between(&self, a: u64, t: f64) -> f64 {
        self.terms
            .iter()
            .map(|term| {
                term.factors.iter().fold(term.coefficient, |v, c| {
                    let s = c.segment(a);
                    v * s.value_at((a.saturating_sub(s.start)) as f64 + t)
                })
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Segment;
    use super::*;

    fn ramp(shape: Shape, from: f64, to: f64, end: u64) -> Curve {
        Curve { segments: vec![Segment { shape, from, to, start: 0, end, horizon: None }] }
    }

    #[test]
    fn mean_of_a_product_of_ramps() {
        let blend = Blend {
            terms: vec![Term {
                coefficient: 2.0,
                factors: vec![
                    ramp(Shape::Linear, 0.0, 1.0, 1_000_000),
                    ramp(Shape::Linear, 1.0, 0.0, 1_000_000),
                ],
            }],
        };
        assert!((blend.mean(1_000_000) - 2.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn mean_of_a_half_cosine_and_a_hold() {
        let mut curve = ramp(Shape::Cosine, 1.0, 0.0, 500);
        curve.segments.push(Segment {
            shape: Shape::Hold,
            from: 0.0,
            to: 0.0,
            start: 500,
            end: 1000,
            horizon: None,
        });
        let blend = Blend { terms: vec![Term { coefficient: 1.0, factors: vec![curve] }] };
        assert!((blend.mean(1000) - 0.25).abs() < 1e-12);
        assert_eq!(blend.knots(1000), vec![0, 500, 1000]);
    }
}
