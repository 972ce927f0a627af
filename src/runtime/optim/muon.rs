//! Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"): a matrix moves along its
//! momentum made orthogonal, all of whose singular values are about 1, by steps of Newton–Schulz, which are
//! products alone.
//!
//! The step is scaled so that its root mean square is that of an AdamW update (Liu et al. 2025, "Muon is scalable
//! for LLM training", arXiv:2502.16982, section 2.2), so that matrices and the weights left to AdamW share a
//! learning rate and a weight decay.

use crate::runtime::backend::{Backend, Momentum};
use crate::runtime::engine::{EngineError, Hyper};
use crate::runtime::model::parameters::{Parameters, Piece, Role, Slot};

/// Constants of Muon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// How much of the momentum stays from step to step.
    pub momentum: f64,
    /// Whether the direction looks ahead as Nesterov's does.
    pub nesterov: bool,
    /// Steps of Newton–Schulz.
    pub ns_steps: u32,
    /// Root mean square of a step at a learning rate of 1: 0.2 is about that of AdamW.
    pub update_rms: f64,
}

/// What the language takes where a stage says nothing.
impl Default for Muon {
    fn default() -> Self {
        Muon { momentum: 0.95, nesterov: true, ns_steps: 5, update_rms: 0.2 }
    }
}

/// a, b, c of `X ← aX + (bA + cA²)X`, `A = XXᵀ`: the steepest at 0 that keep singular values near 1 (Jordan et al.).
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// A matrix smaller than this is not made larger than its own size over this: 0 stays 0. As in `torch.optim.Muon`.
const LEAST_NORM: f64 = 1e-7;

/// Whether Muon moves what a slot holds; the rest is AdamW's.
pub(crate) fn moves(role: Role) -> bool {
    role == Role::Matrix
}

/// Constants of one update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    momentum: Momentum,
    ns_steps: u32,
    /// What decay leaves of a weight.
    keep: f64,
    /// Of the root mean square of the step; an orthogonal matrix has one of the longer side, to the power of −1/2.
    size: f64,
}

/// Constants for all matrices.
pub(crate) fn constants(hyper: &Hyper, muon: Muon, gradient_scale: f64) -> Step {
    Step {
        momentum: Momentum { momentum: muon.momentum, nesterov: muon.nesterov, gradient_scale },
        ns_steps: muon.ns_steps,
        keep: 1.0 - hyper.lr * hyper.weight_decay,
        size: hyper.lr * muon.update_rms,
    }
}

/// Values of the largest of the matrices that Muon moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Largest {
    /// Of a matrix.
    matrix: usize,
    /// Of the square of the shorter side.
    square: usize,
}

impl Largest {
    pub(crate) fn of(slots: &Parameters<Slot>) -> Self {
        Self::of_slots(slots.iter())
    }

    pub(crate) fn of_slots<'a>(slots: impl IntoIterator<Item = &'a Slot>) -> Self {
        let moved = slots.into_iter().filter(|s| moves(s.role)).flat_map(|s| &s.pieces);
        moved.fold(Largest::default(), |largest, piece| {
            let [rows, columns] = sides(piece);
            Largest {
                matrix: largest.matrix.max(rows * columns),
                square: largest.square.max(rows.min(columns).pow(2)),
            }
        })
    }

    /// Bytes of an [`Orthogonaliser`] for them.
    pub(crate) fn bytes<B: Backend>(self) -> u64 {
        let Largest { matrix, square } = self;
        let (wide, narrow) = (2 * matrix + 2 * square, 2 * matrix + square);
        (wide * B::WIDE_BYTES + narrow * B::NARROW_BYTES) as u64
    }
}

fn sides(piece: &Piece) -> [usize; 2] {
    match piece.shape[..] {
        [rows, columns] => [rows, columns],
        _ => [1, piece.len()],
    }
}

/// Room to work on one matrix at a time.
pub(crate) struct Orthogonaliser<B: Backend> {
    /// X, and what it starts from.
    x: B::Wide,
    /// `(bA + cA²)X`.
    change: B::Wide,
    gram: B::Wide,
    gram_squared: B::Wide,
    /// X rounded, and turned.
    operand: B::Narrow,
    turned: B::Narrow,
    /// A rounded, then `bA + cA²`.
    square: B::Narrow,
}

impl<B: Backend> Orthogonaliser<B> {
    pub(crate) fn new(backend: &B, largest: Largest) -> Result<Self, EngineError> {
        let Largest { matrix, square } = largest;
        Ok(Orthogonaliser {
            x: backend.wide(matrix)?,
            change: backend.wide(matrix)?,
            gram: backend.wide(square)?,
            gram_squared: backend.wide(square)?,
            operand: backend.narrow(matrix)?,
            turned: backend.narrow(matrix)?,
            square: backend.narrow(square)?,
        })
    }

    /// Make `x`, `[rows, columns]`, about orthogonal. Every product is one of the form `Yᵀ · Z`, with f32 sums kept,
    /// and the smaller of `XXᵀ` and `XᵀX` is squared.
    fn orthogonalise(&mut self, b: &B, rows: usize, columns: usize, ns_steps: u32) {
        let (len, side, wide) = (rows * columns, rows.min(columns), rows <= columns);
        let [first, second, third] = COEFFICIENTS;
        let norm = b.squared_norm(len, &self.x).sqrt();
        b.combine(len, norm.max(LEAST_NORM).recip(), &mut self.x, None, &mut self.operand);
        for _ in 0..ns_steps {
            b.transpose(rows, columns, &self.operand, &mut self.turned);
            let (longer, of_side) = if wide { (columns, &self.turned) } else { (rows, &self.operand) };
            b.linear_weight_grad(longer, side, side, of_side, of_side, false, &mut self.gram);
            b.narrow_copy(side * side, &self.gram, &mut self.square);
            // A is its own transpose.
            b.linear_weight_grad(side, side, side, &self.square, &self.square, false, &mut self.gram_squared);
            b.combine(
                side * side,
                second,
                &mut self.gram,
                Some((third, &self.gram_squared)),
                &mut self.square,
            );
            let (left, right) =
                if wide { (&self.square, &self.operand) } else { (&self.turned, &self.square) };
            b.linear_weight_grad(side, columns, rows, left, right, false, &mut self.change);
            b.combine(len, first, &mut self.x, Some((1.0, &self.change)), &mut self.operand);
        }
    }

