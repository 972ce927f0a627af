//! The scaling of Llama 3.1 (arXiv:2407.21783; Meta's reference code): by wavelength λ = 2π/θ,
//! frequencies with λ < L/high stay, those with λ > L/low are divided by s, and a blend that is
//! linear in L/λ lies between.

use std::f64::consts::PI;

use super::plain::{self, Head};

pub(super) fn inv_freq(head: Head, factor: f64, low: f64, high: f64, original: u64) -> Vec<f64> {
    let original = original as f64;
    plain::inv_freq(head)
        .into_iter()
        .map(|f| {
            let wavelength = 2.0 * PI / f;
            if wavelength < original / high {
                f
            } else if wavelength > original / low {
                f / factor
            } else {
                let kept = (original / wavelength - low) / (high - low);
                (1.0 - kept) * f / factor + kept * f
            }
        })
        .collect()
}
