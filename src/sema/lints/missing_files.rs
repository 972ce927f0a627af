//! `missing_files`: a path that leads nowhere on this machine.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::source::Span;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    let here = |path: &str| !scene.files.glob(path, scene.root).is_empty();
    for (index, source) in scene.curriculum.sources.iter().enumerate() {
        let drawn = scene.stages().any(|(_, s)| s.mix.iter().any(|p| p.source == index));
        if source.parent.is_some() || !drawn {
            continue;
        }
        for path in source.exclude.iter().filter(|p| !here(p)) {
            let span = source.fields.get("exclude").copied().unwrap_or(source.span);
            out.push(absent(
                span,
                format!("`{path}`, which `{}` is to exclude, matches no file", source.name),
            ));
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
                    1 if is_remote(first) => {
                        format!("`{first}` of source `{}` is on another machine", source.name)
                    }
                    1 => format!("`{first}` of source `{}` matches no file", source.name),
                    n => format!("{n} paths of source `{}` match no file, `{first}` first", source.name),
                },
                "nothing here",
            )
            .note("its size and its documents are not checked; `midc exec` will refuse to start")
            .help(elsewhere(first).unwrap_or("paths are relative to the curriculum; silence this with `missing_files = allow` in the `lints { }` of this file where the data is elsewhere")),
        );
    }
    for (_, stage) in scene.stages() {
        for path in stage.evals.iter().filter_map(|e| e.choice.as_ref()).filter(|p| !here(p)) {
            out.push(absent(stage.span, format!("the task `{path}` of `{}` is not here", stage.name)));
        }
        for gate in stage.gates.iter().filter(|g| g.measure == "choice" && !here(&g.argument)) {
            let path = &gate.argument;
            out.push(absent(gate.span, format!("the task `{path}` of `{}` is not here", stage.name)));
        }
    }
    for model in &scene.curriculum.models {
        if let Some(path) = model.tokenizer.as_deref().filter(|p| !here(p)) {
            let span = model.fields.get("tokenizer").copied().unwrap_or(model.span);
            out.push(absent(span, format!("the tokenizer `{path}` of `{}` is not here", model.name)));
        }
        if let Some(path) = model.checkpoint.as_deref().filter(|p| here(p) && !p.ends_with(".gguf"))
            && !here(&format!("{path}/config.json"))
        {
            let span = model.fields.get("checkpoint").copied().unwrap_or(model.span);
            let d = absent(
                span,
                format!("`{path}` is no checkpoint of `{}`: it has no `config.json`", model.name),
            );
            let within = scene.files.glob(&format!("{path}/step-*"), scene.root);
            let step =
                |p: &std::path::PathBuf| p.file_name()?.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
            out.push(match within.iter().filter_map(step).max() {
                Some(last) => d.help(format!("a run's checkpoints are inside it: `{path}/step-{last}`")),
                None => d,
            });
        }
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
            .help(elsewhere(path).unwrap_or(
                "silence this with `missing_files = allow` in the `lints { }` of this file where the checkpoint is elsewhere",
            )),
        );
    }
}

/// Whether a path has the form of an address: `s3://…`.
fn is_remote(path: &str) -> bool {
    let scheme = path.split_once("://").map_or("", |(scheme, _)| scheme);
    !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
}

/// What to say of a path that leads to no file system, or that something was to be put into.
fn elsewhere(path: &str) -> Option<&'static str> {
    if path.contains("${") || path.starts_with('$') {
        return Some(
            "nothing is put into a string: write `param data: text = \"…\"` and `path = data`, which `--set` changes",
        );
    }
    is_remote(path).then_some(
        "no address is read: download it, and write the path it has here, relative to the curriculum",
    )
}

/// What `midc exec` will refuse to start without.
fn absent(span: Span, message: String) -> Diagnostic {
    Diagnostic::lint(codes::MISSING_FILES, "missing_files", Level::Warn, span, message, "nothing here")
        .note("`midc exec` will refuse to start")
}
