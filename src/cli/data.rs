//! `midc data`: read, tokenise and count the sources of a curriculum.

use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use miette::IntoDiagnostic as _;

use super::compile::{self, CompileArgs, Compiled};
use super::lines::{self, tell};
use super::progress::Bar;
use super::{counts, rows, write};
use crate::runtime::data::{Corpus, OnBad, OpenOptions, SourceSummary, Summary, TextTokenizer};
use crate::sema::show;

/// Read, tokenise and count the sources
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    compile: CompileArgs,
    /// How to write the counts
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// `tokenizer.json` or its directory, instead of the model's
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// Where tokenised text is kept between runs
    #[arg(long, value_name = "DIR", default_value = ".midc-cache")]
    cache_dir: PathBuf,
    /// Stop at a malformed line of a data file instead of counting and skipping it
    #[arg(long)]
    strict_data: bool,
    /// Keep the counts beside the curriculum as NAME.data.json, where `midc check` reads them
    #[arg(long, conflicts_with = "source")]
    save: bool,
    /// Write the planned rows of every stage below this directory, for other engines to read
    #[arg(long, value_name = "DIR", conflicts_with_all = ["source", "tokenizer", "save"])]
    export: Option<PathBuf>,
    /// Only these sources
    #[arg(long, value_name = "NAME")]
    source: Vec<String>,
    /// No progress bars
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum DataCommandError {
    #[error("the plan has no source called `{name}`")]
    #[diagnostic(code(midc::data::source), help("it has {known}"))]
    Source { name: String, known: String },
    #[error("the plan names no tokenizer")]
    #[diagnostic(code(midc::data::no_tokenizer), help("give one with `--tokenizer`"))]
    Tokenizer,
}

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    if args.save && args.compile.file.as_os_str() == "-" {
        return Err(miette::miette!(
            help = "name the curriculum: what was counted is kept beside it",
            "`--save` has no place for the counts of standard input"
        ));
    }
    let sound = compile::plan(&args.compile)?;
    // What is wrong may be that sizes are not known, which is what this measures.
    let code = if sound.is_some() { ExitCode::SUCCESS } else { ExitCode::from(super::FOUND) };
    // What came through a pipe is not there a second time.
    if sound.is_none() && (args.export.is_some() || args.compile.file.as_os_str() == "-") {
        return Ok(code);
    }
    let Compiled { plan, base_dir } = match sound {
        Some(compiled) => compiled,
        None => compile::sources(&args.compile)?,
    };
    if let Some(dir) = &args.export {
        let from = rows::From {
            base_dir: &base_dir,
            cache_dir: &args.cache_dir,
            strict: args.strict_data,
            quiet: args.quiet,
        };
        let sets = rows::write(&plan, &from, dir)?;
        for set in sets.iter().filter(|_| !args.quiet) {
            let (stage, count, tokens) = (&set.stage, show::digits(set.rows), show::digits(set.tokens));
            tell!("{stage}: {count} rows, {tokens} tokens as {}", set.dtype);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut sources = plan.sources.clone();
    for name in &args.source {
        if !sources.iter().any(|s| s.name == *name) {
            let known = sources.iter().map(|s| format!("`{}`", s.name)).collect::<Vec<_>>().join(", ");
            return Err(DataCommandError::Source { name: name.clone(), known }.into());
        }
    }
    if !args.source.is_empty() {
        sources.retain(|s| args.source.contains(&s.name));
    }
    let of_model = counts::model_text(&plan.models, &base_dir)?;
    let (stamp, tokenizer) = match (&args.tokenizer, &of_model) {
        (Some(path), _) => (TextTokenizer::stamp(path)?, TextTokenizer::open(path)?),
        (None, Some(text)) => (text.stamp()?, text.open()?),
        (None, None) => return Err(DataCommandError::Tokenizer.into()),
    };
    let vocab_size = of_model.and_then(|m| m.vocab_size).unwrap_or(tokenizer.largest() as usize + 1);
    let heldout = plan.heldout();
    let options = OpenOptions {
        base_dir: &base_dir,
        cache_dir: &args.cache_dir,
        vocab_size,
        heldout,
        on_bad: if args.strict_data { OnBad::Fail } else { OnBad::Skip },
        count_all: true,
    };
    let (_, mut summary) = Corpus::open(&sources, tokenizer, &options, &Bar::new(args.quiet))?;
    summary.tokenizer = stamp;
    if args.save {
        let json = serde_json::to_string_pretty(&summary).into_diagnostic()? + "\n";
        write::replace(&counts::path(&args.compile.file), &json)?;
    }
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&summary).into_diagnostic()? + "\n",
        Format::Text => render(&summary),
    };
    lines::output(&text)?;
    Ok(code)
}

