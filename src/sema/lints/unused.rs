//! `unused_source`, `unused_mix`, `unused_let` (params too), `unused_soup`: definitions that nothing mentions.

use std::collections::BTreeSet;

use super::scene::Scene;
use crate::diag::{Code, Diagnostic, Level, codes};
use crate::sema::curriculum::From;
use crate::sema::program::{DefKind, Program};

pub(super) fn check(scene: &Scene<'_>, program: &Program, used: &[bool], out: &mut Vec<Diagnostic>) {
    for id in program.ids() {
        let def = program.def(id);
        // What a library defines is for others to use.
        if used[id.index()] || def.module != 0 {
            continue;
        }
        let (code, lint, help): (Code, &'static str, &str) = match def.kind {
            DefKind::Source => (codes::UNUSED_SOURCE, "unused_source", "put it into a mix, or take it out"),
            DefKind::Mix => (codes::UNUSED_MIX, "unused_mix", "give it to a stage, or take it out"),
            DefKind::Let => (codes::UNUSED_LET, "unused_let", "use it, or take it out"),
            DefKind::Param => {
                (codes::UNUSED_LET, "unused_let", "use it, or take it out: `--set` would change nothing")
            }
            DefKind::Soup => {
                if let Some(d) = soup(scene, &def.name) {
                    out.push(d);
                }
                continue;
            }
            // Models and stages speak for themselves.
            DefKind::Model | DefKind::Stage => continue,
        };
        // A file of sources and mixes alone is a library itself.
        if scene.curriculum.stages.is_empty() {
            continue;
        }
        out.push(
            Diagnostic::lint(
                code,
                lint,
                Level::Warn,
                def.name_span,
                format!("{} `{}` is never used", def.kind.keyword(), def.name),
                "nothing mentions it",
            )
            .help(help),
        );
    }
}

/// A soup that nothing starts from is the end of the run, unless the run goes on without it.
fn soup(scene: &Scene<'_>, name: &str) -> Option<Diagnostic> {
    let index = scene.curriculum.soups.iter().position(|s| s.name == name)?;
    let soup = &scene.curriculum.soups[index];
    let inside: BTreeSet<usize> = scene.lineage(&From::Soup(index)).iter().map(|l| l.stage).collect();
    // Another soup's ingredients are another end.
    let elsewhere: BTreeSet<usize> = (0..scene.curriculum.soups.len())
        .flat_map(|s| scene.lineage(&From::Soup(s)))
        .map(|l| l.stage)
        .collect();
    let (_, other) = scene.stages().find(|(i, s)| {
        !inside.contains(i)
            && !elsewhere.contains(i)
            && s.span.start > soup.span.start
            && s.span.file == soup.span.file
    })?;
    Some(
        Diagnostic::lint(
            codes::UNUSED_SOUP,
            "unused_soup",
            Level::Warn,
            soup.span,
            format!("soup `{name}` is never used, and the run goes on without it"),
            "nothing starts from it",
        )
        .label(
            scene.field(other, "from"),
            format!("`{}` starts from `{}`", other.name, scene.name(&other.from)),
        )
        .help(format!("start from it: `from = {name}`; or write it after the last stage if it is a result")),
    )
}
