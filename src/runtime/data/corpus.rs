//! The tokenised sources of a run: which files they are, which of their documents are trained on,
//! and in which order those stand when they are not shuffled.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::Shard;
use super::chat;
use super::decontaminate::Exclusion;
use super::document::{Recipe, Unseen};
use super::files::{self, Unread};
use super::filter::Filter;
use super::fim::Fim;
use super::heldout::{HeldOut, Remaining};
use super::index::{Indexed, index};
use super::readers::Format;
use super::record::TextOf;
use super::{DataError, OnBad, Order, Piece, Progress, SourceSummary, Summary, TextTokenizer};
use crate::plan::{Attention, SourcePlan, StagePlan};
use crate::runtime::batch::{Batch, IGNORE};

/// Why a mask that hides everything is refused.
const NO_LOSS: &str = "is in none of its records, so that no token of them would be trained on; for records of messages it \
                       holds roles, such as `assistant`, and for a `text` template names of its fields";

/// How to open a corpus.
#[derive(Clone, Debug)]
pub struct OpenOptions<'a> {
    /// Directory of the curriculum, which paths are relative to.
    pub base_dir: &'a Path,
    /// Where tokenised text is kept.
    pub cache_dir: &'a Path,
    /// Rows of the model's embedding.
    pub vocab_size: usize,
    /// Share of documents held out of training, 0 to 1.
    pub heldout: f64,
    /// What to do with records that cannot be read.
    pub on_bad: OnBad,
    /// Count what training need not know: equal documents that are kept, tokens that carry loss.
    pub count_all: bool,
}

/// All sources of a run.
#[derive(Clone, Debug)]
pub struct Corpus {
    sources: Vec<Arc<Source>>,
    tokenizer: Arc<TextTokenizer>,
    vocab_size: usize,
}

/// One tokenised source. Its documents are numbered as written.
#[derive(Debug)]
pub struct Source {
    name: String,
    max_epochs: Option<f64>,
    shards: Vec<Indexed>,
    /// First document of each shard.
    starts: Vec<u64>,
    shuffled: bool,
    /// Document at each place, where the order is by a field.
    sorted: Option<Vec<u64>>,
    /// Places that are trained on.
    places: Remaining,
    train_documents: u64,
    train_tokens: u64,
    heldout: Vec<u64>,
    fingerprint: String,
}

impl Corpus {
    /// Read and tokenise `sources`, or find them in the cache.
    ///
    /// # Errors
    /// Whatever is wrong with paths, records, the tokenizer or the cache directory.
    pub fn open(
        sources: &[SourcePlan],
        tokenizer: TextTokenizer,
        options: &OpenOptions<'_>,
        progress: &dyn Progress,
    ) -> Result<(Self, Summary), DataError> {
        tokenizer.check_vocabulary(options.vocab_size)?;
        let tokenizer = Arc::new(tokenizer);
        let mut corpus = Self { sources: Vec::new(), tokenizer, vocab_size: options.vocab_size };
        let mut summary = Summary { heldout: Some(options.heldout), ..Summary::default() };
        let read = sources
            .iter()
            .map(|plan| Read::open(plan, &corpus.tokenizer, options, progress))
            .collect::<Result<Vec<_>, _>>()?;
        let heldout = HeldOut::choose(options.heldout, &read, |one| one.validation, Read::hashes);
        for one in read {
            let (source, of_source) = one.without(&heldout)?;
            corpus.sources.push(Arc::new(source));
            summary.sources.push(of_source);
        }
        Ok((corpus, summary))
    }

    /// The source called `name`.
    pub fn source(&self, name: &str) -> Option<&Arc<Source>> {
        self.sources.iter().find(|s| s.name == name)
    }

    /// That `stage` will find what it draws of every source once the stages `before` it, from the end of
    /// which it descends, have drawn theirs: known before the first of them is trained rather than after
    /// the last. Refuses only what cannot be; [`StageSampler::new`](super::StageSampler::new) has the last
    /// word.
    ///
    /// # Errors
    /// [`DataError::Exhausted`].
    pub fn suffices(&self, stage: &StagePlan, before: &[&StagePlan]) -> Result<(), DataError> {
        for mix in &stage.mix {
            let Some(source) = self.source(&mix.source) else { continue };
            let Some(max_epochs) = source.max_epochs() else { continue };
            let (mut drawn, mut slack) = (0, stage.max_context());
            for earlier in before {
                drawn += earlier.mix.iter().filter(|m| m.source == mix.source).map(|m| m.tokens).sum::<u64>();
                slack += earlier.max_context();
            }
            let tokens = source.train_tokens();
            if (drawn + mix.tokens) as f64 > tokens as f64 * max_epochs + slack as f64 {
                return Err(DataError::Exhausted {
                    source_name: mix.source.clone(),
                    stage: stage.name.clone(),
                    wanted: mix.tokens,
                    drawn,
                    tokens,
                    max_epochs,
                });
            }
        }
        Ok(())
    }