    /// One update of the matrices of a slot, each on its own.
    pub(crate) fn update(
        &mut self,
        backend: &B,
        slot: &Slot,
        step: Step,
        grad: &B::Wide,
        weight: &mut B::Wide,
        momentum: &mut B::Wide,
    ) {
        for piece in &slot.pieces {
            let ([rows, columns], at, len) = (sides(piece), piece.at, piece.len());
            backend.momentum(at, len, step.momentum, grad, momentum, &mut self.x);
            self.orthogonalise(backend, rows, columns, step.ns_steps);
            let size = step.size * (rows.max(columns) as f64).sqrt();
            backend.descend(at, len, step.keep, size, &self.x, weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::backend::reference::Reference;
    use crate::runtime::model::parameters::slot;
    use crate::runtime::random::{normal_pair, philox};

    type Oracle = Reference<f64>;

    fn random(i: usize, stream: u32) -> f64 {
        let [a, b, ..] = philox(4, [i as u32, stream, 0, 0]);
        normal_pair(a, b)[0]
    }

    /// `a · bᵀ`.
    fn product(a: &[f64], b: &[f64], rows: usize, inner: usize, columns: usize) -> Vec<f64> {
        let at = |i: usize, j: usize| (0..inner).map(|k| a[i * inner + k] * b[j * inner + k]).sum::<f64>();
        (0..rows * columns).map(|i| at(i / columns, i % columns)).collect()
    }

    fn turned(a: &[f64], rows: usize, columns: usize) -> Vec<f64> {
        (0..rows * columns).map(|i| a[i % rows * columns + i / rows]).collect()
    }

    /// What comes out has the singular vectors of what went in, and singular values near 1.
    #[test]
    fn a_direction_is_about_orthogonal() {
        for [rows, columns] in [[12, 40], [40, 12], [1, 9], [9, 1]] {
            let matrix: Vec<f64> = (0..rows * columns).map(|i| random(i, 0)).collect();
            let shape = vec![rows, columns];
            let slot = slot(Role::Matrix, [("matrix".to_owned(), shape)]);
            let mut orthogonaliser =
                Orthogonaliser::new(&Oracle::default(), Largest::of_slots([&slot])).unwrap();
            orthogonaliser.x.clone_from(&matrix);
            orthogonaliser.orthogonalise(&Oracle::default(), rows, columns, 5);
            let (mut x, mut start) = (orthogonaliser.x, matrix);
            if rows > columns {
                (x, start) = (turned(&x, rows, columns), turned(&start, rows, columns));
            }
            let (short, long) = (rows.min(columns), rows.max(columns));
            // X = P(MMᵀ) · M, so that XMᵀ is symmetric, and the gram matrix of X within what the coefficients
            // leave of singular values: 0.68 to 1.13 (Jordan et al.).
            let crossed = product(&x, &start, short, long, short);
            let gram = product(&x, &x, short, long, short);
            for i in 0..short {
                for j in 0..short {
                    let (a, b) = (crossed[i * short + j], crossed[j * short + i]);
                    assert!((a - b).abs() < 1e-9 * crossed[0].abs(), "{a} beside {b}");
                }
                let row: f64 = (0..short).map(|j| gram[i * short + j].powi(2)).sum::<f64>().sqrt();
                assert!((0.46..1.3).contains(&row), "{rows} x {columns}: row {i} of the gram matrix: {row}");
            }
        }
    }

    /// Whatever the gradient, a step of full rank has the root mean square it is said to have, and decay goes by the
    /// learning rate alone. A gradient of zeros moves nothing else.
    #[test]
    fn a_step_has_its_size() {
        let b = Oracle::default();
        for (rows, columns, scale) in [(12, 40, 1e3), (40, 12, 1e-3), (16, 16, 1.0), (16, 16, 0.0)] {
            let slot = slot(Role::Matrix, [("matrix".to_owned(), vec![rows, columns])]);
            let mut orthogonaliser = Orthogonaliser::new(&b, Largest::of_slots([&slot])).unwrap();
            let len = rows * columns;
            let (grad, mut weight, mut momentum) =
                ((0..len).map(|i| scale * random(i, 1)).collect(), vec![1.0; len], vec![0.0; len]);
            let muon = Muon { update_rms: 0.3, ns_steps: 10, ..Muon::default() };
            let hyper = Hyper { lr: 0.01, weight_decay: 0.5, muon: Some(muon), ..Hyper::default() };
            let step = constants(&hyper, muon, 1.0);
            orthogonaliser.update(&b, &slot, step, &grad, &mut weight, &mut momentum);
            let squares: f64 = weight.iter().map(|w| (w - (1.0 - 0.01 * 0.5)).powi(2)).sum();
            let rms = (squares / len as f64).sqrt() / (0.3 * 0.01);
            if scale == 0.0 {
                assert_eq!(rms, 0.0);
            } else {
                assert!((0.65..1.15).contains(&rms), "{rows} x {columns} of {scale}: {rms}");
            }
        }
    }
}
