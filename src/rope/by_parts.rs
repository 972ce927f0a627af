//! NTK by parts (YaRN paper, arXiv:2309.00071, section 3.2): dimensions that turn more than
//! `beta_fast` times over the original length keep their frequency, those that turn fewer than
//! `beta_slow` times get it over s, and a linear ramp over the dimension index lies between.
//!
//! The ramp runs over whole dimension *indices* as in the authors' code and transformers, not over
//! rotations as in the paper's formula; its ends are rounded outwards when `truncate` is set.

use std::f64::consts::PI;

use super::plain::{self, Head};

/// Where the ramp begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ramp {
    /// L, tokens.
    pub(super) original: u64,
    /// Rotations over L above which a frequency is kept.
    pub(super) beta_fast: f64,
    /// Rotations over L below which it is divided by s.
    pub(super) beta_slow: f64,
    /// Round the ends to whole dimensions, outwards.
    pub(super) truncate: bool,
}

impl Ramp {
    /// First and last dimension index of the ramp.
    pub(super) fn ends(self, head: Head) -> (f64, f64) {
        // The index at which a dimension turns `rotations` times over L: θ_d = 2π·rotations/L.
        let index = |rotations: f64| {
            let turns = self.original as f64 / (rotations * 2.0 * PI);
            head.dim as f64 * turns.ln() / (2.0 * head.theta.ln())
        };
        let (mut low, mut high) = (index(self.beta_fast), index(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        // The upper limit is D − 1 although indices end at D/2 − 1: so do the reference codes.
        (low.max(0.0), high.min(head.dim as f64 - 1.0))
    }
}

pub(super) fn inv_freq(head: Head, factor: f64, ramp: Ramp) -> Vec<f64> {
    let (low, mut high) = ramp.ends(head);
    if low == high {
        high += 0.001; // no division by zero
    }
    plain::inv_freq(head)
        .into_iter()
        .enumerate()
        .map(|(d, kept)| {
            let interpolated = ((d as f64 - low) / (high - low)).clamp(0.0, 1.0);
            kept / factor * interpolated + kept * (1.0 - interpolated)
        })
        .collect()
}
