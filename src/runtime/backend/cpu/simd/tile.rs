//! What a micro-kernel is asked for: a tile of C, and the panel of B that goes into it.

use super::Step;

/// Where a tile of C goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile {
    /// First value; f32, or bf16 for [`Write::Rounded`].
    pub(super) to: *mut u8,
    /// Values from one row to the next.
    pub(super) stride: usize,
    /// Columns, 32 at most.
    pub(super) columns: usize,
    /// How.
    pub(super) write: Write,
}

/// How a tile is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    /// `c = tile` in f32.
    Set,
    /// `c += tile` in f32.
    Add,
    /// `c = tile` in bf16.
    Rounded,
}

/// A packed panel of B.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    /// Its first step.
    pub(super) from: *const u8,
    /// The panel that comes next, to be brought into the second-level cache meanwhile; or null. Otherwise
    /// the first tile to use it would wait for the third-level cache, line by line.
    pub(super) next: *const u8,
}

impl Panel {
    /// With no other to come.
    pub(super) fn alone(from: *const Step) -> Self {
        Self { from: from.cast(), next: std::ptr::null() }
    }

    /// With the one that comes next.
    pub(super) fn before(from: *const Step, next: Option<&Step>) -> Self {
        let next = next.map_or(std::ptr::null(), std::ptr::from_ref);
        Self { from: from.cast(), next: next.cast() }
    }
}

/// Rows of the largest row tile, that of AVX-512: 14 · 2 accumulators, two registers of B, one broadcast of A,
/// which leaves one of 32.
pub(super) const ROWS: usize = 14;
/// Rows of a column tile; divides a panel.
pub(super) const COLUMNS: usize = 8;
