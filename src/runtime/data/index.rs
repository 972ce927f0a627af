//! Tokenise the files of a source into shards of the cache. Streams: a thread reads, all cores
//! parse and tokenise, and the results are written in file order, so that a shard's bytes are a
//! function of its input. Work already done is found by the hash of that input.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::SystemTime;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cache::{Document, Shard, Unusable, VERSION, Writer};
use super::document::{Outcome, Recipe};
use super::readers::{self, Format, Item, Stretch};
use super::summary::{Dropped, Example};
use super::{DataError, Progress};

/// Plain line files are tokenised in stretches of about this size: what a kill can lose.
const STRETCH: u64 = 128 << 20;
/// Smaller files share a shard up to this size.
const GROUP_BYTES: u64 = 64 << 20;
const GROUP_FILES: usize = 1 << 14;
/// Bytes of records handed to the cores at once.
const BATCH: usize = 4 << 20;
/// Broken records kept as examples, per shard.
const EXAMPLES: usize = 20;
/// Files of fewer records may have nothing but broken ones by accident.
const FEW: u64 = 10;
/// Decontaminated documents kept in the report, per shard.
const TRACED: usize = 1 << 16;

/// What to do with a record that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBad {
    /// Stop with its file and number.
    #[default]
    Fail,
    /// Leave it out and count it.
    Skip,
}

/// Input of one shard.
#[derive(Clone, Debug)]
struct Group {
    stretches: Vec<Stretch>,
    key: blake3::Hash,
    bytes: u64,
}

/// What is kept in a shard about what is not in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ShardReport {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped: Dropped,
    pub(crate) examples: Vec<ShardExample>,
    /// Fields that `where` asks for and no record has.
    #[serde(default)]
    pub(crate) unseen: Vec<String>,
}

/// A dropped record; the file by its number in the shard, whose name may change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ShardExample {
    pub(crate) file: usize,
    pub(crate) record: u64,
    pub(crate) what: String,
    /// Whether it is broken rather than unwanted.
    pub(crate) bad: bool,
}

/// A tokenised shard and where its records came from.
#[derive(Debug)]
pub(crate) struct Indexed {
    pub(crate) shard: Shard,
    pub(crate) report: ShardReport,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) made: bool,
}

impl Indexed {
    pub(crate) fn examples(&self) -> impl Iterator<Item = Example> {
        self.report.examples.iter().map(|e| Example {
            file: self.files.get(e.file).map_or_else(String::new, |p| p.display().to_string()),
            record: e.record,
            what: e.what.clone(),
            bad: e.bad,
        })
    }
}

/// The shards of `files`, in order; those the cache lacks are made. Also the hash of all keys.
pub(crate) fn index(
    name: &str,
    files: &[(PathBuf, Format)],
    recipe: &Recipe<'_>,
    cache_dir: &Path,
    progress: &dyn Progress,
) -> Result<(Vec<Indexed>, blake3::Hash), DataError> {
    std::fs::create_dir_all(cache_dir)
        .map_err(|source| DataError::Cache { path: cache_dir.to_owned(), source })?;
    let before = stamps(files)?;
    let groups = survey(name, files, recipe, progress)?;
    let mut all = blake3::Hasher::new();
    for group in &groups {
        all.update(group.key.as_bytes());
    }
    let mut shards: Vec<Option<Indexed>> = Vec::new();
    for group in &groups {
        let path = shard_path(cache_dir, &group.key);
        shards.push(match Shard::open(&path, &group.key) {
            Ok(shard) => match accept(group, shard, recipe, false)? {
                Ok(shard) => Some(shard),
                Err(why) => {
                    anew(&path, why, progress)?;
                    None
                }
            },
            Err(Unusable::Absent) => None,
            Err(Unusable::Bad(why)) => {
                anew(&path, why, progress)?;
                None
            }
            Err(Unusable::Failed(error)) => return Err(error),
        });
    }
    let todo: u64 = groups.iter().zip(&shards).filter(|(_, s)| s.is_none()).map(|(g, _)| g.bytes).sum();
    if todo > 0 {
        progress.begin(&format!("tokenising {name}"), todo);
    }
    let mut out = Vec::with_capacity(groups.len());
    for (group, shard) in groups.iter().zip(shards) {
        out.push(match shard {
            Some(shard) => shard,
            None => {
                let path = shard_path(cache_dir, &group.key);
                make(&path, group, recipe, progress)?;
                if let Some(changed) =
                    group.stretches.iter().find(|s| stamp(&s.path).ok() != before.get(&s.path).copied())
                {
                    // Its name says that it was made of what was there when the file was hashed.
                    std::fs::remove_file(&path).map_err(DataError::io("remove", &path))?;
                    return Err(DataError::Changed { path: changed.path.clone() });
                }
                let shard = Shard::open(&path, &group.key).map_err(|e| match e {
                    Unusable::Failed(error) => error,
                    Unusable::Bad(why) => DataError::Damaged { path: path.clone(), what: why.into() },
                    Unusable::Absent => DataError::Damaged { path: path.clone(), what: "it vanished".into() },
                })?;
                accept(group, shard, recipe, true)?
                    .map_err(|why| DataError::Damaged { path: path.clone(), what: why.into() })?
            }
        });
    }
    if todo > 0 {
        progress.end();
    }
    Ok((out, all.finalize()))
}

