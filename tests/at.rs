//! `midc plan --at` against a step-by-step evaluation that knows nothing of phases, segments or
//! closed forms: it walks the stage one step at a time with the formulas of the reference manual.

mod common;

use midc::plan::{self, Plan};
use proptest::prelude::*;

/// A stage: what is written, and what is computed from it here.
#[derive(Clone, Debug)]
struct Case {
    context: u64,
    context_to: u64,
    context_at: u64,
    rows: u64,
    rows_to: u64,
    ramp: u64,
    tokens: u64,
    warmup_steps: u64,
    hold_percent: u64,
    shape: &'static str,
    weight: u64,
    weight_to: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let shapes = prop::sample::select(vec!["linear", "cosine", "one_minus_sqrt", "exp"]);
    (
        (prop::sample::select(vec![64u64, 128]), prop::sample::select(vec![128u64, 256]), 1u64..40_000),
        (1u64..40, 1u64..40, 1u64..50_000),
        (100_000u64..400_000, 1u64..20, 0u64..40),
        (shapes, 0u64..=100, 0u64..=100),
    )
        .prop_map(
            |(
                (context, context_to, context_at),
                (rows, rows_to, ramp),
                (tokens, warmup_steps, hold_percent),
                (shape, weight, weight_to),
            )| Case {
                context,
                context_to,
                context_at,
                rows,
                rows_to,
                ramp,
                tokens,
                warmup_steps,
                hold_percent,
                shape,
                weight,
                weight_to,
            },
        )
}

const PEAK: f64 = 1e-3;
const END: f64 = 1e-5;

impl Case {
    fn text(&self) -> String {
        let hold = if self.hold_percent > 0 {
            format!("then hold(over: {}% of stage) ", self.hold_percent)
        } else {
            String::new()
        };
        format!(
            "model m {{ init = llama(layers: 1, hidden: 32, heads: 2, ffn: 64, vocab: 64) }}\n\
             source a {{ kind = web }}\n\
             source b {{ kind = code }}\n\
             mix moving {{\n  a = {w}% then linear(to: {wt}%)\n  b = rest\n}}\n\
             stage s {{\n  from = m\n  tokens = {t}\n  context = {c} then hold(over: {ca}) then step(to: {ct}) then hold\n\
             \x20 batch = {r} seqs then linear(to: {rt} seqs, over: {ramp}) then hold\n  mix = moving\n\
             \x20 lr = 0 then linear(to: 1e-3, over: {ws} steps) {hold}then {shape}(to: 1e-5)\n  data_seed = 1\n}}\n",
            w = self.weight,
            wt = self.weight_to,
            t = self.tokens,
            c = self.context,
            ca = self.context_at,
            ct = self.context_to,
            r = self.rows,
            rt = self.rows_to,
            ramp = self.ramp,
            ws = self.warmup_steps,
            shape = self.shape,
        )
    }

    /// Rows and row length of the step that begins at `at`.
    fn shape_at(&self, at: u64) -> (u64, u64) {
        let context = if at < self.context_at { self.context } else { self.context_to };
        let rows = if at >= self.ramp {
            self.rows_to
        } else {
            let moved = (self.rows_to as i64 - self.rows as i64) * at as i64;
            (self.rows as i64 + moved.div_euclid(self.ramp as i64)) as u64
        };
        (rows, context)
    }

    /// Tokens before each step, and after the last.
    fn edges(&self) -> Vec<u64> {
        let mut edges = vec![0];
        let mut at = 0;
        while at < self.tokens {
            let (rows, context) = self.shape_at(at);
            at += rows * context;
            edges.push(at);
        }
        edges
    }

    fn lr_at(&self, at: u64, warmup: u64) -> f64 {
        let held = warmup as f64 + self.tokens as f64 * self.hold_percent as f64 / 100.0;
        let held = held.floor() as u64;
        if at < warmup {
            return PEAK * at as f64 / warmup as f64;
        }
        if at < held {
            return PEAK;
        }
        let u = (at - held) as f64 / (self.tokens - held) as f64;
        match self.shape {
            "linear" => PEAK + (END - PEAK) * u,
            "cosine" => END + (PEAK - END) * (1.0 + (std::f64::consts::PI * u).cos()) / 2.0,
            "exp" => PEAK * (END / PEAK).powf(u),
            _ => PEAK + (END - PEAK) * u.sqrt(),
        }
    }
}

