//! Cosines and sines of RoPE for every position of a batch; knows no scaling method.

use crate::plan::Architecture;
use crate::rope::{self, Rope, RopeScaling};

/// `[positions, head_dim/2]` cosines and sines, multiplied by the attention factor as transformers does.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    half: usize,
    scaled: Angles,
    plain: Option<Angles>,
}

#[derive(Clone, Debug, PartialEq)]
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    fn new(inv_freq: &[f64], attention_factor: f64, positions: usize) -> Self {
        let mut angles = Angles { cos: Vec::new(), sin: Vec::new() };
        angles.cos.reserve_exact(positions * inv_freq.len());
        angles.sin.reserve_exact(positions * inv_freq.len());
        for position in 0..positions {
            for frequency in inv_freq {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                angles.cos.push((cos * attention_factor) as f32);
                angles.sin.push((sin * attention_factor) as f32);
            }
        }
        angles
    }
}

impl RopeTable {
    /// Angles `position · inv_freq[i]` for positions below `positions`. `attention_factor` multiplies
    /// the rotated queries and keys. Angles are taken in f64, so that position 65,536 is as exact as 1.
    pub fn new(inv_freq: &[f64], attention_factor: f64, positions: usize) -> Self {
        let scaled = Angles::new(inv_freq, attention_factor, positions);
        RopeTable { half: inv_freq.len(), scaled, plain: None }
    }

    /// The same with angles of their own, without a factor, for layers that take no part in the scaling. There are as
    /// many frequencies as of the others.
    pub fn with_plain(self, inv_freq: &[f64]) -> Self {
        let plain = Angles::new(inv_freq, 1.0, self.positions());
        RopeTable { plain: Some(plain), ..self }
    }

    /// What a model needs in rows of `context` tokens.
    pub fn of(architecture: &Architecture, rope: &Rope, context: u64) -> Self {
        let frequencies = |theta, scaling| rope::inv_freq(architecture.head_dim, theta, scaling, context);
        let scaled = frequencies(rope.theta, &rope.scaling);
        let table = Self::new(&scaled.inv_freq, scaled.attention_factor, context as usize);
        let local = rope.local_theta.unwrap_or(rope.theta);
        if architecture.has_plain_rope() && (local != rope.theta || rope.scaling != RopeScaling::Default) {
            table.with_plain(&frequencies(local, &RopeScaling::Default).inv_freq)
        } else {
            table
        }
    }

    /// Positions the table covers.
    pub fn positions(&self) -> usize {
        self.scaled.cos.len().checked_div(self.half).unwrap_or(0)
    }

    /// Half the head dimension.
    pub fn half(&self) -> usize {
        self.half
    }

    /// `[positions, head_dim/2]`.
    pub fn cos(&self) -> &[f32] {
        &self.scaled.cos
    }

    /// `[positions, head_dim/2]`.
    pub fn sin(&self) -> &[f32] {
        &self.scaled.sin
    }

    /// `[positions, head_dim/2]` cosines and sines of layers that take no part in the scaling: the others' where all
    /// are alike.
    pub fn plain(&self) -> [&[f32]; 2] {
        let angles = self.plain.as_ref().unwrap_or(&self.scaled);
        [&angles.cos, &angles.sin]
    }
}
