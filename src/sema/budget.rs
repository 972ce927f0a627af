//! `budget` blocks: bounds to the totals of the whole graph.

use crate::diag::Diagnostic;
use crate::diag::suggest::nearest;
use crate::schema::{ACCELERATOR_WORDS, Accelerator, Utilisation};
use crate::syntax::ast::{self, BinaryOp, EntryKind, ExprKind, Unit};

use super::checker::Checker;
use super::eval::Scope;
use super::fields::Fields;
use super::program::suggest;
use super::query::{number, unit};
use super::show;
use crate::diag::codes;

/// What a budget may bound.
const TOTALS: [&str; 4] = ["tokens", "steps", "flops", "gpu_hours"];

/// A total of the run.
struct Total {
    value: f64,
    unit: Unit,
    /// For messages: `50B tokens`.
    text: String,
}

impl<'p> Checker<'p> {
    /// The bounds of one block.
    pub(super) fn check_budget(&mut self, block: &'p ast::Block, module: usize) {
        let Some(fields) = self.fields(block) else { return };
        let scope = Scope::top(module);
        let on = self.utilisation(&fields, &scope);
        self.out.utilisation = self.out.utilisation.or(on);
        for entry in &block.entries {
            if let EntryKind::Constraint(bound) = &entry.kind {
                self.check_bound(bound, &fields, on, &scope);
            }
        }
    }

    /// What stands in a budget and is neither a bound nor a field of it.
    pub(super) fn not_a_bound(&mut self, entry: &ast::Entry) {
        self.push(
            Diagnostic::error(
                codes::NOT_A_CONDITION,
                entry.span,
                "a budget holds bounds, beside `accelerator` and `mfu`",
                "not a bound",
            )
            .help("write `tokens <= 200B`"),
        );
    }

    /// `accelerator` and `mfu`.
    fn utilisation(&mut self, fields: &Fields<'p>, scope: &Scope<'p>) -> Option<Utilisation> {
        let accelerator = self.field(fields, "accelerator", scope);
        let mfu = self.field(fields, "mfu", scope);
        let mfu = match mfu.filter(|v| !v.is_poison()) {
            None => Utilisation::MFU,
            Some(value) => {
                let share = show::real(self.share(&value, "mfu")?);
                if share <= 0.0 {
                    self.push(Diagnostic::error(
                        codes::OUT_OF_RANGE,
                        value.span,
                        "`mfu` must be above 0",
                        "at no utilisation a run takes for ever",
                    ));
                    return None;
                }
                share
            }
        };
        let value = accelerator.filter(|v| !v.is_poison())?;
        let name = self.word(&value, ACCELERATOR_WORDS, "accelerator")?;
        Some(Utilisation { accelerator: Accelerator::find(name)?, mfu })
    }

    fn check_bound(
        &mut self,
        expr: &'p ast::Expr,
        fields: &Fields<'p>,
        on: Option<Utilisation>,
        scope: &Scope<'p>,
    ) {
        let ExprKind::Binary { op, left, right, .. } = &expr.kind else { return };
        let name = self.text(left.span);
        if !TOTALS.contains(&name.as_str()) {
            let d = Diagnostic::error(
                codes::UNKNOWN_PROPERTY,
                left.span,
                format!("a budget has no `{name}`"),
                "unknown total",
            );
            let near = nearest(&name, TOTALS);
            let all = "totals are `tokens`, `steps`, `flops` and `gpu_hours`";
            self.push(suggest(d, left.span, near, all));
            return;
        }
        if name == "gpu_hours" && on.is_none() {
            // A field that is wrong has its message.
            if fields.get("accelerator").is_none() && !fields.doubtful {
                self.push(
                    Diagnostic::error(
                        codes::MISSING_FIELD,
                        left.span,
                        "hours of which accelerator?",
                        "the budget names none",
                    )
                    .help("add `accelerator = h100` to the budget, and `mfu = 40%` where more or less is reached"),
                );
            }
            return;
        }
        let bound = self.eval(right, scope);
        if bound.is_poison() {
            return;
        }
        let total = self.total(&name, on);
        let expected = match &total {
            Some(total) => total.unit,
            None if name == "gpu_hours" => Unit::GpuHours,
            None => Unit::Flops,
        };
        let (Some(limit), true) = (number(&bound), unit(&bound).is_none_or(|unit| unit == expected)) else {
            self.wrong(&bound, crate::schema::Ty::Number, &name);
            return;
        };
        let Some(total) = total else {
            self.push(
                Diagnostic::error(
                    codes::ASSERT_UNDECIDED,
                    left.span,
                    "the FLOPs of this run are not known",
                    "some stage trains an unknown architecture",
                )
                .help("declare it: `init = llama(…)` beside `checkpoint`"),
            );
            return;
        };
        let holds = match op {
            BinaryOp::Le => total.value <= limit,
            BinaryOp::Lt => total.value < limit,
            _ => {
                self.push(Diagnostic::error(
                    codes::NOT_A_CONDITION,
                    expr.span,
                    "a budget is an upper bound",
                    "write `<=` here",
                ));
                return;
            }
        };
        if !holds && !self.out.stages.is_empty() {
            self.push(Diagnostic::error(
                codes::BUDGET_EXCEEDED,
                expr.span,
                format!("the run takes {}, over its budget", total.text),
                format!("over by {}", show::percent(total.value / limit - 1.0)),
            ));
        }
    }

    /// One of [`TOTALS`]; `None` while an architecture that it depends on is unknown.
    fn total(&self, name: &str, on: Option<Utilisation>) -> Option<Total> {
        let stages = &self.out.stages;
        Some(match name {
            "tokens" => {
                let n = stages.iter().fold(0u64, |n, s| n.saturating_add(s.tokens));
                Total { value: n as f64, unit: Unit::Tokens, text: format!("{} tokens", show::count(n)) }
            }
            "steps" => {
                let n = stages.iter().fold(0u64, |n, s| n.saturating_add(s.steps));
                Total { value: n as f64, unit: Unit::Steps, text: format!("{} steps", show::digits(n)) }
            }
            "flops" => {
                let flops = self.out.flops()?;
                Total { value: flops, unit: Unit::Flops, text: format!("{flops:.3e} flops") }
            }
            _ => {
                let hours = on?.hours(self.out.flops()?);
                let (name, mfu) = (on?.accelerator.name, show::percent(on?.mfu));
                let text = format!("{} on {name} at {mfu}", show::hours(hours));
                Total { value: hours, unit: Unit::GpuHours, text }
            }
        })
    }
}
