//! Biases of linear layers. Their gradient is summed in an order that does not depend on the number of threads.

use super::element::Element;
use super::pool::Pool;
use super::vectorise::vectorised;

/// Rows of a task that adds a bias, and rows whose sum is rounded into the whole at once.
const ROWS: usize = 32;
/// Columns of a task that sums rows.
const COLUMNS: usize = 128;

vectorised! {
    fn add_row<E: Element>(bias: &[f32], x: &mut [E]) {
        for (x, bias) in x.iter_mut().zip(bias) {
            *x = E::of(x.get() + *bias);
        }
    }

    fn sum_row<E: Element>(x: &[E], sum: &mut [f32]) {
        for (sum, x) in sum.iter_mut().zip(x) {
            *sum += x.get();
        }
    }
}

/// `x += bias` in every row.
pub(super) fn add<E: Element>(pool: &Pool, bias: &[f32], x: &mut [E]) {
    pool.chunks(x, ROWS * bias.len(), |_, rows| {
        for row in rows.chunks_exact_mut(bias.len()) {
            add_row(bias, row);
        }
    });
}

/// Adds the sum of the rows of `grad`.
pub(super) fn gradient<E: Element>(pool: &Pool, grad: &[E], grad_bias: &mut [f32]) {
    let width = grad_bias.len();
    pool.chunks(grad_bias, COLUMNS, |i, total| {
        for rows in grad.chunks(ROWS * width) {
            let mut part = [0.0; COLUMNS];
            let part = &mut part[..total.len()];
            for row in rows.chunks_exact(width) {
                sum_row(&row[i * COLUMNS..][..total.len()], part);
            }
            for (total, part) in total.iter_mut().zip(part) {
                *total += *part;
            }
        }
    });
}
