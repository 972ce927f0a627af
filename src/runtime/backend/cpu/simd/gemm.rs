//! The three products of a linear layer, on packed panels.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use rayon::prelude::*;

use super::element::{Element, Stored};
use super::pack::{SliceStep, panels, steps};
use super::tile::{Panel, Tile, Write};
use super::{PANEL, Shared, Step, Workspace, room};
use crate::runtime::backend::cpu::linear::Shape;

/// Where a product goes.
#[derive(Debug)]
pub(crate) enum Out<'a, S> {
    /// Rounded to what narrow values are stored as.
    Narrow(&'a mut [S]),
    /// In f32.
    Wide(&'a mut [f32]),
    /// Added to what is there, in f32.
    Add(&'a mut [f32]),
}

/// Row tiles of A, of so many steps, that stay in the second-level cache while the panels of B pass: 16, or
/// as many as lie in a MiB.
fn tiles_at_once<E: Element>(depth: usize) -> usize {
    ((1 << 20) / (4 * E::ROWS * depth.max(1))).clamp(4, 16)
}
/// Panels of B one task goes through.
const BLOCK_PANELS: usize = 32;
/// Longest sum of a product in one go, in steps: beyond it a panel of B (256 KiB here) would not stay
/// in the second-level cache while the row tiles pass.
const LONGEST_SUM: usize = 2048;
/// Steps of B packed at once, of all panels together: 8 MiB, a share of the third-level cache.
pub(super) const PACKED_STEPS: usize = 1 << 16;
/// Steps of a transposed product between two visits of the accumulators in memory: a slice of A then
/// takes 28 KiB of the first-level cache.
const BLOCK_STEPS: usize = 512;
/// Slices of A that one task of a transposed product packs at most, 224 KiB: a panel of B, 64 KiB of the
/// second-level cache, passes all of them.
const SLICES: usize = 8;

/// `out = x · wᵀ`: x is `[rows, inputs]`, w is `[outputs, inputs]`.
///
/// `inputs` must be even where pairs of bf16 are multiplied.
pub(crate) fn linear<E: Element, S: Stored<E>>(
    work: &mut Workspace,
    shape: Shape,
    x: &[S],
    w: &[f32],
    out: Out<'_, S>,
) {
    let Shape { rows, inputs, outputs, stride } = shape;
    assert!(x.len() >= rows * inputs && w.len() >= outputs * inputs);
    product::<E, S>(work, (x, inputs), [rows, inputs, outputs], (out, stride), |p, start, panel| {
        let n = (outputs - p * PANEL).min(PANEL);
        let count = (inputs - start).min(panel.len() * E::GROUP);
        // SAFETY: the features are the caller's promise (`Backend` construction checks them); the
        // panel's rows of `w` are within it by the assertion.
        unsafe {
            let from = w.as_ptr().add(p * PANEL * inputs + start);
            E::pack_weight_columns(from, inputs, count, n, panel)
        }
    });
}

/// `grad_x = grad_y · w`: grad_y is `[rows, outputs]`, w is `[outputs, inputs]`.
///
/// `outputs` must be even where pairs of bf16 are multiplied.
pub(crate) fn linear_input_grad<E: Element, S: Stored<E>>(
    work: &mut Workspace,
    shape: Shape,
    grad_y: &[S],
    w: &[f32],
    grad_x: Out<'_, S>,
) {
    let Shape { rows, inputs, outputs, stride } = shape;
    assert!(grad_y.len() >= shape.extent() && w.len() >= outputs * inputs);
    product::<E, S>(work, (grad_y, stride), [rows, outputs, inputs], (grad_x, inputs), |p, start, panel| {
        let n = (inputs - p * PANEL).min(PANEL);
        let count = (outputs - start).min(panel.len() * E::GROUP);
        // SAFETY: as in `linear`.
        unsafe {
            let from = w.as_ptr().add(start * inputs + p * PANEL);
            E::pack_weight_rows(from, inputs, count, n, panel)
        }
    });
}

/// `grad_w (+)= grad_yᵀ · x`: grad_y is `[rows, outputs]`, x is `[rows, inputs]`.
pub(crate) fn linear_weight_grad<E: Element, S: Stored<E>>(
    work: &mut Workspace,
    shape: Shape,
    grad_y: &[S],
    x: &[S],
    accumulate: bool,
    grad_w: &mut [f32],
) {
    let Shape { rows, inputs, outputs, stride } = shape;
    assert!(grad_y.len() >= shape.extent() && x.len() >= rows * inputs && grad_w.len() >= outputs * inputs);
    let depth = steps::<E>(rows);
    let b = room(&mut work.panels, panels(inputs) * depth);
    b.par_chunks_mut(depth).enumerate().for_each(|(p, panel)| {
        let n = (inputs - p * PANEL).min(PANEL);
        // SAFETY: as in `linear`.
        unsafe { S::pack_rows(x.as_ptr().add(p * PANEL), inputs, rows, n, panel) }
    });
    let b = &*b;
    let groups = panels(inputs).div_ceil(BLOCK_PANELS);
    let tiles = outputs.div_ceil(E::ROWS);
    let blocks = blocks_of(tiles, SLICES);
    let to = Shared::new(grad_w);
    (0..blocks * groups).into_par_iter().for_each(|task| {
        let (block, group) = (task / groups, task % groups);
        let first = block * tiles / blocks * E::ROWS;
        let m = ((block + 1) * tiles / blocks * E::ROWS).min(outputs) - first;
        // A's slices are packed where they are used, and lie in the cache then.
        let mut a = [const { MaybeUninit::<SliceStep>::uninit() }; SLICES * BLOCK_STEPS];
        for start in (0..depth).step_by(BLOCK_STEPS) {
            let count = (depth - start).min(BLOCK_STEPS);
            let token = start * E::GROUP;
            let tokens = (rows - token).min(count * E::GROUP);
            // SAFETY: as in `linear`; `m` columns take no more than SLICES slices.
            unsafe {
                let from = grad_y.as_ptr().add(token * stride + first);
                S::pack_slices(from, stride, tokens, m, count, &mut a);
            }
            let write = if start > 0 || accumulate { Write::Add } else { Write::Set };
            let of_group = group * BLOCK_PANELS..((group + 1) * BLOCK_PANELS).min(panels(inputs));
            for pb in of_group.clone() {
                let next = if pb + 1 < of_group.end {
                    Some((pb + 1) * depth + start)
                } else {
                    (start + count < depth).then_some(of_group.start * depth + start + count)
                };
                let n = (inputs - pb * PANEL).min(PANEL);
                for (slice, i) in (0..m).step_by(E::ROWS).enumerate() {
                    // SAFETY: each task writes its own rows and columns of `grad_w`; the panels
                    // have `count` steps from `start` on, the slices as many, just written.
                    unsafe {
                        let at = to.at((first + i) * inputs + pb * PANEL);
                        let c = Tile { to: at.cast(), stride: inputs, columns: n, write };
                        let a = a[slice * count].as_ptr().cast();
                        let next = next.filter(|_| slice == 0).map(|next| &b[next]);
                        let b = Panel::before(&b[pb * depth + start], next);
                        E::slice_kernel((m - i).min(E::ROWS), count, a, b, c);
                    }
                }
            }
        }
    });
}

/// Into how many blocks of `most` at most tiles of rows are cut: as many as threads or a multiple, alike to
/// one tile. Which task makes a value does not change it.
pub(super) fn blocks_of(tiles: usize, most: usize) -> usize {
    let threads = rayon::current_num_threads().min(tiles).max(1);
    tiles.div_ceil(most).next_multiple_of(threads).min(tiles)
}

/// `out = a · b` with A `[m, k]` in rows and B `[k, n]`, of which `pack(p, from, panel)` packs panel `p`
/// from the summed index `from` on. With A and `out` goes how far apart their rows are.
///
/// B is packed a part at a time, so that its panels are read while they lie in the cache and a large
/// one takes no memory of its own size: [`PACKED_STEPS`] at once, sums in parts of [`LONGEST_SUM`]. The
/// order of every sum is the same however B is cut.
fn product<E: Element, S: Stored<E>>(
    work: &mut Workspace,
    (a, lda): (&[S], usize),
    [m, k, n]: [usize; 3],
    (out, stride): (Out<'_, S>, usize),
    pack: impl Fn(usize, usize, &mut [Step]) + Sync,
) {
    assert!(k.is_multiple_of(E::GROUP), "the summed dimension is whole steps");
    if m == 0 {
        return;
    }
    assert!(k <= lda && a.len() >= (m - 1) * lda + k);
    let extent = (m - 1) * stride + n;
    assert!(n <= stride);
    let (to, size, first_write) = match out {
        Out::Narrow(out) => {
            assert!(out.len() >= extent);
            (Shared::<u8>(out.as_mut_ptr().cast()), size_of::<S>(), S::WRITE)
        }
        Out::Wide(out) => {
            assert!(out.len() >= extent);
            (Shared::<u8>(out.as_mut_ptr().cast()), size_of::<f32>(), Write::Set)
        }
        Out::Add(out) => {
            assert!(out.len() >= extent);
            (Shared::<u8>(out.as_mut_ptr().cast()), size_of::<f32>(), Write::Add)
        }
    };
    let depth = steps::<E>(k);
    let longest = depth.min(LONGEST_SUM);
    // A sum in parts is rounded once, at its end.
    let in_parts = depth > longest && matches!(first_write, Write::Rounded);
    let at_once = (PACKED_STEPS / longest.max(1)).max(1);
    let blocks_of_rows = Blocks::new::<E, S>(&mut work.rows, longest);
    for from in (0..panels(n)).step_by(at_once) {
        let block = from..(from + at_once).min(panels(n));
        let first_column = from * PANEL;
        let columns = (n - first_column).min(block.len() * PANEL);
        // SAFETY: the block's first column is a column of `out`.
        let block_out = unsafe { Shared(to.at(first_column * size)) };
        let sums = room(&mut work.sums, if in_parts { (m * columns).div_ceil(PANEL) } else { 0 });
        for start in (0..depth).step_by(LONGEST_SUM) {
            let count = (depth - start).min(LONGEST_SUM);
            let b = room(&mut work.panels, block.len() * count);
            b.par_chunks_mut(count)
                .enumerate()
                .for_each(|(p, panel)| pack(from + p, start * E::GROUP, panel));
            let (c, row, size, write) = if in_parts {
                (Shared::<u8>(sums.as_mut_ptr().cast()), columns, size_of::<f32>(), Write::Set)
            } else {
                (block_out, stride, size, first_write)
            };
            let write = if start == 0 { write } else { Write::Add };
            // SAFETY: the assertions above; a part of A's columns, a block of the output's.
            unsafe {
                let a = Shared(a.as_ptr().cast_mut().add(start * E::GROUP));
                let out = Block { to: c, size, stride: row, columns, write };
                blocks_of_product::<E, S>((a, lda), m, b, count, &blocks_of_rows, out);
            }
        }
        if in_parts {
            // SAFETY: a step is 32 u32 without padding, for which any bits are good, as for f32.
            let sums = unsafe { std::slice::from_raw_parts(sums.as_ptr().cast::<f32>(), sums.len() * PANEL) };
            (0..m).into_par_iter().with_min_len(16).for_each(|row| {
                // SAFETY: the block's columns of this row of the output, which no other task has; the
                // features are there.
                unsafe {
                    let to = block_out.at(row * stride * size).cast::<S>();
                    S::round(&sums[row * columns..][..columns], 1.0, to);
                }
            });
        }
    }
}

/// Columns of an output, in bytes from `to` on.
#[derive(Clone, Copy)]
struct Block {
    to: Shared<u8>,
    /// Bytes of a value.
    size: usize,
    /// Values from one row to the next.
    stride: usize,
    columns: usize,
    write: Write,
}

/// How A is cut into blocks of rows, and room for each thread's block where it has to be copied (see
/// [`Stored::rows`]).
pub(super) struct Blocks<'a> {
    /// Row tiles of a block at most.
    pub(super) tiles: usize,
    steps: Shared<Step>,
    /// Steps of one thread.
    each: usize,
    lives: PhantomData<&'a mut [Step]>,
}

impl<'a> Blocks<'a> {
    /// Of `depth` steps or less.
    pub(super) fn new<E: Element, S: Stored<E>>(buffer: &'a mut Vec<Step>, depth: usize) -> Self {
        let tiles = tiles_at_once::<E>(depth);
        let each = S::room(tiles * E::ROWS, depth * E::GROUP);
        let steps = Shared::new(room(buffer, rayon::current_num_threads() * each));
        Self { tiles, steps, each, lives: PhantomData }
    }

    /// Room of the thread that asks, for one block.
    ///
    /// # Safety
    /// Within a task of the pool this was made in, which has asked once and waits for no other task.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn of_this_thread(&self) -> &mut [Step] {
        let thread = rayon::current_thread_index().unwrap_or(0);
        // SAFETY: there is room for each thread of the pool, and a thread is in one such task at a time.
        unsafe { std::slice::from_raw_parts_mut(self.steps.at(thread * self.each), self.each) }
    }
}

/// The tasks of [`product`] for packed panels of `depth` steps.
///
/// # Safety
/// A has `m` rows `lda` apart of `depth` steps; the block has `m` rows of its columns, panels for all of
/// which are in `b`.
unsafe fn blocks_of_product<E: Element, S: Stored<E>>(
    (a, lda): (Shared<S>, usize),
    m: usize,
    b: &[Step],
    depth: usize,
    blocks_of_rows: &Blocks<'_>,
    out: Block,
) {
    let all = panels(out.columns);
    let groups = all.div_ceil(BLOCK_PANELS);
    let tiles = m.div_ceil(E::ROWS);
    let blocks = blocks_of(tiles, blocks_of_rows.tiles);
    (0..blocks * groups).into_par_iter().for_each(|task| {
        let (block, group) = (task / groups, task % groups);
        let rows = block * tiles / blocks * E::ROWS..((block + 1) * tiles / blocks * E::ROWS).min(m);
        // SAFETY: once for each task, which waits for none; A's rows are the caller's promise.
        let (a, lda) = unsafe {
            let scratch = blocks_of_rows.of_this_thread();
            S::rows(a.at(rows.start * lda), lda, rows.len(), depth * E::GROUP, scratch)
        };
        let of_group = group * BLOCK_PANELS..((group + 1) * BLOCK_PANELS).min(all);
        for p in of_group.clone() {
            let columns = (out.columns - p * PANEL).min(PANEL);
            for i in rows.clone().step_by(E::ROWS) {
                // SAFETY: each task writes its own rows and columns of the block; the rest is the
                // caller's promise.
                unsafe {
                    let to = out.to.at((i * out.stride + p * PANEL) * out.size);
                    let c = Tile { to, stride: out.stride, columns, write: out.write };
                    let next = (i == rows.start && p + 1 < of_group.end).then(|| &b[(p + 1) * depth]);
                    let b = Panel::before(&b[p * depth], next);
                    let a = a.add((i - rows.start) * lda);
                    E::row_kernel((rows.end - i).min(E::ROWS), depth, a, lda, b, c);
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::Avx2;
    use super::*;

    /// Values a bf16 holds exactly, so that both types compute the same sums up to f32 rounding.
    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 24) as i32 - 128) as f32 / 64.0
            })
            .collect()
    }

    fn close(got: &[f32], want: &[f64], tolerance: f64, what: &str) {
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((f64::from(*g) - w).abs() <= tolerance * (1.0 + w.abs()), "{what}[{i}]: {g} for {w}");
        }
    }

    fn check<E: Element, S: Stored<E>>(narrow: fn(f32) -> S, wide: fn(S) -> f32, rounding: f64) {
        let mut work = Workspace::default();
        let sizes = [
            (1, 2, 1),
            (13, 32, 31),
            (14, 64, 32),
            (15, 30, 33),
            (225, 66, 70),
            (3, 1100, 40),
            (30, 40, 4100),
        ];
        for (rows, inputs, outputs) in sizes {
            let name = format!("{rows}x{inputs}x{outputs}");
            let x: Vec<f32> = values(rows * inputs, 1);
            let w: Vec<f32> = values(outputs * inputs, 2);
            let g: Vec<f32> = values(rows * outputs, 3);
            let (xe, ge): (Vec<S>, Vec<S>) =
                (x.iter().map(|v| narrow(*v)).collect(), g.iter().map(|v| narrow(*v)).collect());
            let dims = Shape::new(rows, inputs, outputs);
            let dot = |n: usize, f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>();

            let want: Vec<f64> = (0..rows * outputs)
                .map(|i| {
                    let (r, o) = (i / outputs, i % outputs);
                    dot(inputs, &|k| f64::from(x[r * inputs + k]) * f64::from(w[o * inputs + k]))
                })
                .collect();
            let mut y = vec![f32::NAN; rows * outputs];
            linear::<E, S>(&mut work, dims, &xe, &w, Out::Wide(&mut y));
            close(&y, &want, 1e-5, &name);
            linear::<E, S>(&mut work, dims, &xe, &w, Out::Add(&mut y));
            close(&y, &want.iter().map(|v| 2.0 * v).collect::<Vec<_>>(), 1e-5, &name);
            let mut y = vec![narrow(f32::NAN); rows * outputs];
            linear::<E, S>(&mut work, dims, &xe, &w, Out::Narrow(&mut y));
            close(&y.iter().map(|v| wide(*v)).collect::<Vec<_>>(), &want, rounding, &name);

            if outputs % E::GROUP == 0 {
                let want: Vec<f64> = (0..rows * inputs)
                    .map(|i| {
                        let (r, k) = (i / inputs, i % inputs);
                        dot(outputs, &|o| f64::from(g[r * outputs + o]) * f64::from(w[o * inputs + k]))
                    })
                    .collect();
                let mut gx = vec![f32::NAN; rows * inputs];
                linear_input_grad::<E, S>(&mut work, dims, &ge, &w, Out::Wide(&mut gx));
                close(&gx, &want, 1e-5, &name);
            }
            let want: Vec<f64> = (0..outputs * inputs)
                .map(|i| {
                    let (o, k) = (i / inputs, i % inputs);
                    dot(rows, &|r| f64::from(g[r * outputs + o]) * f64::from(x[r * inputs + k]))
                })
                .collect();
            let mut gw = vec![f32::NAN; outputs * inputs];
            linear_weight_grad::<E, S>(&mut work, dims, &ge, &xe, false, &mut gw);
            close(&gw, &want, 1e-5, &name);
            linear_weight_grad::<E, S>(&mut work, dims, &ge, &xe, true, &mut gw);
            close(&gw, &want.iter().map(|v| 2.0 * v).collect::<Vec<_>>(), 1e-5, &name);
        }
    }

    #[test]
    fn products_equal_plain_loops() {
        if super::super::has_f32() {
            check::<f32, f32>(|v| v, |v| v, 1e-5);
            check::<bf16, bf16>(bf16::from_f32, bf16::to_f32, 4e-3);
            check::<f32, bf16>(bf16::from_f32, bf16::to_f32, 4e-3);
        } else {
            eprintln!("skipped: no AVX-512 here");
        }
        if super::super::has_avx2() {
            check::<Avx2, f32>(|v| v, |v| v, 1e-5);
            check::<Avx2, bf16>(bf16::from_f32, bf16::to_f32, 4e-3);
        } else {
            eprintln!("skipped: no AVX2 here");
        }
    }
}
