//! One stage: the training loop with its checkpoints and measurements.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::plan::{Architecture, MuonPlan, Origin, Plan, Precision, RopePlan, StagePlan};
use crate::rope::{self, Rope};
use crate::runtime::batch::Batch;
use crate::runtime::checkpoint::{self, CheckpointContents, OptimizerState};
use crate::runtime::data::{
    self, Corpus, DataError, OpenOptions, SourceSummary, StageSampler, TextTokenizer,
};
use crate::runtime::engine::{
    self, Engine, EngineKind, EngineOptions, Hyper, LengthTables, Moments, Muon, RopeTable, RowLoss,
};
use crate::runtime::eval::MeasureError;
use crate::runtime::exec::measure::Moment;
use crate::runtime::exec::memory::room_for_a_copy;
use crate::runtime::exec::noise;
use crate::runtime::exec::spike::SpikeWatch;
use crate::runtime::exec::start::{Start, TrainerState};
use crate::runtime::exec::writer::{Latest, Snapshot, Writing};
use crate::runtime::exec::{Event, ExecError, ExecOptions, Progress, Run, lock, root};
use crate::runtime::journal::{EvalRecord, Journal, StepRecord};
use crate::runtime::model::{Dtype, ModelConfig, TokenizerSource};
use crate::runtime::tensorboard::TensorBoard;

/// What a stage works with.
pub(super) struct Work {
    pub(super) engine: Box<dyn Engine>,
    config: ModelConfig,
    tokenizer: TokenizerSource,
    pub(super) sampler: StageSampler,
    pub(super) corpus: Arc<Corpus>,
    pub(super) trainer: TrainerState,
    pub(super) tables: RopeTables,
    /// How checkpoints store the weights.
    dtype: Dtype,
    /// FLOP/s of the device's best product; what MFU is a share of.
    peak_flops: Option<f64>,
    pub(super) board: TensorBoard,
    /// Memory that the stage is to keep to, on the device.
    limit: Option<u64>,
    /// The checkpoint under way.
    pub(super) writing: Option<Writing>,
    /// What is known of the checkpoint that was written last.
    pub(super) latest: Latest,
}

