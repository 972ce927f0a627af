//! What can go wrong with data, each naming the file (and line) it speaks of.

use std::path::PathBuf;

/// A failure of the data side.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum DataError {
    /// A path or glob of a source matches nothing.
    #[error("source `{source_name}`: `{pattern}` matches no file under `{}`", base.display())]
    #[diagnostic(
        code(midc::data::missing),
        help(
            "paths are relative to the directory of the curriculum, or of the plan where that is what is run; a glob needs at \
             least one match"
        )
    )]
    Missing {
        /// The source.
        source_name: String,
        /// As written.
        pattern: String,
        /// The directory it was resolved against.
        base: PathBuf,
    },
    /// A path at which something is that is no file and no directory.
    #[error("source `{source_name}`: `{pattern}` {what}")]
    #[diagnostic(
        code(midc::data::no_file),
        help("a source is read more than once: name a file, a directory or a glob, or a link to one")
    )]
    NoFile {
        /// The source.
        source_name: String,
        /// As written.
        pattern: String,
        /// What it is.
        what: String,
    },
    /// A glob that cannot be parsed.
    #[error("source `{source_name}`: `{pattern}` is not a valid glob: {why}")]
    #[diagnostic(code(midc::data::glob))]
    Glob {
        /// The source.
        source_name: String,
        /// As written.
        pattern: String,
        /// What the glob parser says.
        why: String,
    },
    /// The operating system refused.
    #[error("cannot {what} `{}`", path.display())]
    #[diagnostic(code(midc::data::io))]
    Io {
        /// What was tried: `read`, `write`, …
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Tokens cannot be kept where they are to be.
    #[error("cannot create `{}` for tokenised text", path.display())]
    #[diagnostic(
        code(midc::data::cache),
        help("name a directory that can be written to with `--cache-dir DIR`")
    )]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A file whose format midc does not read.
    #[error("`{}` is of no format midc reads", path.display())]
    #[diagnostic(
        code(midc::data::format),
        help(
            "known are .jsonl, .jsonl.gz, .jsonl.zst, .json that is an array, .parquet, .npy, .bin (u16, u32 or i64 tokens, with \
             .idx for Megatron) and text files; write other tables, such as .csv, as \
             Parquet or JSON lines, and what `save_to_disk` of `datasets` wrote (.arrow) with its `to_parquet`"
        )
    )]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A record that cannot be read, where such records are fatal.
    #[error("`{}`, record {record}: {what}", path.display())]
    #[diagnostic(
        code(midc::data::bad_record),
        help("mend the record, or leave `--strict-data` out: it is then skipped and counted")
    )]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// Line of a text format, row of a table; from 1.
        record: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A record that cannot be read, of a text to measure on or to compare with, of which none is left out.
    #[error("`{}`, record {record}: {what}", path.display())]
    #[diagnostic(
        code(midc::data::bad_record),
        help(
            "mend the record or take it out: of texts that are measured on or compared with, none is skipped"
        )
    )]
    BadText {
        /// The file.
        path: PathBuf,
        /// Line of a text format, row of a table; from 1.
        record: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A file that is damaged as a whole: a truncated archive, a false header.
    #[error("`{}` is damaged: {what}", path.display())]
    #[diagnostic(code(midc::data::damaged), help("fetch or write the file anew, or leave it out of `path`"))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A Parquet file whose pages are compressed in a way that is not read.
    #[error("`{}` is compressed with {compression}, which midc does not read", path.display())]
    #[diagnostic(
        code(midc::data::compression),
        help(
            "write it anew with zstd, snappy or gzip, as in `pyarrow.parquet.write_table(table, path, compression=\"zstd\")`"
        )
    )]
    Compression {
        /// The file.
        path: PathBuf,
        /// Its name in the format.
        compression: String,
    },
    /// A file that was written to while it was read.
    #[error("`{}` changed while it was read", path.display())]
    #[diagnostic(code(midc::data::changed), help("wait until it is complete, then begin again"))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A table without the column that holds the text.
    #[error("`{}` has no column {}{}", path.display(), listed(wanted, " or "), has(columns))]
    #[diagnostic(
        code(midc::data::no_column),
        help(
            "name the column that holds the text in `text` of the source (`--text` of `midc eval`), or leave the file out of `path`"
        )
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// One of these is wanted.
        wanted: Vec<String>,
        /// The columns it has.
        columns: Vec<String>,
    },
    /// A file of which no record can be read, where such records are else left out.
    #[error("not one of the {records} records of `{}` can be used; record {record}: {what}", path.display())]
    #[diagnostic(
        code(midc::data::no_record),
        help(
            "name the field that holds the text in `text` of the source (`--text` of `midc eval`), or leave the file out of `path`"
        )
    )]
    NoRecord {
        /// The file.
        path: PathBuf,
        /// How many records were looked at.
        records: u64,
        /// The first of them: line of a text format, row of a table; from 1.
        record: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A source without a single document.
    #[error("source `{source_name}` has no documents: {why}")]
    #[diagnostic(
        code(midc::data::empty),
        help("look at `path`, `text` and `where` of the source; `midc data` counts what each drops")
    )]
    Empty {
        /// The source.
        source_name: String,
        /// How the records were lost.
        why: String,
    },
    /// The tokenizer file cannot be used.
    #[error("cannot load the tokenizer `{}`: {why}", path.display())]
    #[diagnostic(
        code(midc::data::tokenizer),
        help("midc reads `tokenizer.json` of the Hugging Face tokenizers library")
    )]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the library says.
        why: String,
    },
    /// The library failed on a document.
    #[error("`{}`, record {record}: the tokenizer failed: {why}", path.display())]
    #[diagnostic(code(midc::data::tokenize))]
    Tokenize {
        /// The file.
        path: PathBuf,
        /// Line or row, from 1.
        record: u64,
        /// What the library says.
        why: String,
    },
    /// No end-of-sequence token could be found.
    #[error("the tokenizer `{}` names no end-of-sequence token", path.display())]
    #[diagnostic(
        code(midc::data::no_eos),
        help(
            "set `eos_token` in `tokenizer_config.json` or `eos_token_id` in `config.json` beside the tokenizer"
        )
    )]
    NoEos {
        /// `tokenizer.json`.
        path: PathBuf,
    },
    /// The tokenizer brings a chat template that is none.
    #[error("the chat template with the tokenizer `{}` {why}", path.display())]
    #[diagnostic(
        code(midc::data::chat_template),
        help(
            "mend `chat_template` in `tokenizer_config.json` or `chat_template.jinja` beside the tokenizer"
        )
    )]
    ChatTemplate {
        /// `tokenizer.json`.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The tokenizer makes ids that the model has no embedding for.
    #[error(
        "the tokenizer `{}` makes ids up to {largest}, but the model has {vocab_size} embeddings (`vocab_size`)",
        path.display()
    )]
    #[diagnostic(code(midc::data::vocabulary), help("use the tokenizer the checkpoint was trained with"))]
    Vocabulary {
        /// `tokenizer.json`.
        path: PathBuf,
        /// Largest id.
        largest: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A pre-tokenised file holds an id the model has no embedding for.
    #[error(
        "`{}` holds token {token} at position {position}, but the model has {vocab_size} embeddings (`vocab_size`)",
        path.display()
    )]
    #[diagnostic(
        code(midc::data::token_range),
        help("the file was made with another tokenizer, or its integers have another width")
    )]
    TokenRange {
        /// The file.
        path: PathBuf,
        /// The id.
        token: u64,
        /// Where in the file, in tokens.
        position: u64,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A token file without a header whose integers may have one width or another, or none that fits.
    #[error("the integers of `{}` cannot be told apart: {why}", path.display())]
    #[diagnostic(
        code(midc::data::width),
        help(
            "write the tokens with `numpy.save`, whose header names their type, with the tokenizer of the model"
        )
    )]
    Width {
        /// The file.
        path: PathBuf,
        /// What it may be, or is not.
        why: String,
    },
    /// A field of a source that the data side does not understand.
    #[error("source `{source_name}`: `{field} = {value}` {why}")]
    #[diagnostic(code(midc::data::field))]
    Field {
        /// The source.
        source_name: String,
        /// Field of the source block.
        field: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// More of a source is needed than `max_epochs` allows.
    #[error(
        "source `{source_name}` is used up: {wanted} tokens wanted by stage `{stage}` after {drawn} drawn, \
         and {max_epochs} epochs of {tokens} tokens hold {}",
        limit(*tokens, *max_epochs)
    )]
    #[diagnostic(
        code(midc::data::exhausted),
        help("give the source more text, lower its weight, or raise `max_epochs`")
    )]
    Exhausted {
        /// The source.
        source_name: String,
        /// The stage that asked.
        stage: String,
        /// Tokens it wants.
        wanted: u64,
        /// Tokens drawn before.
        drawn: u64,
        /// Tokens of one epoch.
        tokens: u64,
        /// The cap.
        max_epochs: f64,
    },
    /// A sampler state that does not belong to this data.
    #[error("the data state of source `{source_name}` does not fit its files: {why}")]
    #[diagnostic(
        code(midc::data::state),
        help(
            "the files, the tokenizer or the held-out share changed since the checkpoint was written, or another version of \
             midc wrote it, which reads dialogues otherwise: put back what was there, or begin another run with `--run-dir DIR`"
        )
    )]
    State {
        /// The source.
        source_name: String,
        /// What does not fit.
        why: String,
    },
    /// [`Progress::stopped`](super::Progress::stopped) said so.
    #[error("stopped while the data was being read")]
    #[diagnostic(code(midc::data::stopped), help("what was tokenised is kept in the cache"))]
    Stopped,
    /// A stage asks for a source the corpus was opened without, or the other way round.
    #[error("{0}")]
    #[diagnostic(code(midc::data::request))]
    Request(String),
}

fn listed(names: &[String], last: &str) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((end, rest)) if !rest.is_empty() => format!("{}{last}{end}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// Some of the columns of a table.
fn has(columns: &[String]) -> String {
    const MOST: usize = 20;
    match columns.len() {
        0 => "; it has none at all".to_owned(),
        1..=MOST => format!("; it has {}", listed(columns, " and ")),
        n => format!("; it has {} and {} more", listed(&columns[..MOST], ", "), n - MOST),
    }
}

fn limit(tokens: u64, max_epochs: f64) -> u64 {
    (tokens as f64 * max_epochs) as u64
}

impl DataError {
    /// For `map_err`: an [`DataError::Io`] about `path`.
    pub(crate) fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