/// The table, then what needs a sentence.
fn render(summary: &Summary) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "source",
        "kind",
        "files",
        "documents",
        "tokens",
        "bytes/token",
        "median",
        "longest",
        "held out",
        "duplicates",
        "dropped",
    ]);
    for s in &summary.sources {
        table.add_row([
            s.name.clone(),
            s.kind.clone(),
            show::digits(s.files),
            show::digits(s.documents),
            show::digits(s.tokens),
            s.bytes_per_token.map_or_else(String::new, |b| format!("{b:.2}")),
            show::digits(s.median),
            show::digits(s.longest),
            show::digits(s.heldout_documents),
            s.duplicates.map_or_else(String::new, show::digits),
            show::digits(s.dropped.total()),
        ]);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut out = format!("{}\n", table.trim_fmt());
    for s in &summary.sources {
        out.push_str(&histogram(s));
        out.push_str(&remarks(s));
    }
    out
}

/// Documents by length, a bar per power of two.
fn histogram(source: &SourceSummary) -> String {
    let most = source.lengths.iter().copied().max().unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    let first = source.lengths.iter().position(|n| *n > 0).unwrap_or(0);
    let mut out = format!("\n{}: documents by length in tokens\n", source.name);
    for (bucket, count) in source.lengths.iter().enumerate().skip(first) {
        let upper = 1u64 << bucket;
        let eighths = (count * 40 * 8).div_ceil(most) as usize;
        let mut bar = "█".repeat(eighths / 8);
        bar.push_str(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8]);
        out.push_str(&format!("  < {:>11} {:>11}  {bar}\n", show::digits(upper), show::digits(*count)));
    }
    out
}

fn remarks(source: &SourceSummary) -> String {
    let mut out = String::new();
    let d = &source.dropped;
    let reasons = [
        ("malformed", d.malformed),
        ("blank", d.blank),
        ("not UTF-8", d.invalid_utf8),
        ("without text", d.no_text),
        ("empty", d.empty),
        ("kept out by `where`", d.filtered),
        ("duplicates", d.duplicates),
        ("kept out by `exclude`", d.excluded),
    ];
    let reasons: Vec<String> = reasons
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(what, n)| format!("{} {what}", show::digits(*n)))
        .collect();
    if !reasons.is_empty() {
        out.push_str(&format!("{}: dropped {}\n", source.name, reasons.join(", ")));
    }
    if let Some(with_loss) = source.loss_tokens {
        out.push_str(&format!(
            "{}: {} tokens carry loss, {} of all\n",
            source.name,
            show::digits(with_loss),
            show::percent(with_loss as f64 / source.tokens.max(1) as f64)
        ));
    }
    let (broken, unwanted): (Vec<_>, Vec<_>) = source.examples.iter().partition(|e| e.bad);
    for example in broken.into_iter().chain(unwanted).take(5) {
        out.push_str(&format!("  {}:{}: {}\n", example.file, example.record, example.what));
    }
    if source.examples.len() > 5 {
        out.push_str(&format!("  … ({} listed by `--format json`)\n", source.examples.len()));
    }
    if let (Some(ratio), Some(declared)) = (source.contradiction(), source.declared_tokens) {
        out.push_str(&format!(
            "warning: `{}` declares {} tokens and has {} ({:.3} times as many)\n",
            source.name,
            show::digits(declared),
            show::digits(source.tokens),
            ratio
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_name_what_was_dropped_and_contradicted() {
        let mut source = SourceSummary { name: "web".into(), tokens: 500, ..SourceSummary::default() };
        assert_eq!(remarks(&source), "");
        source.declared_tokens = Some(1000);
        source.dropped.blank = 2;
        source.loss_tokens = Some(125);
        assert_eq!(
            remarks(&source),
            "web: dropped 2 blank\nweb: 125 tokens carry loss, 25% of all\nwarning: `web` declares 1_000 tokens and has 500 (0.500 times as many)\n"
        );
    }
}
