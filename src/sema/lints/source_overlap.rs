//! `source_overlap`: the same file under two names in one mix.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{Source, Stage};

/// So many of the sources of one file are pointed at; the others are counted.
const SHOWN: usize = 4;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    // The disk is asked once for each source, however many stages read it.
    let mut reads: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (_, stage) in scene.stages() {
        let mut readers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for portion in stage.mix.iter().filter(|p| p.weight.mean(stage.tokens) > 0.0) {
            let source = portion.source;
            for file in reads.entry(source).or_insert_with(|| files(scene, scene.source(source))).iter() {
                readers.entry(file.clone()).or_default().push(source);
            }
        }
        // Sources that share one file mostly share all: their first says it.
        let mut said: BTreeSet<Vec<usize>> = BTreeSet::new();
        for (file, of_file) in &readers {
            let twice = overlapping(scene, of_file);
            if twice.len() > 1 && said.insert(twice.clone()) {
                out.push(overlap(scene, stage, file, &twice));
            }
        }
    }
}

/// Those of the sources that read one file which read of it what another does.
fn overlapping(scene: &Scene<'_>, of_file: &[usize]) -> Vec<usize> {
    let alike = |a: usize, b: usize| {
        let filters = (&scene.source(a).filter, &scene.source(b).filter);
        // A part and its whole say what they are, and two conditions may well divide a file.
        scene.whole(a) != scene.whole(b) && !matches!(filters, (Some(a), Some(b)) if a != b)
    };
    let read_twice = |b: &usize| of_file.iter().any(|a| alike(*a, *b));
    of_file.iter().copied().filter(read_twice).collect()
}

/// What is said about the sources `twice` of a stage, all of which read `file`.
fn overlap(scene: &Scene<'_>, stage: &Stage, file: &str, twice: &[usize]) -> Diagnostic {
    let names: Vec<String> = twice.iter().map(|s| format!("`{}`", scene.source(*s).name)).collect();
    let (message, label) = match names.as_slice() {
        [a, b] => (
            format!("`{}` reads the same file as {a} and as {b}", stage.name),
            format!("{a} and {b} are both in this mix"),
        ),
        names => (
            format!("`{}` reads the same file as {} different sources", stage.name, names.len()),
            format!("{} and {} more are in this mix", names[0], names.len() - 1),
        ),
    };
    let mut d = Diagnostic::lint(
        codes::SOURCE_OVERLAP,
        "source_overlap",
        Level::Deny,
        scene.field(stage, "mix"),
        message,
        label,
    );
    for (i, source) in twice.iter().map(|s| scene.source(*s)).take(SHOWN).enumerate() {
        let place = source.fields.get("path").copied().unwrap_or(source.span);
        d = d.label(place, format!("`{file}`{}", if i > 0 { " again" } else { "" }));
    }
    if let Some(more) = names.get(SHOWN..).filter(|more| !more.is_empty()) {
        d = d.note(format!("so do {} and {} more", more[0], more.len() - 1).replace(" and 0 more", ""));
    }
    d.help(if twice.len() == 2 {
        "keep one of the two and give it both weights; for a part of a source write `source part = whole where …`"
    } else {
        "keep one of them and give it the weights of all; for a part of a source write `source part = whole where …`"
    })
}

/// What a source reads: its patterns as written, then the files they match here.
fn files(scene: &Scene<'_>, source: &Source) -> Vec<String> {
    let matched = source.path.iter().flat_map(|p| scene.files.glob(p, scene.root));
    let matched = matched.map(|p| p.canonicalize().unwrap_or(p).display().to_string());
    let written = source.path.iter().map(|p| plain(p));
    written.chain(matched).collect::<BTreeSet<_>>().into_iter().collect()
}

/// A path without `.`, empty parts, and `..` behind a name.
fn plain(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            "" if !parts.is_empty() => {}
            ".." if parts.last().is_some_and(|p| !["", ".."].contains(p)) => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}