/// Length and time of the last change: what a file that is still being written does not keep.
type Stamp = (u64, Option<SystemTime>);

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    std::fs::metadata(path).map(|meta| (meta.len(), meta.modified().ok()))
}

fn stamps(files: &[(PathBuf, Format)]) -> Result<HashMap<PathBuf, Stamp>, DataError> {
    files
        .iter()
        .map(|(path, _)| Ok((path.clone(), stamp(path).map_err(DataError::io("read", path))?)))
        .collect()
}

fn shard_path(cache_dir: &Path, key: &blake3::Hash) -> PathBuf {
    cache_dir.join(format!("{}.tokens", &key.to_hex()[..32]))
}

/// A shard made while bad records were skipped is still an error where they are fatal. The inner error is why it is to
/// be made anew: what it says of the records cannot be read, or an earlier midc made it, which could keep none of the
/// bad ones as an example, and making it anew finds the first.
fn accept(
    group: &Group,
    shard: Shard,
    recipe: &Recipe<'_>,
    made: bool,
) -> Result<Result<Indexed, &'static str>, DataError> {
    let Ok(report) = serde_json::from_slice::<ShardReport>(shard.report()) else {
        return Ok(Err("what it says of its records cannot be read"));
    };
    let files: Vec<PathBuf> = group.stretches.iter().map(|s| s.path.clone()).collect();
    if recipe.on_bad == OnBad::Fail && report.dropped.bad() > 0 {
        let Some(bad) = report.examples.iter().find(|e| e.bad) else {
            return Ok(Err("it has broken records and does not say which"));
        };
        let path = files.get(bad.file).cloned().unwrap_or_default();
        return Err(DataError::BadRecord { path, record: bad.record, what: bad.what.clone() });
    }
    Ok(Ok(Indexed { shard, report, files, made }))
}

/// Make room for a shard that cannot be used.
fn anew(path: &Path, why: &str, progress: &dyn Progress) -> Result<(), DataError> {
    progress.note(&format!("the cache file `{}` is made anew: {why}", path.display()));
    std::fs::remove_file(path).map_err(DataError::io("remove", path))
}

