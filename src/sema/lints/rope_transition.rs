//! `rope_transition`: what a stage does to the RoPE it starts from loses something.

use super::scene::Scene;
use crate::diag::{Applicability, Diagnostic, Level, codes};
use crate::rope::RopeScaling;
use crate::sema::curriculum::{Rope, Stage};
use crate::sema::show::{self, base};

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let (Some(new), Some(span)) = (&stage.rope, stage.fields.get("rope")) else { continue };
        let Some((old, old_span)) = scene.rope_at(&stage.from) else { continue };
        let Some((message, label, help)) = loss(&stage.name, old, new) else {
            out.extend(untrained(scene, stage));
            continue;
        };
        let mut d =
            Diagnostic::lint(codes::ROPE_TRANSITION, "rope_transition", Level::Deny, *span, message, label)
                .label(old_span, format!("`{}` has {}", scene.name(&stage.from), describe(old)))
                .help(help);
        if let (Some(text), true) =
            (same_method(scene.text(old_span), old, stage.context_max()), new.method != old.method)
        {
            d = d.fix(format!("go on with `{}`", old.method), Applicability::MaybeIncorrect, *span, text);
        }
        out.push(d);
    }
}

/// A first stretching whose `original` is no length that the weights were trained at.
pub(super) fn untrained(scene: &Scene<'_>, stage: &Stage) -> Option<Diagnostic> {
    let (new, span) = (stage.rope.as_ref()?, *stage.fields.get("rope")?);
    let (old, _) = scene.rope_at(&stage.from)?;
    // `original: 8k` is `decimal_context`'s.
    let original = new.scaling.original().filter(|n| n % 1000 != 0)?;
    if !matches!(old.scaling, RopeScaling::Default) {
        return None;
    }
    let model = &scene.curriculum.models[scene.root_model(&stage.from)?];
    let stages = scene.lineage(&stage.from).into_iter().map(|leg| &scene.curriculum.stages[leg.stage]);
    let mut trained: Vec<u64> = stages.flat_map(|s| s.context.iter().map(|(_, length)| *length)).collect();
    if !model.fresh {
        trained.extend(model.context);
    }
    let last = scene.context_at(&stage.from).filter(|_| !trained.is_empty())?;
    if trained.contains(&original) {
        return None;
    }
    let d = Diagnostic::lint(
        codes::ROPE_TRANSITION,
        "rope_transition",
        Level::Deny,
        span,
        format!("`{}` stretches from {}, where nothing was trained", stage.name, show::length(original)),
        format!("`original` is {} here", show::length(original)),
    );
    let d = match scene.context_place(&stage.from) {
        Some((name, at)) => d.label(at, format!("`{name}` was trained at {} last", show::length(last))),
        None => d,
    };
    Some(d.help(format!(
        "`original` is the length that the weights were last trained at before any stretching: {}",
        show::length(last)
    )))
}

/// Headline, label and help of the first thing that is lost.
fn loss(stage: &str, old: &Rope, new: &Rope) -> Option<(String, String, String)> {
    let scaled = !matches!(old.scaling, RopeScaling::Default);
    let lower = match (old.theta, new.theta) {
        (Some(a), Some(b)) if b < a * 0.999 => Some((a, b)),
        _ => None,
    };
    if scaled && new.method != old.method {
        let also = lower
            .map_or(String::new(), |(a, b)| format!(", and its base falls from {} to {}", base(a), base(b)));
        return Some((
            format!("`{stage}` replaces `{}` by `{}`{also}", old.method, new.method),
            format!("`{}` knows nothing of the scaling before", new.method),
            format!(
                "stretch further with `{}` and a larger factor, relative to the original length",
                old.method
            ),
        ));
    }
    if let Some((a, b)) = lower {
        return Some((
            format!("`{stage}` lowers the base of RoPE from {} to {}", base(a), base(b)),
            format!("the base is {} here", base(b)),
            format!("keep it: `theta: {}`", base(a)),
        ));
    }
    match (old.scaling.original().filter(|_| scaled), new.scaling.original()) {
        (Some(a), Some(b)) if a != b => Some((
            format!(
                "`{stage}` stretches from {}, but the model's original length is {}",
                show::length(b),
                show::length(a)
            ),
            format!("`original` is {} here", show::length(b)),
            format!("in a chain `original` stays {} and the factor grows", show::length(a)),
        )),
        _ => shrunk(stage, old, new),
    }
}

/// A factor below the one that the weights were trained with.
fn shrunk(stage: &str, old: &Rope, new: &Rope) -> Option<(String, String, String)> {
    // That of LongRoPE follows the context; its lists say how far each dimension is stretched.
    if matches!(new.scaling, RopeScaling::Longrope { .. }) {
        return None;
    }
    let (a, b) = (old.scaling.factor()?, new.scaling.factor()?);
    if b >= a * 0.999 {
        return None;
    }
    let (a, b) = (show::number(a), show::number(b));
    Some((
        format!("`{stage}` lowers the factor of `{}` from {a} to {b}", new.method),
        format!("the factor is {b} here"),
        format!("a factor is relative to the original length: keep `factor: {a}`, or leave `rope` out"),
    ))
}

/// `llama3, base 500000, factor 8`.
fn describe(rope: &Rope) -> String {
    let mut text = format!("`{}`", rope.method);
    if let Some(theta) = rope.theta {
        text.push_str(&format!(", base {}", base(theta)));
    }
    if let Some(factor) = rope.scaling.factor() {
        text.push_str(&format!(", factor {}", show::number(factor)));
    }
    if let Some(original) = rope.scaling.original() {
        text.push_str(&format!(", original {}", show::length(original)));
    }
    text
}

/// The old spelling with a factor for the new context.
fn same_method(text: &str, old: &Rope, context: u64) -> Option<String> {
    let original = old.scaling.original()?;
    let at = text.find("factor:")? + "factor:".len();
    let digits = text[at..].trim_start();
    let start = text.len() - digits.len();
    let end = start + digits.find([',', ')'])?;
    let factor = context.div_ceil(original);
    Some(format!("{}{factor}{}", &text[..start], &text[end..]))
}
