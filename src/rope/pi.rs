//! Position interpolation (Chen et al., arXiv:2306.15595): every frequency over s.
//! transformers calls it `linear`.

use super::plain::{self, Head};

pub(super) fn inv_freq(head: Head, factor: f64) -> Vec<f64> {
    plain::inv_freq(head).into_iter().map(|f| f / factor).collect()
}
