//! `budget_vs_source`: a lineage needs more of a source than it has, times its `max_epochs`.

use super::scene::{Scene, taken};
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::show;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (index, stage) in scene.stages() {
        let before = scene.drawn(&stage.from);
        for (source, own) in scene.own(stage, None) {
            let s = scene.source(source);
            let Some(tokens) = s.tokens else { continue };
            let held_out = scene.curriculum.held_out_of(s);
            let had = before.get(&source).copied().unwrap_or(0);
            let need = had + own;
            let size = tokens as f64 * (1.0 - held_out);
            let most = size * s.max_epochs;
            // Told where it first runs out.
            if need as f64 <= most || had as f64 > most {
                continue;
            }
            let mut d = Diagnostic::lint(
                codes::BUDGET_VS_SOURCE,
                "budget_vs_source",
                Level::Deny,
                scene.field(stage, "mix"),
                format!(
                    "`{}` needs {} tokens of `{}`, which gives {}",
                    stage.name,
                    show::count(need),
                    s.name,
                    show::count(most as u64)
                ),
                format!("draws {} tokens of `{}`", show::count(own), s.name),
            )
            .label(
                s.fields.get("tokens").copied().unwrap_or(s.span),
                format!("{} tokens, read at most {} times", show::count(tokens), show::number(s.max_epochs)),
            );
            if held_out > 0.0 {
                d = d.note(format!("{} of it is held out of training", show::percent(held_out)));
            }
            if had > 0 {
                d = d.note(format!("{} of them were drawn by the stages before", show::count(had)));
            }
            if let Some(at) = exhausted(scene, index, source, most - had as f64) {
                d = d.note(format!(
                    "it runs out after {} tokens of the stage, {} of its length",
                    show::count(at),
                    show::percent(at as f64 / stage.tokens as f64)
                ));
            }
            d = d.note(format!(
                "{} epochs in all",
                show::number((need as f64 / size * 100.0).round() / 100.0)
            ));
            let last: u64 = stage
                .mix
                .iter()
                .filter(|p| scene.whole(p.source) == source)
                .map(|p| taken(p, None).saturating_sub(taken(p, Some(stage.tokens))))
                .sum();
            if need as f64 - most <= last as f64 && stage.steps > 1 {
                d = d.help(format!(
                    "only the last step is too much, which goes {} past the end: `steps = {}` stays within",
                    show::tokens(stage.overshoot),
                    show::digits(stage.steps - 1)
                ));
            }
            out.push(d.help(format!(
                "lower the share of `{}`, shorten the stage, or raise `max_epochs` if so many passes are meant",
                s.name
            )));
        }
    }
}

/// Where in the stage the `left` tokens of a source are gone.
fn exhausted(scene: &Scene<'_>, stage: usize, source: usize, left: f64) -> Option<u64> {
    let s = &scene.curriculum.stages[stage];
    let drawn = |at: u64| -> f64 {
        s.mix.iter().filter(|p| scene.whole(p.source) == source).map(|p| p.weight.mean(at) * at as f64).sum()
    };
    let (mut low, mut high) = (0, s.drawn());
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if drawn(middle) > left { high = middle } else { low = middle }
    }
    (low > 0).then_some(low)
}
