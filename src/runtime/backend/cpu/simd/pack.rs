//! How operands are packed: in panels of 32 columns by steps, or in slices of the rows of a tile.
//!
//! A panel of B holds, step after step, the 32 columns side by side; rows and columns beyond the
//! matrix are zero. The same panels serve as A of a transposed product.

use super::PANEL;
use super::element::Element;
use super::tile::ROWS;

/// Steps that `k` values of the summed dimension take.
pub(super) fn steps<E: Element>(k: usize) -> usize {
    k.div_ceil(E::GROUP)
}

/// Panels that `n` columns take.
pub(super) fn panels(n: usize) -> usize {
    n.div_ceil(PANEL)
}

/// Steps of a slice of `ROWS` columns, four bytes for each.
pub(super) type SliceStep = [u32; ROWS];

/// How many rows ahead of the one that is packed the processor is told of: they lie too far apart for it to
/// see them coming.
pub(super) const AHEAD: usize = 16;

/// f32 from one row of so many to the next, an odd number of cache lines: rows a power of two apart would
/// fall into a few sets of the first-level cache.
pub(super) fn odd_lines(values: usize) -> usize {
    16 * (values.div_ceil(16) | 1)
}
