//! Points of a stage's curves for drawing. Total: a damaged plan gives fewer points, not a panic.

use crate::curve::{Blend, Curve, Shape};
use crate::plan::StagePlan;

/// `(tokens into the stage, value)` along a curve: its corners, and points `resolution` tokens
/// apart where it bends.
pub(crate) fn curve(curve: &Curve, tokens: u64, resolution: u64) -> Vec<(u64, f64)> {
    let mut points = Vec::new();
    for segment in &curve.segments {
        if matches!(segment.shape, Shape::Step) {
            points.push((segment.start, segment.to));
            continue;
        }
        let end = segment.end.min(tokens.max(segment.start));
        points.push((segment.start, segment.value(segment.start)));
        if !matches!(segment.shape, Shape::Hold | Shape::Linear) {
            let count = (end.saturating_sub(segment.start) / resolution.max(1)).min(400);
            for i in 1..=count {
                let at =
                    segment.start + ((end - segment.start) as u128 * i as u128 / (count + 1) as u128) as u64;
                points.push((at, segment.value(at)));
            }
        }
        points.push((end, segment.value(end)));
    }
    if let Some(last) = points.last().copied()
        && last.0 < tokens
    {
        points.push((tokens, last.1));
    }
    points.retain(|p| p.1.is_finite());
    points
}

/// Tokens per step: the phases as stairs.
pub(crate) fn batch(stage: &StagePlan) -> Vec<(u64, f64)> {
    let value = |p: &crate::plan::Phase| p.sequences.saturating_mul(p.context) as f64;
    stairs(stage.phases.iter().map(|p| (p.tokens, value(p))), stage.tokens)
}

/// Tokens per row, as stairs.
pub(crate) fn context(stage: &StagePlan) -> Vec<(u64, f64)> {
    stairs(stage.context.iter().map(|c| (c.at, c.value as f64)), stage.tokens)
}

fn stairs(values: impl Iterator<Item = (u64, f64)>, tokens: u64) -> Vec<(u64, f64)> {
    let mut points: Vec<(u64, f64)> = Vec::new();
    for (at, value) in values {
        if let Some(last) = points.last().copied() {
            points.push((at, last.1));
        }
        points.push((at, value));
    }
    if let Some(last) = points.last().copied() {
        points.push((tokens, last.1));
    }
    points
}

/// The token positions at which the weights of a stage must be looked at.
pub(crate) fn mix_positions(stage: &StagePlan, resolution: u64) -> Vec<u64> {
    let mut positions = vec![0, stage.tokens];
    let curves = stage.mix.iter().flat_map(|m| &m.weight.terms).flat_map(|t| &t.factors);
    let mut bends = false;
    for segment in curves.flat_map(|c| &c.segments) {
        bends |= !matches!(segment.shape, Shape::Hold | Shape::Step);
        if segment.start > 0 && segment.start < stage.tokens {
            // Both sides of a possible jump.
            positions.extend([segment.start - 1, segment.start]);
        }
    }
    if bends {
        let count = (stage.tokens / resolution.max(1)).clamp(1, 200);
        positions.extend(
            (1..count).map(|i| (u128::from(stage.tokens) * u128::from(i) / u128::from(count)) as u64),
        );
    }
    positions.sort_unstable();
    positions.dedup();
    positions
}

/// The weight at a position, 0 where there is none.
pub(crate) fn weight(blend: &Blend, at: u64) -> f64 {
    let whole = blend.terms.iter().flat_map(|t| &t.factors).all(|c| !c.segments.is_empty());
    let value = if whole { blend.value(at) } else { 0.0 };
    if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 }
}

/// Tokens of a stage seen after `steps` steps, its length at most.
pub(crate) fn tokens_after(stage: &StagePlan, steps: u64) -> u64 {
    let after = stage.phases.partition_point(|p| p.step <= steps);
    let Some(phase) = after.checked_sub(1).and_then(|i| stage.phases.get(i)) else { return 0 };
    let more = (steps - phase.step).saturating_mul(phase.sequences).saturating_mul(phase.context);
    phase.tokens.saturating_add(more).min(stage.tokens)
}