    /// In the order of the plan.
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// Rows of the model's embedding, which every token is one of.
    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What made the tokens.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The held-out documents of `source` end to end in rows of `context` tokens, `max_tokens` at
    /// most (but one row); `None` when it holds none out. The last row is filled up with end-of-sequence
    /// tokens without targets.
    ///
    /// # Errors
    /// There is no such source.
    pub fn heldout_rows(
        &self,
        source: &str,
        context: usize,
        max_tokens: u64,
        attention: Attention,
    ) -> Result<Option<Batch>, DataError> {
        let source = self
            .source(source)
            .ok_or_else(|| DataError::Request(format!("the corpus has no source `{source}`")))?;
        let total: u64 = source.heldout.iter().map(|d| source.length(*d)).sum();
        if total == 0 || context == 0 {
            return Ok(None);
        }
        // Whole rows where there is more than is to be read.
        let most = (max_tokens / context as u64).max(1);
        let mut rows_left = most.min(total.div_ceil(context as u64));
        let mut batch = Batch::empty(context);
        let mut row = Vec::new();
        let mut space = context as u64;
        for &document in &source.heldout {
            let (mut start, end) = (0, source.length(document));
            while start < end && rows_left > 0 {
                let n = (end - start).min(space);
                row.push(Piece { document, start, end: start + n });
                start += n;
                space -= n;
                if space == 0 {
                    source.write_row(&row, context, attention, 0, &mut batch);
                    row.clear();
                    space = context as u64;
                    rows_left -= 1;
                }
            }
        }
        if !row.is_empty() {
            let filled = row.iter().map(|piece| (piece.end - piece.start) as usize).sum::<usize>();
            source.write_row(&row, context, attention, 0, &mut batch);
            // Nothing predicts these and they predict nothing.
            let whole = batch.tokens.len() + context - filled;
            batch.tokens.resize(whole, self.tokenizer.eos());
            batch.targets.resize(whole, IGNORE);
            batch.attend_from.extend(filled as u32..context as u32);
            batch.positions.extend((filled..context).map(|_| 0));
        }
        Ok(Some(batch))
    }
}

impl Batch {
    pub(crate) fn empty(context: usize) -> Self {
        Self {
            context,
            tokens: Vec::new(),
            targets: Vec::new(),
            attend_from: Vec::new(),
            positions: Vec::new(),
            source: Vec::new(),
        }
    }
}

/// A source as it was read, before documents are held out of it.
struct Read {
    source: Source,
    summary: SourceSummary,
    order: Order,
    /// Whether all of it is held out.
    validation: bool,
    documents: u64,
    /// Tokens of all documents.
    tokens: u64,
    /// Documents that `dedup` drops, ascending.
    dropped: Vec<u64>,
    /// Of all shards.
    keys: blake3::Hash,
}

impl Read {
    fn open(
        plan: &SourcePlan,
        tokenizer: &TextTokenizer,
        options: &OpenOptions<'_>,
        progress: &dyn Progress,
    ) -> Result<Self, DataError> {
        let wrong = |field: &'static str, value: &str, why: &str| DataError::Field {
            source_name: plan.name.clone(),
            field,
            value: value.to_owned(),
            why: why.to_owned(),
        };
        let order = Order::parse(&plan.order).ok_or_else(|| {
            wrong(
                "order",
                &plan.order,
                "is none of shuffled, as_written, ascending(field), descending(field)",
            )
        })?;
        let text = TextOf::parse(plan.text.as_deref())
            .map_err(|why| wrong("text", plan.text.as_deref().unwrap_or_default(), &why))?;
        let sort_by = match &order {
            Order::Ascending(field) | Order::Descending(field) => Some(field.clone()),
            Order::Shuffled | Order::AsWritten => None,
        };
        let sort_field = sort_by.clone();
        let files = files::find(&plan.name, &plan.path, options.base_dir, Unread::Note, progress)?;
        without_fields(plan, &files, wrong)?;
        let filter = match &plan.filter {
            Some(filter) => Some(Filter::parse(filter).map_err(|why| wrong("where", filter, &why))?),
            None => None,
        };
        let today = match &plan.today {
            Some(day) => Some(day.parse().map_err(|_| wrong("today", day, "is no day; write `2025-07-08`"))?),
            None => None,
        };
        let fim = match &plan.fim {
            Some(fim) if !plan.loss_on.is_empty() => {
                return Err(wrong("fim", &fim.style, "cannot be combined with `loss_on`"));
            }
            Some(fim) => Some(Fim::new(&plan.name, fim, tokenizer)?),
            None => None,
        };
        let exclusion = if plan.exclude.is_empty() {
            Exclusion::default()
        } else {
            let files = files::find(&plan.name, &plan.exclude, options.base_dir, Unread::Refuse, progress)?;
            Exclusion::read(&files)?
        };
        // A role is known by the name that dialogues of either form have for it.
        let mut loss_on = plan.loss_on.clone();
        loss_on.extend(
            plan.loss_on
                .iter()
                .map(|n| chat::role(n))
                .filter(|r| !plan.loss_on.iter().any(|n| n == r))
                .map(str::to_owned),
        );
        let unseen = Unseen::of(filter.as_ref());
        let recipe = Recipe {
            tokenizer,
            vocab_size: options.vocab_size,
            text,
            filter,
            unseen,
            loss_on,
            today,
            fim,
            exclusion,
            sort_by,
            on_bad: options.on_bad,
        };
        let (shards, keys) = index(&plan.name, &files, &recipe, options.cache_dir, progress)?;

