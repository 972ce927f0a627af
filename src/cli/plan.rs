//! `midc plan`: the resolved run as a table, JSON, CSV, or the values at one moment.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use miette::IntoDiagnostic as _;

use super::device::DeviceArg;
use super::input::InputArgs;
use super::{FOUND, compile, curriculum, lines, plan_diff, plan_memory, write};
use crate::plan::{self, Cost, Place, Plan, Shown, StagePlan};
use crate::plot;
use crate::schema::{self, Accelerator, Utilisation};
use crate::sema::show;

/// Show the resolved run
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The curriculum; `-` is standard input
    #[arg(required_unless_present = "schema", value_name = "FILE")]
    file: Option<String>,
    /// How to write the plan
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    format: PlanFormat,
    /// Values at one moment, as JSON: `anneal[42]:25B`, `anneal:step 100`, `anneal:50%`, `anneal:end`
    #[arg(long, value_name = "STAGE:POSITION", conflicts_with = "csv")]
    at: Option<String>,
    /// One line per step edge: learning rate, batch, context and shares
    #[arg(long, conflicts_with = "format")]
    csv: bool,
    /// Lines per stage of `--csv`
    #[arg(long, value_name = "N", default_value_t = 200, requires = "csv", value_parser = clap::value_parser!(u64).range(2..))]
    points: u64,
    /// Write the plan as JSON to a file; `-` is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw the plan as one figure: learning rate, batch, context, mixture and marks over the
    /// tokens; `-` is standard output
    #[arg(long, value_name = "OUT.svg")]
    svg: Option<PathBuf>,
    /// What changes for a run of the plan in OLD.json: its past, learning rate and reading of the
    /// sources, and which stages are stale. The run stands where the checkpoints beside OLD.json
    /// say, or at `--at STAGE:POSITION`
    #[arg(long, value_name = "OLD.json", conflicts_with = "csv")]
    diff: Option<PathBuf>,
    /// Print the JSON schema of the plan
    #[arg(long, exclusive = true)]
    schema: bool,
    /// What the run costs on an accelerator: `h100`, `a100`, `tpu_v5p`, … [default: that of the file's `budget`]
    #[arg(long, value_name = "NAME", value_parser = accelerator)]
    accelerator: Option<&'static Accelerator>,
    /// Share of the accelerator's peak that the run reaches: model FLOPs utilisation [default: that of the file's
    /// `budget`, or 40%]
    #[arg(long, value_name = "SHARE", value_parser = share)]
    mfu: Option<f64>,
    /// Show what training holds in memory on a device: `cpu`, `cuda` or `cuda:N`; fails when it does not fit
    #[arg(long, value_name = "DEVICE", conflicts_with_all = ["csv", "at"])]
    device: Option<DeviceArg>,
    /// Memory of that device, such as 80GiB [default: what the GPU here has free]
    #[arg(long, value_name = "SIZE", value_parser = compile::bytes, requires = "device")]
    memory: Option<u64>,
    /// Show inherited and assumed values, phases and hash
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    input: InputArgs,
}

/// How a plan is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PlanFormat {
    Table,
    Json,
}

/// A moment that does not exist.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("--at: {0}")]
#[diagnostic(code(midc::plan::at), help("write STAGE:POSITION, as in `--at anneal:25B`"))]
pub(super) struct AtError(pub(super) plan::AtError);

