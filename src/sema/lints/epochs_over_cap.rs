//! `epochs_over_cap`: a source is read more often than its kind of text bears.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::Source;
use crate::sema::show;

/// Four epochs of natural text are nearly as good as fresh text (arXiv:2305.16264).
const NATURAL: f64 = 4.0;
/// "About four": the last step's rest is no fifth epoch.
const TOLERANCE: f64 = 1.01;
/// Phi-4 (arXiv:2412.08905 Table 5) reads its synthetic text 13.8 times.
const SYNTHETIC: f64 = 16.0;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let before = scene.drawn(&stage.from);
        for (source, own) in scene.own(stage, None) {
            let s = scene.source(source);
            let Some(tokens) = s.tokens else { continue };
            let held_out = scene.curriculum.held_out_of(s);
            let epochs = |drawn: u64| drawn as f64 / (tokens as f64 * (1.0 - held_out));
            let had = before.get(&source).copied().unwrap_or(0);
            let need = had + own;
            let cap = cap(s);
            // More than `max_epochs` is an error of its own; told where it is first passed.
            if epochs(need) <= cap * TOLERANCE || epochs(had) > cap * TOLERANCE || epochs(need) > s.max_epochs
            {
                continue;
            }
            let mut d = Diagnostic::lint(
                codes::EPOCHS_OVER_CAP,
                "epochs_over_cap",
                Level::Warn,
                scene.field(stage, "mix"),
                format!(
                    "`{}` reads `{}` {} times, over {cap}",
                    stage.name,
                    s.name,
                    show::number(hundredths(epochs(need)))
                ),
                format!("{} tokens of `{}` by the end of this stage", show::count(need), s.name),
            )
            .label(
                s.fields.get("tokens").copied().unwrap_or(s.span),
                format!("{} tokens", show::count(tokens)),
            );
            if had > 0 {
                d = d.note(format!(
                    "{} epochs of them before this stage",
                    show::number(hundredths(epochs(had)))
                ));
            }
            if held_out > 0.0 {
                d = d.note(format!("{} of it is held out of training", show::percent(held_out)));
            }
            d = d.note(if cap == NATURAL {
                "natural text is worth reading about 4 times (arXiv:2305.16264)"
            } else {
                "synthetic text has been read up to 14 times (arXiv:2412.08905 Table 5)"
            });
            out.push(d.help(format!(
                "lower the share of `{}`, or mix in other text of its kind{}",
                s.name,
                if cap == NATURAL { "; `synthetic = yes` if a model wrote it" } else { "" }
            )));
        }
    }
}

fn cap(source: &Source) -> f64 {
    if source.synthetic || source.kind == "reasoning" { SYNTHETIC } else { NATURAL }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