impl Run<'_> {
    /// Train `stage` from where it is to its end, with one of `share` parts of the threads and the
    /// memory. `Some(step)` when asked to stop before that.
    pub(super) fn stage(&self, stage: &StagePlan, share: usize) -> Result<Option<u64>, ExecError> {
        let prepared = self.start(stage).and_then(|start| {
            let step = start.trainer.step;
            self.prepare(stage, share, start, step)
        });
        let mut work = match prepared {
            Ok(work) => work,
            // Nothing is lost that a checkpoint would keep.
            Err(ExecError::Data(DataError::Stopped)) => {
                return Ok(Some(lock(&self.progress).get(&stage.name).map_or(0, Progress::steps)));
            }
            Err(error) => return Err(error),
        };
        let ended = self.train(stage, &mut work);
        // Whatever happened, a checkpoint under way is worth its completion.
        let settled = self.settle(&mut work.writing).and_then(|()| self.thin(stage, &mut work, true));
        let ended = ended?;
        settled?;
        Ok(ended)
    }

    fn train(&self, stage: &StagePlan, work: &mut Work) -> Result<Option<u64>, ExecError> {
        self.observer.on(Event::Stage { stage, step: work.trainer.step });
        self.sound.forget_all();
        if work.trainer.unmeasured {
            self.measure_anew(stage, work)?;
        }
        let (mut spikes, mut told) = (SpikeWatch::default(), false);
        while work.trainer.step < stage.steps {
            if self.stopping() {
                self.settle(&mut work.writing)?;
                let saved = lock(&self.progress).get(&stage.name).map(Progress::steps);
                if saved.is_none_or(|steps| steps < work.trainer.step) {
                    self.save(stage, work)?;
                }
                return Ok(Some(work.trainer.step));
            }
            let record = self.step(stage, work)?;
            if !record.skipped {
                work.latest.prove();
            }
            self.thin(stage, work, false)?;
            if record.skipped && record.loss_by_source.is_empty() {
                self.nothing_predicted(stage, &record, &mut told);
            } else if record.skipped {
                if self.not_finite(stage, work, &record)? {
                    continue;
                }
            } else {
                work.trainer.not_finite.reset();
            }
            if let Some(spike) = spikes.see(&record) {
                self.note(&spike);
            }
            lock(&self.metrics).append(&record)?;
            work.board.step(&record)?;
            self.observer.on(Event::Step { stage, record: &record });
            let done = work.trainer.step;
            let last = done == stage.steps;
            if !self.measured(stage, work, if last { Moment::End } else { Moment::Between })? {
                continue;
            }
            let periodic = stage.saves_after(done) && !work.trainer.not_finite.lasts();
            let named = stage.checkpoints.iter().any(|c| c.step == done);
            if last || periodic || named {
                self.save(stage, work)?;
            }
        }
        // No step will start from the last one.
        if !work.trainer.not_finite.lasts() {
            work.latest.prove();
        }
        Ok(None)
    }

    /// A step in whose rows no token carries loss, such as rows within one long prompt, changes nothing; that there
    /// are such steps is said once.
    fn nothing_predicted(&self, stage: &StagePlan, record: &StepRecord, told: &mut bool) {
        if !std::mem::replace(told, true) {
            let rows = record.rows.iter().filter(|(_, rows)| **rows > 0);
            let sources: Vec<String> = rows.map(|(source, _)| format!("`{source}`")).collect();
            self.note(&format!(
                "stage `{}`, step {}: none of the tokens read from {} carries loss (`loss_on`), so the step changes \
                 nothing; a larger batch or longer rows make such steps rarer",
                stage.name,
                record.step,
                sources.join(", ")
            ));
        }
    }

    /// Measure, or remember that it was given up for the checkpoint that is written next.
    fn measured(&self, stage: &StagePlan, work: &mut Work, moment: Moment) -> Result<bool, ExecError> {
        let taken = match self.measure(stage, work, moment) {
            Err(ExecError::Measure(MeasureError::Stopped)) => false,
            taken => taken.map(|()| true)?,
        };
        work.trainer.unmeasured = !taken;
        Ok(taken)
    }

    /// What is due where the stage begins, or where a measurement was given up: that has left some of its records.
    fn measure_anew(&self, stage: &StagePlan, work: &mut Work) -> Result<(), ExecError> {
        let step = work.trainer.step;
        let kept = |of: &str, steps: u64| of != stage.name || steps != step;
        {
            let mut evals = lock(&self.evals);
            *evals = Journal::open::<EvalRecord>(&self.dir.evals(), kept)?;
        }
        let moment = if step == 0 { Moment::Start } else { Moment::Between };
        self.measured(stage, work, moment).map(drop)
    }

    /// What `stage` works with from `start` on, with one of `share` parts of the threads and the memory. Its events
    /// go on from the step `told`.
    pub(super) fn prepare(
        &self,
        stage: &StagePlan,
        share: usize,
        start: Start,
        told: u64,
    ) -> Result<Work, ExecError> {
        check_first_rate(stage)?;
        let Start { mut config, tokenizer, weights, optimizer, trainer } = start;
        let corpus = self.corpus(stage, &tokenizer, &config)?;
        if self.stopping() {
            // As asked for before there was anything to read.
            return Err(DataError::Stopped.into());
        }
        self.measurable(stage, &corpus)?;
        let sampler = StageSampler::new(stage, &corpus, trainer.sampler.clone())?;
        if let Some(rope) = &stage.rope {
            config.stretch(rope.theta, rope.scaling.clone());
        }
        // What the stage trains at is what the model is meant for, unless it was meant for more.
        let longest = stage.phases.iter().map(|p| p.context).max().unwrap_or_default();
        config.context = config.context.max(longest);
        let precision = stage.precision.unwrap_or(self.options.precision);
        let kind = EngineKind::on(self.options.device, precision)?;
        let dtype = match precision {
            Precision::F32 => Dtype::F32,
            Precision::Bf16 => Dtype::Bf16,
        };
        let options = self.engine_options(share);
        let mut engine = engine::engine(kind, &config.architecture, &weights, options)?;
        // Before there are two of the moments, too.
        drop(weights);
        let described = engine.describe();
        if stage.precision.is_none()
            && kind_of(&trainer.engine) != kind_of(&described)
            && !trainer.engine.is_empty()
        {
            let before = &trainer.engine;
            self.note(&format!(
                "stage `{}` goes on with {described} from a checkpoint of {before}: not bit for bit as the one \
                 engine would",
                stage.name
            ));
        }
        let changed = noise::changed(&stage.name, trainer.noise_every, self.noise_every());
        changed.iter().for_each(|note| self.note(note));
        if let Some(OptimizerState { first, second }) = optimizer {
            engine.load_moments(Moments { first, second })?;
        }
        let tables = RopeTables::new(stage, &config)?;
        // Takes a moment to measure, and does not change between the stages of a run.
        let peak_flops = *lock(&self.peaks).entry(described).or_insert_with(|| engine.peak_flops());
        let board = self.board(stage, told)?;
        let latest = if trainer.step > 0 { Latest::Saved } else { Latest::Settled };
        Ok(Work {
            engine,
            config,
            tokenizer,
            sampler,
            corpus,
            trainer,
            tables,
            dtype,
            peak_flops,
            board,
            limit: options.memory,
            writing: None,
            latest,
        })
    }

    /// The stage's events from `step` on. Readers forget those of a step at which a file begins anew, so that what
    /// was measured there is told again.
    pub(super) fn board(&self, stage: &StagePlan, step: u64) -> Result<TensorBoard, ExecError> {
        let mut board = TensorBoard::open(&self.dir.tensorboard(&stage.name), step)?;
        if step == 0 {
            board.text(0, "plan", &plan_text(stage))?;
        }
        for record in self.eval_records()?.iter().filter(|r| r.stage == stage.name && r.step == step) {
            board.eval(record)?;
        }
        Ok(board)
    }

    /// Every how many steps the noise scale is estimated; 0 for never.
    fn noise_every(&self) -> u64 {
        self.options.noise_every.unwrap_or_default()
    }

    fn engine_options(&self, share: usize) -> EngineOptions {
        let ExecOptions { threads, memory, .. } = *self.options;
        if share == 1 {
            return EngineOptions { threads, memory };
        }
        EngineOptions {
            threads: Some((engine::threads(threads) / share).max(1)),
            memory: memory.map(|m| m / share as u64),
        }
    }

    /// The tokenised sources for a stage's lineage, read once per root model.
    fn corpus(
        &self,
        stage: &StagePlan,
        tokenizer: &TokenizerSource,
        config: &ModelConfig,
    ) -> Result<Arc<Corpus>, ExecError> {
        let model = &root(self.plan, stage)?.name;
        // Held while they are read: whoever else wants them waits.
        let mut corpora = lock(&self.corpora);
        if let Some(corpus) = corpora.get(model) {
            return Ok(Arc::clone(corpus));
        }
        let open = OpenOptions {
            base_dir: &self.options.base_dir,
            cache_dir: &self.options.cache_dir,
            vocab_size: config.architecture.vocab_size,
            heldout: self.plan.heldout(),
            on_bad: self.options.on_bad,
            count_all: false,
        };
        let json = tokenizer.tokenizer_json()?;
        let (path, eos) = (Path::new("tokenizer.json"), config.eos.first().copied());
        let tokenizer = TextTokenizer::of_checkpoint(path, json, &tokenizer.files, eos)?;
        let reading = Reading { inner: self.observer.reading(), stopped: &|| self.stopping() };
        let (corpus, summary) = Corpus::open(&self.plan.sources, tokenizer, &open, &reading)?;
        for source in &summary.sources {
            if source.dropped.bad() > 0 {
                self.note(&bad_records(source));
            }
            if self.plan.heldout() > 0.0 && source.heldout_documents == 0 {
                let name = &source.name;
                self.note(&format!("source `{name}`: nothing is held out, so its loss will not be measured"));
            }
        }
        for ahead in self.ahead(model)? {
            corpus.suffices(ahead, &whole_before(self.plan, ahead))?;
        }
        let corpus = Arc::new(corpus);
        corpora.insert(model.clone(), Arc::clone(&corpus));
        Ok(corpus)
    }

    /// The chosen stages that descend from `model` and are not done.
    fn ahead(&self, model: &str) -> Result<Vec<&StagePlan>, ExecError> {
        let mut ahead = Vec::new();
        for stage in &self.plan.stages {
            let finished = lock(&self.progress).get(&stage.name).is_some_and(|p| p.finished(stage));
            if self.queue.has(&stage.name) && !finished && root(self.plan, stage)?.name == model {
                ahead.push(stage);
            }
        }
        Ok(ahead)
    }

    fn step(&self, stage: &StagePlan, work: &mut Work) -> Result<StepRecord, ExecError> {
        let begin = Instant::now();
        let point = stage.step_point(work.trainer.step);
        let lr = stage.lr.curve.value(point.tokens);
        let weights: Vec<f64> = stage.mix.iter().map(|m| m.weight.value(point.tokens)).collect();
        let batch = work.sampler.next(point, &weights)?;
        let data_seconds = begin.elapsed().as_secs_f64();
        let optimizer = &stage.optimizer;
        let hyper = Hyper {
            lr,
            betas: optimizer.betas,
            eps: optimizer.eps,
            weight_decay: optimizer.weight_decay,
            decay_embeddings: optimizer.decay_embeddings,
            decay_norms: optimizer.decay_norms,
            muon: optimizer.muon.as_ref().map(muon),
            clip: optimizer.clip,
            z_loss: optimizer.z_loss,
            optimizer_step: work.trainer.optimizer_steps + 1,
            sample_noise: self.noise_every() > 0 && point.step.is_multiple_of(self.noise_every()),
        };
        let table = work.tables.at(point.context);
        let report = work.engine.train_step(&batch, table, &hyper)?;
        work.trainer.step += 1;
        work.trainer.tokens = point.tokens + point.sequences * point.context;
        // A skipped update leaves the moments as they were, so bias correction must not count it.
        work.trainer.optimizer_steps += u64::from(report.finite);
        let gns = report.noise.as_ref().and_then(|sample| work.trainer.noise.add(sample));
        let batch_tokens = point.sequences * point.context;
        let seconds = begin.elapsed().as_secs_f64();
        let flops = work.config.architecture.train_flops_per_token(point.context) * batch_tokens as f64;
        Ok(StepRecord {
            stage: stage.name.clone(),
            step: point.step,
            tokens: point.tokens,
            lr,
            batch_tokens,
            context: point.context,
            loss: report.loss,
            loss_by_source: loss_by_source(stage, &batch, &report.rows),
            grad_norm: report.grad_norm,
            gns,
            tokens_per_second: batch_tokens as f64 / seconds,
            data_seconds: Some(data_seconds),
            mfu: work.peak_flops.map(|peak| flops / (seconds * peak)),
            mix: names(stage).zip(weights).collect(),
            rows: rows(stage, &batch),
            skipped: !report.finite,
        })
    }

    fn save(&self, stage: &StagePlan, work: &mut Work) -> Result<(), ExecError> {
        self.dir.is_in_place()?;
        self.thin(stage, work, true)?;
        // The journals must reach the disk before a checkpoint that says their steps are done.
        lock(&self.metrics).sync()?;
        lock(&self.evals).sync()?;
        let trainer = TrainerState {
            v: 1,
            plan_hash: self.plan.hash.clone(),
            stage: stage.name.clone(),
            noise_every: Some(self.noise_every()),
            engine: work.engine.describe(),
            // Only here: with a thousand sources it is too long to be made in every step.
            sampler: work.sampler.state(),
            ..work.trainer.clone()
        };
        let trainer_json = serde_json::to_value(&trainer)
            .map_err(|source| ExecError::TrainerState { path: self.dir.checkpoints(&stage.name), source })?;
        work.latest = Latest::Saved;
        // Training goes on beside a copy where there is room for one.
        let room = room_for_a_copy(self.options.device, work.limit, &work.engine.memory());
        if checkpoint::copy_bytes(&work.engine) > room {
            let contents = CheckpointContents {
                config: &work.config,
                state: &work.engine,
                dtype: work.dtype,
                tokenizer: &work.tokenizer,
                trainer: Some(&trainer_json),
            };
            return self.write_now(stage, trainer.step, &contents, &mut work.writing);
        }
        let moments = work.engine.moments()?.map(|m| OptimizerState { first: m.first, second: m.second });
        let snapshot = Snapshot {
            config: work.config.clone(),
            weights: work.engine.weights()?,
            dtype: work.dtype,
            tokenizer: work.tokenizer.clone(),
            optimizer: moments,
            trainer: trainer_json,
        };
        self.write(stage, trainer.step, snapshot, &mut work.writing)
    }
}

