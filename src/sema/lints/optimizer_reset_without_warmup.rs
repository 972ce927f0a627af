//! `optimizer_reset_without_warmup`: fresh moments meet the full learning rate.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::From;
use crate::sema::show;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        if stage.state != "weights_only" {
            continue;
        }
        let (start, peak) = (stage.lr.value(0), stage.lr.max());
        if peak <= 0.0 || start < 0.999 * peak {
            continue;
        }
        // Only a stage leaves moments that could be kept.
        let keep = match stage.from {
            From::Stage(_) | From::Checkpoint(..) => ", or keep the moments: `state = keep`",
            From::Model(_) | From::Soup(_) => "",
        };
        out.push(
            Diagnostic::lint(
                codes::OPTIMIZER_RESET,
                "optimizer_reset_without_warmup",
                Level::Warn,
                scene.field(stage, "state"),
                format!(
                    "`{}` drops the optimizer's moments and starts at its highest learning rate",
                    stage.name
                ),
                "the moments start at zero",
            )
            .label(scene.field(stage, "lr"), format!("starts at its peak of {}", show::number(peak)))
            .help(format!("warm up: `0 then linear(to: …, over: 100 steps) then …`{keep}")),
        );
    }
}
