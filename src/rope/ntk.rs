//! NTK-aware scaling (bloc97, 2023; YaRN paper, arXiv:2309.00071, definition 1): the base grows to
//! base·s^(D/(D−2)), so that the lowest frequency is divided by s and the highest stays.

use super::plain::Head;

pub(super) fn stretched(head: Head, factor: f64) -> Head {
    let dim = head.dim as f64;
    Head { theta: head.theta * factor.powf(dim / (dim - 2.0)), ..head }
}
