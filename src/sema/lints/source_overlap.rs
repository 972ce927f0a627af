//! `source_overlap`: the same file under two names in one mix.

use std::collections::BTreeSet;

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::Source;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (_, stage) in scene.stages() {
        let portions: Vec<usize> =
            stage.mix.iter().filter(|p| p.weight.mean(stage.tokens) > 0.0).map(|p| p.source).collect();
        for (i, a) in portions.iter().enumerate() {
            for b in &portions[i + 1..] {
                // A part and its whole say what they are.
                if scene.whole(*a) == scene.whole(*b) {
                    continue;
                }
                let (a, b) = (scene.source(*a), scene.source(*b));
                // Two conditions may well divide a file.
                if a.filter.is_some() && b.filter.is_some() && a.filter != b.filter {
                    continue;
                }
                let Some(shared) = shared(scene, a, b) else { continue };
                let place = |s: &Source| s.fields.get("path").copied().unwrap_or(s.span);
                out.push(
                    Diagnostic::lint(
                        codes::SOURCE_OVERLAP,
                        "source_overlap",
                        Level::Deny,
                        scene.field(stage, "mix"),
                        format!("`{}` reads the same file as `{}` and as `{}`", stage.name, a.name, b.name),
                        format!("`{}` and `{}` are both in this mix", a.name, b.name),
                    )
                    .label(place(a), format!("`{shared}`"))
                    .label(place(b), format!("`{shared}` again"))
                    .help("keep one of the two and give it both weights; for a part of a source write `source part = whole where …`"),
                );
            }
        }
    }
}

/// A file or pattern that both read.
fn shared(scene: &Scene<'_>, a: &Source, b: &Source) -> Option<String> {
    if let Some(pattern) = a.path.iter().find(|p| b.path.contains(p)) {
        return Some(pattern.clone());
    }
    let resolve = |s: &Source| -> BTreeSet<std::path::PathBuf> {
        s.path.iter().flat_map(|p| scene.files.glob(p, scene.root)).collect()
    };
    let (a, b) = (resolve(a), resolve(b));
    a.intersection(&b).next().map(|p| p.display().to_string())
}
