//! The output layer up to the exponentials of its logits: a tile of logits becomes exponentials while it
//! lies in the first-level cache, and in the format of the kernels it is half as long as logits in f32.

use rayon::prelude::*;

use super::element::{Element, Stored};
use super::gemm::{Blocks, PACKED_STEPS, blocks_of};
use super::pack::{panels, steps};
use super::tile::{Panel, ROWS, Tile, Write};
use super::{PANEL, Shared, Workspace, room};
use crate::runtime::backend::cpu::linear::{BLOCK, Exponentials, Shape};

/// Panels of a [`BLOCK`].
const BLOCK_PANELS: usize = BLOCK / PANEL;

/// As [`Products::exponentials`](crate::runtime::backend::cpu::linear::Products::exponentials).
///
/// `inputs` must be even where pairs of bf16 are multiplied.
pub(crate) fn exponentials<E: Element, S: Stored<E>>(
    work: &mut Workspace,
    shape: Shape,
    x: &[S],
    w: &[f32],
    targets: &[u32],
    to: Exponentials<'_, S>,
) {
    let Exponentials { values: to, parts, of_target } = to;
    let Shape { rows, inputs, outputs, stride } = shape;
    assert!(inputs.is_multiple_of(E::GROUP) && outputs <= stride);
    assert!(x.len() >= rows * inputs && w.len() >= outputs * inputs && to.len() >= shape.extent());
    let all_blocks = outputs.div_ceil(BLOCK);
    assert!(targets.len() >= rows && of_target.len() >= rows && parts.len() >= rows * all_blocks);
    let depth = steps::<E>(inputs);
    let (x, to) = (Shared::of(x), Shared::new(to));
    let (parts, of_target) = (Shared::new(parts), Shared::new(of_target));
    let at_once = (PACKED_STEPS / depth.max(1) / BLOCK_PANELS).max(1) * BLOCK_PANELS;
    let tiles = rows.div_ceil(E::ROWS);
    let blocks_of_rows = Blocks::new::<E, S>(&mut work.rows, depth);
    let row_blocks = blocks_of(tiles, blocks_of_rows.tiles);
    for from in (0..panels(outputs)).step_by(at_once) {
        let count = (panels(outputs) - from).min(at_once);
        let b = room(&mut work.panels, count * depth);
        b.par_chunks_mut(depth).enumerate().for_each(|(p, panel)| {
            let column = (from + p) * PANEL;
            // SAFETY: the features are the caller's promise; the rows of `w` are within it.
            unsafe {
                let rows = w.as_ptr().add(column * inputs);
                E::pack_weight_columns(rows, inputs, inputs, (outputs - column).min(PANEL), panel);
            }
        });
        let b = &*b;
        let blocks = count.div_ceil(BLOCK_PANELS);
        (0..row_blocks * blocks).into_par_iter().for_each(|task| {
            let (row_block, block) = (task / blocks, task % blocks);
            let tile_rows = |i: usize| (i * tiles / row_blocks * E::ROWS).min(rows);
            let (first, last) = (tile_rows(row_block), tile_rows(row_block + 1));
            // SAFETY: once for each task, which waits for none; the rows are rows of `x`.
            let (x, lda) = unsafe {
                let scratch = blocks_of_rows.of_this_thread();
                S::rows(x.at(first * inputs), inputs, last - first, inputs, scratch)
            };
            let column = (from + block * BLOCK_PANELS) * PANEL;
            let columns = (outputs - column).min(BLOCK);
            let mut logits = [[0.0f32; BLOCK]; ROWS];
            for i in (first..last).step_by(E::ROWS) {
                let count = (last - i).min(E::ROWS);
                for p in 0..panels(columns) {
                    // SAFETY: the rows are rows of `x`, the panel has `depth` steps, the tile lies in `logits`.
                    unsafe {
                        let c = Tile {
                            to: logits.as_mut_ptr().cast::<f32>().add(p * PANEL).cast(),
                            stride: BLOCK,
                            columns: PANEL,
                            write: Write::Set,
                        };
                        let at = (block * BLOCK_PANELS + p) * depth;
                        let next = (i == first && p + 1 < panels(columns)).then(|| &b[at + depth]);
                        let b = Panel::before(&b[at], next);
                        E::row_kernel(count, depth, x.add((i - first) * lda), lda, b, c);
                    }
                }
                for (row, logits) in (i..).zip(&logits[..count]) {
                    // SAFETY: this task alone has these columns of these rows.
                    unsafe {
                        let part = S::exponentials(&logits[..columns], to.at(row * stride + column));
                        *parts.at(row * all_blocks + column / BLOCK) = part;
                        let hit = (targets[row] as usize).wrapping_sub(column);
                        if hit < columns {
                            *of_target.at(row) = logits[hit];
                        }
                    }
                }
            }
        });
    }
}
