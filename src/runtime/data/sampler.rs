//! The rows of a stage, step by step: which source, which documents, packed. A pure function of
//! (files, plan, seed, step): stopping and going on does not show.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::order::Walk;
use super::{Corpus, Cursor, DataError, Mixer, Packer, PackerState, Source, quantise};
use crate::plan::{StagePlan, StepPoint};
use crate::runtime::batch::Batch;

/// Where the data of a lineage stands. Small: it goes into every checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SamplerState {
    /// Stage it was written in. A stage of another name starts its shares afresh and goes on with
    /// the cursors.
    pub stage: String,
    /// Steps of that stage done.
    pub step: u64,
    /// Sources of that stage's mixture; empty in what an earlier midc wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<String>,
    /// Of each of them: how far its share is behind, see [`Mixer::deficits`].
    pub deficits: Vec<i64>,
    /// Every source the lineage has read from.
    pub sources: BTreeMap<String, SourceState>,
}

/// Where the reading of a source stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceState {
    /// Identifies the documents the numbers below are about.
    pub documents: String,
    /// Epoch and documents taken.
    pub cursor: Cursor,
    /// Documents taken and not yet used up.
    pub packer: PackerState,
    /// Tokens drawn by the whole lineage.
    pub drawn: u64,
}

impl SamplerState {
    /// The state after a soup of two lineages: of each source the state of the one that read most
    /// of it, so that `max_epochs` holds along every path that led here.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        for (source, state) in other.sources {
            match self.sources.get_mut(&source) {
                Some(known) if known.drawn >= state.drawn => {}
                Some(known) => *known = state,
                None => drop(self.sources.insert(source, state)),
            }
        }
        self
    }
}

/// Gives the batches of a stage in order.
#[derive(Debug)]
pub struct StageSampler {
    plan: StagePlan,
    readers: Vec<Reader>,
    mixer: Mixer,
    step: u64,
    /// Sources of earlier stages that this one does not read.
    others: BTreeMap<String, SourceState>,
}

#[derive(Debug)]
struct Reader {
    source: Arc<Source>,
    walk: Walk,
    packer: Packer,
    drawn: u64,
}

impl StageSampler {
    /// Begin `stage`, or go on in it if `state` was written in it.
    ///
    /// # Errors
    /// A source is missing from the corpus or has changed since `state` was written, or the stage
    /// wants more of one than its `max_epochs` leave.
    pub fn new(stage: &StagePlan, corpus: &Corpus, state: SamplerState) -> Result<Self, DataError> {
        let resumed = state.stage == stage.name;
        let mut others = state.sources;
        let mut readers = Vec::with_capacity(stage.mix.len());
        for mix in &stage.mix {
            let source = corpus.source(&mix.source).ok_or_else(|| {
                DataError::Request(format!(
                    "stage `{}` reads `{}`, which the corpus was opened without",
                    stage.name, mix.source
                ))
            })?;
            let past = others.remove(&mix.source);
            let reader = Reader::resume(source, past, stage.data_seed)?;
            if !resumed {
                reader.check(&stage.name, mix.tokens, stage.max_context())?;
            }
            readers.push(reader);
        }
        let known = state.mixture.len() == state.deficits.len();
        let mixer = match resumed {
            // The mixture may have changed since: nothing is owed to a source that it did not have.
            true if known => {
                let owed: BTreeMap<String, i64> = state.mixture.into_iter().zip(state.deficits).collect();
                Mixer::resume(stage.mix.iter().map(|m| owed.get(&m.source).copied().unwrap_or(0)).collect())
            }
            true if state.deficits.len() == readers.len() => Mixer::resume(state.deficits),
            true => {
                return Err(DataError::Request(format!(
                    "the data state of stage `{}` is about {} sources and its mixture has {}",
                    stage.name,
                    state.deficits.len(),
                    readers.len()
                )));
            }
            false => Mixer::new(readers.len()),
        };
        let step = if resumed { state.step } else { 0 };
        Ok(Self { plan: stage.clone(), readers, mixer, step, others })
    }

