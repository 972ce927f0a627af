//! `midc emit`: launch files for an existing distributed engine.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::compile::{self, CompileArgs, Compiled, Found};
use super::curriculum::{self, Checked};
use super::lines::tell;
use super::{launch_files, rows};
use crate::diag::codes::{GATE_LEFT_OUT, ROPE_TARGET_MISMATCH, TARGET_DROPS, TARGET_LACKS};
use crate::diag::{Diagnostic, Level, LintLevels};
use crate::emit::{self, Engine, Finding, Kind, Launch, Place};
use crate::plan::StagePlan;
use crate::runtime::data::planned_rows;
use crate::sema::{self, Curriculum};
use crate::source::{FileId, Span};

/// Write launch files of a distributed engine for a curriculum
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The engine
    #[arg(value_enum)]
    engine: Engine,
    #[command(flatten)]
    compile: CompileArgs,
    /// Directory to write to
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Write the planned rows of every stage there too, as `midc data FILE --export DIR/rows` does, where the engine
    /// reads them
    #[arg(long)]
    data: bool,
    /// Where tokenised text is kept between runs
    #[arg(long, value_name = "DIR", default_value = ".midc-cache")]
    cache_dir: PathBuf,
    /// No progress bars
    #[arg(long)]
    quiet: bool,
}

impl clap::ValueEnum for Engine {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Transformers, Self::OlmoCore, Self::Torchtitan, Self::MegatronBridge]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()).help(self.checked()))
    }
}

