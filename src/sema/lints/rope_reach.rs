//! `rope_reach`: a context longer than the base and the scaling cover.

use super::rope_transition;
use super::scene::Scene;
use crate::diag::{Applicability, Diagnostic, Level, codes};
use crate::rope::{RopeScaling, base_for, reach};
use crate::sema::curriculum::{Gate, Stage};
use crate::sema::show;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let model = scene.root_model(&stage.from).map(|m| &scene.curriculum.models[m]);
        let inherited = scene.rope_at(&stage.from);
        let Some(rope) = stage.rope.as_ref().or(inherited.map(|(r, _)| r)) else {
            out.extend(unknown(scene, stage));
            continue;
        };
        let Some(theta) = rope.theta else { continue };
        let native = model.and_then(|m| m.context);
        let trained =
            scene.lineage(&stage.from).iter().map(|l| scene.curriculum.stages[l.stage].context_max()).max();
        // A base alone carries what was trained before; a factor multiplies the native length.
        let before = match rope.scaling {
            RopeScaling::Default => native.max(trained),
            _ => native,
        };
        let covered = reach(theta, &rope.scaling, before);
        out.extend(needles(scene, stage, covered.tokens));
        let context = stage.context_max();
        // A wrong `original` covers the wrong length: its own message says so.
        if context <= covered.tokens || rope_transition::untrained(scene, stage).is_some() {
            continue;
        }
        let context_span = scene.field(stage, "context");
        let rope_span = stage.fields.get("rope").copied().or(inherited.map(|(_, s)| s));
        let mut d = Diagnostic::lint(
            codes::ROPE_REACH,
            "rope_reach",
            Level::Deny,
            context_span,
            format!(
                "`{}` trains at {}, but its RoPE covers {}",
                stage.name,
                show::length(context),
                show::length(covered.tokens)
            ),
            format!("{} tokens per row", show::digits(context)),
        );
        if let Some(span) = rope_span {
            d = d.label(span, format!("covers {} tokens", show::digits(covered.tokens)));
        }
        d = d.note(format!("because {}", covered.rule));
        let base = base_for(context);
        let original = native.unwrap_or(4096);
        let factor = context.div_ceil(original);
        let yarn = format!("yarn(factor: {factor}, original: {})", show::length(original));
        d = d.help(format!(
            "raise the base: `abf(theta: {})`, or stretch it: `{yarn}`",
            show::digits(base as u64)
        ));
        if let (RopeScaling::Default, Some(span)) = (&rope.scaling, stage.fields.get("rope")) {
            d = d.fix("stretch with YaRN", Applicability::MaybeIncorrect, *span, yarn);
        }
        out.push(d);
    }
}

/// A gate that asks for needles where neither base nor factor reaches: it halts the run that was paid for.
fn needles(scene: &Scene<'_>, stage: &Stage, covered: u64) -> Option<Diagnostic> {
    let reached = covered.max(stage.context_max());
    let beyond = |g: &&Gate| g.measure == "needle" && matches!(g.op, ">" | ">=") && !g.relative_to_from;
    let (gate, length) = stage
        .gates
        .iter()
        .filter(beyond)
        .filter_map(|g| Some((g, g.argument.parse::<u64>().ok()?)))
        .find(|(g, length)| *length > reached && g.bound > 0.0)?;
    Some(
        Diagnostic::lint(
            codes::ROPE_REACH,
            "rope_reach",
            Level::Warn,
            gate.span,
            format!(
                "a gate of `{}` looks for needles at {}, but its RoPE covers {}",
                stage.name,
                show::length(length),
                show::length(reached)
            ),
            format!("{} tokens of haystack", show::digits(length)),
        )
        .label(scene.field(stage, "context"), format!("trained at {}", show::length(stage.context_max())))
        .help("ask for a length that the stage is trained at, or stretch its RoPE and lengthen its context"),
    )
}

/// A context longer than any before under a RoPE that is not known.
fn unknown(scene: &Scene<'_>, stage: &Stage) -> Option<Diagnostic> {
    let model = &scene.curriculum.models[scene.root_model(&stage.from)?];
    let native = model.context?;
    let trained =
        scene.lineage(&stage.from).iter().map(|l| scene.curriculum.stages[l.stage].context_max()).max();
    let (context, before) = (stage.context_max(), native.max(trained.unwrap_or_default()));
    if context <= before {
        return None;
    }
    let d = Diagnostic::lint(
        codes::ROPE_REACH,
        "rope_reach",
        Level::Warn,
        scene.field(stage, "context"),
        format!(
            "`{}` trains at {}, beyond the {} before it, and nothing says how its RoPE reaches so far",
            stage.name,
            show::length(context),
            show::length(before)
        ),
        format!("{} tokens per row", show::digits(context)),
    );
    let at = model.fields.get("context").copied().unwrap_or(model.span);
    Some(d.label(at, format!("the context of `{}`", model.name)).help(format!(
        "write the model's `rope = rope(theta: …)`, so that it can be checked, or the stage's: `yarn(factor: {}, original: {})`",
        context.div_ceil(native),
        show::length(native)
    )))
}