/// The observer's ear for data being read, which may be told to stop.
struct Reading<'a> {
    inner: &'a dyn data::Progress,
    stopped: &'a (dyn Fn() -> bool + Sync),
}

impl data::Progress for Reading<'_> {
    fn begin(&self, what: &str, total: u64) {
        self.inner.begin(what, total);
    }

    fn advance(&self, bytes: u64) {
        self.inner.advance(bytes);
    }

    fn end(&self) {
        self.inner.end();
    }

    fn note(&self, text: &str) {
        self.inner.note(text);
    }

    fn stopped(&self) -> bool {
        (self.stopped)() || self.inner.stopped()
    }
}

/// The stages from whose ends `stage` descends; not those of which it takes a checkpoint in between.
fn whole_before<'a>(plan: &'a Plan, stage: &'a StagePlan) -> Vec<&'a StagePlan> {
    let (mut before, mut at) = (Vec::new(), stage);
    while let Some(Origin::Stage(from, steps)) = plan.origin(at) {
        if steps < from.steps || before.len() >= plan.stages.len() {
            break;
        }
        before.push(from);
        at = from;
    }
    before
}

/// An engine without its number of threads, on which no result depends.
fn kind_of(described: &str) -> String {
    let parts = described.split(", ").filter(|part| !part.trim_end_matches(')').ends_with(" threads"));
    parts.collect::<Vec<_>>().join(", ").trim_end_matches(')').to_owned()
}

