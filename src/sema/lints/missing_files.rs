//! `missing_files`: a path that leads nowhere on this machine.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    let here = |path: &str| !scene.files.glob(path, scene.root).is_empty();
    for (index, source) in scene.curriculum.sources.iter().enumerate() {
        let drawn = scene.stages().any(|(_, s)| s.mix.iter().any(|p| p.source == index));
        if source.parent.is_some() || !drawn {
            continue;
        }
        let missing: Vec<&String> = source.path.iter().filter(|p| !here(p)).collect();
        let Some(first) = missing.first() else { continue };
        let span = source.fields.get("path").copied().unwrap_or(source.span);
        out.push(
            Diagnostic::lint(
                codes::MISSING_FILES,
                "missing_files",
                Level::Warn,
                span,
                match missing.len() {
                    1 => format!("`{first}` of source `{}` matches no file", source.name),
                    n => format!("{n} paths of source `{}` match no file, `{first}` first", source.name),
                },
                "nothing here",
            )
            .note("its size and its documents are not checked; `midc exec` will refuse to start")
            .help("paths are relative to the curriculum; silence this with `missing_files = allow` in `lints { }` where the data is elsewhere"),
        );
    }
    for model in &scene.curriculum.models {
        let Some(path) = model.checkpoint.as_deref().filter(|p| !here(p)) else { continue };
        out.push(
            Diagnostic::lint(
                codes::MISSING_FILES,
                "missing_files",
                Level::Warn,
                model.fields.get("checkpoint").copied().unwrap_or(model.span),
                format!("the checkpoint `{path}` of `{}` is not here", model.name),
                "nothing here",
            )
            .note("its shape, vocabulary, context and RoPE are not compared with what the curriculum says")
            .help(
                "silence this with `missing_files = allow` in `lints { }` where the checkpoint is elsewhere",
            ),
        );
    }
}