fn plan_of(case: &Case) -> Result<Plan, TestCaseError> {
    let (curriculum, diagnostics) = common::check_text(&case.text());
    let errors: Vec<_> = diagnostics.iter().filter(|d| d.lint.is_none()).map(|d| d.message.clone()).collect();
    let curriculum = curriculum.ok_or_else(|| TestCaseError::fail(format!("{errors:?}\n{}", case.text())))?;
    Ok(plan::build(&curriculum))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn at_agrees_with_every_step(case in cases()) {
        let edges = case.edges();
        let steps = edges.len() as u64 - 1;
        prop_assume!(steps > case.warmup_steps);
        let warmup = edges[case.warmup_steps as usize];
        prop_assume!(warmup + case.tokens * case.hold_percent / 100 < case.tokens);
        let plan = plan_of(&case)?;
        let stage = &plan.stages[0];
        prop_assert_eq!(stage.steps, steps);
        prop_assert_eq!(stage.overshoot_tokens, edges[edges.len() - 1] - case.tokens);
        let mut drawn = 0.0;
        for step in 0..steps {
            let at = edges[step as usize];
            let moment = plan::at(&plan, &format!("s:step {step}")).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let (rows, context) = case.shape_at(at);
            prop_assert_eq!(moment.tokens, at);
            prop_assert_eq!((moment.step, moment.batch_tokens, moment.context), (step, rows * context, context));
            let lr = case.lr_at(at, warmup);
            prop_assert!((moment.lr - lr).abs() <= 1e-12 * PEAK, "step {}: {} is not {}", step, moment.lr, lr);
            let (w, wt) = (case.weight as f64 / 100.0, case.weight_to as f64 / 100.0);
            let weight = w + (wt - w) * at as f64 / case.tokens as f64;
            prop_assert!((moment.mix["a"] - weight).abs() < 1e-12);
            prop_assert!((moment.mix["a"] + moment.mix["b"] - 1.0).abs() < 1e-12);
            drawn += weight * (rows * context) as f64;
            // Inside the step the same step is meant.
            let inside = plan::moment(stage, edges[step as usize + 1] - 1);
            prop_assert_eq!(inside.step, step);
            prop_assert_eq!((inside.lr, &inside.mix), (moment.lr, &moment.mix));
        }
        // All of it is done at its end, also where the last step goes past that.
        for end in ["s:end".to_owned(), "s:100%".to_owned(), format!("s:{}", case.tokens), format!("s:step {steps}")] {
            let moment = plan::at(&plan, &end).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!((moment.step, moment.tokens, moment.lr), (steps, case.tokens, stage.lr.end));
        }
        let total = edges[edges.len() - 1];
        let of = |name: &str| stage.mix.iter().find(|m| m.source == name).map_or(0, |m| m.tokens);
        prop_assert_eq!(of("a") + of("b"), total);
        prop_assert!((of("a") as f64 - drawn).abs() <= 2.0, "{} is not {}", of("a"), drawn);
        prop_assert!((stage.lr.end - END).abs() < 1e-18);
    }
}

#[test]
fn positions_outside_are_refused() {
    let case = Case {
        context: 64,
        context_to: 128,
        context_at: 1000,
        rows: 4,
        rows_to: 8,
        ramp: 1000,
        tokens: 100_000,
        warmup_steps: 3,
        hold_percent: 10,
        shape: "linear",
        weight: 50,
        weight_to: 50,
    };
    let plan = plan_of(&case).unwrap_or_else(|e| panic!("{e}"));
    for (text, message) in [
        ("s:200k", "the stage ends before 200k"),
        ("t:1", "there is no stage `t`; stages are `s`"),
        ("s", "`s` is not STAGE:POSITION"),
        ("s:soon", "`soon` is no position: write tokens (`25B`), `50%`, `step 100` or `end`"),
    ] {
        assert_eq!(plan::at(&plan, text).map_err(|e| e.to_string()), Err(message.to_owned()));
    }
}
