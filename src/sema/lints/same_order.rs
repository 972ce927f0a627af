//! `same_order`: two stages of one lineage read a source in the same order.

use super::scene::Scene;
use crate::diag::{Applicability, Diagnostic, Level, codes};

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let Some(seed) = stage.fields.get("data_seed") else { continue };
        for leg in scene.lineage(&stage.from) {
            let other = &scene.curriculum.stages[leg.stage];
            let Some(earlier) = other.fields.get("data_seed") else { continue };
            if other.data_seed != stage.data_seed {
                continue;
            }
            let twice = stage.mix.iter().find(|p| {
                p.mean > 0.0
                    && scene.source(p.source).order == "shuffled"
                    && other
                        .mix
                        .iter()
                        .any(|q| q.mean > 0.0 && scene.whole(q.source) == scene.whole(p.source))
            });
            let Some(portion) = twice else { continue };
            let source = &scene.source(scene.whole(portion.source)).name;
            let free = fresh_seed(scene, stage.data_seed);
            let mut d = Diagnostic::lint(
                codes::SAME_ORDER,
                "same_order",
                Level::Warn,
                *seed,
                format!("`{}` reads `{source}` in the order in which `{}` did", stage.name, other.name),
                format!("the seed is {} here", stage.data_seed),
            )
            .label(*earlier, format!("and {} here", other.data_seed))
            .help(
                "by another seed an engine that orders the data itself begins elsewhere, too; midc goes on where the stage before stopped",
            );
            if scene.text(*seed).chars().all(|c| c.is_ascii_digit() || c == '_') {
                d = d.fix(
                    format!("use the seed {free}"),
                    Applicability::MaybeIncorrect,
                    *seed,
                    free.to_string(),
                );
            }
            out.push(d);
            break;
        }
    }
}

/// The next seed that no stage uses.
fn fresh_seed(scene: &Scene<'_>, taken: u64) -> u64 {
    let mut seed = taken + 1;
    while scene.stages().any(|(_, s)| s.data_seed == seed) {
        seed += 1;
    }
    seed
}
