//! The shapes a segment can have (LANGUAGE.md section 4), with u in [0, 1] the progress.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A shape and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "shape", rename_all = "snake_case")]
pub enum Shape {
    /// Constant.
    Hold,
    /// A jump of zero length.
    Step,
    /// a + (b − a)u.
    Linear,
    /// b + (a − b)(1 + cos πu)/2.
    Cosine,
    /// a + (b − a)√u (Hägele et al., arXiv:2405.18392).
    OneMinusSqrt,
    /// a·(b/a)^u.
    Exp,
    /// a·0.5^(t/H), t and H in tokens (MiniCPM, arXiv:2404.06395 section 4.2).
    HalfLife {
        /// H in tokens.
        half_life: f64,
    },
    /// A·e^(−u/γ) + B with A = (a − b)/(1 − e^(−1/γ)), B = a − A (Zamba, arXiv:2405.16712).
    ExpFloor {
        /// γ.
        gamma: f64,
    },
    /// b + (a − b)(1 − u)^power (the polynomial decay of BERT's schedule).
    Poly {
        /// The exponent.
        power: f64,
    },
    /// a·√(t₀/(t₀ + t)) with t₀ such that the value at the end is b: the inverse square root of
    /// Vaswani et al. (arXiv:1706.03762 section 5.3), continued from `from`.
    InvSqrt,
    /// a·(1 + t/t₀)^b with t₀ such that the value at the end is `to` (Power scheduler,
    /// arXiv:2408.13359).
    Power {
        /// The exponent b, negative.
        b: f64,
    },
}

impl Shape {
    /// Value `t` tokens into a segment that goes from `a` to `b` in `full` tokens (`full` > 0).
    pub fn value(self, a: f64, b: f64, t: f64, full: f64) -> f64 {
        let u = (t / full).clamp(0.0, 1.0);
        // The ends are exact, whatever the rounding of the formulas.
        if u == 0.0 && !matches!(self, Shape::Step) {
            return a;
        }
        match self {
            Shape::Hold => a,
            Shape::Step => b,
            Shape::HalfLife { half_life } => a * 0.5f64.powf(t / half_life),
            _ if u == 1.0 => b,
            Shape::Linear => a + (b - a) * u,
            Shape::Cosine => b + (a - b) * (1.0 + (std::f64::consts::PI * u).cos()) / 2.0,
            Shape::OneMinusSqrt => a + (b - a) * u.sqrt(),
            Shape::Exp => a * (b / a).powf(u),
            Shape::ExpFloor { gamma } => {
                // With `exp` itself a large γ would be a difference of ones over another.
                a - (a - b) * ((-u / gamma).exp_m1() / (-1.0 / gamma).exp_m1())
            }
            Shape::Poly { power } => b + (a - b) * (1.0 - u).powf(power),
            Shape::InvSqrt => power_law(a, b, -0.5, u),
            Shape::Power { b: exponent } => power_law(a, b, exponent, u),
        }
    }
}

/// a·(1 + u·c)^e with c such that the value at u = 1 is b, for e < 0 and 0 < b <= a. It is computed as
/// b·(1 + (1 − u)·d)^e, whose d lies between −1 and 0: near e = 0 the number c is beyond range.
fn power_law(a: f64, b: f64, exponent: f64, u: f64) -> f64 {
    let d = ((a / b).ln() / exponent).exp_m1();
    b * (exponent * ((1.0 - u) * d).ln_1p()).exp()
}
