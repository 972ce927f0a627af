//! `anneal_too_short`: a stage of fewer than ten steps.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::show;

/// Below this a schedule is a handful of points, not a curve.
pub(super) const STEPS: u64 = 10;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        if stage.steps >= STEPS {
            continue;
        }
        let last = stage.phases.last().map_or(0, |p| p.sequences * p.context);
        let length = stage.fields.get("tokens").or(stage.fields.get("steps")).copied().unwrap_or(stage.span);
        let mut d = Diagnostic::lint(
            codes::ANNEAL_TOO_SHORT,
            "anneal_too_short",
            Level::Warn,
            length,
            format!(
                "`{}` is {} step{} long",
                stage.name,
                stage.steps,
                if stage.steps == 1 { "" } else { "s" }
            ),
            format!("{} tokens", show::count(stage.tokens)),
        )
        .label(scene.field(stage, "batch"), format!("{} tokens per step", show::count(last)));
        if stage.overshoot > 0 {
            d = d.note(format!("the last step goes {} past the end", show::tokens(stage.overshoot)));
        }
        let written = scene.text(length);
        let bare = written.bytes().all(|b| b.is_ascii_digit() || b == b'_');
        if stage.fields.contains_key("tokens") && bare {
            d = d.help(format!(
                "a number without a unit counts tokens; {written} steps are written `steps = {written}`"
            ));
        }
        out.push(d.help("lengthen the stage or shrink its batch: the learning rate takes as many values as there are steps"));
    }
}