    /// The rows of step `point`, which follows the one asked for last. `weights` are the shares
    /// that hold in it, in the order of the stage's mixture.
    ///
    /// # Errors
    /// A source is used up, or `point` or `weights` are not those of the next step.
    pub fn next(&mut self, point: StepPoint, weights: &[f64]) -> Result<Batch, DataError> {
        if point.step != self.step || weights.len() != self.readers.len() {
            return Err(DataError::Request(format!(
                "stage `{}` is at step {} with {} sources; asked for step {} with {} weights",
                self.plan.name,
                self.step,
                self.readers.len(),
                point.step,
                weights.len()
            )));
        }
        let plan = &self.plan;
        let mut later = |n: u64| {
            let step = point.step + n;
            if step >= plan.steps {
                return Ok(None);
            }
            let point = plan.step_point(step);
            let weights: Vec<f64> = plan.mix.iter().map(|m| m.weight.value(point.tokens)).collect();
            Ok(Some((point, quantise(&weights)?)))
        };
        let rows = self.mixer.assign(point, &quantise(weights)?, &mut later)?;
        let context = usize::try_from(point.context).unwrap_or(usize::MAX);
        let mut batch = Batch::empty(context);
        for part in [&mut batch.tokens, &mut batch.targets, &mut batch.attend_from, &mut batch.positions] {
            part.reserve(rows.len() * context);
        }
        let mut pieces = Vec::new();
        for index in rows {
            let reader = &mut self.readers[index as usize];
            reader.check(&self.plan.name, point.context, point.context)?;
            let Reader { source, walk, packer, drawn } = reader;
            let length = |place: u64| source.length(source.document_at(place));
            packer.row(point.context, self.plan.packing, walk, &length, &mut pieces);
            for piece in &mut pieces {
                piece.document = source.document_at(piece.document);
            }
            *drawn += point.context;
            source.write_row(&pieces, context, self.plan.attention, index, &mut batch);
        }
        self.step += 1;
        Ok(batch)
    }

    /// The step [`StageSampler::next`] gives next.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Per source of the mixture, passes over its documents so far, by the whole lineage.
    pub fn epochs(&self) -> Vec<f64> {
        self.readers.iter().map(|r| r.drawn as f64 / r.source.train_tokens() as f64).collect()
    }

    /// The state to go on from, in this stage or the next.
    pub fn state(&self) -> SamplerState {
        let mut sources = self.others.clone();
        for reader in &self.readers {
            let state = SourceState {
                documents: reader.source.fingerprint().to_owned(),
                cursor: reader.walk.cursor().clone(),
                packer: reader.packer.state(),
                drawn: reader.drawn,
            };
            sources.insert(reader.source.name().to_owned(), state);
        }
        SamplerState {
            stage: self.plan.name.clone(),
            step: self.step,
            mixture: self.plan.mix.iter().map(|m| m.source.clone()).collect(),
            deficits: self.mixer.deficits().to_vec(),
            sources,
        }
    }
}

impl Reader {
    fn resume(source: &Arc<Source>, past: Option<SourceState>, seed: u64) -> Result<Self, DataError> {
        let past = past.unwrap_or_default();
        let wrong =
            |why: &str| DataError::State { source_name: source.name().to_owned(), why: why.to_owned() };
        if !past.documents.is_empty() && past.documents != source.fingerprint() {
            return Err(wrong("it was written for other documents"));
        }
        let documents = source.train_documents();
        let sound = past.packer.pending.iter().all(|p| {
            p.document < documents
                && p.start < p.end
                && p.end == source.length(source.document_at(p.document))
        });
        if !sound {
            return Err(wrong("it names parts of documents that do not exist"));
        }
        let walk = Walk::resume(source.name(), documents, source.shuffled(), seed, past.cursor)
            .ok_or_else(|| wrong("it has taken more documents than there are"))?;
        Ok(Self { source: source.clone(), walk, packer: Packer::resume(past.packer), drawn: past.drawn })
    }

    /// That `wanted` more tokens keep within `max_epochs`. A row of `context` tokens may run over
    /// the end of the last epoch, since rows and shares are whole rows.
    fn check(&self, stage: &str, wanted: u64, context: u64) -> Result<(), DataError> {
        let Some(max_epochs) = self.source.max_epochs() else { return Ok(()) };
        let tokens = self.source.train_tokens();
        if (self.drawn + wanted) as f64 > tokens as f64 * max_epochs + context as f64 {
            return Err(DataError::Exhausted {
                source_name: self.source.name().to_owned(),
                stage: stage.to_owned(),
                wanted,
                drawn: self.drawn,
                tokens,
                max_epochs,
            });
        }
        Ok(())
    }
}