/// Sines and cosines per context length: methods with a current length change with it.
pub(super) struct RopeTables {
    by_context: BTreeMap<u64, RopeTable>,
    architecture: Architecture,
    rope: Rope,
}

impl RopeTables {
    fn new(stage: &StagePlan, config: &ModelConfig) -> Result<Self, ExecError> {
        let mut by_context = BTreeMap::new();
        for phase in &stage.phases {
            if by_context.contains_key(&phase.context) {
                continue;
            }
            if let Some(plan) = &stage.rope {
                let head_dim = config.architecture.head_dim;
                let scaled = rope::inv_freq(head_dim, config.rope.theta, &config.rope.scaling, phase.context);
                agree(stage, plan, &scaled.inv_freq, phase.context, head_dim)?;
            }
            let table = RopeTable::of(&config.architecture, &config.rope, phase.context);
            by_context.insert(phase.context, table);
        }
        Ok(Self { by_context, architecture: config.architecture.clone(), rope: config.rope.clone() })
    }

    /// Tables for texts of up to so many tokens, whatever the stage trains at.
    pub(super) fn up_to(&self, longest: u64) -> LengthTables {
        LengthTables::new(&self.architecture, &self.rope, longest)
    }

    pub(super) fn at(&self, context: u64) -> &RopeTable {
        // Every context of a phase has a table, and steps take theirs from a phase.
        &self.by_context[&context]
    }
}

