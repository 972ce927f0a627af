//! Curves over tokens: piecewise shapes with values at integer token positions. Depends on nothing.
//!
//! A segment covers the half-open interval `[start, end)`. A curve holds its last value past its
//! end. A `step` segment has no length: it records a jump.

mod blend;
mod shape;

pub use blend::{Blend, Term};
pub use shape::Shape;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A piecewise curve; segments are in order and tile `[first.start, last.end)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Curve {
    /// At least one segment.
    pub segments: Vec<Segment>,
}

/// One piece of a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    /// The shape and its parameters.
    #[serde(flatten)]
    pub shape: Shape,
    /// Value at `start`.
    pub from: f64,
    /// Value the shape reaches at `horizon`, or at `end` when there is none.
    pub to: f64,
    /// First token, relative to the stage.
    pub start: u64,
    /// One past the last token.
    pub end: u64,
    /// Where the shape would end had it not been cut by `truncate`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub horizon: Option<u64>,
}

impl Segment {
    /// Value at token `at`, which the caller has placed inside the segment (or at its end).
    pub fn value(&self, at: u64) -> f64 {
        self.value_at(at.saturating_sub(self.start) as f64)
    }

    /// Value `t` tokens, not necessarily whole, after `start`.
    pub fn value_at(&self, t: f64) -> f64 {
        let full = self.horizon.unwrap_or(self.end).saturating_sub(self.start);
        if full == 0 {
            return self.to;
        }
        self.shape.value(self.from, self.to, t, full as f64)
    }
}

impl Curve {
    /// The curve that is `value` over `[0, tokens)`.
    pub fn constant(value: f64, tokens: u64) -> Self {
        Self {
            segments: vec![Segment {
                shape: Shape::Hold,
                from: value,
                to: value,
                start: 0,
                end: tokens,
                horizon: None,
            }],
        }
    }

    /// Value at token `at`: that of the last segment that starts at or before `at` and has not
    /// ended; past the end, the end value.
    pub fn value(&self, at: u64) -> f64 {
        let segment = self.segment(at);
        segment.value(at.min(segment.end))
    }

    /// The segment that holds at token `at`.
    pub fn segment(&self, at: u64) -> &Segment {
        // The last segment with start <= at. Zero-length jumps share their start with the segment
        // after them and so lose to it, except at the very end of the curve.
        let after = self.segments.partition_point(|s| s.start <= at);
        &self.segments[after.saturating_sub(1)]
    }

    /// The value, when the curve never moves.
    pub fn as_constant(&self) -> Option<f64> {
        let first = self.segments.first()?.from;
        self.segments.iter().all(|s| s.shape == Shape::Hold && s.from == first).then_some(first)
    }

    /// One past the last token.
    pub fn end(&self) -> u64 {
        self.segments.last().map_or(0, |s| s.end)
    }

    /// The largest value the curve takes or approaches.
    pub fn max(&self) -> f64 {
        self.ends().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The smallest value the curve takes or approaches.
    pub fn min(&self) -> f64 {
        self.ends().fold(f64::INFINITY, f64::min)
    }

    /// Values at the ends of the segments; every shape is monotone between them.
    fn ends(&self) -> impl Iterator<Item = f64> + '_ {
        self.segments.iter().flat_map(|s| [s.value(s.start), s.value(s.end)])
    }

    /// The first token at or after `from` whose value satisfies `holds`, which must not change its
    /// mind back and forth inside a segment (a bound does not: every shape is monotone).
    pub fn first(&self, from: u64, holds: impl Fn(f64) -> bool) -> Option<u64> {
        for (i, segment) in self.segments.iter().enumerate() {
            let last = i + 1 == self.segments.len();
            // The very end counts: the value a decay lands on is reached there.
            let end = if last { segment.end + 1 } else { segment.end };
            let start = segment.start.max(from);
            if start >= end {
                continue;
            }
            if holds(segment.value(start)) {
                return Some(start);
            }
            if !holds(segment.value(end - 1)) {
                continue;
            }
            let (mut no, mut yes) = (start, end - 1);
            while yes - no > 1 {
                let middle = no + (yes - no) / 2;
                if holds(segment.value(middle)) { yes = middle } else { no = middle }
            }
            return Some(yes);
        }
        None
    }

    /// Value at the end of the last segment.
    pub fn end_value(&self) -> f64 {
        self.segments.last().map_or(f64::NAN, |s| s.value(s.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(shape: Shape, from: f64, to: f64, start: u64, end: u64) -> Segment {
        Segment { shape, from, to, start, end, horizon: None }
    }

    #[test]
    fn segments_are_half_open() {
        let curve = Curve {
            segments: vec![
                segment(Shape::Hold, 1.0, 1.0, 0, 10),
                segment(Shape::Step, 1.0, 3.0, 10, 10),
                segment(Shape::Hold, 3.0, 3.0, 10, 20),
            ],
        };
        assert_eq!(curve.value(9), 1.0);
        assert_eq!(curve.value(10), 3.0);
        assert_eq!(curve.value(20), 3.0);
        assert_eq!(curve.end_value(), 3.0);
        assert_eq!((curve.min(), curve.max()), (1.0, 3.0));
    }

    #[test]
    fn a_jump_at_the_very_end_is_the_end_value() {
        let curve = Curve {
            segments: vec![segment(Shape::Hold, 1.0, 1.0, 0, 10), segment(Shape::Step, 1.0, 3.0, 10, 10)],
        };
        assert_eq!(curve.value(9), 1.0);
        assert_eq!(curve.end_value(), 3.0);
    }

    #[test]
    fn shapes_at_their_middle() {
        let at = |shape, a, b| segment(shape, a, b, 0, 100).value(50);
        assert_eq!(at(Shape::Linear, 1.0, 0.0), 0.5);
        assert!((at(Shape::Cosine, 1.0, 0.0) - 0.5).abs() < 1e-15);
        assert!((at(Shape::OneMinusSqrt, 1.0, 0.0) - (1.0 - 0.5f64.sqrt())).abs() < 1e-15);
        assert!((at(Shape::Exp, 1.0, 0.01) - 0.1).abs() < 1e-15);
        assert!((at(Shape::HalfLife { half_life: 25.0 }, 1.0, 0.0) - 0.25).abs() < 1e-15);
        assert!((at(Shape::Poly { power: 2.0 }, 1.0, 0.0) - 0.25).abs() < 1e-15);
        let floor = segment(Shape::ExpFloor { gamma: 0.25 }, 1.1e-4, 1e-7, 0, 100);
        let scale = (1.1e-4 - 1e-7) / (1.0 - (-4.0f64).exp());
        assert!((floor.value(50) - (scale * (-2.0f64).exp() + 1.1e-4 - scale)).abs() < 1e-18);
        // Every shape lands where it says.
        for shape in [
            Shape::Linear,
            Shape::Cosine,
            Shape::OneMinusSqrt,
            Shape::Exp,
            Shape::ExpFloor { gamma: 0.25 },
            Shape::Poly { power: 2.0 },
            Shape::InvSqrt,
            Shape::Power { b: -0.51 },
        ] {
            let s = segment(shape, 1.0, 0.01, 0, 100);
            assert_eq!(s.value(0), 1.0, "{shape:?}");
            assert_eq!(s.value(100), 0.01, "{shape:?}");
            assert!((s.value_at(99.999_999) - 0.01).abs() < 1e-3, "{shape:?}");
        }
    }

    /// Where the parameter of a formula goes to its limit, the curve does.
    #[test]
    fn steep_and_flat_parameters_stay_in_range() {
        let at = |shape, u: f64| segment(shape, 1.0, 0.01, 0, 100).value_at(100.0 * u);
        for gamma in [1e15, 1e16, 1e17, 1e300] {
            assert!((at(Shape::ExpFloor { gamma }, 0.5) - 0.505).abs() < 1e-12, "{gamma}");
        }
        assert!((at(Shape::ExpFloor { gamma: 1e-300 }, 0.5) - 0.01).abs() < 1e-12);
        // An exponent towards zero falls at once, one far below it is geometric.
        assert!((at(Shape::Power { b: -1e-3 }, 0.5) - 0.01 * 0.5f64.powf(-1e-3)).abs() < 1e-12);
        for b in [-1e6, -1e17] {
            assert!((at(Shape::Power { b }, 0.5) - 0.1).abs() < 1e-6, "{b}");
        }
    }

    #[test]
    fn the_first_crossing_is_exact() {
        let curve = Curve { segments: vec![segment(Shape::Linear, 1.0, 0.0, 0, 1000)] };
        assert_eq!(curve.first(0, |v| v <= 0.5), Some(500));
        assert_eq!(curve.first(600, |v| v <= 0.5), Some(600));
        assert_eq!(curve.first(0, |v| v <= 0.0), Some(1000));
        assert_eq!(curve.first(0, |v| v < 0.0), None);
    }
}
