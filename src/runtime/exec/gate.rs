//! Gates: conditions on measurements at the end of a stage, judged from `evals.jsonl`.

use crate::plan::{GateMeasure, GatePlan, StagePlan};
use crate::runtime::exec::measure::Measure;
use crate::runtime::exec::{ExecError, Outcome, Run, lock};
use crate::runtime::journal::{self, EvalRecord};

/// The measurement each gate of `stage` needs.
///
/// # Errors
/// The plan holds a measure this version does not know.
pub(super) fn measures(stage: &StagePlan) -> Result<Vec<(&GatePlan, Measure<'_>)>, ExecError> {
    let unknown =
        |gate: &GatePlan| ExecError::UnknownGate { stage: stage.name.clone(), gate: gate.text.clone() };
    stage
        .gates
        .iter()
        .map(|gate| {
            let measure = match gate.measure {
                GateMeasure::Loss if gate.sources.is_empty() => Measure::Loss(gate.argument.clone()),
                GateMeasure::Loss => Measure::MixLoss(gate.argument.clone(), &gate.sources),
                GateMeasure::Needle => Measure::Needle(gate.argument.parse().map_err(|_| unknown(gate))?),
                GateMeasure::Choice => Measure::Choice(gate.argument.clone()),
            };
            Ok((gate, measure))
        })
        .collect()
}

/// What was measured for `gate` after `step` steps of `stage`.
fn measured(records: &[EvalRecord], stage: &StagePlan, gate: &GatePlan, step: u64) -> Option<f64> {
    let found = records.iter().find(|r| {
        r.eval == GatePlan::EVAL
            && r.stage == stage.name
            && r.step == step
            && r.measure == gate.measure.name()
            && r.subject == gate.argument
    });
    found.map(|r| r.value)
}

/// What the gates of `stage` lack of `records`: after how many steps it is to be taken, and what.
///
/// # Errors
/// As [`measures`].
pub(super) fn lacking<'p>(
    stage: &'p StagePlan,
    records: &[EvalRecord],
) -> Result<Vec<(u64, Measure<'p>)>, ExecError> {
    let mut lacking = Vec::new();
    for (step, at_start) in [(0, true), (stage.steps, false)] {
        for (gate, measure) in measures(stage)? {
            let due = gate.relative_to_from || !at_start;
            if due && measured(records, stage, gate, step).is_none() {
                lacking.push((step, measure));
            }
        }
    }
    Ok(lacking)
}

impl Run<'_> {
    /// All measurements so far.
    pub(super) fn eval_records(&self) -> Result<Vec<EvalRecord>, ExecError> {
        // No line is half-written meanwhile.
        let _evals = lock(&self.evals);
        Ok(journal::read::<EvalRecord>(&self.dir.evals())?)
    }

    /// Take what the gates of a finished stage lack: they were written after it had begun, or a line of the journal
    /// was damaged.
    pub(super) fn measure_gates(&self, stage: &StagePlan, share: usize) -> Result<(), ExecError> {
        let lacking = lacking(stage, &self.eval_records()?)?;
        for at_start in [true, false] {
            let mut due = lacking.iter().filter(|(step, _)| (*step == 0) == at_start).peekable();
            if due.peek().is_none() {
                continue;
            }
            let start = if at_start { self.beginning(stage)? } else { self.start(stage)? };
            let mut work = self.prepare(stage, share, start, stage.steps)?;
            for (_, measure) in due {
                self.take(stage, &mut work, GatePlan::EVAL, measure, None, &|| self.stopping())?;
            }
        }
        Ok(())
    }

    /// The first gate of a finished stage that does not hold.
    ///
    /// # Errors
    /// The journal cannot be read, or holds no measurement for a gate.
    pub(super) fn failed_gate(&self, stage: &StagePlan) -> Result<Option<Outcome>, ExecError> {
        if stage.gates.is_empty() {
            return Ok(None);
        }
        let records = self.eval_records()?;
        let value = |gate: &GatePlan, step: u64| {
            measured(&records, stage, gate, step).ok_or_else(|| ExecError::GateUnmeasured {
                stage: stage.name.clone(),
                gate: gate.text.clone(),
            })
        };
        for gate in &stage.gates {
            let measured = value(gate, stage.steps)?;
            let at_start = if gate.relative_to_from { Some(value(gate, 0)?) } else { None };
            if let Some(bound) = gate.held_against(at_start)
                && !gate.holds(measured, bound)
            {
                let (stage, gate) = (stage.name.clone(), gate.text.clone());
                return Ok(Some(Outcome::GateFailed { stage, gate, value: measured, bound }));
            }
        }
        Ok(None)
    }
}
