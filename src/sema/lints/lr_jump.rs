//! `lr_jump`: a stage does not start at the learning rate where `from` ended.

use super::lr_scale;
use super::scene::Scene;
use crate::curve::Shape;
use crate::diag::{Applicability, Diagnostic, Level, codes};
use crate::sema::show;
use crate::source::Span;

/// Differences up to this are the rounding of a number copied by hand.
const TOLERANCE: f64 = 0.01;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages().filter(|(_, s)| !lr_scale::out_of_scale(s)) {
        let Some((before, before_span)) = scene.lr_at(&stage.from) else { continue };
        let Some(first) = stage.lr.segments.first() else { continue };
        let start = first.from;
        // A jump that says so.
        if matches!(first.shape, Shape::Step) || (start - before).abs() <= TOLERANCE * before.abs() {
            continue;
        }
        // A ramp from below.
        let rises = stage.lr.segments.iter().find(|s| s.end > s.start).is_some_and(|s| s.to > s.from);
        if start < before && rises {
            continue;
        }
        let lr = scene.field(stage, "lr");
        let from = scene.name(&stage.from);
        let mut d = Diagnostic::lint(
            codes::LR_JUMP,
            "lr_jump",
            Level::Deny,
            lr,
            format!(
                "`{}` starts at a learning rate of {}, but `{from}` ended at {}",
                stage.name,
                show::number(start),
                show::number(before)
            ),
            match before {
                0.0 => format!("starts at {}", show::number(start)),
                _ => format!("starts at {}, {} of that", show::number(start), show::percent(round(start / before))),
            },
        )
        .label(before_span, format!("ends at {}", show::number(before)))
        .help("write `inherit` to go on from there, ramp up (`inherit then linear(to: …, over: …) then …`), or say that it jumps: `inherit then step(to: …)`");
        if let Some(span) = start_span(scene, lr) {
            d = d.fix("go on where `from` ended", Applicability::MaybeIncorrect, span, "inherit");
        }
        out.push(d);
    }
}

/// Where the first value of a curve stands: what is before the first `then`, if that is one word.
fn start_span(scene: &Scene<'_>, lr: Span) -> Option<Span> {
    let text = scene.text(lr);
    let head = text.split_whitespace().next()?;
    let plain = head.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c));
    let rest = text[head.len()..].trim_start();
    (plain && (rest.is_empty() || rest.starts_with("then")))
        .then(|| Span { end: lr.start + head.len() as u32, ..lr })
}

/// To three significant digits.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let unit = 10f64.powf(value.abs().log10().floor() - 2.0);
    (value / unit).round() * unit
}
