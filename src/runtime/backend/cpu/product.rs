//! f32 matrix products through the `gemm` crate, behind a bounds-checked function.

use gemm::Parallelism;

/// A matrix within a slice: element `(i, j)` is `data[i · row + j · column]`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) data: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> View<'a> {
    /// Row-major with `width` values per row.
    pub(super) fn rows(data: &'a [f32], width: usize) -> Self {
        View { data, row: width, column: 1 }
    }

    /// The transpose of a row-major matrix with `width` values per row.
    pub(super) fn transposed(data: &'a [f32], width: usize) -> Self {
        View { data, row: 1, column: width }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// `c = a · b`, or `c += a · b` when `accumulate`: a is `[m, k]`, b is `[k, n]`, c row-major with `width`
/// values per row. Uses the threads of the pool it is called in when `parallel`.
///
/// # Panics
/// When a matrix does not fit its slice.
pub(super) fn product(
    m: usize,
    n: usize,
    k: usize,
    a: View,
    b: View,
    accumulate: bool,
    c: &mut [f32],
    width: usize,
    parallel: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= width && (m - 1) * width + n <= c.len(), "product does not fit");
    if k == 0 {
        if !accumulate {
            c.chunks_mut(width).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    assert!(a.holds(m, k) && b.holds(k, n), "operand does not fit");
    let parallelism = if parallel { Parallelism::Rayon(0) } else { Parallelism::None };
    // SAFETY: all indices (i·row + j·column) of the three matrices are within their slices by the
    // assertions above; c is borrowed mutably, so it overlaps neither a nor b; strides are far below
    // isize::MAX because the slices exist.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            width as isize,
            accumulate,
            a.data.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_ragged_shapes() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 2), (17, 33, 9), (64, 31, 65), (2, 7, 0)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i % 5) as f32 - 2.0).collect();
            let mut bt = vec![0.0; k * n];
            (0..k * n).for_each(|i| bt[(i % n) * k + i / n] = b[i]);
            let width = n + 3;
            let mut c = vec![1.0; m * width];
            product(m, n, k, View::rows(&a, k), View::transposed(&bt, k), true, &mut c, width, false);
            for i in 0..m {
                for j in 0..width {
                    let sum: f32 = (0..k).map(|p| a[i * k + p] * b[p * n + j.min(n - 1)]).sum();
                    assert_eq!(c[i * width + j], if j < n { 1.0 + sum } else { 1.0 }, "{m}x{n}x{k}");
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "operand does not fit")]
    fn a_short_operand_is_refused() {
        let mut c = [0.0; 4];
        product(2, 2, 3, View::rows(&[0.0; 5], 3), View::rows(&[0.0; 6], 2), false, &mut c, 2, false);
    }
}
