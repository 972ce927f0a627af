//! `decay_too_short`: after a stable phase, a decay of under 5% of its tokens.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{From, Stage};
use crate::sema::show;

/// MiniCPM (arXiv:2404.06395 section 4.3): 10% of the tokens suffices, 2.5% does not.
const SHARE: f64 = 0.05;

/// A run of one direction along a lineage.
#[derive(Clone, Copy, PartialEq)]
enum Run {
    Falls { tokens: u64, from: f64, to: f64 },
    Holds { tokens: u64 },
    Rises,
}

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for (index, stage) in scene.stages() {
        // Where another stage goes on with the decay, that one is judged.
        let goes_on =
            scene.stages().any(|(_, s)| s.from == From::Stage(index) && s.lr.end_value() < s.lr.value(0));
        if goes_on {
            continue;
        }
        let runs = line(scene, stage);
        let [.., Run::Holds { tokens: stable }, Run::Falls { tokens, from, to }] = runs.as_slice() else {
            continue;
        };
        let share = *tokens as f64 / *stable as f64;
        // A step down that halves nothing is no decay.
        if *to > 0.5 * from || share >= SHARE {
            continue;
        }
        out.push(
            Diagnostic::lint(
                codes::DECAY_TOO_SHORT,
                "decay_too_short",
                Level::Warn,
                stage.lr_spans.last().copied().unwrap_or_else(|| scene.field(stage, "lr")),
                format!(
                    "the decay of `{}` takes {} tokens, {} of the stable phase before it",
                    stage.name,
                    show::count(*tokens),
                    show::percent(share)
                ),
                format!("falls from {} to {} in {} tokens", show::number(*from), show::number(*to), show::count(*tokens)),
            )
            .note(format!("the stable phase has {} tokens", show::count(*stable)))
            .help(format!(
                "give the decay about 10%, {} tokens (arXiv:2404.06395 section 4.3: 10% suffices, 2.5% does not)",
                show::count(stable / 10)
            )),
        );
    }
}

/// The runs of the learning rate up to the end of `stage`, oldest first; from the stage on, back to
/// where the line has no one past.
fn line(scene: &Scene<'_>, stage: &Stage) -> Vec<Run> {
    let mut pieces: Vec<(&Stage, u64)> = vec![(stage, stage.tokens)];
    let mut from = &stage.from;
    loop {
        let (index, upto) = match from {
            From::Stage(s) => (*s, scene.curriculum.stages[*s].tokens),
            From::Checkpoint(s, c) => (*s, scene.curriculum.stages[*s].checkpoints[*c].tokens),
            // All ingredients of a soup passed through much the same; the first stands for them.
            From::Soup(s) => match scene.curriculum.soups[*s].ingredients.first() {
                Some(first) => {
                    from = first;
                    continue;
                }
                None => break,
            },
            From::Model(_) => break,
        };
        let s = &scene.curriculum.stages[index];
        pieces.push((s, upto));
        from = &s.from;
    }
    let mut runs: Vec<Run> = Vec::new();
    for (s, upto) in pieces.into_iter().rev() {
        for g in s.lr.segments.iter().filter(|g| g.end > g.start && g.start < upto) {
            let end = g.end.min(upto);
            let (tokens, a, b) = (end - g.start, g.from, g.value(end));
            match (runs.last_mut(), b.total_cmp(&a)) {
                (Some(Run::Falls { tokens: t, to, .. }), std::cmp::Ordering::Less) => {
                    *t += tokens;
                    *to = b;
                }
                (_, std::cmp::Ordering::Less) => runs.push(Run::Falls { tokens, from: a, to: b }),
                (Some(Run::Holds { tokens: t }), std::cmp::Ordering::Equal) => *t += tokens,
                (_, std::cmp::Ordering::Equal) => runs.push(Run::Holds { tokens }),
                (_, std::cmp::Ordering::Greater) => runs.push(Run::Rises),
            }
        }
    }
    runs
}