pub(crate) fn run(args: Args) -> miette::Result<ExitCode> {
    if args.schema {
        return print(&(json(&Plan::schema())? + "\n"));
    }
    let stdout = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
    let others = args.csv || args.at.is_some() || args.diff.is_some() || args.device.is_some();
    if usize::from(stdout(&args.output)) + usize::from(stdout(&args.svg)) + usize::from(others) > 1
        && (stdout(&args.output) || stdout(&args.svg))
    {
        return Err(miette::miette!(
            help = "give `-o` or `--svg` the name of a file",
            "standard output takes one of what was asked for"
        ));
    }
    let path = args.file.unwrap_or_default();
    let Some((plan, checked)) = curriculum::plan(&path, &args.input)? else {
        return Ok(ExitCode::from(FOUND));
    };
    let budget = checked.curriculum.as_ref().and_then(|c| c.utilisation);
    let accelerator = args.accelerator.or(budget.map(|on| on.accelerator));
    if args.mfu.is_some() && accelerator.is_none() {
        return Err(miette::miette!(
            help = "add `--accelerator h100`, or `accelerator = h100` to the file's `budget`",
            "`--mfu` is the share of an accelerator's peak, and none is named"
        ));
    }
    let mfu = args.mfu.or(budget.map(|on| on.mfu)).unwrap_or(Utilisation::MFU);
    let on = accelerator.map(|accelerator| Utilisation { accelerator, mfu });
    let shown = Shown::new(&plan, checked.curriculum.as_ref(), on);
    if let Some(output) = &args.output {
        put(output, &(json(&plan)? + "\n"))?;
    }
    if let Some(svg) = &args.svg {
        put(svg, &plot::plan_svg(&plan))?;
    }
    if let Some(old) = &args.diff {
        let json = args.format == PlanFormat::Json;
        return print(&plan_diff::diff(old, &plan, args.at.as_deref(), json)?);
    }
    if let Some(at) = &args.at {
        let moment = plan::at(&plan, at).map_err(AtError)?;
        return print(&(json(&moment)? + "\n"));
    }
    if args.csv {
        return print(&csv(&plan, args.points));
    }
    if let Some(device) = args.device {
        let base_dir = Path::new(&path).parent().unwrap_or(Path::new(""));
        let absent = |checkpoint: &str| !base_dir.join(checkpoint).exists();
        let plan = match &checked.curriculum {
            Some(curriculum) => plan::with_declared_shapes(plan, curriculum, absent),
            None => plan,
        };
        return print(&plan_memory::table(&plan, base_dir, device, args.memory)?);
    }
    match args.format {
        PlanFormat::Json => print(&(json(&shown)? + "\n")),
        PlanFormat::Table if args.output.is_some() || args.svg.is_some() => Ok(ExitCode::SUCCESS),
        PlanFormat::Table => print(&table(&shown, args.verbose)),
    }
}

fn accelerator(name: &str) -> Result<&'static Accelerator, String> {
    Accelerator::find(name).ok_or_else(|| {
        let known: Vec<&str> = schema::ACCELERATORS.iter().map(|a| a.name).collect();
        format!("no accelerator of that name is known; known are {}", known.join(", "))
    })
}

/// `40%` or `0.4`, above nothing and at most all.
fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |n| (n, 0.01));
    match number.trim().parse::<f64>().map(|n| n * scale) {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("a share is expected, such as `40%`".to_owned()),
    }
}

fn json(value: &impl serde::Serialize) -> miette::Result<String> {
    serde_json::to_string_pretty(value).into_diagnostic()
}

/// Write `text` where an option says.
fn put(path: &Path, text: &str) -> miette::Result<()> {
    if path == Path::new("-") {
        return lines::output(text);
    }
    Ok(write::replace(path, text)?)
}

