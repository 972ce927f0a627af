//! Cosines and sines of RoPE for every position of a batch; knows no scaling method.

/// `[positions, head_dim/2]` cosines and sines, multiplied by the attention factor as transformers does.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTable {
    /// Angles `position · inv_freq[i]` for positions below `positions`. `attention_factor` multiplies
    /// the rotated queries and keys. Angles are taken in f64, so that position 65,536 is as exact as 1.
    pub fn new(inv_freq: &[f64], attention_factor: f64, positions: usize) -> Self {
        let mut table = RopeTable { half: inv_freq.len(), cos: Vec::new(), sin: Vec::new() };
        table.cos.reserve_exact(positions * inv_freq.len());
        table.sin.reserve_exact(positions * inv_freq.len());
        for position in 0..positions {
            for frequency in inv_freq {
                let (sin, cos) = (position as f64 * frequency).sin_cos();
                table.cos.push((cos * attention_factor) as f32);
                table.sin.push((sin * attention_factor) as f32);
            }
        }
        table
    }

    /// Positions the table covers.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }

    /// Half the head dimension.
    pub fn half(&self) -> usize {
        self.half
    }

    /// `[positions, head_dim/2]`.
    pub fn cos(&self) -> &[f32] {
        &self.cos
    }

    /// `[positions, head_dim/2]`.
    pub fn sin(&self) -> &[f32] {
        &self.sin
    }
}