/// Hash the files and divide them into shards.
fn survey(
    name: &str,
    files: &[(PathBuf, Format)],
    recipe: &Recipe<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Group>, DataError> {
    let mut total = 0;
    for (path, _) in files {
        total += std::fs::metadata(path).map_err(DataError::io("read", path))?.len();
    }
    if total > STRETCH {
        progress.begin(&format!("hashing {name}"), total);
    }
    let pieces: Vec<Vec<(Stretch, blake3::Hash, u64)>> =
        files.par_iter().map(|(path, format)| hash(path, *format, progress)).collect::<Result<_, _>>()?;
    if total > STRETCH {
        progress.end();
    }
    let recipe_digest = recipe.digest();
    let mut groups = Vec::new();
    let mut open: Vec<(Stretch, blake3::Hash, u64)> = Vec::new();
    let close = |open: &mut Vec<(Stretch, blake3::Hash, u64)>, groups: &mut Vec<Group>| {
        if open.is_empty() {
            return;
        }
        let mut hasher = blake3::Hasher::new_derive_key("midc token cache v1");
        hasher.update(&VERSION.to_le_bytes()).update(recipe_digest.as_bytes());
        for (stretch, content, _) in open.iter() {
            let tokens = matches!(stretch.format, Format::Tokens | Format::Megatron);
            hasher.update(stretch.format.name().as_bytes());
            hasher.update(&(if tokens { recipe.vocab_size as u64 } else { 0 }).to_le_bytes());
            hasher.update(&stretch.records_before.to_le_bytes());
            hasher.update(content.as_bytes());
        }
        groups.push(Group {
            key: hasher.finalize(),
            bytes: open.iter().map(|(_, _, n)| n).sum(),
            stretches: std::mem::take(open).into_iter().map(|(s, _, _)| s).collect(),
        });
    };
    for piece in pieces.into_iter().flatten() {
        let bytes: u64 = open.iter().map(|(_, _, n)| n).sum();
        if bytes + piece.2 > GROUP_BYTES || open.len() >= GROUP_FILES {
            close(&mut open, &mut groups);
        }
        open.push(piece);
    }
    close(&mut open, &mut groups);
    Ok(groups)
}

/// Hash a file, in stretches where its format has ranges.
fn hash(
    path: &Path,
    format: Format,
    progress: &dyn Progress,
) -> Result<Vec<(Stretch, blake3::Hash, u64)>, DataError> {
    use std::io::Read;
    let mut out = Vec::new();
    let mut hasher = blake3::Hasher::new();
    let (mut start, mut at, mut lines, mut lines_before) = (0u64, 0u64, 0u64, 0u64);
    let mut paths = vec![path.to_owned()];
    if format == Format::Megatron {
        paths.push(path.with_extension("idx"));
    }
    let stretch = |range, records_before| Stretch { path: path.to_owned(), format, range, records_before };
    let mut buffer = vec![0u8; 1 << 20];
    for path in &paths {
        let mut file = std::fs::File::open(path).map_err(DataError::io("open", path))?;
        loop {
            let n = file.read(&mut buffer).map_err(DataError::io("read", path))?;
            if n == 0 {
                break;
            }
            if progress.stopped() {
                return Err(DataError::Stopped);
            }
            progress.advance(n as u64);
            let mut rest = &buffer[..n];
            if format.has_ranges() {
                if at + n as u64 - start > STRETCH
                    && let Some(cut) = rest.iter().rposition(|b| *b == b'\n')
                {
                    let (head, tail) = rest.split_at(cut + 1);
                    hasher.update(head);
                    lines += newlines(head);
                    at += head.len() as u64;
                    out.push((stretch(Some((start, at)), lines_before), hasher.finalize(), at - start));
                    hasher.reset();
                    (start, lines_before, rest) = (at, lines, tail);
                }
                lines += newlines(rest);
            }
            hasher.update(rest);
            at += rest.len() as u64;
        }
    }
    if start == 0 {
        out.push((stretch(None, 0), hasher.finalize(), at));
    } else if at > start {
        out.push((stretch(Some((start, at)), lines_before), hasher.finalize(), at - start));
    }
    Ok(out)
}

fn newlines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

/// How the records of a file fared.
#[derive(Default)]
struct Tally {
    records: u64,
    bad: Dropped,
    /// The first broken one.
    first: Option<(u64, String)>,
}

impl Tally {
    fn count(&mut self, record: u64, what: &str, why: fn(&mut Dropped)) {
        why(&mut self.bad);
        self.first.get_or_insert_with(|| (record, what.to_owned()));
    }

    /// A file of which every record is broken was misunderstood: to leave it out would be silent. Not so
    /// `.json`, which in a tree of sources may be one value in many lines, or an array of something else.
    fn judge(self, stretch: &Stretch) -> Result<(), DataError> {
        let bad = self.bad.bad();
        let json = stretch.path.extension().is_some_and(|e| e == "json");
        let lines = !matches!(stretch.format, Format::Array(_)) && (!json || bad == self.bad.no_text);
        match self.first {
            Some((record, what)) if self.records >= FEW && bad == self.records && lines => {
                Err(DataError::NoRecord { path: stretch.path.clone(), records: self.records, record, what })
            }
            _ => Ok(()),
        }
    }
}

/// Tokenise `group` into the shard at `path`.
fn make(path: &Path, group: &Group, recipe: &Recipe<'_>, progress: &dyn Progress) -> Result<(), DataError> {
    let width = if recipe.vocab_size <= 1 << 16 { 2 } else { 4 };
    let Some(mut writer) = Writer::create(path, width, !recipe.loss_on.is_empty(), recipe.sort_by.is_some())?
    else {
        return Ok(());
    };
    let mut report = ShardReport::default();
    // Apart, so that neither crowds the other out.
    let (mut kept_bad, mut kept_unwanted) = (0, 0);
    recipe.unseen.take();
    let mut tallies: Vec<Tally> = group.stretches.iter().map(|_| Tally::default()).collect();
    std::thread::scope(|scope| -> Result<(), DataError> {
        let (send, batches) = sync_channel(2);
        let view = recipe.view();
        scope.spawn(move || {
            let mut batch: Vec<(usize, Item)> = Vec::new();
            let mut bytes = 0;
            for (file, stretch) in group.stretches.iter().enumerate() {
                let items = match readers::open(stretch, &view) {
                    Ok(items) => items,
                    Err(error) => return drop(send.send(Err(error))),
                };
                for item in items {
                    let item = match item {
                        Ok(item) => item,
                        Err(error) => return drop(send.send(Err(error))),
                    };
                    bytes += item.body.bytes() + 64;
                    batch.push((file, item));
                    if bytes >= BATCH {
                        bytes = 0;
                        // A receiver that is gone has failed already.
                        if send.send(Ok(std::mem::take(&mut batch))).is_err() {
                            return;
                        }
                    }
                }
            }
            drop(send.send(Ok(batch)));
        });
        // Progress is of bytes on disk; records say only their own size.
        let mut told = 0;
        for batch in batches {
            let batch = batch?;
            if progress.stopped() {
                return Err(DataError::Stopped);
            }
            let bytes: u64 = batch.iter().map(|(_, item)| item.body.bytes() as u64).sum();
            let outcomes: Vec<(usize, u64, Outcome)> = batch
                .into_par_iter()
                .map(|(file, item)| (file, item.record, recipe.document(item.body)))
                .collect();
            for (file, record, outcome) in outcomes {
                report.records += 1;
                tallies[file].records += 1;
                let path = || group.stretches[file].path.clone();
                match outcome {
                    Outcome::Document { tokens, loss, hash, key, bytes } => {
                        report.bytes += bytes;
                        let origin = (file as u64) << 40 | record & ((1 << 40) - 1);
                        writer.push(&tokens, &loss, Document { hash, origin, key })?;
                    }
                    Outcome::Dropped { why, what, bad } => {
                        if bad && recipe.on_bad == OnBad::Fail {
                            return Err(DataError::BadRecord { path: path(), record, what });
                        }
                        why(&mut report.dropped);
                        if bad {
                            tallies[file].count(record, &what, why);
                        }
                        // Every decontaminated document can be traced; of broken ones some are enough.
                        let (kept, most) =
                            if bad { (&mut kept_bad, EXAMPLES) } else { (&mut kept_unwanted, TRACED) };
                        if !what.is_empty() && *kept < most {
                            *kept += 1;
                            report.examples.push(ShardExample { file, record, what, bad });
                        }
                    }
                    Outcome::Failed(why) => return Err(DataError::Tokenize { path: path(), record, why }),
                }
            }
            let step = bytes.min(group.bytes - told);
            told += step;
            progress.advance(step);
        }
        progress.advance(group.bytes - told);
        Ok(())
    })?;
    for (stretch, tally) in group.stretches.iter().zip(tallies) {
        tally.judge(stretch)?;
    }
    report.unseen = recipe.unseen.take();
    let json = serde_json::to_vec(&report).map_err(|e| DataError::io("write", path)(e.into()))?;
    writer.finish(&group.key, &json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::data::decontaminate::Exclusion;
    use crate::runtime::data::document::Unseen;
    use crate::runtime::data::readers::Compression;
    use crate::runtime::data::record::TextOf;
    use crate::runtime::data::{Quiet, TextTokenizer};

    #[test]
    fn a_shard_that_does_not_say_what_it_left_out_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (file, cache) = (dir.path().join("web.jsonl"), dir.path().join("cache"));
        std::fs::write(&file, "{\"text\": \"alpha\"}\nbroken\n").unwrap();
        let files = [(file, Format::Jsonl(Compression::None))];
        let tokenizer = TextTokenizer::open(Path::new("examples/data")).unwrap();
        let recipe = |on_bad| Recipe {
            tokenizer: &tokenizer,
            vocab_size: 4096,
            text: TextOf::Auto,
            filter: None,
            unseen: Unseen::default(),
            loss_on: Vec::new(),
            today: None,
            fim: None,
            exclusion: Exclusion::default(),
            sort_by: None,
            on_bad,
        };
        let read = |on_bad| {
            index("web", &files, &recipe(on_bad), &cache, &Quiet).map(|(mut shards, _)| {
                let shard = shards.remove(0);
                (shard.made, shard.report.dropped.bad())
            })
        };
        assert_eq!(read(OnBad::Skip).unwrap(), (true, 1));
        let damage = |report: &[u8]| {
            let group = survey("web", &files, &recipe(OnBad::Skip), &Quiet).unwrap().remove(0);
            let path = shard_path(&cache, &group.key);
            std::fs::remove_file(&path).unwrap();
            let mut writer = Writer::create(&path, 2, false, false).unwrap().unwrap();
            writer.push(&[1, 0], &[], Document { hash: 1, origin: 0, key: f64::NAN }).unwrap();
            writer.finish(&group.key, report).unwrap();
        };
        for report in [&b""[..], b"{", b"{\"records\": 2}"] {
            damage(report);
            assert_eq!(read(OnBad::Skip).unwrap(), (true, 1));
            assert_eq!(read(OnBad::Skip).unwrap(), (false, 1));
            damage(report);
            assert!(matches!(read(OnBad::Fail), Err(DataError::BadRecord { record: 2, .. })));
            read(OnBad::Skip).unwrap();
        }
    }
}