        let mut summary = SourceSummary {
            name: plan.name.clone(),
            kind: plan.kind.clone(),
            files: files.len() as u64,
            declared_tokens: plan.tokens,
            settings: plan.counted(),
            stamp: files::stamp(&files),
            shards: shards.len() as u64,
            shards_made: shards.iter().filter(|s| s.made).count() as u64,
            ..SourceSummary::default()
        };
        let mut starts = Vec::with_capacity(shards.len());
        let (mut documents, mut all_tokens) = (0, 0);
        for shard in &shards {
            starts.push(documents);
            documents += shard.shard.documents();
            all_tokens += shard.shard.tokens();
            summary.records += shard.report.records;
            summary.bytes += shard.report.bytes;
            summary.dropped.add(&shard.report.dropped);
            summary.examples.extend(shard.examples());
        }
        if summary.bytes > 0 {
            summary.bytes_per_token = Some(summary.bytes as f64 / all_tokens as f64);
        }
        if documents > 0 && !plan.loss_on.is_empty() && !shards.iter().any(|s| s.shard.any_loss()) {
            let value = plan.loss_on.join(", ");
            return Err(wrong("loss_on", &value, NO_LOSS));
        }
        if let [first, rest @ ..] = shards.as_slice() {
            let nowhere = |f: &&String| rest.iter().all(|s| s.report.unseen.contains(f));
            for field in first.report.unseen.iter().filter(nowhere) {
                progress.note(&format!(
                    "source `{}`: `where` compares `{field}`, which no record has; a string is written in quotes",
                    plan.name
                ));
            }
        }
        let keyed = |s: &Indexed| (0..s.shard.documents()).any(|d| !s.shard.key(d).is_nan());
        if documents > 0 && sort_field.is_some() && !shards.iter().any(keyed) {
            return Err(wrong("order", &plan.order, "sorts by a field in which no record has a number"));
        }
        let source = Source {
            name: plan.name.clone(),
            max_epochs: plan.max_epochs,
            shards,
            starts,
            shuffled: order == Order::Shuffled,
            sorted: None,
            places: Remaining::default(),
            train_documents: 0,
            train_tokens: 0,
            heldout: Vec::new(),
            fingerprint: String::new(),
        };
        let duplicates = source.duplicates(documents, plan.dedup || options.count_all);
        summary.duplicates = duplicates.as_ref().map(|d| d.len() as u64);
        let dropped = duplicates.filter(|_| plan.dedup).unwrap_or_default();
        summary.dropped.duplicates = dropped.len() as u64;
        if options.count_all && source.shards.iter().any(|s| s.shard.has_mask()) {
            let kept = (0..documents).filter(|d| dropped.binary_search(d).is_err());
            summary.loss_tokens = Some(kept.map(|d| source.loss_tokens(d)).sum());
        }
        let validation = plan.validation;
        Ok(Self { source, summary, order, validation, documents, tokens: all_tokens, dropped, keys })
    }

    /// Documents that `dedup` leaves.
    fn kept(&self) -> impl Iterator<Item = u64> {
        (0..self.documents).filter(|d| self.dropped.binary_search(d).is_err())
    }

    fn hashes(&self) -> impl Iterator<Item = u128> {
        self.kept().map(|d| self.source.hash(d))
    }

    /// What is trained on, and what the source has.
    fn without(self, heldout: &HeldOut) -> Result<(Source, SourceSummary), DataError> {
        // By their content, like their choice: a measurement that reads a part of them does not read the first file's.
        let mut held: Vec<u64> = self.kept().filter(|d| heldout.has(self.source.hash(*d))).collect();
        held.sort_by_key(|d| (self.source.hash(*d), *d));
        let Self { mut source, mut summary, order, validation, documents, tokens, dropped, keys } = self;
        source.heldout = held;
        source.sort(&order, documents);

        let mut removed: Vec<u64> = dropped.iter().chain(&source.heldout).copied().collect();
        removed.sort_unstable();
        let is_removed = |d: &u64| removed.binary_search(d).is_ok();
        let gone: u64 = removed.iter().map(|d| source.length(*d)).sum();
        summary.count_lengths(
            (0..documents).filter(|d| dropped.binary_search(d).is_err()).map(|d| source.length(d)),
        );
        summary.heldout_documents = source.heldout.len() as u64;
        summary.heldout_tokens = source.heldout.iter().map(|d| source.length(*d)).sum();
        source.train_documents = documents - removed.len() as u64;
        source.train_tokens = tokens - gone;
        // In places rather than documents.
        let removed_places = match &source.sorted {
            Some(sorted) => (0u64..).zip(sorted).filter(|(_, d)| is_removed(d)).map(|(p, _)| p).collect(),
            None => removed.clone(),
        };
        source.places = Remaining::without(removed_places);
        let mut hasher = blake3::Hasher::new();
        hasher.update(keys.as_bytes()).update(order.canonical().as_bytes());
        for d in &removed {
            hasher.update(&d.to_le_bytes());
        }
        source.fingerprint = hasher.finalize().to_hex()[..16].to_owned();
        let nothing = if validation { source.heldout.is_empty() } else { source.train_documents == 0 };
        if nothing {
            let why = if summary.records == 0 {
                "its files have no records".to_owned()
            } else {
                let broken = summary.examples.iter().find(|e| e.bad);
                let example = broken.or_else(|| summary.examples.first());
                format!(
                    "of {} records {} were dropped and {} held out{}",
                    summary.records,
                    summary.dropped.total(),
                    summary.heldout_documents,
                    example.map_or_else(String::new, |e| format!(
                        "; `{}`, record {}: {}",
                        e.file, e.record, e.what
                    ))
                )
            };
            return Err(DataError::Empty { source_name: source.name, why });
        }
        Ok((source, summary))
    }
}

