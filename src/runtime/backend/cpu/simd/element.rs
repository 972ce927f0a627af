//! What the kernels ask of the values they multiply and of those in memory, whatever instructions they
//! are made of.

use std::mem::MaybeUninit;

use super::Step;
use super::attention::{Scores, Sum};
use super::pack::SliceStep;
use super::tile::{Panel, Tile, Write};
use crate::runtime::backend::cpu::linear::Part;

/// What is multiplied, and by which instructions: f32 or pairs of bf16 with AVX-512, which go by the names
/// of the types, or f32 with AVX2 ([`Avx2`](super::Avx2)).
///
/// # Safety
/// The unsafe methods need the processor features of the type and pointers valid for what the shapes name.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Consecutive values of the summed dimension in one step.
    const GROUP: usize;
    /// Rows of a whole tile, [`tile::ROWS`](super::tile::ROWS) at most.
    const ROWS: usize;

    /// `c (+)= a · b` for up to [`ROWS`](Self::ROWS) rows of A, `lda` values apart, each of `steps` steps.
    unsafe fn row_kernel(rows: usize, steps: usize, a: *const Self, lda: usize, b: Panel, c: Tile);
    /// `c (+)= aᵀ · b` for up to [`ROWS`](Self::ROWS) columns of A packed as a slice.
    unsafe fn slice_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile);
    /// `c (+)= aᵀ · b` for up to [`COLUMNS`](super::tile::COLUMNS) columns of a packed panel of A, from the one
    /// `a` points to.
    unsafe fn column_kernel(rows: usize, steps: usize, a: *const u8, b: Panel, c: Tile);

    /// [`Stored::pack_rows`] of values that need no conversion.
    unsafe fn pack_rows(from: *const Self, ld: usize, k: usize, columns: usize, to: &mut [Step]);
    /// [`Stored::pack_rows`] of weights, rounded to what is multiplied.
    unsafe fn pack_weight_rows(from: *const f32, ld: usize, k: usize, columns: usize, to: &mut [Step]);
    /// [`Stored::pack_columns`] of weights, rounded to what is multiplied.
    unsafe fn pack_weight_columns(from: *const f32, ld: usize, k: usize, columns: usize, to: &mut [Step]);

    /// Weights of a tile's scores over `n` keys, added to its `sums`; one row of `rows`, `d` values, for each.
    /// Scores and weights are rows of [`KEYS`](super::attention::KEYS), weights zero from `n` to the end of a
    /// panel. `WHOLE` when every query sees all keys of a whole block, otherwise `seen_by` says which.
    unsafe fn weigh<const WHOLE: bool>(
        n: usize,
        log_scale: f32,
        scores: *const f32,
        sums: &mut [Sum],
        seen_by: impl Fn(usize) -> u128,
        d: usize,
        rows: *mut f32,
        weights: *mut Self,
    );
    /// Weights p and gradients d_score = p (dp − delta) of a tile of scores over one panel of keys, both
    /// rounded: two rows at a time into the steps of `weights` and `score_grads`, the second as `rows`,
    /// [`KEYS`](super::attention::KEYS) apart, too.
    ///
    /// Scores and weight gradients are a row of a panel's width for each of the logs, in aligned memory; there
    /// are rows and steps for an even number of them.
    unsafe fn score_gradients<const WHOLE: bool>(
        of: &Scores<'_, impl Fn(usize) -> u128>,
        scores: *const f32,
        weight_grads: *const f32,
        weights: *mut u32,
        score_grads: *mut u32,
        rows: *mut Self,
    );
}

/// What narrow values are stored as, for kernels that multiply `E`: `E` itself, or bf16 for kernels that
/// multiply f32.
///
/// # Safety
/// As for [`Element`].
pub(crate) trait Stored<E: Element>: Copy + Send + Sync {
    /// How a tile is written as stored values.
    const WRITE: Write;

    /// Pack one panel of B = `from`, a row-major `[k, ld]` matrix, of its `columns ≤ 32` columns from the
    /// pointer on.
    unsafe fn pack_rows(from: *const Self, ld: usize, k: usize, columns: usize, to: &mut [Step]);
    /// Pack one panel of B = `from`ᵀ, `from` being `columns ≤ 32` rows, `ld` apart, of `k` values.
    unsafe fn pack_columns(from: *const Self, ld: usize, k: usize, columns: usize, to: &mut [Step]);
    /// Pack `columns` columns of `from`, row-major `[k, ld]`, as slices of [`Element::ROWS`], each of them `steps::<E>(k)` steps
    /// with the columns side by side, `depth` steps from slice to slice: A of a transposed product, as few
    /// cache lines of it as there are values.
    unsafe fn pack_slices(
        from: *const Self,
        ld: usize,
        k: usize,
        columns: usize,
        depth: usize,
        to: &mut [MaybeUninit<SliceStep>],
    );
    /// `rows` rows of `values`, `ld` apart, as the row kernel reads them, and how far apart it finds them:
    /// where they lie, or copied to `scratch`.
    unsafe fn rows(
        from: *const Self,
        ld: usize,
        rows: usize,
        values: usize,
        scratch: &mut [Step],
    ) -> (*const E, usize);
    /// Steps of scratch that [`Stored::rows`] wants.
    fn room(rows: usize, values: usize) -> usize;
    /// `count` rows of `d` values, `ld` apart, one after the other. In place, rows a power of two apart
    /// would fall into a few sets of the first-level cache.
    unsafe fn gather(count: usize, d: usize, from: *const Self, ld: usize, to: *mut E);
    /// `to = from · factor`, rounded.
    unsafe fn round(from: &[f32], factor: f32, to: *mut Self);
    /// Sum of the products of `d` values.
    unsafe fn dot(d: usize, a: *const Self, b: *const E) -> f32;
    /// `to = e^(logits − largest)`, rounded.
    unsafe fn exponentials(logits: &[f32], to: *mut Self) -> Part;
}
