//! The worker threads and their scratch memory.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use crate::runtime::engine::EngineError;

/// Worker threads. What a task computes must not depend on which worker runs it.
pub(super) struct Pool {
    workers: rayon::ThreadPool,
    scratch: Vec<Mutex<Vec<f32>>>,
}

impl Pool {
    /// So many workers, or one for each core.
    pub(super) fn new(threads: Option<usize>) -> Result<Self, EngineError> {
        let threads = threads.unwrap_or(0);
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("midc-{i}"))
            .build()
            .map_err(|source| EngineError::Threads { threads, source })?;
        let scratch = (0..workers.current_num_threads()).map(|_| Mutex::default()).collect();
        Ok(Pool { workers, scratch })
    }

    pub(super) fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// Run `f` on a worker.
    pub(super) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.workers.install(f)
    }

    /// `f(i)` for every `i < tasks`, in any order. `scratch` has `len` values of unknown content.
    pub(super) fn tasks(&self, tasks: usize, len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        self.run(|| {
            (0..tasks).into_par_iter().with_max_len(1).for_each(|i| {
                let worker = rayon::current_thread_index().unwrap_or(0);
                // A poisoned scratch is as good as any: its content is unknown anyway.
                let mut scratch = self.scratch[worker].lock().unwrap_or_else(PoisonError::into_inner);
                if scratch.len() < len {
                    scratch.resize(len, 0.0);
                }
                f(i, &mut scratch[..len]);
            });
        });
    }

    /// `f(i, chunk)` for every chunk of `size` values; the last may be shorter.
    pub(super) fn chunks<T: Send>(
        &self,
        values: &mut [T],
        size: usize,
        f: impl Fn(usize, &mut [T]) + Sync + Send,
    ) {
        self.run(|| values.par_chunks_mut(size.max(1)).enumerate().for_each(|(i, c)| f(i, c)));
    }

    /// [`chunks`](Self::chunks) of two buffers side by side.
    pub(super) fn chunks2<T: Send, U: Send>(
        &self,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        f: impl Fn(usize, &mut [T], &mut [U]) + Sync + Send,
    ) {
        self.run(|| {
            let pairs = a.0.par_chunks_mut(a.1.max(1)).zip(b.0.par_chunks_mut(b.1.max(1)));
            pairs.enumerate().for_each(|(i, (a, b))| f(i, a, b));
        });
    }

    /// [`chunks`](Self::chunks) of three buffers side by side.
    pub(super) fn chunks3<T: Send, U: Send, V: Send>(
        &self,
        a: (&mut [T], usize),
        b: (&mut [U], usize),
        c: (&mut [V], usize),
        f: impl Fn(usize, &mut [T], &mut [U], &mut [V]) + Sync + Send,
    ) {
        self.run(|| {
            let pairs = a.0.par_chunks_mut(a.1.max(1)).zip(b.0.par_chunks_mut(b.1.max(1)));
            let triples = pairs.zip(c.0.par_chunks_mut(c.1.max(1)));
            triples.enumerate().for_each(|(i, ((a, b), c))| f(i, a, b, c));
        });
    }

    /// Bytes of scratch so far.
    pub(super) fn scratch_bytes(&self) -> u64 {
        let bytes = |s: &Mutex<Vec<f32>>| 4 * s.lock().unwrap_or_else(PoisonError::into_inner).capacity();
        self.scratch.iter().map(|s| bytes(s) as u64).sum()
    }
}
