//! What happens after a step whose loss or gradient is not finite. The update itself is never applied.

use serde::{Deserialize, Serialize};

use crate::plan::StagePlan;
use crate::runtime::checkpoint::{self, Entry, Purpose};
use crate::runtime::data::{SamplerState, StageSampler};
use crate::runtime::engine::Moments;
use crate::runtime::exec::stage::Work;
use crate::runtime::exec::start::TrainerState;
use crate::runtime::exec::survey::last_sound;
use crate::runtime::exec::writer::purpose;
use crate::runtime::exec::{ExecError, NotFinite, Run, lock};
use crate::runtime::journal::{EvalRecord, Journal, StepRecord};

/// After so many skipped steps in a row a stage gives up: the weights no longer change, so more
/// steps cannot help.
const SKIPS: u32 = 10;
/// After so many returns to a checkpoint a stage gives up: it is not the data.
const REWINDS: u32 = 3;

/// How often it happened in a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    in_a_row: u32,
    rewinds: u32,
}

impl Count {
    /// Whether the last step was one: the weights may be ruined. What is saved now is not gone back to, takes the place
    /// of no other checkpoint, and is left out where nothing starts from it.
    pub(super) fn lasts(&self) -> bool {
        self.in_a_row > 0
    }

    /// The step was fine.
    pub(super) fn reset(&mut self) {
        self.in_a_row = 0;
    }

    /// Whether it has not happened, or not of late.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
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
    ) -> Result<bool, ExecError> {
        work.trainer.not_finite.in_a_row += 1;
        let count = work.trainer.not_finite;
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
                if count.rewinds == REWINDS {
                    return give_up(count.rewinds + 1);
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

    /// Weights, moments and step of the stage's last checkpoint that the plan asks for (or of its start), and the
    /// data that follows what was read. A checkpoint behind which every try failed at once is passed over. A run that is interrupted before or afterwards goes back to the same
    /// checkpoint, reads the same data, and comes here again: resuming stays bit for bit.
    fn rewind(&self, stage: &StagePlan, work: &mut Work) -> Result<(), ExecError> {
        self.settle(&mut work.writing)?;
        let (mut planned, failed) = (self.last_planned(stage, work.trainer.step)?, work.trainer.step - 1);
        // Where other data did not help, and nothing behind the checkpoint was ever finite, its own weights are ruined.
        if work.trainer.not_finite.rewinds > 0 && planned.as_ref().is_some_and(|entry| entry.step == failed) {
            planned = self.last_planned(stage, failed - 1)?;
        }
        let start = match &planned {
            Some(entry) => self.resumed(&stage.name, entry.step, &entry.path)?,
            None => self.beginning(stage)?,
        };
        let (step, before) = (start.trainer.step, work.trainer.not_finite);
        work.engine.load_weights(&start.weights)?;
        if let Some(optimizer) = start.optimizer {
            work.engine.load_moments(Moments { first: optimizer.first, second: optimizer.second })?;
        }
        let sampler = SamplerState { step, ..work.sampler.state() };
        work.sampler = StageSampler::new(stage, &work.corpus, sampler.clone())?;
        // Of the start of the stage, too, what was measured stays.
        let not_finite = Count { in_a_row: 0, rewinds: before.rewinds + 1 };
        work.trainer = TrainerState { unmeasured: false, not_finite, ..start.trainer };
        work.trainer.sampler = sampler;
        // What an interruption left on the way here would be gone on from instead. It goes before the journals are
        // cut: a run that ends in between must not go on from there, past steps that are no longer in them.
        for entry in checkpoint::list(&self.dir.checkpoints(&stage.name))?.iter().filter(|e| e.step > step) {
            checkpoint::remove(entry)?;
        }
        let kept = |of: &str, steps: u64| of != stage.name || steps <= step;
        let (mut metrics, mut evals) = (lock(&self.metrics), lock(&self.evals));
        *metrics = Journal::open::<StepRecord>(&self.dir.metrics(), kept)?;
        *evals = Journal::open::<EvalRecord>(&self.dir.evals(), kept)?;
        drop((metrics, evals));
        work.board = self.board(stage, step)?;
        if let Some(progress) = lock(&self.progress).get_mut(&stage.name) {
            progress.checkpoint = planned.map(|entry| (entry.step, entry.path));
        }
        Ok(())
    }

    /// The last sound checkpoint of `stage` before `step` that is not there for an interruption only, nor was saved
    /// behind a step that was not finite.
    fn last_planned(&self, stage: &StagePlan, step: u64) -> Result<Option<Entry>, ExecError> {
        let entries = checkpoint::list(&self.dir.checkpoints(&stage.name))?;
        let planned = |e: &&Entry| e.step <= step && purpose(stage, e.step) != Purpose::Interruption;
        let ruined = |e: &Entry| -> Result<bool, ExecError> {
            let state = TrainerState::read(checkpoint::trainer(&e.path)?, &e.path)?;
            Ok(state.not_finite.lasts())
        };
        let mut planned: Vec<&Entry> = entries.iter().filter(planned).collect();
        while let Some(entry) = last_sound(planned.iter().copied(), &self.sound)? {
            if !ruined(entry)? {
                return Ok(Some(entry.clone()));
            }
            planned.retain(|e| e.step < entry.step);
        }
        Ok(None)
    }
}
