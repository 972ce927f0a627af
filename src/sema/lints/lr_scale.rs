//! `lr_scale`: a peak learning rate that trains nothing, or that no model survives.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{From, Stage};
use crate::sema::show;

/// Adam moves a weight by about the learning rate in each step. Published peaks go up to 1e-2, with
/// the parametrisation of arXiv:2203.03466; this is ten times as much.
const MOST: f64 = 0.1;
/// A step this small is lost in a weight kept in 32 bits: 6e-8 of 0.02, the width of fresh weights.
const LEAST: f64 = 1e-9;
/// A larger share of a stage than this at no learning rate is no rounding of a schedule's end.
const IDLE: f64 = 0.05;

/// Whether a stage's learning rate is out of scale as a whole; then its jumps say nothing new.
pub(super) fn out_of_scale(stage: &Stage) -> bool {
    !(LEAST..MOST).contains(&stage.lr.max())
}

/// Where the learning rate has come down to nothing before the stage is over.
fn idle(scene: &Scene<'_>, stage: &Stage) -> Option<Diagnostic> {
    let rests = |at| stage.lr.value(at) < LEAST;
    let long = stage.lr.segments.iter().enumerate().filter(|(_, s)| s.end > s.start);
    let last = long.rev().take_while(|(_, s)| rests(s.start) && s.value(s.end) < LEAST).last();
    let (at, segment) = last.filter(|(_, s)| s.start > 0)?;
    let tokens = stage.tokens.saturating_sub(segment.start);
    let share = tokens as f64 / stage.tokens as f64;
    if share <= IDLE {
        return None;
    }
    let span = stage.lr_spans.get(at).copied().unwrap_or_else(|| scene.field(stage, "lr"));
    Some(
        Diagnostic::lint(
            codes::LR_SCALE,
            "lr_scale",
            Level::Deny,
            span,
            format!(
                "the last {} tokens of `{}`, {} of it, train at a learning rate of {}",
                show::count(tokens),
                stage.name,
                show::percent(share),
                show::number(stage.lr.value(segment.start))
            ),
            "no weight moves",
        )
        .help("let the decay take the whole stage: leave out its `over` and this `hold`; or end it above 0"),
    )
}

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        if !out_of_scale(stage) {
            out.extend(idle(scene, stage));
            continue;
        }
        let peak = stage.lr.max();
        let lr = scene.field(stage, "lr");
        let still = peak < LEAST;
        let message = match (peak, still) {
            (0.0, _) => format!("the learning rate of `{}` is 0 from its first step to its last", stage.name),
            (_, true) => format!("the learning rate of `{}` never passes {}", stage.name, show::number(peak)),
            _ => format!("the learning rate of `{}` reaches {}", stage.name, show::number(peak)),
        };
        let label = if still { "no weight moves" } else { "each step moves a weight by about as much" };
        let mut d = Diagnostic::lint(codes::LR_SCALE, "lr_scale", Level::Deny, lr, message, label);
        if still && scene.text(lr).starts_with("inherit") && !matches!(stage.from, From::Model(_)) {
            if let Some((before, span)) = scene.lr_at(&stage.from) {
                d = d.label(span, format!("`{}` ended at {}", scene.name(&stage.from), show::number(before)));
            }
            d = d.help("warm up again: `inherit then linear(to: 1e-5, over: 200 steps) then linear(to: 0)`; or end the stage before above 0");
        } else if still {
            d = d.help("write the peak: `0 then linear(to: 3e-4, over: 1% of stage) then linear(to: 0)`");
        } else {
            d = d.help("a minus may be missing: `3e-4`, not `3e4`");
        }
        out.push(d);
    }
}
