//! Derived numbers in words: steps of a length, passes over a source, the course of a curve.

use crate::curve::Segment;
use crate::sema::{self, Curriculum, Portion, Stage, show};
use crate::source::Span;

/// Digits in groups of three, for prose: `11,921`.
pub(super) fn grouped(value: u64) -> String {
    show::digits(value).replace('_', ",")
}

/// The members of the stage whose name stands at `name`.
pub(super) fn members(curriculum: &Curriculum, name: Span) -> Vec<&Stage> {
    curriculum.stages.iter().filter(|s| s.span == name).collect()
}

/// What holds for the members of a stage, in a few words: once where all agree, the values where they
/// are few.
pub(super) fn of_all(stages: &[&Stage], text: impl Fn(&Stage) -> Option<String>) -> Option<String> {
    const FEW: usize = 4;
    let mut values: Vec<Option<String>> = Vec::new();
    for value in stages.iter().map(|s| text(s)) {
        if !values.contains(&value) {
            values.push(value);
        }
    }
    match values.as_slice() {
        [one] => one.clone(),
        [] => None,
        many if many.len() > FEW => Some("differs by member".to_owned()),
        many => Some(many.iter().flatten().cloned().collect::<Vec<_>>().join(" | ")),
    }
}

/// The segment of the learning rate that is written at `span`.
pub(super) fn segment_of(stage: &Stage, span: Span) -> Option<&Segment> {
    let at = stage.lr_spans.iter().position(|s| *s == span)?;
    stage.lr.segments.get(at)
}

/// A batch in tokens: `4Mi`, `512Ki`, `4.096M`.
fn batch(value: u64) -> String {
    if value.is_multiple_of(1 << 20) || value < 1 << 20 {
        return show::length(value).replace('_', ",");
    }
    show::count(value).replace('_', ",")
}

fn ends(stage: &Stage, of: impl Fn(&sema::Phase) -> u64, print: impl Fn(u64) -> String) -> String {
    let values: Vec<u64> = stage.phases.iter().map(of).collect();
    let (low, high) = (values.iter().min(), values.iter().max());
    match (low, high) {
        (Some(low), Some(high)) if low == high => print(*low),
        (Some(low), Some(high)) => format!("{} to {}", print(*low), print(*high)),
        _ => "?".to_owned(),
    }
}

/// `11,921 steps of 4Mi`.
pub(super) fn steps(stage: &Stage) -> String {
    let plural = if stage.steps == 1 { "step" } else { "steps" };
    format!("{} {plural} of {}", grouped(stage.steps), ends(stage, |p| p.sequences * p.context, batch))
}

/// `50B tokens = 11,921 steps of 4Mi`.
pub(super) fn length(stage: &Stage) -> String {
    format!("{} tokens = {}", show::count(stage.tokens).replace('_', ","), steps(stage))
}

/// `1024 seqs of 4Ki = 4Mi tokens`.
pub(super) fn batches(stage: &Stage) -> String {
    format!(
        "{} seqs of {} = {} tokens",
        ends(stage, |p| p.sequences, grouped),
        ends(stage, |p| p.context, show::length),
        ends(stage, |p| p.sequences * p.context, batch)
    )
}

/// `1.9 times`, `0.021 times`.
pub(super) fn times(epochs: f64) -> String {
    // Two digits say it.
    let two = || format!("{epochs:.1e}").parse().map_or_else(|_| "?".to_owned(), show::number);
    let text = if epochs >= 0.95 { format!("{epochs:.1}") } else { two() };
    let text = text.strip_suffix(".0").unwrap_or(&text);
    match text {
        "1" => "once".to_owned(),
        "0" => "hardly at all".to_owned(),
        _ => format!("{text} times"),
    }
}

/// Passes of one stage over one source.
pub(super) fn epochs(curriculum: &Curriculum, portion: &Portion) -> Option<f64> {
    curriculum.epochs(portion.source, portion.tokens)
}

/// `6e-5 → 0 over 50B tokens (11,921 steps)`.
pub(super) fn segment(stage: &Stage, segment: &Segment) -> String {
    let values = if segment.from == segment.to {
        show::number(segment.from)
    } else {
        format!("{} → {}", show::number(segment.from), show::number(segment.to))
    };
    let length = segment.end.saturating_sub(segment.start);
    if length == 0 {
        return format!("{values} at {} tokens", show::count(segment.start).replace('_', ","));
    }
    let steps = stage.step_at(segment.end).saturating_sub(stage.step_at(segment.start));
    format!("{values} over {} tokens ({} steps)", show::count(length).replace('_', ","), grouped(steps))
}

/// `6e-5 → 0`, `0 → 5e-4 → 0`.
pub(super) fn course(stage: &Stage) -> String {
    let (start, peak, end) = (stage.lr.value(0), stage.lr.max(), stage.lr.end_value());
    let mut values = vec![start];
    if peak > start.max(end) {
        values.push(peak);
    }
    if end != start || values.len() > 1 {
        values.push(end);
    }
    values.into_iter().map(show::number).collect::<Vec<_>>().join(" → ")
}

/// `4Ki`, `4Ki → 8Ki at 252M`.
pub(super) fn context(stage: &Stage) -> String {
    let mut parts = stage.context.iter();
    let mut out = parts.next().map_or_else(String::new, |(_, v)| show::length(*v));
    for (at, value) in parts {
        out.push_str(&format!(" → {} at {}", show::length(*value), show::count(*at).replace('_', ",")));
    }
    out
}
