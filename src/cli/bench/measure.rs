//! Times, medians, memory and the products that stand for this machine's peak.

use std::time::Instant;

use crate::runtime::backend::Backend;
use crate::runtime::backend::peak::product_peak;
use crate::runtime::engine::EngineError;
use crate::runtime::random::{normal_pair, philox};

/// The middle value.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => f64::NAN,
        _ if n % 2 == 1 => sorted[n / 2],
        _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// What seconds are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Clock {
    /// The wall: what a user waits.
    #[default]
    Wall,
    /// Processor time over the number of threads: what a quiet machine would give if all threads were
    /// always busy. For machines that others use at the same time; Linux only.
    Cpu,
}

impl Clock {
    /// Seconds now, for `threads` threads.
    pub(super) fn now(self, threads: usize) -> f64 {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let wall = START.get_or_init(Instant::now).elapsed().as_secs_f64();
        match self {
            Clock::Wall => wall,
            Clock::Cpu => cpu_seconds().map_or(wall, |s| s / threads as f64),
        }
    }
}

/// Processor time of all threads so far.
fn cpu_seconds() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task").ok()? {
        // A thread may end while the list is read.
        let Ok(times) = std::fs::read_to_string(task.ok()?.path().join("schedstat")) else { continue };
        nanoseconds += times.split_whitespace().next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds * 1e-9)
}

/// Seconds of the fastest of several runs, at least three and for about `seconds`.
pub(super) fn fastest(clock: Clock, threads: usize, seconds: f64, mut f: impl FnMut()) -> f64 {
    f();
    let (begin, mut best, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < 3 || (begin.elapsed().as_secs_f64() < seconds && runs < 1000) {
        let start = clock.now(threads);
        f();
        best = best.min(clock.now(threads) - start);
        runs += 1;
    }
    best
}

/// Normal numbers.
pub(super) fn normal(stream: u32, len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len + 3);
    for i in 0..len.div_ceil(4) as u32 {
        let [a, b, c, d] = philox(1, [i, stream, 0, 0]);
        values.extend(normal_pair(a, b).into_iter().chain(normal_pair(c, d)).map(|x| x as f32));
    }
    values.truncate(len);
    values
}

/// Numbers rounded into a backend's narrow buffer.
pub(super) fn narrow<B: Backend>(b: &B, stream: u32, len: usize) -> Result<B::Narrow, EngineError> {
    let mut buffer = b.narrow(len)?;
    b.narrow_copy(len, &wide(b, stream, len)?, &mut buffer);
    Ok(buffer)
}

/// Numbers in a backend's wide buffer.
pub(super) fn wide<B: Backend>(b: &B, stream: u32, len: usize) -> Result<B::Wide, EngineError> {
    let mut buffer = b.wide(len)?;
    b.write(&normal(stream, len), &mut buffer, 0);
    Ok(buffer)
}

/// GFLOP/s of the best of three large products: what this machine can do.
pub(super) fn peak<B: Backend>(b: &B, clock: Clock, threads: usize) -> Result<f64, EngineError> {
    Ok(product_peak(b, &|| clock.now(threads), 0.4)? * 1e-9)
}

/// Largest resident set so far in MiB, where the system tells.
pub(super) fn peak_rss_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<f64>().ok()? / 1024.0)
}

/// Forget the largest resident set, so that what came before does not count.
pub(super) fn reset_peak_rss() {
    // Only Linux has the file; elsewhere there is no figure either.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
