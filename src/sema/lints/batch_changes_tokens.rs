//! `batch_changes_tokens`: rows per step stay while the rows change their length.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{From, Phase};
use crate::sema::show;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (index, stage) in scene.stages() {
        let batch = scene.field(stage, "batch");
        let before = match (&stage.from, stage.inherited.contains(&"batch")) {
            (From::Stage(s) | From::Checkpoint(s, _), true) => scene.curriculum.stages[*s].phases.last(),
            _ => None,
        };
        let phases: Vec<&Phase> = before.into_iter().chain(stage.phases.iter()).collect();
        // A batch in tokens is as it was written, at every length.
        let rows = |at: u64| scene.legacies[index].batch_piece(at).rows;
        let change = phases
            .windows(2)
            .find(|w| w[0].sequences == w[1].sequences && w[0].context != w[1].context && rows(w[1].tokens));
        let Some([a, b]) = change else { continue };
        let (old, new) = (a.sequences * a.context, b.sequences * b.context);
        let inherited = before.is_some();
        let primary = if inherited { scene.field(stage, "context") } else { batch };
        let mut d = Diagnostic::lint(
            codes::BATCH_CHANGES_TOKENS,
            "batch_changes_tokens",
            Level::Warn,
            primary,
            format!(
                "`{}` goes from {} to {} tokens per step, because its {} rows change their length",
                stage.name,
                show::count(old),
                show::count(new),
                show::digits(a.sequences)
            ),
            format!(
                "{} rows of {}, then of {}",
                show::digits(a.sequences),
                show::length(a.context),
                show::length(b.context)
            ),
        );
        if !inherited {
            d = d.label(scene.field(stage, "context"), "the length changes here");
        }
        out.push(d.help(if old % b.context == 0 {
            format!(
                "to keep the tokens per step write `batch = {} seqs`, or the batch in `tokens`",
                old / b.context
            )
        } else {
            "write the batch in `tokens` to keep it, or repeat it here to say that it changes".to_owned()
        }));
    }
}
