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
        let full = self.horizon.unwrap_or(self.end).saturating_sub(self.start);
        let t = at.saturating_sub(self.start);
        if full == 0 {
            return self.to;
        }
        self.shape.value(self.from, self.to, t as f64, full as f64)
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
        // The last segment with start <= at. Zero-length jumps share their start with the segment
        // after them and so lose to it, except at the very end of the curve.
        let after = self.segments.partition_point(|s| s.start <= at);
        let segment = &self.segments[after.saturating_sub(1)];
        segment.value(at.min(segment.end))
    }

    /// Value at the end of the last segment.
    pub fn end_value(&self) -> f64 {
        self.segments.last().map_or(f64::NAN, |s| s.value(s.end))
    }
}
