//! `missing_data_seed`: nothing says in which order a stage reads.

use super::scene::Scene;
use crate::diag::{Applicability, Diagnostic, Level, codes};
use crate::source::Span;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (index, stage) in scene.stages() {
        if stage.fields.contains_key("data_seed") {
            continue;
        }
        let mut d = Diagnostic::lint(
            codes::MISSING_DATA_SEED,
            "missing_data_seed",
            Level::Warn,
            stage.span,
            format!("`{}` has no `data_seed`", stage.base),
            "the order of its data is 0 by default",
        )
        .help("write `data_seed = …`: a run that can be repeated says its order, and stages of one line should differ in it");
        if let Some(from) = stage.fields.get("from") {
            let seed =
                (index as u64 + 1..).find(|n| scene.stages().all(|(_, s)| s.data_seed != *n)).unwrap_or(1);
            let end = Span { start: from.end, ..*from };
            d = d.fix(
                format!("write `data_seed = {seed}`"),
                Applicability::MaybeIncorrect,
                end,
                format!("\n  data_seed = {seed}"),
            );
        }
        out.push(d);
    }
}
