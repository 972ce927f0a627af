//! Unscaled frequencies (Su et al., arXiv:2104.09864): θ_d = base^(−2d/D). Also `abf`, which is a
//! new base (Xiong et al., arXiv:2309.16039).

/// A head's rotary dimensions and base.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// D, all of which rotate.
    pub(super) dim: usize,
    /// The base.
    pub(super) theta: f64,
}

/// `dim / 2` frequencies.
pub(super) fn inv_freq(head: Head) -> Vec<f64> {
    (0..head.dim / 2).map(|d| head.theta.powf(-((2 * d) as f64) / head.dim as f64)).collect()
}
