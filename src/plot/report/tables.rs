//! The parts of the page that need no script: summary, tables, heat map.

use std::collections::{BTreeMap, BTreeSet};

use super::gates::{Verdict, judge, length};
use super::history::{History, Measurement};
use super::section;
use crate::plan::{GatePlan, Plan};
use crate::plot::number;
use crate::plot::svg::escape;

/// Rows of a table before it is cut; a page of thousands of rows helps nobody.
const ROWS: usize = 300;
/// Measurements of one stage shown side by side in the heat map.
const COLUMNS: usize = 16;

/// A table: headings, rows of cells that are HTML already; numbers (`true`) to the right.
fn table(headings: &[(&str, bool)], rows: &[Vec<String>]) -> String {
    let class = |right: bool| if right { " class=\"num\"" } else { "" };
    let head: String =
        headings.iter().map(|(h, right)| format!("<th scope=\"col\"{}>{h}</th>", class(*right))).collect();
    let row = |cells: &Vec<String>| {
        let cells = cells.iter().zip(headings).enumerate().map(|(i, (cell, (_, right)))| match i {
            0 => format!("<th scope=\"row\"{}>{cell}</th>", class(*right)),
            _ => format!("<td{}>{cell}</td>", class(*right)),
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let shown: String = rows.iter().take(ROWS).map(row).collect();
    let cut = match rows.len().checked_sub(ROWS) {
        Some(more) if more > 0 => format!("<p class=\"mute small\">{more} more rows are not shown.</p>"),
        _ => String::new(),
    };
    format!(
        "<div class=\"wide\"><table><thead><tr>{head}</tr></thead><tbody>\n{shown}</tbody></table></div>{cut}"
    )
}

/// Cards with the numbers looked for first.
pub(super) fn summary(plan: &Plan, history: &History) -> String {
    let steps: u64 = history.stages.iter().map(|s| s.done).sum();
    let tokens: u64 = history.stages.iter().map(|s| s.tokens).fold(0, u64::saturating_add);
    let seconds: f64 = history.stages.iter().map(|s| s.seconds).sum();
    let share = steps as f64 / plan.totals.steps.max(1) as f64;
    let begun = || plan.stages.iter().zip(&history.stages).rev().filter(|(_, h)| h.done > 0);
    // The one under way, where there is one: a stage behind it in the file may be through.
    let current = begun().find(|(s, h)| h.next < s.steps).or_else(|| begun().next());
    let unfinished = plan.stages.iter().zip(&history.stages).any(|(s, h)| h.next < s.steps);
    let failed = (0..plan.stages.len())
        .any(|i| plan.stages[i].gates.iter().any(|g| judge(plan, history, i, g).verdict == Verdict::Failed));
    let (state, detail) = match current {
        _ if failed => ("gate failed".to_owned(), "see Gates".to_owned()),
        None => ("not started".to_owned(), "no step is recorded".to_owned()),
        Some((stage, seen)) if unfinished => {
            ("unfinished".to_owned(), format!("step {} of {} in {}", seen.next, stage.steps, stage.name))
        }
        Some(_) => ("finished".to_owned(), format!("{} of {} stages", plan.stages.len(), plan.stages.len())),
    };
    let mut cards = vec![
        (state, detail),
        (
            number::tokens(tokens as f64),
            format!("tokens of {} ({})", number::tokens(plan.totals.tokens as f64), number::percent(share)),
        ),
        (number::tokens(steps as f64), format!("steps of {}", number::tokens(plan.totals.steps as f64))),
    ];
    let last = current.and_then(|(_, h)| {
        let (behind, found) = h.buckets.iter().rev().enumerate().find(|(_, b)| b.loss.mean().is_some())?;
        Some((behind == 0, found, found.loss.mean()?))
    });
    if let Some((newest, bucket, loss)) = last {
        let over = match bucket.count {
            1 if newest => "training loss of the last step".to_owned(),
            _ if !newest => format!("training loss at step {}, the last that has one", bucket.last),
            n => format!("training loss, mean of the last {n} steps"),
        };
        cards.push((number::plain(loss), over));
    }
    if seconds > 0.0 {
        cards.push((number::tokens(tokens as f64 / seconds), "tokens per second".into()));
        cards.push((duration(seconds), "spent in steps".into()));
    }
    if history.bad() > 0 {
        cards.push((history.bad().to_string(), "steps skipped or without a finite loss".into()));
    }
    let card = |(value, what): &(String, String)| {
        format!("<div class=\"card\"><b>{}</b><span>{}</span></div>", escape(value), escape(what))
    };
    format!(
        "<section class=\"cards\" aria-label=\"summary\">{}</section>\n",
        cards.iter().map(card).collect::<String>()
    )
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{} s", number::plain((s * 10.0).round() / 10.0)),
        s if s < 7200.0 => format!("{} min", (s / 60.0).round()),
        s if s < 172_800.0 => format!("{} h", number::plain((s / 360.0).round() / 10.0)),
        s => format!("{} days", number::plain((s / 8640.0).round() / 10.0)),
    }
}

/// What the reader must know about the records.
pub(super) fn oddities(odd: &[String]) -> String {
    if odd.is_empty() {
        return String::new();
    }
    let items: String = odd.iter().map(|o| format!("<li>{}</li>", escape(o))).collect();
    format!("<section class=\"odd\" aria-label=\"notes on the records\"><ul>{items}</ul></section>\n")
}

/// One row a stage: how far, and what the loss did.
pub(super) fn stages(plan: &Plan, history: &History) -> String {
    let rows: Vec<Vec<String>> = plan
        .stages
        .iter()
        .zip(&history.stages)
        .map(|(stage, seen)| {
            let mut losses = seen.buckets.iter().filter_map(|b| b.loss.mean());
            let first = losses.next();
            let last = losses.next_back().or(first);
            let heldout = mean_heldout(history, &stage.name);
            let bar = 100.0 * (seen.next.min(stage.steps) as f64 / stage.steps.max(1) as f64);
            vec![
                escape(&stage.name),
                escape(&stage.from),
                format!(
                    "<meter min=\"0\" max=\"100\" value=\"{bar:.0}\"></meter> {} / {}",
                    seen.next, stage.steps
                ),
                number::tokens(seen.tokens as f64),
                rates([stage.lr.start, stage.lr.peak, stage.lr.end]),
                option(first.map(number::plain)),
                option(last.map(number::plain)),
                heldout.map_or("–".into(), |(a, b)| arrow(number::plain(a), number::plain(b))),
            ]
        })
        .collect();
    let headings = [
        ("stage", false),
        ("from", false),
        ("steps", false),
        ("tokens", true),
        ("learning rate", false),
        ("loss at first", true),
        ("loss at last", true),
        ("held-out", false),
    ];
    section("stages", "Stages", &table(&headings, &rows))
}

fn option(text: Option<String>) -> String {
    text.unwrap_or_else(|| "–".into())
}

/// First and last learning rate, with the highest between them where it is neither.
fn rates([start, peak, end]: [f64; 3]) -> String {
    if peak > start.max(end) {
        return format!("{} → {} → {}", number::rate(start), number::rate(peak), number::rate(end));
    }
    arrow(number::rate(start), number::rate(end))
}

fn arrow(from: String, to: String) -> String {
    if from == to { from } else { format!("{from} → {to}") }
}

/// First and last held-out loss of each source of a stage.
fn heldout_of(history: &History, stage: &str) -> BTreeMap<String, (f64, f64, bool)> {
    let mut found: BTreeMap<String, (f64, f64, bool)> = BTreeMap::new();
    for m in history.of(stage, "loss").filter(|m| m.eval != GatePlan::EVAL) {
        found
            .entry(m.subject.clone())
            .and_modify(|(_, last, twice)| (*last, *twice) = (m.value, true))
            .or_insert((m.value, m.value, false));
    }
    found
}

fn mean_heldout(history: &History, stage: &str) -> Option<(f64, f64)> {
    let found = heldout_of(history, stage);
    let n = found.len() as f64;
    let sum = |pick: fn(&(f64, f64, bool)) -> f64| found.values().map(pick).sum::<f64>() / n;
    (n > 0.0).then(|| (sum(|v| v.0), sum(|v| v.1)))
}

/// Held-out loss of each source, first and last measurement of each stage.
pub(super) fn heldout(plan: &Plan, history: &History) -> String {
    let mut rows = Vec::new();
    for stage in &plan.stages {
        for (source, (first, last, twice)) in heldout_of(history, &stage.name) {
            let change = last - first;
            let class = if change < 0.0 { "good" } else { "bad" };
            rows.push(vec![
                escape(&stage.name),
                escape(&source),
                number::plain(first),
                if twice { number::plain(last) } else { "–".into() },
                if twice { format!("<span class=\"{class}\">{change:+.4}</span>") } else { "–".into() },
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let headings = [("stage", false), ("source", false), ("first", true), ("last", true), ("change", true)];
    section("heldout", "Held-out loss", &table(&headings, &rows))
}

/// Every gate with its measured value and verdict.
pub(super) fn gates(plan: &Plan, history: &History) -> String {
    let mut rows = Vec::new();
    for (at, stage) in plan.stages.iter().enumerate() {
        for gate in &stage.gates {
            let judged = judge(plan, history, at, gate);
            let (class, word) = match judged.verdict {
                Verdict::Passed => ("good", "✓ passed"),
                Verdict::Failed => ("bad", "✗ failed"),
                Verdict::Ahead => ("mute", "not reached"),
                Verdict::Unmeasured => ("mute", "not measured"),
            };
            rows.push(vec![
                escape(&stage.name),
                format!("<code>{}</code>", escape(&gate.text)),
                option(judged.value.map(number::plain)),
                option(judged.bound.map(|b| format!("{} {}", escape(gate.op.sign()), number::plain(b)))),
                format!("<span class=\"{class}\">{word}</span>"),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let headings =
        [("stage", false), ("gate", false), ("measured", true), ("wanted", true), ("verdict", false)];
    section("gates", "Gates", &table(&headings, &rows))
}

/// Needle in a haystack: lengths by time, a map for each stage and eval.
pub(super) fn needles(plan: &Plan, history: &History) -> String {
    let mut content = String::new();
    for stage in &plan.stages {
        let evals: BTreeSet<&str> = history.of(&stage.name, "needle").map(|m| m.eval.as_str()).collect();
        for eval in evals.into_iter().filter(|e| *e != GatePlan::EVAL) {
            let of_eval: Vec<&Measurement> =
                history.of(&stage.name, "needle").filter(|m| m.eval == eval).collect();
            let mut times: Vec<(u64, u64)> = of_eval.iter().map(|m| (m.step, m.tokens)).collect();
            times.sort_unstable();
            times.dedup();
            let mut subjects: Vec<&str> = of_eval.iter().map(|m| m.subject.as_str()).collect();
            subjects.sort_by_key(|s| (length(s).unwrap_or(u64::MAX), *s));
            subjects.dedup();
            // The longest on top, as in the papers; time to the right, always with the last.
            subjects.reverse();
            let thin = thinned(&times);
            let head: String = thin
                .iter()
                .map(|(_, tokens)| {
                    format!("<th scope=\"col\" class=\"num\">{}</th>", number::tokens(*tokens as f64))
                })
                .collect();
            let mut rows = String::new();
            for subject in subjects.iter().take(ROWS) {
                let name = length(subject).map_or_else(|| escape(subject), number::length);
                let cells: String = thin
                    .iter()
                    .map(|(step, _)| {
                        let value = of_eval.iter().rev().find(|m| m.step == *step && m.subject == *subject);
                        value.map_or("<td></td>".into(), |m| heat(m.value))
                    })
                    .collect();
                rows.push_str(&format!("<tr><th scope=\"row\" class=\"num\">{name}</th>{cells}</tr>\n"));
            }
            let (stage, eval) = (escape(&stage.name), escape(eval));
            content.push_str(&format!(
                "<h3>{stage} · {eval}</h3><div class=\"wide\"><table class=\"heat\"><thead><tr>\
                 <th scope=\"col\">length \\ tokens</th>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>"
            ));
        }
    }
    if content.is_empty() {
        return String::new();
    }
    section("needle", "Needle in a haystack, share found", &content)
}

fn thinned(times: &[(u64, u64)]) -> Vec<(u64, u64)> {
    if times.len() <= COLUMNS {
        return times.to_vec();
    }
    (0..COLUMNS).map(|i| times[i * (times.len() - 1) / (COLUMNS - 1)]).collect()
}

/// A cell from red (0) over yellow to green (1); lightness rises with the value, so that it reads
/// without hue too.
fn heat(value: f64) -> String {
    if !value.is_finite() {
        return "<td>?</td>".into();
    }
    let share = value.clamp(0.0, 1.0);
    // Viridis, sampled at five points.
    const STOPS: [[f64; 3]; 5] = [
        [68.0, 1.0, 84.0],
        [59.0, 82.0, 139.0],
        [33.0, 145.0, 140.0],
        [94.0, 201.0, 98.0],
        [253.0, 231.0, 37.0],
    ];
    let at = share * 4.0;
    let low = (at as usize).min(3);
    let mix = |c: usize| STOPS[low][c] + (STOPS[low + 1][c] - STOPS[low][c]) * (at - low as f64);
    let colour = format!("#{:02x}{:02x}{:02x}", mix(0) as u8, mix(1) as u8, mix(2) as u8);
    let ink = crate::plot::palette::ink_on(&colour);
    format!(
        "<td class=\"num\" style=\"background:{colour};color:{ink}\">{}</td>",
        number::percent((value * 1000.0).round() / 1000.0)
    )
}

/// Held-out loss by where in the row the prediction stands, at both edges of each stage: a context
/// that is used shows as a loss that keeps falling down the column.
pub(super) fn positions(plan: &Plan, history: &History) -> String {
    let mut rows = Vec::new();
    for stage in &plan.stages {
        let mut found: BTreeMap<u64, (&str, f64, f64)> = BTreeMap::new();
        for m in history.of(&stage.name, "position") {
            let from = m.subject.split("..").next().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
            found.entry(from).or_insert((&m.subject, m.value, m.value)).2 = m.value;
        }
        for (range, first, last) in found.into_values() {
            let (stage, range) = (escape(&stage.name), escape(range));
            rows.push(vec![stage, range, number::plain(first), number::plain(last)]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let headings = [("stage", false), ("positions", true), ("first", true), ("last", true)];
    section("position", "Held-out loss by position in the row", &table(&headings, &rows))
}

/// Multiple-choice accuracies.
pub(super) fn choices(plan: &Plan, history: &History) -> String {
    let mut rows = Vec::new();
    for stage in &plan.stages {
        let mut found: BTreeMap<(&str, &str), (f64, f64)> = BTreeMap::new();
        let measured = history.measurements.iter().filter(|m| m.stage == stage.name);
        for m in measured.filter(|m| !["loss", "needle", "position"].contains(&m.measure.as_str())) {
            let entry = found.entry((&m.measure, &m.subject)).or_insert((m.value, m.value));
            entry.1 = m.value;
        }
        for ((measure, subject), (first, last)) in found {
            rows.push(vec![
                escape(&stage.name),
                escape(measure),
                escape(subject),
                number::plain(first),
                number::plain(last),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let headings =
        [("stage", false), ("measure", false), ("subject", false), ("first", true), ("last", true)];
    section("choice", "Tasks", &table(&headings, &rows))
}

/// Planned and read tokens of each source in each stage, over the steps done.
pub(super) fn mixtures(plan: &Plan, history: &History) -> String {
    let mut rows = Vec::new();
    for (stage, seen) in plan.stages.iter().zip(&history.stages).filter(|(_, h)| h.done > 0) {
        let planned_sum: f64 = seen.planned.values().sum::<f64>().max(1.0);
        let read_sum = seen.read.values().map(|t| *t as f64).sum::<f64>().max(1.0);
        let context = stage.context.last().map_or(1, |c| c.value.max(1)) as f64;
        for mix in &stage.mix {
            let planned = seen.planned.get(&mix.source).copied().unwrap_or(0.0);
            let read = seen.read.get(&mix.source).copied().unwrap_or(0) as f64;
            let off = (read - planned) / context;
            // Half a row either way is what whole rows allow; more than one is worth a look.
            let class = if off.abs() > 1.0 { "bad" } else { "mute" };
            rows.push(vec![
                escape(&stage.name),
                escape(&mix.source),
                number::percent(planned / planned_sum),
                number::percent(read / read_sum),
                number::tokens(planned),
                number::tokens(read),
                format!("<span class=\"{class}\">{off:+.2}</span>"),
            ]);
        }
    }
    if rows.is_empty() {
        return String::new();
    }
    let headings = [
        ("stage", false),
        ("source", false),
        ("planned", true),
        ("read", true),
        ("planned tokens", true),
        ("read tokens", true),
        ("rows off", true),
    ];
    section("mixture", "Mixture over the steps done", &table(&headings, &rows))
}

/// The plan's numbers stage by stage, and its params.
pub(super) fn plan(plan: &Plan) -> String {
    let rows: Vec<Vec<String>> = plan
        .stages
        .iter()
        .map(|s| {
            let contexts: Vec<String> = s.context.iter().take(6).map(|c| number::length(c.value)).collect();
            let batch =
                arrow(number::tokens(s.batch_tokens.start as f64), number::tokens(s.batch_tokens.end as f64));
            let rope = s.rope.as_ref().map_or("–".into(), |r| match r.factor {
                Some(factor) => format!("{} ×{}", escape(&r.method), number::plain(factor)),
                None => format!("{} θ {}", escape(&r.method), number::tokens(r.theta)),
            });
            let assumed: Vec<String> = s.assumed.iter().map(|a| escape(a)).collect();
            vec![
                escape(&s.name),
                number::tokens(s.tokens as f64),
                s.steps.to_string(),
                arrow(number::rate(s.lr.start), number::rate(s.lr.end)),
                number::rate(s.lr.peak),
                batch,
                contexts.join(" → "),
                rope,
                if assumed.is_empty() { "–".into() } else { assumed.join(", ") },
            ]
        })
        .collect();
    let headings = [
        ("stage", false),
        ("tokens", true),
        ("steps", true),
        ("learning rate", false),
        ("peak", true),
        ("batch", false),
        ("context", false),
        ("RoPE", false),
        ("assumed", false),
    ];
    let mut out = table(&headings, &rows);
    let docs = plan.docs();
    if !docs.is_empty() {
        let said = |(name, doc): &(&str, &str)| format!("<dt>{}</dt><dd>{}</dd>", escape(name), escape(doc));
        out.push_str(&format!("<dl class=\"docs\">{}</dl>", docs.iter().map(said).collect::<String>()));
    }
    if !plan.params.is_empty() {
        let params: String = plan
            .params
            .iter()
            .map(|(name, value)| format!("<code>{} = {}</code> ", escape(name), escape(value)))
            .collect();
        out.push_str(&format!("<p class=\"params\">Params: {params}</p>"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::rates;

    #[test]
    fn a_warm_up_is_told_from_a_rate_of_zero() {
        assert_eq!(rates([0.0, 5e-6, 0.0]), "0 → 5e-6 → 0");
        assert_eq!(rates([1e-5, 1e-5, 0.0]), "1e-5 → 0");
        assert_eq!(rates([1e-5, 1e-5, 1e-5]), "1e-5");
    }
}
