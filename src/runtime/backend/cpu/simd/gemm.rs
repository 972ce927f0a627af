//! The three products of a linear layer, on packed panels.

use rayon::prelude::*;

use super::element::Element;
use super::micro::{COLUMNS, ROWS, Tile, Write};
use super::pack::{self, Weight, panels, steps};
use super::{PANEL, Shared, Step, Workspace, room};

/// Where a product goes.
#[derive(Debug)]
pub(crate) enum Out<'a, E> {
    /// Rounded to the element type.
    Narrow(&'a mut [E]),
    /// In f32.
    Wide(&'a mut [f32]),
    /// Added to what is there, in f32.
    Add(&'a mut [f32]),
}

/// Rows of A that stay in the second-level cache while the panels of B pass: 16 row tiles.
const BLOCK_ROWS: usize = 16 * ROWS;
/// Panels of B one task goes through.
const BLOCK_PANELS: usize = 32;
/// Longest sum of a product in one go, in steps: beyond it a panel of B (256 KiB here) would not stay
/// in the second-level cache while the row tiles pass.
const LONGEST_SUM: usize = 2048;
/// Steps of a transposed product between two visits of the accumulators in memory: a panel of A and
/// one of B then take 128 KiB, an eighth of the second-level cache.
const BLOCK_STEPS: usize = 512;

fn weights(w: &[f32]) -> *const Weight {
    w.as_ptr().cast()
}

/// `out = x · wᵀ`: x is `[rows, inputs]`, w is `[outputs, inputs]`.
///
/// `inputs` must be even for bf16.
pub(crate) fn linear<E: Element>(
    work: &mut Workspace,
    [rows, inputs, outputs]: [usize; 3],
    x: &[E],
    w: &[f32],
    out: Out<'_, E>,
) {
    assert!(x.len() >= rows * inputs && w.len() >= outputs * inputs);
    let depth = steps::<E>(inputs);
    let b = room(&mut work.b, panels(outputs) * depth);
    b.par_chunks_mut(depth).enumerate().for_each(|(p, panel)| {
        let n = (outputs - p * PANEL).min(PANEL);
        // SAFETY: the features are the caller's promise (`Backend` construction checks them); the
        // panel's rows of `w` are within it by the assertion.
        unsafe { pack::columns::<E, Weight>(weights(w).add(p * PANEL * inputs), inputs, inputs, n, panel) }
    });
    product(x, [rows, inputs, outputs], b, &mut work.c, out);
}

/// `grad_x = grad_y · w`: grad_y is `[rows, outputs]`, w is `[outputs, inputs]`.
///
/// `outputs` must be even for bf16.
pub(crate) fn linear_input_grad<E: Element>(
    work: &mut Workspace,
    [rows, inputs, outputs]: [usize; 3],
    grad_y: &[E],
    w: &[f32],
    grad_x: Out<'_, E>,
) {
    assert!(grad_y.len() >= rows * outputs && w.len() >= outputs * inputs);
    let depth = steps::<E>(outputs);
    let b = room(&mut work.b, panels(inputs) * depth);
    b.par_chunks_mut(depth).enumerate().for_each(|(p, panel)| {
        let n = (inputs - p * PANEL).min(PANEL);
        // SAFETY: as in `linear`.
        unsafe { pack::rows::<E, Weight>(weights(w).add(p * PANEL), inputs, outputs, n, panel) }
    });
    product(grad_y, [rows, outputs, inputs], b, &mut work.c, grad_x);
}

/// `grad_w (+)= grad_yᵀ · x`: grad_y is `[rows, outputs]`, x is `[rows, inputs]`.
pub(crate) fn linear_weight_grad<E: Element>(
    work: &mut Workspace,
    [rows, inputs, outputs]: [usize; 3],
    grad_y: &[E],
    x: &[E],
    accumulate: bool,
    grad_w: &mut [f32],
) {
    assert!(grad_y.len() >= rows * outputs && x.len() >= rows * inputs && grad_w.len() >= outputs * inputs);
    let depth = steps::<E>(rows);
    let a = room(&mut work.a, panels(outputs) * depth);
    let b = room(&mut work.b, panels(inputs) * depth);
    let pack = |from: &[E], width: usize, p: usize, panel: &mut [Step]| {
        let n = (width - p * PANEL).min(PANEL);
        // SAFETY: as in `linear`.
        unsafe { pack::rows::<E, E>(from.as_ptr().add(p * PANEL), width, rows, n, panel) }
    };
    a.par_chunks_mut(depth).enumerate().for_each(|(p, panel)| pack(grad_y, outputs, p, panel));
    b.par_chunks_mut(depth).enumerate().for_each(|(p, panel)| pack(x, inputs, p, panel));
    let (a, b) = (&*a, &*b);
    let groups = panels(inputs).div_ceil(BLOCK_PANELS);
    let to = Shared::new(grad_w);
    (0..panels(outputs) * groups).into_par_iter().for_each(|task| {
        let (pa, group) = (task / groups, task % groups);
        let m = (outputs - pa * PANEL).min(PANEL);
        for start in (0..depth).step_by(BLOCK_STEPS) {
            let count = (depth - start).min(BLOCK_STEPS);
            let write = if start > 0 || accumulate { Write::Add } else { Write::Set };
            for pb in group * BLOCK_PANELS..((group + 1) * BLOCK_PANELS).min(panels(inputs)) {
                let n = (inputs - pb * PANEL).min(PANEL);
                for i in (0..m).step_by(COLUMNS) {
                    // SAFETY: each task writes its own rows and columns of `grad_w`; the panels
                    // have `depth` steps.
                    unsafe {
                        let at = to.at((pa * PANEL + i) * inputs + pb * PANEL);
                        let c = Tile { to: at.cast(), stride: inputs, columns: n, write };
                        let a = a[pa * depth + start].0.as_ptr().add(i).cast();
                        let b = b[pb * depth + start].0.as_ptr().cast();
                        E::column_kernel((m - i).min(COLUMNS), count, a, b, c);
                    }
                }
            }
        }
    });
}

/// `out = a · b` with A `[m, k]` in rows and B packed. A sum too long for the cache is made in parts
/// in `sums`.
fn product<E: Element>(a: &[E], [m, k, n]: [usize; 3], b: &[Step], sums: &mut Vec<Step>, out: Out<'_, E>) {
    if E::GROUP == 1 || steps::<E>(k) <= LONGEST_SUM {
        return blocks_of_product(a, [m, k, n], b, out);
    }
    let out = match out {
        Out::Wide(_) | Out::Add(_) => return blocks_of_product(a, [m, k, n], b, out),
        Out::Narrow(out) => out,
    };
    assert!(out.len() >= m * n);
    let sums = room(sums, (m * n).div_ceil(PANEL));
    // SAFETY: a step is 32 u32 without padding, for which any bits are good, as for f32.
    let sums = unsafe { std::slice::from_raw_parts_mut(sums.as_mut_ptr().cast::<f32>(), sums.len() * PANEL) };
    blocks_of_product(a, [m, k, n], b, Out::<E>::Wide(sums));
    const CHUNK: usize = 1 << 12;
    let (out, sums) = (&mut out[..m * n], &*sums);
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(i, out)| {
        for (c, out) in out.chunks_mut(16).enumerate() {
            let from = &sums[i * CHUNK + 16 * c..][..out.len()];
            // SAFETY: both have as many values as the mask names; the features are there.
            unsafe { E::round_from(from, out) };
        }
    });
}

/// The tasks of [`product`].
fn blocks_of_product<E: Element>(a: &[E], [m, k, n]: [usize; 3], b: &[Step], out: Out<'_, E>) {
    assert!(k.is_multiple_of(E::GROUP), "the summed dimension is whole steps");
    let depth = steps::<E>(k);
    let (to, size, write) = match out {
        Out::Narrow(out) => {
            assert!(out.len() >= m * n);
            let write = if E::GROUP == 2 { Write::Rounded } else { Write::Set };
            (Shared::<u8>(out.as_mut_ptr().cast()), size_of::<E>(), write)
        }
        Out::Wide(out) => {
            assert!(out.len() >= m * n);
            (Shared::<u8>(out.as_mut_ptr().cast()), size_of::<f32>(), Write::Set)
        }
        Out::Add(out) => {
            assert!(out.len() >= m * n);
            (Shared::<u8>(out.as_mut_ptr().cast()), size_of::<f32>(), Write::Add)
        }
    };
    let groups = panels(n).div_ceil(BLOCK_PANELS);
    // As many blocks as threads or a multiple, of about the same number of row tiles: which task makes
    // a value does not change it.
    let threads = rayon::current_num_threads().min(m.div_ceil(ROWS));
    let block_rows = m.div_ceil(m.div_ceil(BLOCK_ROWS).next_multiple_of(threads)).next_multiple_of(ROWS);
    let blocks = m.div_ceil(block_rows);
    (0..blocks * groups).into_par_iter().for_each(|task| {
        let (block, group) = (task / groups, task % groups);
        let rows = block * block_rows..((block + 1) * block_rows).min(m);
        for start in (0..depth).step_by(LONGEST_SUM) {
            let count = (depth - start).min(LONGEST_SUM);
            let write = if start == 0 { write } else { Write::Add };
            for p in group * BLOCK_PANELS..((group + 1) * BLOCK_PANELS).min(panels(n)) {
                let columns = (n - p * PANEL).min(PANEL);
                for i in rows.clone().step_by(ROWS) {
                    // SAFETY: each task writes its own rows and columns of `out`, which holds `m · n`
                    // values of `size` bytes; A holds `m · k` values, the panel `depth` steps.
                    unsafe {
                        let to = to.at((i * n + p * PANEL) * size);
                        let c = Tile { to, stride: n, columns, write };
                        let b = b[p * depth + start].0.as_ptr().cast();
                        let a = a.as_ptr().add(i * k + start * E::GROUP);
                        E::row_kernel((rows.end - i).min(ROWS), count, a, k, b, c);
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use half::bf16;

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

    fn check<E: Element>(narrow: fn(f32) -> E, wide: fn(E) -> f32, rounding: f64) {
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
            let (xe, ge): (Vec<E>, Vec<E>) =
                (x.iter().map(|v| narrow(*v)).collect(), g.iter().map(|v| narrow(*v)).collect());
            let dims = [rows, inputs, outputs];
            let dot = |n: usize, f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>();

            let want: Vec<f64> = (0..rows * outputs)
                .map(|i| {
                    let (r, o) = (i / outputs, i % outputs);
                    dot(inputs, &|k| f64::from(x[r * inputs + k]) * f64::from(w[o * inputs + k]))
                })
                .collect();
            let mut y = vec![f32::NAN; rows * outputs];
            linear(&mut work, dims, &xe, &w, Out::<E>::Wide(&mut y));
            close(&y, &want, 1e-5, &name);
            linear(&mut work, dims, &xe, &w, Out::<E>::Add(&mut y));
            close(&y, &want.iter().map(|v| 2.0 * v).collect::<Vec<_>>(), 1e-5, &name);
            let mut y = vec![narrow(f32::NAN); rows * outputs];
            linear(&mut work, dims, &xe, &w, Out::Narrow(&mut y));
            close(&y.iter().map(|v| wide(*v)).collect::<Vec<_>>(), &want, rounding, &name);

            if outputs % E::GROUP == 0 {
                let want: Vec<f64> = (0..rows * inputs)
                    .map(|i| {
                        let (r, k) = (i / inputs, i % inputs);
                        dot(outputs, &|o| f64::from(g[r * outputs + o]) * f64::from(w[o * inputs + k]))
                    })
                    .collect();
                let mut gx = vec![f32::NAN; rows * inputs];
                linear_input_grad(&mut work, dims, &ge, &w, Out::<E>::Wide(&mut gx));
                close(&gx, &want, 1e-5, &name);
            }
            let want: Vec<f64> = (0..outputs * inputs)
                .map(|i| {
                    let (o, k) = (i / inputs, i % inputs);
                    dot(rows, &|r| f64::from(g[r * outputs + o]) * f64::from(x[r * inputs + k]))
                })
                .collect();
            let mut gw = vec![f32::NAN; outputs * inputs];
            linear_weight_grad(&mut work, dims, &ge, &xe, false, &mut gw);
            close(&gw, &want, 1e-5, &name);
            linear_weight_grad(&mut work, dims, &ge, &xe, true, &mut gw);
            close(&gw, &want.iter().map(|v| 2.0 * v).collect::<Vec<_>>(), 1e-5, &name);
        }
    }

    #[test]
    fn products_equal_plain_loops_f32() {
        if super::super::has_f32() {
            check::<f32>(|v| v, |v| v, 1e-5);
        } else {
            eprintln!("skipped: no AVX-512 here");
        }
    }

    #[test]
    fn products_equal_plain_loops_bf16() {
        if super::super::has_bf16() {
            check::<bf16>(bf16::from_f32, bf16::to_f32, 4e-3);
        } else {
            eprintln!("skipped: no AVX512-BF16 here");
        }
    }
}
