//! The first token at which two curves, blends or grids of steps differ. Knows numbers only.

use crate::curve::{Blend, Curve, Segment};
use crate::plan::{Phase, StagePlan};

/// The first token in `[0, end)` where `a` and `b` take different values.
///
/// Between two neighbouring ends of segments both are one analytic shape each: if they agree at its
/// first two tokens, its middle and its last, they agree on all of it.
fn values(mut knots: Vec<u64>, end: u64, differ: impl Fn(u64) -> bool) -> Option<u64> {
    knots.extend([0, end]);
    knots.retain(|k| *k <= end);
    knots.sort_unstable();
    knots.dedup();
    for pair in knots.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        if differ(from) {
            return Some(from);
        }
        let probes = [from + 1, from + (to - from) / 2, to - 1];
        if probes.iter().any(|at| *at > from && *at < to && differ(*at)) {
            return Some(from + 1);
        }
    }
    None
}

fn ends(segments: &[Segment]) -> impl Iterator<Item = u64> + '_ {
    segments.iter().flat_map(|s| [s.start, s.end])
}

/// Where two curves part, before `end`.
pub(super) fn curves(a: &Curve, b: &Curve, end: u64) -> Option<u64> {
    let knots = ends(&a.segments).chain(ends(&b.segments)).collect();
    values(knots, end, |at| a.value(at) != b.value(at))
}

/// Where two weights part, before `end`; `None` stands for a source that is not drawn.
pub(super) fn weights(a: Option<&Blend>, b: Option<&Blend>, end: u64) -> Option<u64> {
    let knots = [a, b].into_iter().flatten().flat_map(|w| w.knots(end)).collect();
    let value = |w: Option<&Blend>, at| w.map_or(0.0, |w| w.value(at));
    // Weights are sums: the same mix written in another order differs in the last bits.
    values(knots, end, |at| (value(a, at) - value(b, at)).abs() > 1e-12)
}

/// Where two grids of steps part, before `end`.
pub(super) fn grids(a: &StagePlan, b: &StagePlan, end: u64) -> Option<u64> {
    let mut pairs = a.phases.iter().zip(&b.phases);
    let same = |(x, y): (&Phase, &Phase)| x == y;
    let at = match pairs.position(|pair| !same(pair)) {
        Some(i) => a.phases[i].tokens.min(b.phases[i].tokens),
        None => {
            let shorter = a.phases.len().min(b.phases.len());
            let longer = if a.phases.len() > shorter { &a.phases } else { &b.phases };
            longer.get(shorter)?.tokens
        }
    };
    (at < end).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curve::Shape;

    fn segment(shape: Shape, from: f64, to: f64, start: u64, end: u64) -> Segment {
        Segment { shape, from, to, start, end, horizon: None }
    }

    #[test]
    fn a_longer_hold_is_the_same_until_the_shorter_one_ends() {
        let wsd = |stable| Curve {
            segments: vec![
                segment(Shape::Hold, 1.0, 1.0, 0, stable),
                segment(Shape::Linear, 1.0, 0.0, stable, 1000),
            ],
        };
        // At 800 both are still at the peak; the decay shows one token later.
        assert_eq!(curves(&wsd(800), &wsd(900), 1000), Some(801));
        assert_eq!(curves(&wsd(800), &wsd(800), 1000), None);
        assert_eq!(curves(&wsd(800), &wsd(900), 800), None);
    }

    #[test]
    fn crossing_lines_differ_where_they_begin() {
        let line = |from, to| Curve { segments: vec![segment(Shape::Linear, from, to, 0, 100)] };
        assert_eq!(curves(&line(0.0, 1.0), &line(1.0, 0.0), 100), Some(0));
        assert_eq!(curves(&line(1.0, 0.0), &line(1.0, 0.5), 100), Some(1));
    }

    #[test]
    fn a_source_that_goes_away() {
        let still = Blend::constant(0.5);
        assert_eq!(weights(Some(&still), None, 10), Some(0));
        assert_eq!(weights(Some(&still), Some(&still.clone()), 10), None);
    }
}
