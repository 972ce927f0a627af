//! What happens after a step whose loss or gradient is not finite. The update itself is never applied.

use crate::plan::StagePlan;
use crate::runtime::data::{SamplerState, StageSampler};
use crate::runtime::engine::Moments;
use crate::runtime::exec::stage::Work;
use crate::runtime::exec::start::TrainerState;
use crate::runtime::exec::{ExecError, NotFinite, Run, lock};
use crate::runtime::journal::{EvalRecord, Journal, StepRecord};

/// After so many skipped steps in a row a stage gives up: the weights no longer change, so more
/// steps cannot help.
const SKIPS: u32 = 10;
/// After so many returns to a checkpoint a stage gives up: it is not the data.
const REWINDS: u32 = 3;

/// How often it happened in a stage.
#[derive(Debug, Default)]
pub(super) struct Count {
    in_a_row: u32,
    rewinds: u32,
}

impl Count {
    /// The step was fine.
    pub(super) fn reset(&mut self) {
        self.in_a_row = 0;
    }
}

impl Run<'_> {
    /// Act on a step that was not finite. True when the stage went back to an earlier step.
    ///
    /// # Errors
    /// [`ExecError::NotFinite`] when it is to be given up.
    pub(super) fn not_finite(
        &self,
        stage: &StagePlan,
        work: &mut Work,
        record: &StepRecord,
        count: &mut Count,
    ) -> Result<bool, ExecError> {
        count.in_a_row += 1;
        let (name, step) = (&stage.name, record.step);
        let give_up = |times| Err(ExecError::NotFinite { stage: name.clone(), step, times });
        let said = format!("stage `{name}`, step {step}: loss or gradient not finite, update skipped");
        match self.options.on_not_finite {
            NotFinite::Stop => {
                self.note(&said);
                give_up(count.in_a_row)
            }
            NotFinite::Skip => {
                self.note(&said);
                if count.in_a_row >= SKIPS { give_up(count.in_a_row) } else { Ok(false) }
            }
            NotFinite::Rewind => {
                count.rewinds += 1;
                if count.rewinds > REWINDS {
                    return give_up(count.rewinds);
                }
                self.rewind(stage, work)?;
                self.note(&format!(
                    "stage `{name}`, step {step}: loss or gradient not finite; back to step {} with the data \
                     that follows",
                    work.trainer.step
                ));
                Ok(true)
            }
        }
    }

    /// Weights, moments and step of the stage's last checkpoint (or of its start), and the data that
    /// follows what was read. A run that is killed afterwards goes back to the same checkpoint, reads
    /// the same data, and comes here again: resuming stays bit for bit.
    fn rewind(&self, stage: &StagePlan, work: &mut Work) -> Result<(), ExecError> {
        self.settle(&mut work.writing)?;
        let start = self.start(stage)?;
        let step = start.trainer.step;
        work.engine.load_weights(&start.weights)?;
        if let Some(optimizer) = start.optimizer {
            work.engine.load_moments(&Moments { first: optimizer.first, second: optimizer.second })?;
        }
        let sampler = SamplerState { step, ..work.sampler.state() };
        work.sampler = StageSampler::new(stage, &work.corpus, sampler.clone())?;
        // Of the start of the stage, too, what was measured stays.
        work.trainer = TrainerState { unmeasured: false, ..start.trainer };
        work.trainer.sampler = sampler;
        let kept = |of: &str, steps: u64| of != stage.name || steps <= step;
        let (mut metrics, mut evals) = (lock(&self.metrics), lock(&self.evals));
        *metrics = Journal::open::<StepRecord>(&self.dir.metrics(), kept)?;
        *evals = Journal::open::<EvalRecord>(&self.dir.evals(), kept)?;
        Ok(())
    }
}
