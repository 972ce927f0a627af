//! Blocked attention, forward and backward (FlashAttention, arXiv:2205.14135 and 2307.08691), with
//! causal and document masks, grouped key heads and no array of context × context.
//!
//! Keys and values of all heads are packed once per call. Scores exist for one tile of queries (as many
//! as the row kernel takes) over one block of keys at a time: they are made, weighed and used up
//! while they lie in the first-level cache, and a tile sees no further than its last query.

mod backward;
mod forward;
#[cfg(test)]
mod tests;

use std::ops::Range;

pub(crate) use backward::backward;
pub(crate) use forward::forward;

pub(crate) use backward::Scores;
pub(crate) use forward::Sum;

use super::element::{Element, Stored};
use super::pack::{panels, steps};
use super::tile::{Panel, Tile, Write};
use super::{PANEL, Step, room};
use crate::runtime::backend::AttentionShape;

/// Keys of a block.
pub(super) const KEYS: usize = 128;

/// One row's tokens and one key head, for packing.
fn key_heads(shape: &AttentionShape) -> usize {
    shape.rows * shape.kv_heads
}

/// Steps of a head's keys as columns: panels over the tokens, steps over the head dimension.
fn across<E: Element>(shape: &AttentionShape) -> usize {
    panels(shape.context) * steps::<E>(shape.head_dim)
}

/// Steps of a head's keys or values as rows: panels over the head dimension, steps over the tokens,
/// with a block's worth of zeros behind them because a block of keys may reach past the end.
fn along<E: Element>(shape: &AttentionShape) -> usize {
    panels(shape.head_dim) * depth::<E>(shape)
}

fn depth<E: Element>(shape: &AttentionShape) -> usize {
    steps::<E>(shape.context.next_multiple_of(KEYS))
}

/// Bytes of scratch that [`forward`] takes and, if asked, [`backward`].
pub(crate) fn scratch<E: Element>(shape: &AttentionShape, with_backward: bool) -> usize {
    let (across, along) = (across::<E>(shape), along::<E>(shape));
    let steps = if with_backward {
        let [sums, gathered] = backward::of_queries::<E>(shape);
        2 * across + along + sums + 2 * gathered
    } else {
        across + along
    };
    key_heads(shape) * steps * size_of::<Step>()
}

/// Pack columns `offset..offset + head_dim` of a row's tokens as panels over the tokens.
///
/// # Safety
/// `from` holds `context` rows of `ld` values; the features are there.
unsafe fn pack_across<E: Element, S: Stored<E>>(
    shape: &AttentionShape,
    from: *const S,
    ld: usize,
    to: &mut [Step],
) {
    let per = steps::<E>(shape.head_dim);
    for (p, panel) in to.chunks_mut(per).enumerate() {
        let n = (shape.context - p * PANEL).min(PANEL);
        // SAFETY: the panel's rows are below `context`.
        unsafe { S::pack_columns(from.add(p * PANEL * ld), ld, shape.head_dim, n, panel) };
    }
}

/// Pack the same as panels over the head dimension: `pack` packs columns from one on.
fn pack_along<E: Element>(
    tokens: usize,
    head_dim: usize,
    depth: usize,
    to: &mut [Step],
    pack: impl Fn(usize, usize, &mut [Step]),
) {
    for (p, panel) in to.chunks_mut(depth).enumerate().take(panels(head_dim)) {
        pack(p * PANEL, (head_dim - p * PANEL).min(PANEL), panel);
        panel[steps::<E>(tokens)..].fill(Step([0; PANEL]));
    }
}

/// Room for `values` of a type in aligned memory: a vector that straddles two cache lines takes twice as
/// long to load.
fn space<T>(buffer: &mut Vec<Step>, values: usize) -> *mut T {
    room(buffer, (values * size_of::<T>()).div_ceil(size_of::<Step>())).as_mut_ptr().cast()
}

/// Some steps of each panel of a packed operand.
#[derive(Clone, Copy)]
struct Panels<'a> {
    steps: &'a [Step],
    /// Steps from one panel to the next.
    depth: usize,
    /// The first step.
    from: usize,
    /// How many.
    count: usize,
}

impl Panels<'_> {
    /// The steps of panel `p`.
    fn of(&self, p: usize) -> Panel {
        Panel::alone(&self.steps[p * self.depth + self.from])
    }
}

/// `c (+)= a · b` for as many rows as the row kernel takes of A and `n` columns of B; `c` lies at `to`, `stride` apart.
///
/// # Safety
/// As for the row kernel.
unsafe fn tile_times<E: Element>(
    rows: usize,
    a: *const E,
    lda: usize,
    b: Panels,
    n: usize,
    to: *mut f32,
    stride: usize,
    write: Write,
) {
    for p in 0..panels(n) {
        // SAFETY: by the caller.
        unsafe {
            let to = to.add(p * PANEL).cast();
            let c = Tile { to, stride, columns: (n - p * PANEL).min(PANEL), write };
            E::row_kernel(rows, b.count, a, lda, b.of(p), c);
        }
    }
}

/// Which of `n` keys from `start` on lie in `from..to`, one bit for each; the bits of sixteen are a mask.
fn visible(from: usize, to: usize, start: usize, n: usize) -> u128 {
    const { assert!(KEYS == u128::BITS as usize) };
    let (from, to) = (from.saturating_sub(start).min(n), to.saturating_sub(start).min(n));
    if from < to { (!0 >> (KEYS - to)) & (!0 << from) } else { 0 }
}

/// Where a tile of queries stands to keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    /// No query sees any.
    None,
    /// Some are masked.
    Some,
    /// Every query sees all.
    All,
}

/// What queries `queries` see of keys `start..start + n`. `attend_from` never decreases.
fn sight(attend_from: &[u32], queries: &Range<usize>, start: usize, n: usize) -> Sight {
    if queries.end <= start || attend_from[queries.start] as usize >= start + n {
        Sight::None
    } else if start + n <= queries.start + 1 && attend_from[queries.end - 1] as usize <= start {
        Sight::All
    } else {
        Sight::Some
    }
}
