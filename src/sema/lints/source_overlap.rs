//! `source_overlap`: the same file under two names in one mix.

use std::collections::{BTreeMap, BTreeSet};

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::Source;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    // The disk is asked once for each source, however many stages read it.
    let mut reads: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (_, stage) in scene.stages() {
        let mut readers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for portion in stage.mix.iter().filter(|p| p.weight.mean(stage.tokens) > 0.0) {
            let b = portion.source;
            let names = reads.entry(b).or_insert_with(|| files(scene, scene.source(b)));
            for shared in names.iter() {
                let earlier = readers.entry(shared.clone()).or_default();
                for a in earlier.iter().filter(|a| seen.insert((**a, b))) {
                    // A part and its whole say what they are.
                    if scene.whole(*a) == scene.whole(b) {
                        continue;
                    }
                    let (a, b) = (scene.source(*a), scene.source(b));
                    // Two conditions may well divide a file.
                    if a.filter.is_some() && b.filter.is_some() && a.filter != b.filter {
                        continue;
                    }
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
                if earlier.last() != Some(&b) {
                    earlier.push(b);
                }
            }
        }
    }
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
