//! `context_starved`: a stage that stretches the context and reads few documents that fill half of
//! it. What is not known about the lengths of a source is taken to be long.

use super::scene::Scene;
use crate::diag::{Diagnostic, Level, codes};
use crate::sema::curriculum::{Portion, Source};
use crate::sema::{measured, show};

/// Published long stages draw 25% (Hunyuan-Large) to 75% (Qwen3) of their tokens from documents of
/// the new length; well below that, attention across the new distance is hardly trained.
const FLOOR: f64 = 0.10;

pub(super) fn check(scene: &Scene<'_>, out: &mut Vec<Diagnostic>) {
    let measured = measured::counts(scene.files, scene.root);
    let lengths = |source: &Source| {
        let count = measured.get(&source.name).filter(|count| count.is_of(source));
        count.map(|count| &count.tokens_by_length[..]).filter(|lengths| !lengths.is_empty())
    };
    for (_, stage) in scene.stages() {
        let Some(before) = scene.context_at(&stage.from) else { continue };
        let context = stage.context_max();
        if context <= before {
            continue;
        }
        let half = context / 2;
        let long = |p: &Portion| {
            let source = scene.source(p.source);
            let counted = lengths(source).and_then(|c| counted(c, half));
            counted.or_else(|| filtered(source, half)).unwrap_or(1.0)
        };
        let share: f64 = stage.mix.iter().map(|p| p.mean * long(p)).sum();
        // A hundred-thousandth of grace: shares are sums.
        if share >= FLOOR - 1e-5 {
            continue;
        }
        let counts = stage.mix.iter().any(|p| lengths(scene.source(p.source)).is_some());
        out.push(
            Diagnostic::lint(
                codes::CONTEXT_STARVED,
                "context_starved",
                Level::Warn,
                scene.field(stage, "mix"),
                format!(
                    "`{}` trains at {} and draws at most {} of its tokens from documents of {} or more",
                    stage.name,
                    show::length(context),
                    show::percent(share),
                    show::length(half)
                ),
                format!("at most {} of it fills half a row", show::percent(share)),
            )
            .label(
                scene.field(stage, "context"),
                format!("{} after {}", show::length(context), show::length(before)),
            )
            .note(if counts {
                "lengths are those that `midc data --save` measured"
            } else {
                "lengths are those that the `where` of the sources allows"
            })
            .help(format!(
                "draw a quarter or more from long documents: `source long_books = books where length >= {}`",
                show::length(half)
            )),
        );
    }
}

/// The share of tokens in documents of at least `half`; those of the class that `half` lies in count.
fn counted(lengths: &[u64], half: u64) -> Option<f64> {
    let total: u64 = lengths.iter().sum();
    let class = (u64::BITS - half.leading_zeros()) as usize;
    let long: u64 = lengths.iter().skip(class).sum();
    (total > 0).then(|| long as f64 / total as f64)
}

/// All or nothing, where the `where` of a source decides it.
fn filtered(source: &Source, half: u64) -> Option<f64> {
    let filter = source.filter.as_deref()?;
    // Only what every document must satisfy says something.
    if filter.split([' ', '(', ')']).any(|word| matches!(word, "or" | "not")) {
        return None;
    }
    let mut decided = None;
    for condition in filter.split(" and ") {
        let words: Vec<&str> = condition.split([' ', '(', ')']).filter(|word| !word.is_empty()).collect();
        let ["length", sign, bound] = words.as_slice() else { continue };
        let Ok(bound) = bound.parse::<u64>() else { continue };
        match *sign {
            ">=" | ">" | "==" if bound >= half => decided = Some(1.0),
            "<" if bound <= half => decided = Some(0.0),
            "<=" | "==" if bound < half => decided = Some(0.0),
            _ => {}
        }
    }
    decided
}
