//! `long_only`: a stage that stretches the context and reads no short text.

use super::scene::{Scene, is_long};
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::show;

/// Mixtures that keep short-context quality have a third or more of short text (Llama 3, SmolLM2,
/// Hunyuan); with none at all it falls (ProLong, arXiv:2410.02660).
const SHORT: f64 = 0.05;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let Some(before) = scene.context_at(&stage.from) else { continue };
        let context = stage.context_max();
        if context <= before {
            continue;
        }
        let short: f64 = stage.mix.iter().filter(|p| !is_long(scene.source(p.source))).map(|p| p.mean).sum();
        if short >= SHORT {
            continue;
        }
        out.push(
            Diagnostic::lint(
                codes::LONG_ONLY,
                "long_only",
                Level::Warn,
                scene.field(stage, "mix"),
                format!("`{}` stretches the context from {} to {} on long text alone", stage.name, show::length(before), show::length(context)),
                format!("{} of it is short", show::percent(short)),
            )
            .label(scene.field(stage, "context"), format!("{} after {}", show::length(context), show::length(before)))
            .help("keep 30% to 75% of the mixture before (Llama 3, SmolLM2 and Hunyuan do): what is never read short is answered worse"),
        );
    }
}
