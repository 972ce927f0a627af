//! The attention temperature of YaRN (arXiv:2309.00071, section 3.4: √(1/t) = 0.1·ln s + 1, on q
//! and on k) and DeepSeek's two coefficients over it. The frequencies are those of `by_parts`.

/// 0.1·m·ln s + 1, and 1 without stretching.
fn mscale(factor: f64, coefficient: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * coefficient * factor.ln() + 1.0 }
}

/// A quotient when both coefficients are given and not 0 (DeepSeek-V2, arXiv:2405.04434), else the
/// paper's value; the same choice as transformers.
pub(super) fn attention_factor(factor: f64, numerator: Option<f64>, denominator: Option<f64>) -> f64 {
    match (numerator, denominator) {
        (Some(n), Some(d)) if n != 0.0 && d != 0.0 => mscale(factor, n) / mscale(factor, d),
        _ => mscale(factor, 1.0),
    }
}
