//! How long a context a base and a scaling method cover, for the lint `rope_reach`.
//!
//! An unscaled base is bounded as in "Base of RoPE Bounds Context Length" (Men et al.,
//! arXiv:2405.14591): a head can prefer a similar token to a random one at distance m only while
//! Σ_d cos(m·θ_d) ≥ 0, so the first m at which the sum turns negative bounds the context.

use super::RopeScaling;

/// Lengths that hold and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The longest context in tokens.
    pub tokens: u64,
    /// The rule it comes from, a clause that follows "because".
    pub rule: &'static str,
}

/// Base and the first distance at which Σ cos(m·θ_d) over 64 frequencies is negative (the head
/// dimension 128 of the paper's Table 2), made monotone: the largest distance of a smaller base.
/// A test recomputes the entries.
const BOUND: [(f64, f64); 16] = [
    (1e3, 361.0),
    (4.3e3, 1_077.0),
    (1e4, 1_707.0),
    (1.6e4, 2_724.0),
    (2.7e4, 4_079.0),
    (5e4, 5_306.0),
    (8.4e4, 8_592.0),
    (2e5, 12_122.0),
    (3.1e5, 12_223.0),
    (5e5, 18_438.0),
    (6.4e5, 27_685.0),
    (2.1e6, 77_306.0),
    (5e6, 82_999.0),
    (7.8e6, 128_915.0),
    (1e7, 144_660.0),
    (3.6e7, 207_455.0),
];

/// How far beyond the bound practice has gone: Phi-4 trains 16Ki at base 250,000 (1.3 times) and
/// Yi 200K at 5,000,000 (2.4 times), while Mistral NeMo's 128Ki at 1,000,000 (3 times) did not hold.
const PRACTICE: f64 = 2.5;

/// The longest context an unscaled base carries: 2.5 times the bound, log-log between the
/// entries of the table and along its last slope beyond them.
pub fn base_reach(theta: f64) -> u64 {
    (PRACTICE * interpolate(theta, |(base, length)| (base, length))) as u64
}

/// The smallest base that carries `tokens`: the inverse of [`base_reach`], rounded up to two digits.
pub fn base_for(tokens: u64) -> f64 {
    let exact = interpolate(tokens as f64 / PRACTICE, |(base, length)| (length, base));
    let unit = 10f64.powf(exact.log10().floor() - 1.0);
    (exact / unit).ceil() * unit
}

/// y at `x` on the polyline through the table's points in log-log coordinates.
fn interpolate(x: f64, point: impl Fn((f64, f64)) -> (f64, f64)) -> f64 {
    let after = BOUND.iter().position(|p| point(*p).0 > x).unwrap_or(BOUND.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (point(BOUND[after - 1]), point(BOUND[after]));
    let slope = (y1 / y0).ln() / (x1 / x0).ln();
    y0 * (slope * (x / x0).ln()).exp()
}

/// The longest context that `scaling` over the base `theta` covers. `native` is the length the
/// model was trained at before, where known.
///
/// A fresh model has no length before: whatever it is trained at becomes its native one.
pub fn reach(theta: f64, scaling: &RopeScaling, native: Option<u64>) -> Reach {
    let unscaled = |native: Option<u64>| match native {
        Some(length) if length >= base_reach(theta) => {
            Reach { tokens: length, rule: "the model was trained at this length" }
        }
        _ => Reach {
            tokens: base_reach(theta),
            rule: "a base bounds the context (arXiv:2405.14591; up to 2.5 times the bound has worked)",
        },
    };
    let times = |factor: f64, length: u64| (factor * length as f64).round() as u64;
    match scaling {
        RopeScaling::Default => unscaled(native),
        RopeScaling::Pi { factor } | RopeScaling::Ntk { factor } => Reach {
            tokens: times(*factor, native.unwrap_or_else(|| base_reach(theta))),
            rule: "the factor stretches the native length",
        },
        RopeScaling::DynamicNtk { factor, original }
        | RopeScaling::NtkByParts { factor, original, .. }
        | RopeScaling::Yarn { factor, original, .. }
        | RopeScaling::Longrope { factor, original, .. } => {
            Reach { tokens: times(*factor, *original), rule: "the factor stretches the original length" }
        }
        // Llama 3.1 ships 131,072 with factor 8 over 8,192.
        RopeScaling::Llama3 { factor, original, .. } => Reach {
            tokens: times(2.0 * factor, *original),
            rule: "llama3 scaling covers twice factor times the original length, as Llama 3.1 ships it",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First m at which the sum is negative, by rotating unit vectors.
    fn first_negative(theta: f64, dim: usize) -> u64 {
        let mut pairs: Vec<_> = (0..dim / 2)
            .map(|d| {
                let (sin, cos) = theta.powf(-((2 * d) as f64) / dim as f64).sin_cos();
                ((1.0f64, 0.0f64), (cos, sin))
            })
            .collect();
        (1u64..)
            .find(|_| {
                let mut sum = 0.0;
                for ((x, y), (cos, sin)) in &mut pairs {
                    (*x, *y) = (*x * *cos - *y * *sin, *x * *sin + *y * *cos);
                    sum += *x;
                }
                sum < 0.0
            })
            .expect("every base has such a distance")
    }

    #[test]
    fn table_is_the_inequality() {
        for (theta, length) in BOUND {
            let computed = first_negative(theta, 128) as f64;
            assert_eq!(computed, length, "base {theta}");
        }
        assert!(BOUND.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 < w[1].1));
    }

    #[test]
    fn published_lengths_hold_and_mistakes_do_not() {
        // (base, context): SmolLM2, Llama 3, Phi-4, Qwen3, Code Llama, Yi 200K, Command R, MiniCPM.
        for (theta, context) in [
            (1.3e5, 8192),
            (5e5, 8192),
            (2.5e5, 16384),
            (1e6, 32768),
            (1e6, 16384),
            (5e6, 200_000),
            (8e6, 131_072),
            (1e4, 4096),
        ] {
            assert!(base_reach(theta) >= context, "{theta} {context}: {}", base_reach(theta));
        }
        for (theta, context) in [(1e4, 32768), (5e5, 131_072), (1e6, 131_072)] {
            assert!(base_reach(theta) < context, "{theta} {context}: {}", base_reach(theta));
        }
    }

    #[test]
    fn base_for_inverts() {
        for tokens in [4096, 8192, 32768, 65536, 131_072, 1 << 20] {
            let theta = base_for(tokens);
            assert!(base_reach(theta) >= tokens, "{tokens} {theta}");
            assert!(base_reach(theta * 0.85) < tokens + tokens / 10, "{tokens} {theta}");
        }
    }

    #[test]
    fn factors_multiply_the_original() {
        let yarn = RopeScaling::NtkByParts { factor: 8.0, original: 4096, beta_fast: 32.0, beta_slow: 1.0 };
        assert_eq!(reach(5e5, &yarn, Some(32768)).tokens, 32768);
        let llama3 = RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, original: 8192 };
        assert_eq!(reach(5e5, &llama3, None).tokens, 131_072);
        assert_eq!(reach(1e4, &RopeScaling::Pi { factor: 4.0 }, Some(2048)).tokens, 8192);
        assert_eq!(reach(1e4, &RopeScaling::Default, Some(8192)).tokens, 8192);
    }
}
