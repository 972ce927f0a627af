//! `replay_below_floor`: a stage that hardly reads anything the model has seen before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::From;
use crate::sema::show;

/// Below a quarter of familiar text, what was learned fades (replay of 25% to 75% is the practice:
/// Zamba 60%, Phi-4 70%, Hunyuan 75%).
const FLOOR: f64 = 0.25;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    let ids = identities(scene);
    let mut known = HashMap::new();
    for (_, stage) in scene.stages() {
        let seen = seen(scene, &stage.from, &ids, &mut known);
        if seen.is_empty() {
            continue;
        }
        let overlap: f64 = stage.mix.iter().filter(|p| seen.contains(&ids[&p.source])).map(|p| p.mean).sum();
        if overlap >= FLOOR - 1e-9 {
            continue;
        }
        let new: Vec<String> = stage
            .mix
            .iter()
            .filter(|p| p.mean > 0.0 && !seen.contains(&ids[&p.source]))
            .map(|p| format!("`{}`", scene.source(p.source).name))
            .collect();
        out.push(
            Diagnostic::lint(
                codes::REPLAY_BELOW_FLOOR,
                "replay_below_floor",
                Level::Warn,
                scene.field(stage, "mix"),
                format!(
                    "{} of `{}` comes from what the model has seen before",
                    show::percent(overlap),
                    stage.name
                ),
                format!("new: {}", new.join(", ")),
            )
            .label(scene.field(stage, "from"), format!("`{}` has not seen them", scene.name(&stage.from)))
            .help(format!(
                "replay at least 25% of the earlier mixture (it is there as `{}.mix`)",
                match &stage.from {
                    From::Model(m) => scene.curriculum.models[*m].name.clone(),
                    other => scene
                        .lineage(other)
                        .first()
                        .map_or(String::new(), |l| scene.curriculum.stages[l.stage].base.clone()),
                }
            )),
        );
    }
}

/// Sources that are the same text get the same number: parts of one source, and sources that read
/// the same files.
fn identities(scene: &Scene<'_>) -> BTreeMap<usize, usize> {
    let mut first: BTreeMap<&[String], usize> = BTreeMap::new();
    (0..scene.curriculum.sources.len())
        .map(|index| {
            let whole = scene.whole(index);
            let path = scene.source(whole).path.as_slice();
            let id = if path.is_empty() { whole } else { *first.entry(path).or_insert(whole) };
            (index, id)
        })
        .collect()
}

/// What any stage before, or the model's declared mixture, has read.
fn seen(
    scene: &Scene<'_>,
    from: &From,
    ids: &BTreeMap<usize, usize>,
    known: &mut HashMap<From, Rc<BTreeSet<usize>>>,
) -> Rc<BTreeSet<usize>> {
    if let Some(seen) = known.get(from) {
        return Rc::clone(seen);
    }
    let seen = Rc::new(match from {
        From::Model(model) => {
            let mix = scene.curriculum.models[*model].mix.iter().flatten();
            mix.filter(|(_, share)| *share > 0.0).map(|(source, _)| ids[source]).collect()
        }
        From::Stage(stage) | From::Checkpoint(stage, _) => {
            let stage = &scene.curriculum.stages[*stage];
            let mut seen = BTreeSet::clone(&seen(scene, &stage.from, ids, known));
            seen.extend(stage.mix.iter().filter(|p| p.mean > 0.0).map(|p| ids[&p.source]));
            seen
        }
        From::Soup(soup) => {
            let mut all = BTreeSet::new();
            for ingredient in &scene.curriculum.soups[*soup].ingredients {
                all.extend(seen(scene, ingredient, ids, known).iter());
            }
            all
        }
    });
    known.insert(from.clone(), Rc::clone(&seen));
    seen
}
