//! The numbers that the page's script draws from, as JSON that cannot end the element it is in.

use serde_json::{Value, json};

use super::history::{Bucket, History, Range};
use crate::plan::{GatePlan, Plan};
use crate::plot::axis::Axis;

/// First token of each stage where stages are laid end to end in plan order, and the end.
pub(crate) fn offsets(plan: &Plan, history: &History) -> Vec<u64> {
    let mut at = 0u64;
    let mut offsets = vec![0];
    for (stage, seen) in plan.stages.iter().zip(&history.stages) {
        // The last step may go past the declared end.
        let tokens = stage.tokens.max(seen.buckets.iter().map(|b| b.end).max().unwrap_or(0)).max(1);
        at = at.saturating_add(tokens);
        offsets.push(at);
    }
    offsets
}

/// The data of the page.
pub(crate) fn script(plan: &Plan, history: &History) -> String {
    let offsets = offsets(plan, history);
    let axis = Axis::new(offsets.iter().copied(), 0.0, 1.0);
    let stages: Vec<Value> = plan
        .stages
        .iter()
        .zip(offsets.windows(2))
        .map(|(s, o)| json!({"name": s.name, "from": o[0], "to": o[1], "steps": s.steps}))
        .collect();
    let sources: Vec<Value> = history
        .looks
        .iter()
        .map(|l| json!({"name": l.name, "colour": l.colour, "hatched": l.hatched}))
        .collect();
    let buckets: Vec<(usize, &Bucket)> = history
        .stages
        .iter()
        .enumerate()
        .flat_map(|(i, s)| s.buckets.iter().map(move |b| (i, b)))
        .filter(|(_, b)| b.count > 0)
        .collect();
    let column = |value: &dyn Fn(usize, &Bucket) -> Value| -> Value {
        buckets.iter().map(|(stage, b)| value(*stage, b)).collect()
    };
    let per_look = |value: &dyn Fn(&Bucket, usize) -> Value| -> Value {
        (0..history.looks.len()).map(|l| column(&|_, b| value(b, l))).collect()
    };
    let share = |part: &[f64], look: usize| {
        let sum: f64 = part.iter().sum();
        if sum > 0.0 { short(part[look] / sum) } else { Value::Null }
    };
    let evals: Vec<Value> = history
        .measurements
        .iter()
        .filter(|m| m.measure == "loss" && m.eval != GatePlan::EVAL && m.value.is_finite())
        .take(20_000)
        .filter_map(|m| {
            let stage = plan.stages.iter().position(|s| s.name == m.stage)?;
            let x = offsets[stage].saturating_add(m.tokens).min(offsets[stage + 1]);
            Some(json!({"x": x, "stage": stage, "name": m.subject, "value": short(m.value)}))
        })
        .collect();
    let ends: Vec<Value> = axis.knots().iter().map(|(t, x)| json!([t, short(*x)])).collect();
    let data = json!({
        "stages": stages,
        "sources": sources,
        "axis": ends,
        "stage": column(&|s, _| json!(s)),
        "first": column(&|_, b| json!(b.first)),
        "last": column(&|_, b| json!(b.last)),
        "from": column(&|s, b| json!(offsets[s].saturating_add(b.start))),
        "to": column(&|s, b| json!(offsets[s].saturating_add(b.end))),
        "bad": column(&|_, b| json!(b.bad)),
        "loss": column(&|_, b| range(&b.loss)),
        "lr": column(&|_, b| range(&b.lr)),
        "grad": column(&|_, b| range(&b.grad_norm)),
        "speed": column(&|_, b| range(&b.tokens_per_second)),
        "batch": column(&|_, b| range(&b.batch)),
        "context": column(&|_, b| range(&b.context)),
        "sourceLoss": per_look(&|b, l| range(&b.source_loss[l])),
        "planned": per_look(&|b, l| share(&b.planned, l)),
        "read": per_look(&|b, l| share(&b.read, l)),
        "evals": evals,
    });
    // `</script>` and `<!--` would end the element, whatever quotes they stand in.
    data.to_string().replace('<', "\\u003c")
}

/// `[mean, low, high]`, or the mean alone where they are one.
fn range(range: &Range) -> Value {
    match range.mean() {
        None => Value::Null,
        Some(mean) if range.low == range.high => short(mean),
        Some(mean) => json!([short(mean), short(range.low), short(range.high)]),
    }
}

/// Five significant digits: a screen shows three.
fn short(value: f64) -> Value {
    let text = format!("{value:.4e}");
    let rounded = text.parse().unwrap_or(value);
    // Whole numbers without the `.0` that serde_json writes.
    if rounded == f64::trunc(rounded) && f64::abs(rounded) < 1e15 {
        json!(rounded as i64)
    } else {
        json!(rounded)
    }
}
