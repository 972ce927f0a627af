//! Measurements at the edges of a stage and on the way: held-out loss per source, needle in a
//! haystack, multiple choice. Each becomes a line of `evals.jsonl`.

use std::collections::BTreeMap;

use crate::plan::{EvalPlan, GatePlan, GateSource, StagePlan};
use crate::runtime::batch::{Batch, IGNORE};
use crate::runtime::data::Corpus;
use crate::runtime::engine::LengthTables;
use crate::runtime::eval::{MeasureError, choice, needle};
use crate::runtime::exec::stage::Work;
use crate::runtime::exec::{Event, ExecError, Run, gate, lock};
use crate::runtime::journal::EvalRecord;

/// Measure of the accuracy by log-likelihood per character, which stands beside that of `choice`.
const CHOICE_NORM: &str = "choice_norm";

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
pub(super) enum Measure<'p> {
    /// Mean held-out loss of a source, nats per token.
    Loss(String),
    /// The mean of those of a mix's sources, by their shares of it.
    MixLoss(String, &'p [GateSource]),
    /// Share of needles found at a length.
    Needle(u64),
    /// Accuracy on a task file.
    Choice(String),
}

/// The held-out rows of a source that a loss is taken over.
#[derive(Clone, Copy, Debug)]
struct HeldOutRows {
    /// Tokens of each.
    context: u64,
    /// Tokens of all of them, at most.
    tokens: u64,
}

impl Measure<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Loss(_) | Self::MixLoss(..) => "loss",
            Self::Needle(_) => "needle",
            Self::Choice(_) => "choice",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Loss(name) | Self::MixLoss(name, _) => name.clone(),
            Self::Needle(length) => length.to_string(),
            Self::Choice(task) => task.clone(),
        }
    }
}

