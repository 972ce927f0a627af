//! Runs made up from plans: journals as the runtime writes them, without training.

use std::collections::BTreeMap;
use std::path::Path;

use midc::plan::{FromKind, Plan, SoupPlan, StagePlan};
use midc::runtime::data::{Mixer, quantise};
use midc::runtime::journal::{EvalRecord, Journal, StepRecord};

use crate::plans;

/// A run of a few thousand steps: a stable stage, two anneals and their soup, a long stage with
/// needles and gates.
pub(crate) fn plan() -> Plan {
    let batch = 16 * 512;
    let mut stable = plans::stage(
        "stable",
        "base",
        1500 * batch,
        plans::trapezoid(1500 * batch),
        &[("web", 0.5), ("code", 0.3), ("math", 0.15), ("rare", 0.05)],
    );
    stable.from_kind = FromKind::Model;
    let mut stages = vec![stable];
    for seed in [42, 43] {
        let mut anneal = plans::stage(
            &format!("anneal[{seed}]"),
            "stable",
            400 * batch,
            plans::decay(400 * batch),
            &[("web", 0.3), ("code", 0.2), ("math", 0.4), ("rare", 0.1)],
        );
        anneal.data_seed = seed;
        anneal.gates = vec![plans::gate("loss(web) <= 101% of from", "loss", "web", "<=", 1.01, true)];
        stages.push(anneal);
    }
    let mut long =
        plans::stage("long", "mean", 200 * batch, plans::decay(200 * batch), &[("web", 0.6), ("books", 0.4)]);
    long.from_kind = FromKind::Soup;
    long.gates = vec![
        plans::gate("needle(2Ki) >= 90%", "needle", "2048", ">=", 0.9, false),
        plans::gate("loss(web) <= 1", "loss", "web", "<=", 1.0, false),
        plans::gate("loss(code) <= 1", "loss", "code", "<=", 1.0, false),
    ];
    stages.push(long);
    for stage in &mut stages {
        let long = stage.name == "long";
        plans::shape(stage, if long { 4 } else { 16 }, if long { 2048 } else { 512 });
        stage.evals = vec![plans::eval("heldout", Some(100), true, &[])];
        if long {
            stage.evals.push(plans::eval("reach", Some(25), false, &[512, 1024, 2048]));
        }
    }
    let soup = SoupPlan {
        name: "mean".into(),
        doc: "What is handed on.".into(),
        method: "average".into(),
        ingredients: vec!["anneal[42]".into(), "anneal[43]".into()],
        weights: vec![0.5, 0.5],
    };
    plans::plan("trial", stages, vec![soup])
}

/// Noise in [-1, 1) that is the same on every machine.
fn noise(n: u64) -> f64 {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Rows by source of every step, as the runtime apportions them.
fn rows(stage: &StagePlan) -> Vec<BTreeMap<String, u64>> {
    let shape = |step: u64| {
        let point = stage.step_point(step);
        let weights: Vec<f64> = stage.mix.iter().map(|m| m.weight.value(point.tokens)).collect();
        (point, quantise(&weights).unwrap())
    };
    let mut mixer = Mixer::new(stage.mix.len());
    let rows_of = |step: u64| {
        let (point, weights) = shape(step);
        let mut later = |n: u64| Ok((step + n < stage.steps).then(|| shape(step + n)));
        let mut rows = BTreeMap::new();
        for source in mixer.assign(point, &weights, &mut later).unwrap() {
            *rows.entry(stage.mix[source as usize].source.clone()).or_default() += 1;
        }
        rows
    };
    (0..stage.steps).map(rows_of).collect()
}

/// The record of one step that read `rows`; `seen` are the tokens of the run before it.
fn record(stage: &StagePlan, step: u64, seen: u64, rows: BTreeMap<String, u64>) -> StepRecord {
    let point = stage.step_point(step);
    let base = 2.2 + 7.0 / (1.0 + seen as f64 / 3e5);
    let loss = base + 0.12 * noise(step ^ stage.data_seed << 32);
    let of = |i: usize| loss + 0.25 * i as f64 - 0.3 + 0.15 * noise(step * 31 + i as u64);
    StepRecord {
        stage: stage.name.clone(),
        step,
        tokens: point.tokens,
        lr: stage.lr.curve.value(point.tokens),
        batch_tokens: point.sequences * point.context,
        context: point.context,
        loss: if step == 700 { f64::NAN } else { loss },
        loss_by_source: stage.mix.iter().enumerate().map(|(i, m)| (m.source.clone(), of(i))).collect(),
        grad_norm: (0.6 + 0.3 * noise(step * 7)) * if step % 311 == 5 { 9.0 } else { 1.0 },
        gns: None,
        tokens_per_second: 52_000.0 + 2500.0 * noise(step * 13),
        data_seconds: None,
        mfu: None,
        mix: stage.mix.iter().map(|m| (m.source.clone(), m.weight_mean)).collect(),
        rows,
        skipped: step == 700,
    }
}

/// Write the run directory of `plan`.
pub(crate) fn write(plan: &Plan, dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let hashed = Plan { hash: midc::plan::hash(plan), ..plan.clone() };
    std::fs::write(dir.join("plan.json"), serde_json::to_vec_pretty(&hashed).unwrap()).unwrap();
    let mut metrics = Journal::open::<StepRecord>(&dir.join("metrics.jsonl"), |_, _| true).unwrap();
    let mut evals = Journal::open::<EvalRecord>(&dir.join("evals.jsonl"), |_, _| true).unwrap();
    let mut seen = 0;
    for stage in &plan.stages {
        for (step, rows) in (0..).zip(rows(stage)) {
            let record = record(stage, step, seen, rows);
            seen += record.batch_tokens;
            metrics.append(&record).unwrap();
            for eval in &stage.evals {
                if (step + 1) % eval.every_steps.unwrap_or(stage.steps) != 0 && step + 1 != stage.steps {
                    continue;
                }
                let mut measured = |measure: &str, subject: &str, value: f64| {
                    let line = EvalRecord {
                        stage: stage.name.clone(),
                        step: step + 1,
                        tokens: record.tokens + record.batch_tokens,
                        eval: eval.name.clone(),
                        measure: measure.into(),
                        subject: subject.into(),
                        value,
                        count: 100,
                    };
                    evals.append(&line).unwrap();
                };
                if eval.heldout.is_some() {
                    for (source, loss) in &record.loss_by_source {
                        measured("loss", source, loss + 0.05);
                    }
                }
                for length in &eval.needle {
                    let reached = (step + 1) as f64 / stage.steps as f64;
                    let value = (reached * 1.3 - *length as f64 / 8000.0).clamp(0.0, 1.0);
                    measured("needle", &length.to_string(), value);
                }
            }
        }
    }
    std::fs::write(
        dir.join("log.txt"),
        "run of trial starts\ncheckpoint stable/step-600 is damaged, step-500 is used\nstable: loss is not finite at step 700, update skipped\n",
    )
    .unwrap();
}
