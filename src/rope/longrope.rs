//! LongRoPE (Ding et al., arXiv:2402.13753): one divisor per dimension pair, found by search, with a
//! set for lengths up to the original and another beyond.

use super::plain::{self, Head};

/// Dimensions without a divisor keep their frequency; `check` rejects such lists.
pub(super) fn inv_freq(head: Head, factors: &[f64]) -> Vec<f64> {
    let factors = factors.iter().copied().chain(std::iter::repeat(1.0));
    plain::inv_freq(head).into_iter().zip(factors).map(|(f, factor)| f / factor).collect()
}

/// √(1 + ln s / ln L), and 1 without stretching.
pub(super) fn attention_factor(factor: f64, original: u64) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original as f64).ln()).sqrt() }
}