fn print(text: &str) -> miette::Result<ExitCode> {
    lines::output(text)?;
    Ok(ExitCode::SUCCESS)
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

fn right(text: impl Into<String>) -> Cell {
    Cell::new(text.into()).set_alignment(CellAlignment::Right)
}

/// A range of values, or the one value.
fn range<T: PartialEq>(start: T, end: T, print: impl Fn(T) -> String) -> String {
    if start == end { print(start) } else { format!("{} → {}", print(start), print(end)) }
}

fn table(shown: &Shown<'_>, verbose: bool) -> String {
    let plan = shown.plan;
    let mut out = String::new();
    let mut stages = new_table(&["stage", "from", "tokens", "steps", "lr", "batch", "context", "rope"]);
    for s in &plan.stages {
        let mark = |field: &str| if s.assumed.iter().any(|a| a == field) { "~" } else { "" };
        let lr = if s.lr.peak > s.lr.start.max(s.lr.end) {
            format!("{} → {} → {}", show::number(s.lr.start), show::number(s.lr.peak), show::number(s.lr.end))
        } else {
            range(s.lr.start, s.lr.end, show::number)
        };
        let context: Vec<u64> = s.context.iter().map(|c| c.value).collect();
        stages.add_row(vec![
            Cell::new(&s.name),
            Cell::new(&s.from),
            right(format!("{}{}", mark("tokens"), show::count(s.tokens))),
            right(format!("{}{}", mark("steps"), show::digits(s.steps))),
            Cell::new(format!("{}{lr}", mark("lr"))),
            Cell::new(format!("{}{}", mark("batch"), batch(s))),
            Cell::new(format!("{}{}", mark("context"), path(&context, show::length))),
            Cell::new(rope(s)),
        ]);
    }
    out.push_str(&format!("{}\n", stages));
    let mut mix = new_table(&["stage", "source", "share", "tokens", "epochs"]);
    for s in &plan.stages {
        for (i, m) in s.mix.iter().enumerate() {
            let moving = m.weight.as_constant().is_none();
            let share = if moving {
                format!(
                    "{} → {} (mean {})",
                    show::percent(m.weight_start),
                    show::percent(m.weight_end),
                    show::percent(m.weight_mean)
                )
            } else {
                show::percent(m.weight_mean)
            };
            mix.add_row(vec![
                Cell::new(if i == 0 { s.name.as_str() } else { "" }),
                Cell::new(&m.source),
                right(share),
                right(show::count(m.tokens)),
                right(m.epochs.map_or_else(|| "?".to_owned(), epochs)),
            ]);
        }
    }
    out.push_str(&format!("{mix}\n"));
    let mut sources = new_table(&["source", "kind", "size", "drawn", "epochs", "read through at"]);
    for ((s, end), times) in plan.sources.iter().zip(&shown.exhaustion).zip(plan::most_epochs(plan)) {
        let place = |p: &Place| format!("{}:{}", p.stage, show::count(p.tokens));
        let ends = match (&end.read_through, &end.exhausted) {
            (Some(through), Some(end)) if through != end => {
                format!("{}, used up at {}", place(through), place(end))
            }
            (Some(through), _) => place(through),
            (None, _) => if s.tokens.is_some() { "never" } else { "?" }.to_owned(),
        };
        sources.add_row(vec![
            Cell::new(&s.name),
            Cell::new(&s.kind),
            right(s.tokens.map_or_else(|| "?".to_owned(), show::count)),
            right(show::count(s.drawn_tokens)),
            right(times.map_or_else(|| "?".to_owned(), epochs)),
            Cell::new(ends),
        ]);
    }
    out.push_str(&format!("{sources}\n"));
    for s in &plan.soups {
        out.push_str(&format!("soup {} = {}\n", s.name, s.describe()));
    }
    let flops = plan.totals.flops.map_or_else(String::new, |f| format!(", {f:.3e} FLOPs"));
    out.push_str(&format!(
        "total: {} tokens, {} steps{flops}\n",
        show::count(plan.totals.tokens),
        show::digits(plan.totals.steps)
    ));
    if let Some(cost) = &shown.cost {
        out.push_str(&priced(cost));
    }
    for s in &plan.stages {
        if s.overshoot_tokens > 0 {
            out.push_str(&format!(
                "{}: the last step goes {} tokens past the end ({} of a step)\n",
                s.name,
                show::digits(s.overshoot_tokens),
                show::percent(s.overshoot_tokens as f64 / s.batch_tokens.end as f64)
            ));
        }
    }
    if plan.stages.iter().any(|s| !s.assumed.is_empty()) {
        out.push_str("~ marks values that no source discloses\n");
    }
    if verbose {
        for (name, doc) in plan.docs() {
            out.push_str(&format!("{name}: {}\n", doc.replace('\n', "\n  ")));
        }
        for s in &plan.stages {
            if !s.inherited.is_empty() {
                out.push_str(&format!("{}: {} from {}\n", s.name, s.inherited.join(", "), s.from));
            }
            if !s.assumed.is_empty() {
                out.push_str(&format!("{}: {} assumed\n", s.name, s.assumed.join(", ")));
            }
            if s.phases.len() > 1 {
                out.push_str(&format!("{}: {} phases of equal steps\n", s.name, s.phases.len()));
            }
        }
        out.push_str(&format!("{}\n", plan.hash));
    }
    out
}

/// GPU-hours, stage by stage where there are several.
fn priced(cost: &Cost) -> String {
    let hours = |h: Option<f64>| match h {
        None => "? (its architecture is not known)".to_owned(),
        Some(h) => show::hours(h),
    };
    let mut out = format!(
        "cost: {} on {} at {} of {:.0} TFLOP/s\n",
        hours(cost.gpu_hours),
        cost.accelerator,
        show::percent(cost.mfu),
        cost.peak_flops * 1e-12
    );
    if cost.stages.len() > 1 {
        for s in &cost.stages {
            out.push_str(&format!("  {}: {}\n", s.stage, hours(s.gpu_hours)));
        }
    }
    out
}

fn epochs(value: f64) -> String {
    if value >= 0.1 { format!("{value:.2}") } else { format!("{value:.2e}") }
}

/// Tokens and rows of a step: where they begin and end, and where they turn in between.
fn batch(s: &StagePlan) -> String {
    let tokens = turns(s.phases.iter().map(|p| p.sequences * p.context));
    let rows = turns(s.phases.iter().map(|p| p.sequences));
    format!("{} tokens, {} seqs", path(&tokens, show::digits), path(&rows, show::digits))
}

/// The first of `values`, the last, and between them those from which they go the other way.
fn turns(values: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut turns: Vec<u64> = Vec::new();
    for value in values {
        match turns.as_slice() {
            [.., last] if *last == value => {}
            [.., before, last] if (before < last) == (*last < value) => {
                turns.pop();
                turns.push(value);
            }
            _ => turns.push(value),
        }
    }
    turns
}

/// Values one after the other; of many, the ends and the range.
fn path(values: &[u64], print: impl Fn(u64) -> String) -> String {
    const SHOWN: usize = 5;
    match values {
        [first, .., last] if values.len() > SHOWN => {
            let (least, most) = values.iter().fold((u64::MAX, 0), |(a, b), v| (a.min(*v), b.max(*v)));
            format!("{} → {} ({} to {})", print(*first), print(*last), print(least), print(most))
        }
        _ => values.iter().map(|v| print(*v)).collect::<Vec<_>>().join(" → "),
    }
}

fn rope(s: &StagePlan) -> String {
    match &s.rope {
        None => "as model".to_owned(),
        Some(r) => match r.factor {
            Some(factor) => format!("{} ×{} on {}", r.method, show::number(factor), show::number(r.theta)),
            None => format!("{} {}", r.method, show::number(r.theta)),
        },
    }
}

/// Evenly spaced step edges of every stage, first and last included.
fn csv(plan: &Plan, points: u64) -> String {
    let sources: Vec<&str> = plan.sources.iter().filter(|s| !s.validation).map(|s| s.name.as_str()).collect();
    let mut out = format!("stage,step,tokens,lr,batch_tokens,context,{}\n", sources.join(","));
    for s in &plan.stages {
        let count = points.min(s.steps.max(1));
        for i in 0..count {
            let step = if count == 1 {
                0
            } else {
                u64::try_from(u128::from(i) * u128::from(s.steps - 1) / u128::from(count - 1)).unwrap_or(0)
            };
            let m = plan::moment(s, s.step_point(step).tokens);
            let shares: Vec<String> =
                sources.iter().map(|name| m.mix.get(*name).copied().unwrap_or(0.0).to_string()).collect();
            out.push_str(&format!(
                "{},{},{},{:e},{},{},{}\n",
                s.name,
                m.step,
                m.tokens,
                m.lr,
                m.batch_tokens,
                m.context,
                shares.join(",")
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_dips_and_returns_is_shown() {
        let shown = |values: &[u64]| path(&turns(values.iter().copied()), show::digits);
        assert_eq!(shown(&[512]), "512");
        assert_eq!(shown(&[64, 128, 256, 512]), "64 → 512");
        assert_eq!(shown(&[512, 64, 512]), "512 → 64 → 512");
        assert_eq!(shown(&[16, 16, 32, 64, 32, 8]), "16 → 64 → 8");
        assert_eq!(shown(&[1, 2, 1, 2, 1, 3]), "1 → 3 (1 to 3)");
    }
}
