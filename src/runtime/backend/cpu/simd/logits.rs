//! The output layer up to the exponentials of its logits: a tile of logits becomes exponentials while it
//! lies in the first-level cache, and in the format of the kernels it is half as long as logits in f32.

use std::arch::x86_64::*;

use rayon::prelude::*;

use super::element::{Element, Stored, first};
use super::exp::{FULL, exp2};
use super::gemm::{Blocks, PACKED_STEPS, blocks_of, weights};
use super::micro::{Panel, ROWS, Tile, Write};
use super::pack::{self, Weight, panels, steps};
use super::{PANEL, Shared, Workspace, room};
use crate::runtime::backend::cpu::linear::{BLOCK, Exponentials, Part, Shape};

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
    let tiles = rows.div_ceil(ROWS);
    let blocks_of_rows = Blocks::new::<E, S>(&mut work.rows, depth);
    let row_blocks = blocks_of(tiles, blocks_of_rows.tiles);
    for from in (0..panels(outputs)).step_by(at_once) {
        let count = (panels(outputs) - from).min(at_once);
        let b = room(&mut work.panels, count * depth);
        b.par_chunks_mut(depth).enumerate().for_each(|(p, panel)| {
            let column = (from + p) * PANEL;
            // SAFETY: the features are the caller's promise; the rows of `w` are within it.
            unsafe {
                let rows = weights(w).add(column * inputs);
                pack::columns::<E, Weight>(rows, inputs, inputs, (outputs - column).min(PANEL), panel);
            }
        });
        let b = &*b;
        let blocks = count.div_ceil(BLOCK_PANELS);
        (0..row_blocks * blocks).into_par_iter().for_each(|task| {
            let (row_block, block) = (task / blocks, task % blocks);
            let tile_rows = |i: usize| (i * tiles / row_blocks * ROWS).min(rows);
            let (first, last) = (tile_rows(row_block), tile_rows(row_block + 1));
            // SAFETY: once for each task, which waits for none; the rows are rows of `x`.
            let (x, lda) = unsafe {
                let scratch = blocks_of_rows.of_this_thread();
                S::rows(x.at(first * inputs), inputs, last - first, inputs, scratch)
            };
            let column = (from + block * BLOCK_PANELS) * PANEL;
            let columns = (outputs - column).min(BLOCK);
            let mut logits = [[0.0f32; BLOCK]; ROWS];
            for i in (first..last).step_by(ROWS) {
                let count = (last - i).min(ROWS);
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
                        let part = finish::<E, S>(&logits[..columns], to.at(row * stride + column));
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

/// `to = e^(logits − largest)`, rounded.
///
/// # Safety
/// Needs the features of the format; `to` has room for as many.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn finish<E: Element, S: Stored<E>>(logits: &[f32], to: *mut S) -> Part {
    // No closures here and no adapters over them: they are not compiled for these features, and would be
    // called for each vector.
    let mut lanes = _mm512_set1_ps(f32::NEG_INFINITY);
    for at in (0..logits.len()).step_by(16) {
        let mask = first(logits.len() - at);
        // SAFETY: masked lanes are not read.
        let values = unsafe { _mm512_maskz_loadu_ps(mask, logits.as_ptr().add(at)) };
        // The second is taken where one is NaN: the exponentials show it.
        lanes = _mm512_mask_max_ps(lanes, mask, values, lanes);
    }
    let largest = _mm512_reduce_max_ps(lanes);
    let mut sum = _mm512_setzero_ps();
    for at in (0..logits.len()).step_by(16) {
        let mask = first(logits.len() - at);
        // SAFETY: masked lanes are neither read nor written.
        unsafe {
            let values = _mm512_maskz_loadu_ps(mask, logits.as_ptr().add(at));
            let below = _mm512_sub_ps(values, _mm512_set1_ps(largest));
            // In full, whatever the format: the sum is the loss.
            let powers = _mm512_mul_ps(below, _mm512_set1_ps(std::f32::consts::LOG2_E));
            let exponentials = exp2(&FULL, powers, mask);
            sum = _mm512_add_ps(sum, exponentials);
            S::store(to.add(at), exponentials, mask);
        }
    }
    Part { largest, sum: _mm512_reduce_add_ps(sum) }
}
