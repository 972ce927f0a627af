//! `lr_never_lands`: a decay is cut before it has come near the value it names.

use super::scene::Scene;
use crate::diag::{Applicability, Diagnostic, Level, codes};
use crate::sema::show;
use crate::source::Span;

/// A cut is part of some recipes (OLMo 2 stops a cosine at 78% of its horizon, where 12% of the way
/// down is left). More than this share left is a schedule made for another run.
const LEFT: f64 = 1.0 / 3.0;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let Some(last) = stage.lr.segments.last() else { continue };
        let Some(horizon) = last.horizon.filter(|h| *h > last.end) else { continue };
        let end = last.value(last.end);
        let way = last.from - last.to;
        if way <= 0.0 || (end - last.to) / way <= LEFT {
            continue;
        }
        let span = stage.lr_spans.last().copied().unwrap_or_else(|| scene.field(stage, "lr"));
        let length = stage.fields.get("tokens").or(stage.fields.get("steps")).copied().unwrap_or(stage.span);
        let missing = horizon - last.end;
        let mut d = Diagnostic::lint(
            codes::LR_NEVER_LANDS,
            "lr_never_lands",
            Level::Deny,
            span,
            format!(
                "the learning rate of `{}` ends at {}, not at {}: {} of the way down is left",
                stage.name,
                show::number(end),
                show::number(last.to),
                show::percent((end - last.to) / way)
            ),
            format!("would reach {} at token {}", show::number(last.to), show::count(horizon)),
        )
        .label(length, format!("the stage has {} tokens", show::count(stage.tokens)))
        .note(format!(
            "{} missing, {} of the stage",
            if missing == 1 {
                "1 token is".to_owned()
            } else {
                format!("{} tokens are", show::count(missing))
            },
            show::percent(missing as f64 / stage.tokens as f64)
        ))
        .help("give the last segment what the stage has left: leave out its `over` and the `truncate`");
        if stage.lr_spans.len() == stage.lr.segments.len()
            && let Some(fix) = untruncated(scene, scene.field(stage, "lr"), span)
        {
            d = d.fix(
                "end the decay with the stage",
                Applicability::MaybeIncorrect,
                scene.field(stage, "lr"),
                fix,
            );
        }
        out.push(d);
    }
}

/// The curve without `truncate( )` and without the `over` of its last segment.
fn untruncated(scene: &Scene<'_>, lr: Span, last: Span) -> Option<String> {
    let text = scene.text(lr);
    let inner = text.strip_prefix("truncate(")?.strip_suffix(')')?.trim();
    let inner = inner.strip_suffix(',').unwrap_or(inner).trim_end();
    let segment = scene.text(last);
    let over = segment.find(", over:")?;
    // The rest of the arguments must be the span alone.
    let tail = &segment[over + 1..];
    if tail.contains(',') || tail.matches('(').count() > 0 {
        return None;
    }
    let open = segment.get(..over)?;
    let at = inner.rfind(segment)?;
    Some(format!("{}{open}){}", &inner[..at], &inner[at + segment.len()..]))
}
