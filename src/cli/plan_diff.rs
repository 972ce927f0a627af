//! `midc plan FILE --diff OLD.json`: what another plan means for a run under way, as text or JSON.
//! How far the run has come is read from the checkpoints beside OLD.json, or said with `--at`.

use std::fmt::Write as _;
use std::path::Path;

use miette::IntoDiagnostic as _;

use super::plan_file;
use crate::plan::{self, Diff, Plan, StageDiff, Standing, StepsDone};
use crate::runtime::run_dir::steps_done;
use crate::sema::show;

/// The difference from the plan in `old_path` to `new`, as text or as JSON.
///
/// # Errors
/// `old_path` is no plan, its checkpoints cannot be listed, or `at` names no moment of it.
pub(super) fn diff(old_path: &Path, new: &Plan, at: Option<&str>, json: bool) -> miette::Result<String> {
    let old = plan_file::read(old_path)?;
    let progress = match at {
        Some(at) => Some(progress_at(&old, at)?),
        None => progress_beside(&old, old_path)?,
    };
    let diff = plan::diff(&old, new, progress.as_ref());
    if json {
        return Ok(serde_json::to_string_pretty(&diff).into_diagnostic()? + "\n");
    }
    Ok(text(&diff, new, progress.as_ref()))
}

/// All that `--at STAGE:POSITION` has behind it is done.
fn progress_at(old: &Plan, at: &str) -> miette::Result<StepsDone> {
    let moment = plan::at(old, at).map_err(super::plan::AtError)?;
    let mut progress = StepsDone::new();
    let steps = |stage: &str| old.stages.iter().find(|s| s.name == stage).map_or(0, |s| s.steps);
    let mut open = vec![moment.stage.clone()];
    while let Some(name) = open.pop() {
        if progress.contains_key(&name) {
            continue;
        }
        let done = if name == moment.stage { moment.step } else { steps(&name) };
        progress.insert(name.clone(), done);
        let Some(stage) = old.stages.iter().find(|s| s.name == name) else { continue };
        let soup = old.soups.iter().find(|s| s.name == stage.from);
        let places = soup.map_or_else(|| vec![stage.from.clone()], |s| s.ingredients.clone());
        for place in places {
            // `main.stable_end` is a point of `main`; of it, all may or may not be done.
            let of = old.stages.iter().find(|s| {
                s.name == place || place.strip_prefix(s.name.as_str()).is_some_and(|p| p.starts_with('.'))
            });
            open.extend(of.map(|s| s.name.clone()));
        }
    }
    Ok(progress)
}

/// The last checkpoint of every stage in the run directory that holds OLD.json, if it is one.
fn progress_beside(old: &Plan, old_path: &Path) -> miette::Result<Option<StepsDone>> {
    let run_dir = old_path.parent().unwrap_or(Path::new(""));
    if !run_dir.join("checkpoints").is_dir() {
        return Ok(None);
    }
    Ok(Some(steps_done(run_dir, old)?))
}

fn text(diff: &Diff, new: &Plan, progress: Option<&StepsDone>) -> String {
    let mut out = String::new();
    for s in &diff.stages {
        stage(&mut out, s);
    }
    for soup in &diff.soups {
        let made = new.soups.iter().find(|s| &s.name == soup);
        let now = made.map_or("is gone".to_owned(), |s| format!("is now {}", s.describe()));
        let _ = writeln!(out, "soup {soup} {now}");
    }
    if diff.tokens.before != diff.tokens.after || diff.steps.before != diff.steps.after {
        let _ = writeln!(
            out,
            "total: {} tokens, {} steps → {} tokens, {} steps",
            show::count(diff.tokens.before),
            show::digits(diff.steps.before),
            show::count(diff.tokens.after),
            show::digits(diff.steps.after)
        );
    }
    let watched: Vec<&str> =
        diff.stages.iter().filter(|s| !s.watching.is_empty()).map(|s| s.stage.as_str()).collect();
    let follows = progress.is_some_and(|done| diff.obstacles(done).is_empty());
    out.push_str(match (diff.same_outcome, watched.is_empty()) {
        (true, true) => "nothing differs: a run of the old plan goes on with the new one\n",
        (true, false) => {
            "only what watches the run differs: a run of the old plan goes on with the new one\n"
        }
        (false, _) if follows => {
            "another plan: a run of the old one goes on with it by `midc exec FILE --resume --edited`\n"
        }
        (false, _) => "another plan: a run of the old one needs a new run directory to follow it\n",
    });
    if !diff.progress_known && !diff.same_outcome {
        out.push_str("how far the run has come is not known: say it with `--at STAGE:POSITION`\n");
    }
    out
}

fn stage(out: &mut String, s: &StageDiff) {
    let standing = match s.standing {
        Standing::Kept => "kept",
        Standing::GoesOn => "goes on",
        Standing::Stale => "stale",
        Standing::Ahead => "not begun",
        Standing::Changed => "changed",
        Standing::Added => "added",
        Standing::Removed => "removed",
    };
    let why = if s.why.is_empty() { String::new() } else { format!(": {}", s.why.join("; ")) };
    let _ = writeln!(out, "{} ({standing}){why}", s.stage);
    let mut row = |name: &str, text: String| {
        let _ = writeln!(out, "  {name:<10} {text}");
    };
    let tokens = |n: u64| format!("{} tokens", show::count(n));
    if let Some(done) = s.done {
        let fate = match (s.standing, s.same_until) {
            (Standing::Stale, Some(same)) if same.step > 0 => {
                format!(", the first {} of them as in the new plan", show::digits(same.step))
            }
            (Standing::Stale, _) => ", none of them as in the new plan".to_owned(),
            (Standing::GoesOn, _) => ", all as in the new plan".to_owned(),
            _ => String::new(),
        };
        row("done", format!("{} steps, {}{fate}", show::digits(done.step), tokens(done.tokens)));
    } else if let (Some(same), Standing::Changed | Standing::Ahead) = (s.same_until, s.standing)
        && same.step > 0
    {
        row("same", format!("the first {} steps, {}", show::digits(same.step), tokens(same.tokens)));
    }
    for c in &s.changes {
        let from = if c.from == 0 { String::new() } else { format!(", from token {}", show::count(c.from)) };
        // Curves part slowly: where they begin to, both may print the same.
        let moved =
            if c.before == c.after { "differs".to_owned() } else { format!("{} → {}", c.before, c.after) };
        row(&c.what, format!("{moved}{from}"));
    }
    if let Some(lr) = s.lr {
        let pair = |p: plan::Pair<f64>| {
            if p.before == p.after {
                show::number(p.before)
            } else {
                format!("{} → {}", show::number(p.before), show::number(p.after))
            }
        };
        let end = pair(lr.end);
        row("lr", format!("{} at token {}, {end} at the end", pair(lr.next), show::count(lr.at)));
    }
    for m in &s.sources {
        let moved = if m.reordered {
            format!("{} may be read again: its documents or their order change", tokens(m.reread))
        } else if m.reread > 0 {
            format!("{} would be read again", tokens(m.reread))
        } else if m.skipped > 0 {
            format!("{} would be skipped", tokens(m.skipped))
        } else {
            "nothing is read again or skipped".to_owned()
        };
        let end = if m.end.before == m.end.after {
            String::new()
        } else {
            format!("; {} → {} drawn at the end", show::count(m.end.before), show::count(m.end.after))
        };
        row(&m.source, format!("{moved}{end}"));
    }
    if !s.watching.is_empty() {
        row("watching", format!("{} differ; training does not", s.watching.join(", ")));
    }
}
