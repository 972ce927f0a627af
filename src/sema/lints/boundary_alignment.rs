//! `boundary_alignment`: an edge or switch that no step falls on, by more than a rounding.

use super::anneal_too_short;
use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::Stage;
use crate::sema::show;
use crate::source::Span;

/// Published lengths are round numbers and batches powers of two: some slack is unavoidable and the
/// plan prints it. Beyond this share of the shorter side it changes the recipe.
const SLACK: f64 = 0.01;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        // So short a stage has a message of its own.
        if stage.steps < anneal_too_short::STEPS {
            continue;
        }
        let mut report = |span: Span, what: String, at: u64, edge: u64, side: u64, help: &str| {
            let slack = edge - at;
            if slack as f64 <= SLACK * side as f64 {
                return;
            }
            out.push(
                Diagnostic::lint(
                    codes::BOUNDARY_ALIGNMENT,
                    "boundary_alignment",
                    Level::Warn,
                    span,
                    format!(
                        "{what} of `{}` comes {} late: it falls inside a step",
                        stage.name,
                        show::tokens(slack)
                    ),
                    format!("at token {}, where no step ends", show::digits(at)),
                )
                .note(format!(
                    "the next step ends at {}, {} of the stage later",
                    show::digits(edge),
                    show::percent(slack as f64 / stage.tokens as f64)
                ))
                .help(format!("move it to {} tokens{help}", show::digits(edge))),
            );
        };
        // A context in steps would decide how many tokens its own steps have.
        let (only, steps) = ("", ", or give it in `steps`");
        let length = stage.fields.get("tokens").copied().unwrap_or(stage.span);
        report(length, "the end".to_owned(), stage.tokens, stage.drawn(), stage.tokens, steps);
        for (at, value) in stage.context.iter().skip(1) {
            let what = format!("the change of context to {}", show::length(*value));
            let (edge, side) = around(stage, *at);
            report(scene.field(stage, "context"), what, *at, edge, side, only);
        }
        for at in switches(stage) {
            let (edge, side) = around(stage, at);
            report(scene.field(stage, "mix"), "a change of the mixture".to_owned(), at, edge, side, steps);
        }
        for c in &stage.checkpoints {
            let (edge, side) = around(stage, c.tokens);
            report(c.span, format!("checkpoint `{}`", c.name), c.tokens, edge, side, steps);
        }
    }
}

/// The first step edge at or after a position, and the tokens on its shorter side.
fn around(stage: &Stage, at: u64) -> (u64, u64) {
    (stage.tokens_at(stage.step_at(at)), at.min(stage.tokens.saturating_sub(at)))
}

/// Where some weight jumps.
fn switches(stage: &Stage) -> Vec<u64> {
    let mut at: Vec<u64> = stage
        .mix
        .iter()
        .flat_map(|p| {
            let knots = p.weight.knots(stage.tokens);
            knots.into_iter().filter(|k| {
                *k > 0 && *k < stage.tokens && (p.weight.value(*k) - p.weight.value(*k - 1)).abs() > 1e-3
            })
        })
        .collect();
    at.sort_unstable();
    at.dedup();
    at
}
