//! The shared token axis: linear between stage edges, with short stages drawn wider than their
//! share where they would otherwise vanish beside a stage of trillions of tokens.

/// Tokens to horizontal positions.
#[derive(Debug)]
pub(crate) struct Axis {
    /// Edges with their positions, ascending in both.
    knots: Vec<(u64, f64)>,
    /// For each interval between knots, whether it is drawn at another scale than the widest.
    stretched: Vec<bool>,
}

/// The least share of the width that an interval gets while there are few of them.
const LEAST: f64 = 0.095;

impl Axis {
    /// An axis over `[left, right]` with a knot at each of `edges`.
    pub(crate) fn new(edges: impl IntoIterator<Item = u64>, left: f64, right: f64) -> Self {
        let mut edges: Vec<u64> = edges.into_iter().collect();
        edges.sort_unstable();
        edges.dedup();
        if edges.len() < 2 {
            let start = edges.first().copied().unwrap_or(0);
            edges = vec![start, start.saturating_add(1)];
        }
        let spans: Vec<f64> = edges.windows(2).map(|w| (w[1] - w[0]) as f64).collect();
        let width = right - left;
        let least = (LEAST * width).min(0.6 * width / spans.len() as f64);
        let widths = shares(&spans, width, least);
        let mut x = left;
        let mut knots = vec![(edges[0], left)];
        for (edge, w) in edges[1..].iter().zip(&widths) {
            x += w;
            knots.push((*edge, x));
        }
        let scale = |i: usize| widths[i] / spans[i];
        let base = (0..spans.len()).map(scale).fold(f64::INFINITY, f64::min);
        let stretched = (0..spans.len()).map(|i| scale(i) > 1.25 * base).collect();
        Self { knots, stretched }
    }

    /// Position of a token.
    pub(crate) fn x(&self, tokens: u64) -> f64 {
        let after = self.knots.partition_point(|k| k.0 <= tokens).clamp(1, self.knots.len() - 1);
        let (a, b) = (self.knots[after - 1], self.knots[after]);
        let share = (tokens.max(a.0) - a.0) as f64 / (b.0 - a.0) as f64;
        a.1 + (b.1 - a.1) * share.min(1.0)
    }

    /// Edges with their positions.
    pub(crate) fn knots(&self) -> &[(u64, f64)] {
        &self.knots
    }

    /// Intervals `(left, right)` drawn wider than their share.
    pub(crate) fn stretched(&self) -> impl Iterator<Item = (f64, f64)> {
        self.knots.windows(2).zip(&self.stretched).filter(|(_, s)| **s).map(|(k, _)| (k[0].1, k[1].1))
    }

    /// Round token positions with about `gap` between them: over the whole axis, or only inside the
    /// intervals drawn to scale.
    pub(crate) fn ticks(&self, gap: f64, whole: bool) -> Vec<u64> {
        let mut ticks = Vec::new();
        let ends = [self.knots[0], self.knots[self.knots.len() - 1]];
        let plain =
            self.knots.windows(2).zip(&self.stretched).filter(|(_, s)| !**s).map(|(k, _)| [k[0], k[1]]);
        let intervals: Vec<_> = if whole { vec![ends] } else { plain.collect() };
        for [a, b] in intervals {
            if b.1 - a.1 < 1.5 * gap {
                continue;
            }
            let step = round_up((b.0 - a.0) as f64 * gap / (b.1 - a.1)) as u64;
            if step == 0 {
                continue;
            }
            let mut at = (a.0 / step).saturating_add(1).saturating_mul(step);
            while at < b.0 {
                ticks.push(at);
                at = at.saturating_add(step);
            }
        }
        ticks
    }
}

/// Widths in proportion to `spans`, none below `least`; they sum to `width`.
fn shares(spans: &[f64], width: f64, least: f64) -> Vec<f64> {
    let mut small = vec![false; spans.len()];
    loop {
        let rest = width - least * small.iter().filter(|s| **s).count() as f64;
        let sum: f64 = spans.iter().zip(&small).filter(|(_, s)| !**s).map(|(t, _)| t).sum();
        let scale = if sum > 0.0 { rest / sum } else { 0.0 };
        let mut changed = false;
        for (span, small) in spans.iter().zip(&mut small) {
            if !*small && span * scale < least {
                *small = true;
                changed = true;
            }
        }
        if !changed {
            return spans.iter().zip(&small).map(|(t, s)| if *s { least } else { t * scale }).collect();
        }
    }
}

/// The next of 1, 2, 5 times a power of ten.
pub(crate) fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 0.0;
    }
    let magnitude = 10f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * magnitude >= value * 0.999_999);
    step.unwrap_or(10.0) * magnitude
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_stages_stay_visible_and_order_is_kept() {
        let axis = Axis::new([0, 14_800_000_000_000, 14_862_900_000_000, 14_925_800_000_000], 0.0, 700.0);
        let widths: Vec<f64> = axis.knots().windows(2).map(|k| k[1].1 - k[0].1).collect();
        assert!(widths[1] > 66.0 && widths[2] > 66.0, "{widths:?}");
        assert!((axis.knots()[3].1 - 700.0).abs() < 1e-9);
        assert_eq!(axis.stretched().count(), 2);
        assert!(axis.x(7_400_000_000_000) > 0.49 * widths[0]);
        assert!((axis.x(u64::MAX) - 700.0).abs() < 1e-9);
    }

    #[test]
    fn equal_stages_are_to_scale() {
        let axis = Axis::new((0..=500).map(|i| i * 1000), 0.0, 700.0);
        assert_eq!(axis.stretched().count(), 0);
        assert!((axis.x(250_000) - 350.0).abs() < 1e-6);
    }

    #[test]
    fn degenerate_axes_do_not_divide_by_zero() {
        assert!(Axis::new([], 0.0, 10.0).x(5).is_finite());
        assert!(Axis::new([3, 3], 0.0, 10.0).x(3).is_finite());
        assert!(Axis::new([0, u64::MAX], 0.0, 10.0).ticks(1.0, false).len() < 50);
    }

    #[test]
    fn ticks_are_round() {
        let axis = Axis::new([0, 11_000_000_000_000], 0.0, 700.0);
        assert_eq!(axis.ticks(120.0, false), (1..=5).map(|i| i * 2_000_000_000_000).collect::<Vec<_>>());
    }
}