impl Run<'_> {
    /// Take what is due: every `eval` at both edges of the stage and every so many steps between,
    /// and what the gates need. What is asked to stop gives it up, but for the end of a stage, whose checkpoint
    /// says that all of it is done.
    pub(super) fn measure(
        &self,
        stage: &StagePlan,
        work: &mut Work,
        moment: Moment,
    ) -> Result<(), ExecError> {
        let step = work.trainer.step;
        let stopping = || moment != Moment::End && self.stopping();
        for eval in &stage.evals {
            let due = stage.measures_after(eval, step);
            if moment != Moment::Between || due {
                let mut by_position = ByPosition::default();
                for measure in self.measures(eval) {
                    self.take(stage, work, &eval.name, &measure, Some(&mut by_position), &stopping)?;
                }
                for (range, (nll, count)) in by_position.0 {
                    let subject = format!("{}..{}", range, (range * 2).max(ByPosition::FIRST));
                    self.record(stage, work, &eval.name, "position", subject, nll / count as f64, count)?;
                }
            }
        }
        for (gate, measure) in gate::measures(stage)? {
            if moment == Moment::End || (moment == Moment::Start && gate.relative_to_from) {
                self.take(stage, work, GatePlan::EVAL, &measure, None, &stopping)?;
            }
        }
        Ok(())
    }

    fn measures(&self, eval: &EvalPlan) -> Vec<Measure<'static>> {
        let mut measures = Vec::new();
        if eval.heldout.is_some() {
            measures.extend(self.plan.sources.iter().map(|s| Measure::Loss(s.name.clone())));
        }
        measures.extend(eval.sources.iter().cloned().map(Measure::Loss));
        measures.extend(eval.needle.iter().copied().map(Measure::Needle));
        measures.extend(eval.choice.iter().cloned().map(Measure::Choice));
        measures
    }

    /// Take one measurement and write it down; nothing where there is nothing to measure on.
    pub(super) fn take(
        &self,
        stage: &StagePlan,
        work: &mut Work,
        eval: &str,
        measure: &Measure<'_>,
        by_position: Option<&mut ByPosition>,
        stopping: &dyn Fn() -> bool,
    ) -> Result<(), ExecError> {
        if stopping() {
            return Err(MeasureError::Stopped.into());
        }
        let step = work.trainer.step;
        let context = stage.step_point(step.min(stage.steps.saturating_sub(1))).context;
        let rows = HeldOutRows { context, tokens: stage.heldout_tokens(eval) };
        let mut normalised = None;
        let found = match measure {
            Measure::Loss(source) => self.heldout_loss(stage, work, source, rows, by_position)?,
            Measure::MixLoss(_, sources) => self.mix_loss(stage, work, sources, rows)?,
            Measure::Needle(length) => {
                let mut tables = work.tables.up_to(*length);
                Some(needle_score(work, &mut tables, *length as usize, stage.data_seed, stopping)?)
            }
            Measure::Choice(task) => {
                let questions =
                    choice::read(&self.options.base_dir.join(task)).map_err(MeasureError::from)?;
                let corpus = work.corpus.clone();
                let encode =
                    |text: &str| encode(&corpus, text).map(|tokens| corpus.tokenizer().opened(tokens));
                let mut tables = work.tables.up_to(context);
                let (context, end) = (context as usize, corpus.tokenizer().eos());
                let score = choice::score(
                    &mut *work.engine,
                    &mut tables,
                    context,
                    &questions,
                    end,
                    &encode,
                    stopping,
                )?;
                normalised = Some((score.accuracy_norm, score.questions as u64));
                Some((score.accuracy, score.questions as u64))
            }
        };
        // A record of its own, so that who reads the raw accuracy goes on doing so.
        for (name, found) in [(measure.name(), found), (CHOICE_NORM, normalised)] {
            if let Some((value, count)) = found {
                self.record(stage, work, eval, name, measure.subject(), value, count)?;
            }
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a record")]
    fn record(
        &self,
        stage: &StagePlan,
        work: &mut Work,
        eval: &str,
        measure: &str,
        subject: String,
        value: f64,
        count: u64,
    ) -> Result<(), ExecError> {
        let record = EvalRecord {
            stage: stage.name.clone(),
            step: work.trainer.step,
            tokens: work.trainer.tokens,
            eval: eval.to_string(),
            measure: measure.into(),
            subject,
            value,
            count,
        };
        lock(&self.evals).append(&record)?;
        work.board.eval(&record)?;
        self.observer.on(Event::Eval(&record));
        Ok(())
    }

    /// Whether all that is to be measured of the data can be, seen before the first step rather than after the last.
    pub(super) fn measurable(&self, stage: &StagePlan, corpus: &Corpus) -> Result<(), ExecError> {
        let gates = gate::measures(stage)?;
        for (gate, measure) in &gates {
            let sources: Vec<&str> = match measure {
                Measure::Loss(source) => vec![source],
                Measure::MixLoss(_, sources) => sources.iter().map(|s| s.source.as_str()).collect(),
                _ => continue,
            };
            let (context, tokens) = (stage.max_context() as usize, stage.heldout_tokens(GatePlan::EVAL));
            let mut predicted = 0;
            for source in sources {
                let rows = corpus.heldout_rows(source, context, tokens, stage.attention)?;
                predicted += rows.map_or(0, |batch| batch.predicted());
            }
            if predicted == 0 {
                let (stage, gate) = (stage.name.clone(), gate.text.clone());
                return Err(ExecError::GateUnmeasured { stage, gate });
            }
        }
        Ok(())
    }

    fn mix_loss(
        &self,
        stage: &StagePlan,
        work: &mut Work,
        sources: &[GateSource],
        rows: HeldOutRows,
    ) -> Result<Option<(f64, u64)>, ExecError> {
        let (mut sum, mut shares, mut count) = (0.0, 0.0, 0);
        for GateSource { source, share } in sources {
            // Of a source that nothing is held out of, nothing is known.
            if let Some((loss, predicted)) = self.heldout_loss(stage, work, source, rows, None)? {
                sum += share * loss;
                shares += share;
                count += predicted;
            }
        }
        Ok((count > 0).then(|| (sum / shares, count)))
    }

    fn heldout_loss(
        &self,
        stage: &StagePlan,
        work: &mut Work,
        source: &str,
        HeldOutRows { context, tokens }: HeldOutRows,
        by_position: Option<&mut ByPosition>,
    ) -> Result<Option<(f64, u64)>, ExecError> {
        let rows = work.corpus.heldout_rows(source, context as usize, tokens, stage.attention)?;
        let Some(batch) = rows else { return Ok(None) };
        let losses = work.engine.token_losses(&batch, work.tables.at(context))?;
        if let Some(by_position) = by_position {
            by_position.add(&batch, &losses);
        }
        let count = batch.predicted() as u64;
        let nll: f64 = losses.iter().map(|loss| f64::from(*loss)).sum();
        Ok((count > 0).then(|| (nll / count as f64, count)))
    }
}

/// Loss by the position of the prediction in its row, over all held-out sources: whether a longer
/// context is used at all. Ranges double, from the first one on.
#[derive(Debug, Default)]
pub(super) struct ByPosition(BTreeMap<usize, (f64, u64)>);

impl ByPosition {
    /// End of the first range.
    const FIRST: usize = 128;

    fn add(&mut self, batch: &Batch, losses: &[f32]) {
        for (i, loss) in losses.iter().enumerate().filter(|(i, _)| batch.targets[*i] != IGNORE) {
            let position = i % batch.context;
            let range = if position < Self::FIRST { 0 } else { 1 << position.ilog2() };
            let sum = self.0.entry(range).or_default();
            sum.0 += f64::from(*loss);
            sum.1 += 1;
        }
    }
}

fn needle_score(
    work: &mut Work,
    tables: &mut LengthTables,
    length: usize,
    seed: u64,
    stopping: &dyn Fn() -> bool,
) -> Result<(f64, u64), MeasureError> {
    let corpus = work.corpus.clone();
    let (tokens, opening) = (filler(&corpus, length), corpus.tokenizer().opened(Vec::new()));
    let filler = needle::Filler { tokens: &tokens, opening: &opening };
    let encode = |text: &str| encode(&corpus, text);
    let score = needle::score(&mut *work.engine, tables, length, filler, seed, &encode, stopping)?;
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
