//! `weight_below_quantum`: a weight that fills no sequence of a batch or mixing block.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{Portion, Stage};
use crate::sema::show;

/// Sequences of a mixing block where the step is smaller (Levanter's default).
const BLOCK: u64 = 2048;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let rows = stage.phases.iter().map(|p| p.sequences).max().unwrap_or(0).max(BLOCK);
        for portion in &stage.mix {
            let weight = largest(portion, stage);
            if weight <= 0.0 || weight * rows as f64 >= 1.0 {
                continue;
            }
            let source = scene.source(portion.source);
            out.push(
                Diagnostic::lint(
                    codes::WEIGHT_BELOW_QUANTUM,
                    "weight_below_quantum",
                    Level::Warn,
                    scene.field(stage, "mix"),
                    format!(
                        "`{}` has {} of `{}`, less than one sequence in {}",
                        source.name,
                        show::percent(weight),
                        stage.name,
                        show::digits(rows)
                    ),
                    format!("`{}` at {}", source.name, show::percent(weight)),
                )
                .label(
                    source.span,
                    format!("{} tokens of it in the whole stage", show::count(portion.tokens)),
                )
                .note("an engine that rounds shares within a block never reads it")
                .help(format!("give it at least {}, or leave it out", show::percent(1.0 / rows as f64))),
            );
        }
    }
}

/// The largest weight over the stage.
fn largest(portion: &Portion, stage: &Stage) -> f64 {
    let knots = portion.weight.knots(stage.tokens);
    knots
        .iter()
        .flat_map(|k| [*k, k.saturating_sub(1)])
        .map(|at| portion.weight.value(at.min(stage.tokens)))
        .fold(portion.weight.value(0), f64::max)
}
