//! Exported rows on disk: `midc data --export`, and reading them back for `midc verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::progress::Bar;
use crate::emit::verify::PlannedRow;
use crate::plan::{ModelPlan, Plan};
use crate::runtime::data::{Corpus, DataError, OnBad, OpenOptions, RowSet, export};
use crate::runtime::model_text::ModelText;

/// What cannot be exported or read back.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub(crate) enum RowsError {
    #[error("model `{model}` has no tokenizer")]
    #[diagnostic(
        code(midc::rows::no_tokenizer),
        help("name one in the model, or put `tokenizer.json` beside its checkpoint")
    )]
    Tokenizer { model: String },
    #[error("the plan does not hold what stage `{stage}` starts from")]
    #[diagnostic(code(midc::rows::broken_plan))]
    Broken { stage: String },
    #[error("cannot read `{}`", path.display())]
    #[diagnostic(code(midc::rows::read), help("`midc data FILE --export DIR` writes the rows of a plan"))]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("`{}` does not describe exported rows", path.display())]
    #[diagnostic(code(midc::rows::malformed), help("export the rows again"))]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` holds other rows than `rows.json` beside it says", path.display())]
    #[diagnostic(code(midc::rows::damaged), help("export the rows again"))]
    Damaged { path: PathBuf },
    #[error(transparent)]
    #[diagnostic(transparent)]
    Data(#[from] DataError),
}

/// Where the text is and how to read it.
pub(crate) struct From<'a> {
    pub(crate) base_dir: &'a Path,
    pub(crate) cache_dir: &'a Path,
    pub(crate) strict: bool,
    pub(crate) quiet: bool,
}

/// Write the planned rows of every stage of `plan` below `dir`.
///
/// # Errors
/// Whatever is wrong with the sources, the tokenizers or the directory.
pub(crate) fn write(plan: &Plan, from: &From<'_>, dir: &Path) -> Result<Vec<RowSet>, RowsError> {
    let bar = Bar::new(from.quiet);
    let mut corpora: BTreeMap<String, Corpus> = BTreeMap::new();
    for stage in &plan.stages {
        let (model, _) =
            plan.lineage(stage).ok_or_else(|| RowsError::Broken { stage: stage.name.clone() })?;
        if !corpora.contains_key(&model.name) {
            corpora.insert(model.name.clone(), corpus(plan, model, from, &bar)?);
        }
    }
    Ok(export(plan, &corpora, dir, &bar)?)
}

fn corpus(plan: &Plan, model: &ModelPlan, from: &From<'_>, bar: &Bar) -> Result<Corpus, RowsError> {
    let text = ModelText::of(model, from.base_dir)?
        .ok_or_else(|| RowsError::Tokenizer { model: model.name.clone() })?;
    let tokenizer = text.open()?;
    let options = OpenOptions {
        base_dir: from.base_dir,
        cache_dir: from.cache_dir,
        vocab_size: text.vocab_size.unwrap_or(tokenizer.largest() as usize + 1),
        heldout: plan.heldout(),
        on_bad: if from.strict { OnBad::Fail } else { OnBad::Skip },
        count_all: false,
    };
    Ok(Corpus::open(&plan.sources, tokenizer, &options, bar)?.0)
}

/// What a `rows.json` says, if it is there and whole.
pub(crate) fn about(path: &Path) -> Option<RowSet> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The exported rows of a stage: what `rows.json` says, and every row in order.
///
/// # Errors
/// A file that is missing or not what it should be.
pub(crate) fn read(dir: &Path) -> Result<(RowSet, Vec<PlannedRow>), RowsError> {
    let bytes = |name: &str| {
        let path = dir.join(name);
        std::fs::read(&path).map_err(|source| RowsError::Read { path, source })
    };
    let damaged = |name: &str| RowsError::Damaged { path: dir.join(name) };
    let set: RowSet = serde_json::from_slice(&bytes("rows.json")?)
        .map_err(|source| RowsError::Malformed { path: dir.join("rows.json"), source })?;
    let index = bytes("index.bin")?;
    let rows: Option<Vec<PlannedRow>> = index
        .chunks(8)
        .map(|entry| {
            let (crc, source) = entry.split_first_chunk::<4>()?;
            let source = u32::from_le_bytes(*source.first_chunk::<4>()?);
            let source = set.sources.get(source as usize)?.clone();
            Some(PlannedRow { crc: u32::from_le_bytes(*crc), source })
        })
        .collect();
    let rows = rows.filter(|rows| rows.len() as u64 == set.rows).ok_or_else(|| damaged("index.bin"))?;
    Ok((set, rows))
}