/// The plan shows frequencies to people and other engines; a run with others would be another run.
fn agree(
    stage: &StagePlan,
    plan: &RopePlan,
    inv_freq: &[f64],
    context: u64,
    head_dim: usize,
) -> Result<(), ExecError> {
    let last = stage.phases.iter().map(|p| p.context).max();
    if plan.inv_freq.is_empty() || last != Some(context) {
        return Ok(());
    }
    let same = plan.inv_freq.len() == inv_freq.len()
        && plan.inv_freq.iter().zip(inv_freq).all(|(a, b)| (a - b).abs() <= 1e-12 * b.abs());
    if same { Ok(()) } else { Err(ExecError::RopeMismatch { stage: stage.name.clone(), head_dim }) }
}

/// The stage's part of the plan, for people who look at its curves.
fn plan_text(stage: &StagePlan) -> String {
    let json = serde_json::to_string_pretty(stage).unwrap_or_default();
    format!("```json\n{json}\n```")
}

/// One sentence on the records of a source that could not be used, with the first few.
fn bad_records(source: &SourceSummary) -> String {
    let examples: Vec<String> = source
        .examples
        .iter()
        .filter(|e| e.bad)
        .take(3)
        .map(|e| format!("{} record {}: {}", e.file, e.record, e.what))
        .collect();
    let (name, bad, all) = (&source.name, source.dropped.bad(), source.records);
    format!("source `{name}`: {bad} of {all} records skipped ({})", examples.join("; "))
}

