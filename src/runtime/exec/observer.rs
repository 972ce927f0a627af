//! What the run tells whoever watches it; the command line draws a progress bar from it.

use std::path::Path;

use crate::plan::{Plan, SoupPlan, StagePlan};
use crate::runtime::data::{Progress, Quiet};
use crate::runtime::journal::{EvalRecord, StepRecord};

/// One thing that happened.
#[derive(Debug)]
pub enum Event<'a> {
    /// A sentence for the log: a damaged checkpoint was passed over, a cache was rebuilt.
    Note(&'a str),
    /// A stage that was finished earlier is passed over.
    Skipped(&'a StagePlan),
    /// A stage begins, at `step` when it is resumed.
    Stage {
        /// Which.
        stage: &'a StagePlan,
        /// First step to do.
        step: u64,
    },
    /// A step is done.
    Step {
        /// Which stage.
        stage: &'a StagePlan,
        /// What was recorded.
        record: &'a StepRecord,
    },
    /// A measurement is done.
    Eval(&'a EvalRecord),
    /// A soup was made.
    Soup(&'a SoupPlan),
    /// A checkpoint is complete.
    Checkpoint(&'a Path),
    /// The run is over.
    Finished(&'a Plan),
}

/// Receives events, from every thread that trains a stage; must return quickly.
pub trait Observer: Sync {
    /// Take note of `event`.
    fn on(&self, event: Event<'_>);

    /// Who hears of data being read and tokenised.
    fn reading(&self) -> &dyn Progress;
}

/// Nobody watches.
impl Observer for () {
    fn on(&self, _: Event<'_>) {}

    fn reading(&self) -> &dyn Progress {
        &Quiet
    }
}
