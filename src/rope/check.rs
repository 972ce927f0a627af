//! Which parameters make sense, so that the frequencies are finite and positive.

use super::RopeScaling;

/// Why a method cannot be computed. The text speaks of the parameters as they are spelled in a
/// `.curriculum` file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RopeError {
    /// The head dimension.
    #[error("RoPE needs an even head dimension of at least 4, not {0}")]
    HeadDim(usize),
    /// A parameter outside its range.
    #[error("`{name}` must be {must}, not {value}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// The range.
        must: &'static str,
        /// What it is.
        value: f64,
    },
    /// `low` and `high`, or `beta_slow` and `beta_fast`, the wrong way round.
    #[error("`{smaller}` must be less than `{greater}`, not {smaller_value} and {greater_value}")]
    Order {
        /// The one that must be smaller.
        smaller: &'static str,
        /// The one that must be greater.
        greater: &'static str,
        /// Its value.
        smaller_value: f64,
        /// Its value.
        greater_value: f64,
    },
    /// A list of per-dimension factors of the wrong length.
    #[error("`{name}` must have one factor per dimension pair, {expected}, not {found}")]
    Factors {
        /// `short` or `long`.
        name: &'static str,
        /// Half the head dimension.
        expected: usize,
        /// Its length.
        found: usize,
    },
}

/// Whether [`super::inv_freq`] of these parameters means anything.
///
/// # Errors
/// The first parameter that is out of range. The head dimension is not looked at when it is `None`.
pub fn check(head_dim: Option<usize>, theta: f64, scaling: &RopeScaling) -> Result<(), RopeError> {
    if let Some(dim) = head_dim
        && (dim < 4 || !dim.is_multiple_of(2))
    {
        return Err(RopeError::HeadDim(dim));
    }
    // A base of 1 would make all frequencies 1; the ramp of YaRN divides by its logarithm.
    in_range("theta", "a finite number greater than 1", theta, theta.is_finite() && theta > 1.0)?;
    if let Some(factor) = scaling.factor() {
        in_range("factor", "a finite number of at least 1", factor, factor.is_finite() && factor >= 1.0)?;
    }
    if let Some(original) = scaling.original() {
        in_range("original", "at least 2 tokens", original as f64, original >= 2)?;
    }
    match scaling {
        RopeScaling::NtkByParts { beta_fast, beta_slow, .. } => betas(*beta_fast, *beta_slow),
        RopeScaling::Yarn { beta_fast, beta_slow, mscale, mscale_all_dim, attention_factor, .. } => {
            betas(*beta_fast, *beta_slow)?;
            let not_negative = |v: f64| v.is_finite() && v >= 0.0;
            for (name, value) in [("mscale", mscale), ("mscale_all_dim", mscale_all_dim)] {
                if let Some(v) = *value {
                    in_range(name, "a finite number of at least 0", v, not_negative(v))?;
                }
            }
            positive("attention_factor", attention_factor.unwrap_or(1.0))
        }
        RopeScaling::Llama3 { low, high, .. } => {
            positive("low", *low)?;
            positive("high", *high)?;
            ordered("low", *low, "high", *high)
        }
        RopeScaling::Longrope { short, long, attention_factor, .. } => {
            for (name, factors) in [("short", short), ("long", long)] {
                if let Some(dim) = head_dim
                    && factors.len() != dim / 2
                {
                    return Err(RopeError::Factors { name, expected: dim / 2, found: factors.len() });
                }
                for factor in factors {
                    positive(name, *factor)?;
                }
            }
            positive("attention_factor", attention_factor.unwrap_or(1.0))
        }
        RopeScaling::Default
        | RopeScaling::Pi { .. }
        | RopeScaling::Ntk { .. }
        | RopeScaling::DynamicNtk { .. } => Ok(()),
    }
}

fn in_range(name: &'static str, must: &'static str, value: f64, holds: bool) -> Result<(), RopeError> {
    if holds { Ok(()) } else { Err(RopeError::Parameter { name, must, value }) }
}

fn positive(name: &'static str, value: f64) -> Result<(), RopeError> {
    in_range(name, "a finite number greater than 0", value, value.is_finite() && value > 0.0)
}

fn ordered(
    smaller: &'static str,
    smaller_value: f64,
    greater: &'static str,
    greater_value: f64,
) -> Result<(), RopeError> {
    if smaller_value < greater_value {
        Ok(())
    } else {
        Err(RopeError::Order { smaller, greater, smaller_value, greater_value })
    }
}

fn betas(fast: f64, slow: f64) -> Result<(), RopeError> {
    positive("beta_slow", slow)?;
    positive("beta_fast", fast)?;
    // Equal ones are a step from one dimension to the next: Kimi K2 has 1 and 1.
    if slow == fast { Ok(()) } else { ordered("beta_slow", slow, "beta_fast", fast) }
}
