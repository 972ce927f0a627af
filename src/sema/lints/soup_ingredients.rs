//! `soup_ingredients`: weights that cannot or should not be averaged.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{From, Soup};
use crate::sema::show;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    for soup in &scene.curriculum.soups {
        match different(scene, soup) {
            Some(d) => out.push(d),
            None => out.extend(inside_a_decay(scene, soup)),
        }
    }
}

/// Ingredients of different shape, vocabulary or position encoding.
fn different(scene: &Scene<'_>, soup: &Soup) -> Option<Diagnostic> {
    let (first, rest) = soup.ingredients.split_first()?;
    for other in rest {
        let (a, b) = (scene.root_model(first)?, scene.root_model(other)?);
        let (m, n) = (&scene.curriculum.models[a], &scene.curriculum.models[b]);
        let what = if matches!((&m.architecture, &n.architecture), (Some(x), Some(y)) if x != y) {
            "architecture"
        } else if m.tokenizer.is_some() && n.tokenizer.is_some() && m.tokenizer != n.tokenizer {
            "tokenizer"
        } else if matches!((scene.rope_at(first), scene.rope_at(other)), (Some((x, _)), Some((y, _))) if x != y)
        {
            "RoPE"
        } else {
            continue;
        };
        let (x, y) = (scene.name(first), scene.name(other));
        return Some(
            Diagnostic::lint(
                codes::SOUP_INGREDIENTS,
                "soup_ingredients",
                Level::Deny,
                soup.span,
                format!("`{}` averages `{x}` and `{y}`, which differ in their {what}", soup.name),
                format!("not the same {what}"),
            )
            .label(place(scene, first), format!("`{x}`"))
            .label(place(scene, other), format!("`{y}`"))
            .help("average only what started from the same weights and was shaped the same way"),
        );
    }
    None
}

/// Checkpoints from where the learning rate was still falling.
fn inside_a_decay(scene: &Scene<'_>, soup: &Soup) -> Option<Diagnostic> {
    soup.ingredients.iter().find_map(|ingredient| {
        let From::Checkpoint(stage, point) = ingredient else { return None };
        let s = &scene.curriculum.stages[*stage];
        let c = &s.checkpoints[*point];
        let at = s.tokens_at(c.step).min(s.tokens);
        let segment = s.lr.segments.iter().find(|g| g.start < at && at < g.end && g.to < g.from)?;
        Some(
            Diagnostic::lint(
                codes::SOUP_INGREDIENTS,
                "soup_ingredients",
                Level::Warn,
                soup.span,
                format!("`{}` averages `{}`, which is inside a decay", soup.name, scene.name(ingredient)),
                "averaging does what the decay is doing",
            )
            .label(
                c.span,
                format!(
                    "the learning rate is {} here, on its way to {}",
                    show::number(s.lr.value(at)),
                    show::number(segment.to)
                ),
            )
            .help("average the ends of decays, or checkpoints of a constant phase"),
        )
    })
}

fn place(scene: &Scene<'_>, from: &From) -> crate::source::Span {
    match from {
        From::Model(m) => scene.curriculum.models[*m].span,
        From::Stage(s) => scene.curriculum.stages[*s].span,
        From::Checkpoint(s, c) => scene.curriculum.stages[*s].checkpoints[*c].span,
        From::Soup(s) => scene.curriculum.soups[*s].span,
    }
}
