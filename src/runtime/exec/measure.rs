//! Measurements at the edges of a stage and on the way: held-out loss per source, needle in a
//! haystack, multiple choice. Each becomes a line of `evals.jsonl`.

use crate::plan::{EvalPlan, StagePlan};
use crate::runtime::data::Corpus;
use crate::runtime::engine::{RopeTable, RowLoss};
use crate::runtime::eval::{MeasureError, choice, needle};
use crate::runtime::exec::stage::Work;
use crate::runtime::exec::{Event, ExecError, Run, gate};
use crate::runtime::journal::EvalRecord;

/// Tokens of each source's held-out documents a measurement reads at most.
const HELDOUT_TOKENS: u64 = 1 << 16;

/// When a measurement is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    /// Before the first step.
    Start,
    /// Between two steps.
    Between,
    /// After the last step.
    End,
}

/// One number to be measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Measure {
    /// Mean held-out loss of a source, nats per token.
    Loss(String),
    /// Share of needles found at a length.
    Needle(u64),
    /// Accuracy on a task file.
    Choice(String),
}

impl Measure {
    fn name(&self) -> &'static str {
        match self {
            Self::Loss(_) => "loss",
            Self::Needle(_) => "needle",
            Self::Choice(_) => "choice",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Loss(source) => source.clone(),
            Self::Needle(length) => length.to_string(),
            Self::Choice(task) => task.clone(),
        }
    }
}

impl Run<'_> {
    /// Take what is due: every `eval` at both edges of the stage and every so many steps between,
    /// and what the gates need.
    pub(super) fn measure(
        &mut self,
        stage: &StagePlan,
        work: &mut Work,
        moment: Moment,
    ) -> Result<(), ExecError> {
        let step = work.trainer.step;
        for eval in &stage.evals {
            let due = eval.every_steps.is_some_and(|n| n > 0 && step.is_multiple_of(n));
            if moment != Moment::Between || due {
                for measure in self.measures(eval) {
                    self.take(stage, work, &eval.name, &measure)?;
                }
            }
        }
        for (gate, measure) in gate::measures(stage)? {
            if moment == Moment::End || (moment == Moment::Start && gate.relative_to_from) {
                self.take(stage, work, gate::EVAL, &measure)?;
            }
        }
        Ok(())
    }

    fn measures(&self, eval: &EvalPlan) -> Vec<Measure> {
        let mut measures = Vec::new();
        if eval.heldout.is_some() {
            measures.extend(self.plan.sources.iter().map(|s| Measure::Loss(s.name.clone())));
        }
        measures.extend(eval.needle.iter().copied().map(Measure::Needle));
        measures.extend(eval.choice.iter().cloned().map(Measure::Choice));
        measures
    }

    /// Take one measurement and write it down; nothing where there is nothing to measure on.
    fn take(
        &mut self,
        stage: &StagePlan,
        work: &mut Work,
        eval: &str,
        measure: &Measure,
    ) -> Result<(), ExecError> {
        let step = work.trainer.step;
        let context = stage.step_point(step.min(stage.steps.saturating_sub(1))).context;
        let found = match measure {
            Measure::Loss(source) => self.heldout_loss(stage, work, source, context)?,
            Measure::Needle(length) => {
                let table = work.tables.of_length(*length);
                Some(needle_score(work, &table, *length as usize, stage.data_seed)?)
            }
            Measure::Choice(task) => {
                let questions =
                    choice::read(&self.options.base_dir.join(task)).map_err(MeasureError::from)?;
                let corpus = work.corpus.clone();
                let encode = |text: &str| encode(&corpus, text);
                let table = work.tables.at(context);
                let score = choice::score(&mut *work.engine, table, context as usize, &questions, &encode)?;
                Some((score.accuracy, score.questions as u64))
            }
        };
        let Some((value, count)) = found else { return Ok(()) };
        let record = EvalRecord {
            stage: stage.name.clone(),
            step,
            tokens: work.trainer.tokens,
            eval: eval.to_string(),
            measure: measure.name().into(),
            subject: measure.subject(),
            value,
            count,
        };
        self.evals.append(&record)?;
        work.board.eval(&record)?;
        self.observer.on(Event::Eval(&record));
        Ok(())
    }

    fn heldout_loss(
        &self,
        stage: &StagePlan,
        work: &mut Work,
        source: &str,
        context: u64,
    ) -> Result<Option<(f64, u64)>, ExecError> {
        let rows = work.corpus.heldout_rows(source, context as usize, HELDOUT_TOKENS, stage.attention)?;
        let Some(batch) = rows else { return Ok(None) };
        let mut total = RowLoss::default();
        for row in work.engine.losses(&batch, work.tables.at(context))? {
            total.nll += row.nll;
            total.predicted += row.predicted;
        }
        let count = u64::from(total.predicted);
        Ok((count > 0).then(|| (total.nll / count as f64, count)))
    }
}

fn needle_score(
    work: &mut Work,
    table: &RopeTable,
    length: usize,
    seed: u64,
) -> Result<(f64, u64), MeasureError> {
    let corpus = work.corpus.clone();
    let filler = filler(&corpus, length);
    let encode = |text: &str| encode(&corpus, text);
    let score = needle::score(&mut *work.engine, table, length, &filler, seed, &encode)?;
    Ok((score.accuracy, score.found.len() as u64))
}

fn encode(corpus: &Corpus, text: &str) -> Result<Vec<u32>, MeasureError> {
    let fail = |why| MeasureError::Encode { text: text.chars().take(40).collect(), why };
    corpus.tokenizer().encode(text).map_err(fail)
}

/// Text of the run's own sources to hide a needle in, the first documents of each in turn.
fn filler(corpus: &Corpus, length: usize) -> Vec<u32> {
    let mut tokens = Vec::new();
    for source in corpus.sources() {
        for document in 0..source.train_documents() {
            if tokens.len() >= length {
                return tokens;
            }
            tokens.extend(source.tokens(document));
        }
    }
    tokens
}
