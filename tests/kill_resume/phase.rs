//! What a run was doing when it died, from what it left behind, and waiting for it to do that.

use std::fmt;
use std::path::Path;
use std::time::SystemTime;

/// What a killed process was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Starting, loading a checkpoint, measuring, or between any two others.
    Between,
    /// Writing a shard of tokens.
    Indexing,
    /// In steps that no checkpoint holds.
    Training,
    /// Writing a checkpoint, in steps or not.
    Checkpointing,
    /// Writing the average.
    Souping,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Between => "starting, loading or measuring",
            Self::Indexing => "indexing the data",
            Self::Training => "training",
            Self::Checkpointing => "writing a checkpoint",
            Self::Souping => "souping",
        })
    }
}

const STAGES: [&str; 4] = ["trunk", "branch[2]", "branch[3]", "end"];
const SOUP: &str = "mean";

impl Phase {
    /// Those that a trial must hit.
    pub(crate) const ALL: [Self; 4] = [Self::Indexing, Self::Training, Self::Checkpointing, Self::Souping];

    /// What process `id`, begun at `begin`, left.
    pub(crate) fn of(run: &Path, cache: &Path, id: u32, begin: SystemTime) -> Self {
        if writes(&run.join("checkpoints").join(SOUP), id) {
            Self::Souping
        } else if STAGES.iter().any(|stage| writes(&run.join("checkpoints").join(stage), id)) {
            Self::Checkpointing
        } else if indexes(cache, begin) {
            Self::Indexing
        } else if trains(run, begin) {
            Self::Training
        } else {
            Self::Between
        }
    }
}

/// What a kill waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    Anything,
    Indexing,
    Checkpointing,
    Souping,
}

impl Aim {
    /// Of the kill of this number, the run being in `run`.
    pub(crate) fn at(number: u64, run: &Path) -> Self {
        let checkpoints = run.join("checkpoints");
        let average = finished(&checkpoints.join(SOUP));
        // The soup comes once in a run; where it is next, more than one kill is meant for it.
        let soup_is_next = STAGES[1..3].iter().all(|s| checkpoints.join(s).join("step-24").is_dir());
        match number % 8 {
            1 => Self::Indexing,
            3 => Self::Checkpointing,
            5 => Self::Souping,
            2 | 7 if soup_is_next && !average => Self::Souping,
            _ => Self::Anything,
        }
    }

    /// Whether process `id` is in it now.
    pub(crate) fn is_under_way(self, run: &Path, cache: &Path, id: u32, begin: SystemTime) -> bool {
        match self {
            Self::Anything => true,
            Self::Indexing => indexes(cache, begin),
            Self::Checkpointing => STAGES.iter().any(|s| writes(&run.join("checkpoints").join(s), id)),
            Self::Souping => writes(&run.join("checkpoints").join(SOUP), id),
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect()
}

fn finished(series: &Path) -> bool {
    names(series).iter().any(|name| name.starts_with("step-"))
}

/// Whether process `id` has a checkpoint under way, which bears its number, in `series`.
fn writes(series: &Path, id: u32) -> bool {
    let number = format!("-{id}-");
    names(series).iter().any(|name| name.starts_with(".tmp-") && name.contains(&number))
}

fn changed(file: &Path, begin: SystemTime) -> bool {
    std::fs::metadata(file).and_then(|m| m.modified()).is_ok_and(|at| at >= begin)
}

/// Whether a shard that was touched since `begin` is not finished.
fn indexes(cache: &Path, begin: SystemTime) -> bool {
    names(cache).iter().any(|name| name.ends_with(".partial") && changed(&cache.join(name), begin))
}

/// Whether steps were done since `begin` that no checkpoint holds: a process that starts cuts those of
/// others off.
fn trains(run: &Path, begin: SystemTime) -> bool {
    let metrics = run.join("metrics.jsonl");
    if !changed(&metrics, begin) {
        return false;
    }
    let text = std::fs::read_to_string(&metrics).unwrap_or_default();
    let last = text.lines().rev().find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let Some(last) = last else { return false };
    let (stage, step) = (last["stage"].as_str().unwrap_or_default(), last["step"].as_u64().unwrap_or(0));
    let kept = names(&run.join("checkpoints").join(stage));
    let kept = kept.iter().filter_map(|n| n.strip_prefix("step-")?.parse::<u64>().ok()).max().unwrap_or(0);
    step + 1 > kept
}