/// That a source of files without fields, texts or tokens, does not ask for what only records have: it would be left
/// undone without a word.
fn without_fields(
    plan: &SourcePlan,
    files: &[(PathBuf, Format)],
    wrong: impl Fn(&'static str, &str, &str) -> DataError,
) -> Result<(), DataError> {
    let tokens = files.iter().find(|(_, f)| matches!(f, Format::Tokens | Format::Megatron));
    if let Some((path, _)) = tokens {
        let why = |what: &str| format!("{what}, and `{}` holds tokens", path.display());
        if let Some(fim) = &plan.fim {
            return Err(wrong("fim", &fim.style, &why("rearranges texts")));
        }
        if let Some(first) = plan.exclude.first() {
            return Err(wrong("exclude", first, &why("compares words")));
        }
        if let Some(first) = plan.loss_on.first() {
            return Err(wrong("loss_on", first, &why("names fields or roles")));
        }
    }
    let bare = |f: &Format| matches!(f, Format::Tokens | Format::Megatron | Format::Text(_));
    match (files.first(), files.iter().all(|(_, f)| bare(f))) {
        (Some((path, _)), true) => {
            let why = |what: &str| format!("{what}, and `{}` has none", path.display());
            match (&plan.text, plan.loss_on.first()) {
                (Some(text), _) => Err(wrong("text", text, &why("names fields"))),
                (None, Some(first)) => Err(wrong("loss_on", first, &why("names fields or roles"))),
                (None, None) => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

impl Source {
    /// Documents equal to an earlier one, ascending.
    fn duplicates(&self, documents: u64, wanted: bool) -> Option<Vec<u64>> {
        if !wanted {
            return None;
        }
        let mut seen = HashSet::with_capacity(documents as usize);
        Some((0..documents).filter(|d| !seen.insert(self.hash(*d))).collect())
    }

    fn sort(&mut self, order: &Order, documents: u64) {
        let descending = match order {
            Order::Shuffled | Order::AsWritten => return,
            Order::Ascending(_) => false,
            Order::Descending(_) => true,
        };
        let mut keyed: Vec<(f64, u64)> = (0..documents)
            .map(|d| {
                let (shard, local) = self.find(d);
                (shard.key(local), d)
            })
            .collect();
        // Stable, so ties stay as written; documents without a key come last either way.
        keyed.sort_by(|(a, _), (b, _)| match (a.is_nan(), b.is_nan()) {
            (false, false) if descending => b.total_cmp(a),
            (false, false) => a.total_cmp(b),
            (a, b) => a.cmp(&b),
        });
        self.sorted = Some(keyed.into_iter().map(|(_, d)| d).collect());
    }

    fn find(&self, document: u64) -> (&Shard, u64) {
        let at = self.starts.partition_point(|s| *s <= document) - 1;
        (&self.shards[at].shard, document - self.starts[at])
    }

    fn hash(&self, document: u64) -> u128 {
        let (shard, local) = self.find(document);
        shard.hash(local)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens that are trained on in one epoch.
    pub fn train_tokens(&self) -> u64 {
        self.train_tokens
    }

    /// Documents that are trained on in one epoch.
    pub fn train_documents(&self) -> u64 {
        self.train_documents
    }

    /// Documents held out.
    pub fn heldout_documents(&self) -> u64 {
        self.heldout.len() as u64
    }

    /// Largest number of passes.
    pub fn max_epochs(&self) -> Option<f64> {
        self.max_epochs
    }

    pub(crate) fn shuffled(&self) -> bool {
        self.shuffled
    }

    /// Changes when the documents trained on, their tokens or their numbers change.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The document that stands at `place` of those trained on.
    pub(crate) fn document_at(&self, place: u64) -> u64 {
        let place = self.places.place(place);
        self.sorted.as_ref().map_or(place, |sorted| sorted[place as usize])
    }

    /// Tokens of `document`, its end-of-sequence token included.
    pub fn length(&self, document: u64) -> u64 {
        let (shard, local) = self.find(document);
        let range = shard.range(local);
        range.end - range.start
    }

    /// Those that carry loss.
    fn loss_tokens(&self, document: u64) -> u64 {
        let (shard, local) = self.find(document);
        shard.range(local).filter(|t| shard.has_loss(*t)).count() as u64
    }

    /// Tokens of `document`.
    pub fn tokens(&self, document: u64) -> Vec<u32> {
        let (shard, local) = self.find(document);
        let mut out = Vec::new();
        shard.read(shard.range(local), &mut out);
        out
    }

    /// Where `document` was read: a file and the line or row in it.
    pub fn origin(&self, document: u64) -> (&Path, u64) {
        let at = self.starts.partition_point(|s| *s <= document) - 1;
        let (file, record) = self.shards[at].shard.origin(document - self.starts[at]);
        (self.shards[at].files.get(file).map_or(Path::new(""), PathBuf::as_path), record)
    }

    /// Append a row made of `pieces` to `batch`; `index` is the source's number in the mixture.
    pub(crate) fn write_row(
        &self,
        pieces: &[Piece],
        context: usize,
        attention: Attention,
        index: u32,
        batch: &mut Batch,
    ) {
        let start = batch.tokens.len();
        for piece in pieces {
            let (shard, local) = self.find(piece.document);
            let base = shard.range(local).start;
            let at = (batch.tokens.len() - start) as u32;
            let n = (piece.end - piece.start) as u32;
            shard.read(base + piece.start..base + piece.end, &mut batch.tokens);
            match attention {
                Attention::Causal => {
                    batch.attend_from.extend((0..n).map(|_| 0));
                    batch.positions.extend(at..at + n);
                }
                Attention::Documents => {
                    batch.attend_from.extend((0..n).map(|_| at));
                    batch.positions.extend(0..n);
                }
            }
        }
        let end = batch.tokens.len();
        debug_assert!(end - start <= context);
        batch.targets.extend_from_slice(&batch.tokens[(start + 1).min(end)..end]);
        if end > start {
            batch.targets.push(IGNORE);
        }
        if attention == Attention::Documents {
            // Nothing in a document says what the next one is.
            let mut at = start;
            for piece in pieces {
                at += (piece.end - piece.start) as usize;
                batch.targets[at - 1] = IGNORE;
            }
        }
        let mut at = start;
        for piece in pieces {
            let (shard, local) = self.find(piece.document);
            let base = shard.range(local).start;
            if shard.has_mask() {
                for t in piece.start..piece.end {
                    let predicted_by = at + (t - piece.start) as usize;
                    if predicted_by > start && !shard.has_loss(base + t) {
                        batch.targets[predicted_by - 1] = IGNORE;
                    }
                }
            }
            at += (piece.end - piece.start) as usize;
        }
        batch.source.push(index);
    }
}
