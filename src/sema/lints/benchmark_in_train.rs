//! `benchmark_in_train`: a source that is an evaluation's training set.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::Source;

/// Benchmarks whose training set, or a text made from it, is offered as training data.
const BENCHMARKS: [&str; 22] = [
    "agieval",
    "arc_c",
    "arc_challenge",
    "arc_e",
    "arc_easy",
    "boolq",
    "commonsenseqa",
    "gpqa",
    "gsm8k",
    "hellaswag",
    "humaneval",
    "lambada",
    "livecodebench",
    "mbpp",
    "mmlu",
    "openbookqa",
    "piqa",
    "race",
    "squad",
    "triviaqa",
    "truthfulqa",
    "winogrande",
];

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (index, source) in scene.curriculum.sources.iter().enumerate() {
        if source.parent.is_some()
            || !scene.stages().any(|(_, s)| s.mix.iter().any(|p| scene.whole(p.source) == index))
        {
            continue;
        }
        out.extend(task(scene, source));
        let in_path = source.path.iter().find_map(|p| named(p).map(|b| (b, "path")));
        let Some((benchmark, place)) = named(&source.name).map(|b| (b, "")).or(in_path) else { continue };
        let span = source.fields.get(place).copied().unwrap_or(source.span);
        out.push(
            Diagnostic::lint(
                codes::BENCHMARK_IN_TRAIN,
                "benchmark_in_train",
                Level::Warn,
                span,
                format!("`{}` looks like {} of `{benchmark}`", source.name, part(source)),
                format!("`{benchmark}` is a benchmark"),
            )
            .help(format!(
                "results on {benchmark} will not tell what the model can do: leave it out, or say with `@allow(benchmark_in_train)` that they will not be reported"
            )),
        );
    }
}

/// Which of its sets, where the name or path says so.
fn part(source: &Source) -> &'static str {
    let test = |text: &String| {
        text.to_ascii_lowercase().split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "test")
    };
    if test(&source.name) || source.path.iter().any(test) { "the test set" } else { "the training set" }
}

/// A source that is itself the task file of an `eval` or a `gate`.
fn task(scene: &Scene<'_>, source: &Source) -> Option<Diagnostic> {
    let same =
        |task: &&str| source.path.iter().any(|p| p.trim_end_matches('/') == task.trim_end_matches('/'));
    let (stage, task) = scene.stages().find_map(|(_, stage)| {
        let gates = stage.gates.iter().filter(|g| g.measure == "choice").map(|g| g.argument.as_str());
        let task = stage.evals.iter().filter_map(|e| e.choice.as_deref()).chain(gates).find(same)?;
        Some((stage, task))
    })?;
    let span = source.fields.get("path").copied().unwrap_or(source.span);
    Some(
        Diagnostic::lint(
            codes::BENCHMARK_IN_TRAIN,
            "benchmark_in_train",
            Level::Warn,
            span,
            format!("`{}` is the task `{task}` that `{}` is measured on", source.name, stage.name),
            "trained on and measured on",
        )
        .label(stage.span, "measured here")
        .help("give the measurement a file of questions that no source reads"),
    )
}

/// A benchmark's name in a name or path, as a word or at the end of one (`auggsm8k`).
fn named(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase().replace('-', "_");
    let words: Vec<&str> = lower.split(['/', '.', '*', ' ']).collect();
    BENCHMARKS.into_iter().find(|b| {
        words.iter().any(|w| {
            w == b
                || w.strip_prefix(b).is_some_and(|r| r.starts_with('_'))
                || w.strip_suffix(b).is_some_and(|r| r.ends_with('_') || b.len() >= 5)
        })
    })
}