/// Rows of a stage that are counted one by one; of larger stages the shares are known to a row anyway.
const COUNTED_ROWS: u64 = 20_000_000;

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    let Some(mut found) = compile::plan_and_file(&args.compile)? else {
        return Ok(ExitCode::from(super::FOUND));
    };
    let Some((launch, _)) = lower(args.engine, &mut found, &args.compile.levels()?) else {
        return Ok(ExitCode::from(super::FOUND));
    };
    let Compiled { plan, base_dir } = &found.compiled;
    let there = |name: &str| args.output.join(name).exists();
    if there("metrics.jsonl") || there("checkpoints") && there("plan.json") && !there("run.sh") {
        return Err(miette::miette!(
            code = "midc::emit::run",
            help = "name another directory",
            "`{}` holds a run, whose plan a launch would write over",
            args.output.display()
        ));
    }
    let obsolete = launch_files::obsolete(&launch, plan, &args.output)?;
    launch_files::put(&launch, plan, &args.output, &obsolete)?;
    let rows = args.output.join("rows");
    let reads_rows = args.engine.reads_rows();
    if args.data && reads_rows {
        let from = rows::From { base_dir, cache_dir: &args.cache_dir, strict: false, quiet: args.quiet };
        rows::write(plan, &from, &rows)?;
    }
    if !args.quiet {
        tell!(
            "wrote {} files to {}; {}",
            launch.files.len() + 1,
            args.output.display(),
            args.engine.checked()
        );
        if !reads_rows {
            let aside = if args.data { "; `--data` is left aside" } else { "" };
            tell!(
                "the launch reads data sets of its engine's own and no rows of midc's: see `run.sh`{aside}"
            );
        } else if !args.data {
            let file = args.compile.file.display();
            tell!("the rows are not written yet: `midc data {file} --export {}`", rows.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The launch of a plan for `engine` and the curriculum's directory as the launch names it. Findings are
/// printed; `None` when they are errors.
pub(crate) fn lower(engine: Engine, found: &mut Found, levels: &LintLevels) -> Option<(Launch, PathBuf)> {
    let Compiled { plan, base_dir } = &found.compiled;
    let base = if base_dir.as_os_str().is_empty() { Path::new(".") } else { base_dir };
    let base = base.canonicalize().unwrap_or_else(|_| base.to_owned());
    let mut launch = emit::emit(engine, plan, &base.to_string_lossy(), &count);
    launch.findings.extend(emit::capability::shapes(engine, shapes(found.checked.as_ref())));
    let denied = report(&launch, found.checked.as_mut(), levels);
    (!denied && launch.faithful()).then_some((launch, base))
}

/// The models that start from a checkpoint whose configuration is known, with its `model_type`.
fn shapes(checked: Option<&Checked>) -> impl Iterator<Item = (&str, &str)> {
    let models = checked.and_then(|c| c.curriculum.as_ref()).into_iter().flat_map(|c| &c.models);
    let known = models.filter(|m| m.checkpoint.is_some() && !m.fresh);
    known.filter_map(|m| Some((m.name.as_str(), m.architecture.as_ref()?.model_type.as_str())))
}

/// Rows per source of every step.
fn count(stage: &StagePlan) -> Option<Vec<Vec<u64>>> {
    let rows: u64 = stage.phases.iter().map(|p| p.sequences).max()?.saturating_mul(stage.steps);
    if rows > COUNTED_ROWS {
        return None;
    }
    let planned = planned_rows(stage).ok()?;
    let counts = |rows: &Vec<u32>| {
        let mut counts = vec![0; stage.mix.len()];
        for source in rows {
            counts[*source as usize] += 1;
        }
        counts
    };
    Some(planned.iter().map(counts).collect())
}

/// Findings as diagnostics at their places; as plain lines for a plan whose file is not at hand.
/// Whether one of them is at deny level.
fn report(launch: &Launch, checked: Option<&mut Checked>, levels: &LintLevels) -> bool {
    let Some(checked) = checked.filter(|c| c.curriculum.is_some()) else {
        let mut denied = false;
        for finding in &launch.findings {
            let (Place::Stage(item, _) | Place::Model(item, _) | Place::Soup(item)) = &finding.place;
            let d = diagnostic(finding, Span::new(FileId(0), 0, 0));
            let level = levels.level(d.lint, d.level);
            denied |= level == Level::Deny;
            if level != Level::Allow {
                tell!("`{item}`: {}: {}; {}", finding.message, finding.label, finding.help);
            }
        }
        return denied;
    };
    let place = |finding: &Finding| span(&finding.place, checked.curriculum.as_ref()?);
    // The members of a fan-out are written once, and so is what an engine lacks for them.
    let mut told = HashSet::new();
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    for finding in &launch.findings {
        let Some(span) = place(finding) else { continue };
        if told.insert((span, finding.message.as_str(), finding.label.as_str())) {
            diagnostics.push(diagnostic(finding, span));
        }
    }
    sema::give_levels(&mut checked.files, checked.file, &mut diagnostics);
    levels.apply(&mut diagnostics);
    curriculum::print(&diagnostics, &checked.files);
    diagnostics.iter().any(|d| d.level == Level::Deny)
}

fn diagnostic(finding: &Finding, span: Span) -> Diagnostic {
    let Finding { kind, message, label, help, .. } = finding;
    let found = match kind {
        Kind::Lacks => Diagnostic::error(TARGET_LACKS, span, message, label),
        Kind::RopeMismatch => Diagnostic::error(ROPE_TARGET_MISMATCH, span, message, label),
        Kind::Unjudged => Diagnostic::lint(GATE_LEFT_OUT, "gate_left_out", Level::Deny, span, message, label),
        Kind::Drops => Diagnostic::lint(TARGET_DROPS, "target_drops", Level::Warn, span, message, label),
    };
    found.help(help.clone())
}

/// Where a field or gate is written; the item's name where it is inherited or another block of its own.
fn span(place: &Place, curriculum: &Curriculum) -> Option<Span> {
    match place {
        Place::Stage(name, field) => {
            let stage = curriculum.stages.iter().find(|s| s.name == *name)?;
            if let ("gate", Some(gate)) = (*field, stage.gates.first()) {
                return Some(gate.span);
            }
            Some(stage.fields.get(field).copied().unwrap_or(stage.span))
        }
        Place::Model(name, field) => {
            let model = curriculum.models.iter().find(|m| m.name == *name)?;
            Some(model.fields.get(field).copied().unwrap_or(model.span))
        }
        Place::Soup(name) => curriculum.soups.iter().find(|s| s.name == *name).map(|s| s.span),
    }
}