fn names(stage: &StagePlan) -> impl Iterator<Item = String> {
    stage.mix.iter().map(|m| m.source.clone())
}

fn rows(stage: &StagePlan, batch: &Batch) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = names(stage).map(|n| (n, 0)).collect();
    for source in &batch.source {
        *counts.entry(stage.mix[*source as usize].source.clone()).or_default() += 1;
    }
    counts
}

/// A learning rate that jumps at the edge of a stage costs a run: what the plan says of the first step
/// and what the curve gives must be one number.
fn check_first_rate(stage: &StagePlan) -> Result<(), ExecError> {
    let (planned, curve) = (stage.lr.start, stage.lr.curve.value(stage.step_point(0).tokens));
    // Not `>`: NaN must not pass.
    if (planned - curve).abs() <= 1e-12 * curve.abs() {
        return Ok(());
    }
    Err(ExecError::FirstLearningRate { stage: stage.name.clone(), planned, curve })
}

fn loss_by_source(stage: &StagePlan, batch: &Batch, rows: &[RowLoss]) -> BTreeMap<String, f64> {
    let mut sums = vec![(0.0, 0u64); stage.mix.len()];
    for (source, row) in batch.source.iter().zip(rows) {
        let sum = &mut sums[*source as usize];
        sum.0 += row.nll;
        sum.1 += u64::from(row.predicted);
    }
    names(stage).zip(sums).filter(|(_, s)| s.1 > 0).map(|(n, s)| (n, s.0 / s.1 as f64)).collect()
}

/// Of the plan, as the engine takes them.
fn muon(m: &MuonPlan) -> Muon {
    Muon { momentum: m.momentum, nesterov: m.nesterov, ns_steps: m.ns_steps, update_rms: m.update_rms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::data::{Dropped, Example};

    #[test]
    fn only_broken_records_are_blamed() {
        let example =
            |record, what: &str, bad| Example { file: "a.jsonl".into(), record, what: what.into(), bad };
        let source = SourceSummary {
            name: "web".into(),
            records: 9,
            dropped: Dropped { malformed: 1, excluded: 2, ..Dropped::default() },
            examples: vec![
                example(1, "shares words", false),
                example(2, "shares words", false),
                example(7, "malformed JSON", true),
            ],
            ..SourceSummary::default()
        };
        assert_eq!(
            bad_records(&source),
            "source `web`: 1 of 9 records skipped (a.jsonl record 7: malformed JSON)"
        );
    }
}
