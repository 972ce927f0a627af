//! `quality_inverted`: a later stage reads more of the web and less of the better sources.

use super::scene::{Scene, is_long};
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{From, Stage};
use crate::sema::show;

/// Smaller movements are noise of the rounding of shares.
const MARGIN: f64 = 0.005;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let before = match &stage.from {
            From::Stage(s) | From::Checkpoint(s, _) => *s,
            From::Soup(_) => match scene.lineage(&stage.from).first() {
                Some(leg) => leg.stage,
                None => continue,
            },
            From::Model(_) => continue,
        };
        let before = &scene.curriculum.stages[before];
        let ((web_before, good_before), (web, good)) = (shares(scene, before), shares(scene, stage));
        if web <= web_before + MARGIN || good >= good_before - MARGIN {
            continue;
        }
        out.push(
            Diagnostic::lint(
                codes::QUALITY_INVERTED,
                "quality_inverted",
                Level::Warn,
                scene.field(stage, "mix"),
                format!("`{}` reads more of the web and less of the better sources than `{}`", stage.name, before.name),
                format!("web {}, code, math, instruct and textbook {}", show::percent(web), show::percent(good)),
            )
            .label(scene.field(before, "mix"), format!("web {}, the better kinds {}", show::percent(web_before), show::percent(good_before)))
            .help("keep the best data for the end, when the learning rate is low; swap the two mixtures, or say what they are with `kind`"),
        );
    }
}

/// Mean shares of the web and of the better kinds. What is chosen for its length is neither.
fn shares(scene: &Scene<'_>, stage: &Stage) -> (f64, f64) {
    let (mut web, mut good) = (0.0, 0.0);
    for p in &stage.mix {
        let source = scene.source(p.source);
        match source.kind {
            _ if is_long(source) => {}
            "web" => web += p.mean,
            "code" | "math" | "instruct" | "textbook" | "reasoning" => good += p.mean,
            _ => {}
        }
    }
    (web, good)
}
