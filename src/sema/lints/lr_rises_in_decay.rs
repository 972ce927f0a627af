//! `lr_rises_in_decay`: a schedule that runs backwards, or a re-warming past every earlier peak.

use super::lr_scale;
use super::scene::{Leg, Scene};
use crate::curve::{Segment, Shape};
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{From, Stage};
use crate::sema::show;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages().filter(|(_, s)| !lr_scale::out_of_scale(s)) {
        match backwards(scene, stage) {
            Some(d) => out.push(d),
            None => out.extend(past_the_peak(scene, stage)),
        }
    }
}

/// A shape made for decays that goes up, or a trained model whose stage ends on a rise.
fn backwards(scene: &Scene<'_>, stage: &Stage) -> Option<Diagnostic> {
    let rises = |s: &Segment| s.to > s.from && s.end > s.start;
    let moving: Vec<(usize, &Segment)> =
        stage.lr.segments.iter().enumerate().filter(|(_, s)| s.end > s.start && s.to != s.from).collect();
    let decay = moving.iter().find(|(_, s)| {
        rises(s)
            && matches!(
                s.shape,
                Shape::OneMinusSqrt
                    | Shape::Exp
                    | Shape::ExpFloor { .. }
                    | Shape::InvSqrt
                    | Shape::Power { .. }
            )
    });
    let trained = trained(scene, &stage.from);
    // A plateau at the top is no rise: the stable stage before a decay ends so.
    let last = stage.lr.segments.iter().enumerate().rfind(|(_, s)| s.end > s.start);
    let (index, segment) = match (decay, &last) {
        (Some(found), _) => found,
        (None, Some(last)) if trained && rises(last.1) => last,
        _ => return None,
    };
    let span = stage.lr_spans.get(*index).copied().unwrap_or_else(|| scene.field(stage, "lr"));
    let d = Diagnostic::lint(
        codes::LR_RISES_IN_DECAY,
        "lr_rises_in_decay",
        Level::Deny,
        span,
        if decay.is_some() {
            format!(
                "a decay of `{}` goes up, from {} to {}",
                stage.name,
                show::number(segment.from),
                show::number(segment.to)
            )
        } else {
            format!(
                "the learning rate of `{}` is still rising when the stage ends, from {} to {}",
                stage.name,
                show::number(segment.from),
                show::number(segment.to)
            )
        },
        format!("rises from {} to {}", show::number(segment.from), show::number(segment.to)),
    );
    Some(if decay.is_some() {
        d.help("swap the two values, or use `linear` or `cosine` for a warm-up")
    } else {
        d.help("a stage of a trained model ends on a decay: `inherit then linear(to: 0)`; a warm-up is followed by one")
    })
}

/// Whether there is training behind `from`, here or as far as its model says.
fn trained(scene: &Scene<'_>, from: &From) -> bool {
    match from {
        From::Model(model) => {
            let m = &scene.curriculum.models[*model];
            m.lr.is_some() || m.seen.is_some()
        }
        _ => true,
    }
}

/// A peak above that of every stage before.
fn past_the_peak(scene: &Scene<'_>, stage: &Stage) -> Option<Diagnostic> {
    let legs = scene.lineage(&stage.from);
    let before = |leg: &Leg| {
        let s = &scene.curriculum.stages[leg.stage];
        s.lr.segments
            .iter()
            .filter(|g| g.start < leg.upto)
            .map(|g| g.from.max(g.value(leg.upto.min(g.end))))
            .fold(0.0, f64::max)
    };
    let highest = legs.iter().max_by(|a, b| before(a).total_cmp(&before(b)))?;
    let (peak, earlier) = (stage.lr.max(), before(highest));
    if earlier <= 0.0 || peak <= earlier * 1.01 {
        return None;
    }
    // What the model's own training reached is not known; only stages count.
    let other = &scene.curriculum.stages[highest.stage];
    // A larger batch bears a higher rate, up to as much as it has grown (arXiv:1706.02677).
    if peak / earlier <= largest_batch(stage, stage.tokens) / largest_batch(other, highest.upto) * 1.01 {
        return None;
    }
    Some(
        Diagnostic::lint(
            codes::LR_RISES_IN_DECAY,
            "lr_rises_in_decay",
            Level::Warn,
            scene.field(stage, "lr"),
            format!(
                "`{}` re-warms the learning rate to {}, above the earlier peak of {}",
                stage.name,
                show::number(peak),
                show::number(earlier)
            ),
            format!("reaches {}", show::number(peak)),
        )
        .label(
            scene.field(other, "lr"),
            format!("`{}` went no higher than {}", other.name, show::number(earlier)),
        )
        .help("re-warm to the earlier peak or less; above it the model forgets more than it learns"),
    )
}

/// Tokens of the largest step before `upto`.
fn largest_batch(stage: &Stage, upto: u64) -> f64 {
    let before = stage.phases.iter().filter(|p| p.tokens == 0 || p.tokens < upto);
    before.map(|p| p.sequences * p.context).max().unwrap_or(1) as f64
}
