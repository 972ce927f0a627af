//! Cosines and sines of RoPE for every position of a batch; knows no scaling method.

use std::sync::Arc;

use crate::plan::Architecture;
use crate::rope::{self, Rope, RopeScaling};

/// `[positions, head_dim/2]` cosines and sines, multiplied by the attention factor as transformers does.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeTable {
    half: usize,
    scaled: Arc<Angles>,
    plain: Option<Arc<Angles>>,
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

/// Tables of one model for texts of different lengths: by methods that look at the current length, LongRoPE's and
/// dynamic NTK, a short text is read by other frequencies than a long one.
#[derive(Clone, Debug)]
pub struct LengthTables {
    architecture: Architecture,
    rope: Rope,
    longest: u64,
    last: Option<(u64, RopeTable)>,
}

impl LengthTables {
    /// For texts of up to `longest` tokens.
    pub fn new(architecture: &Architecture, rope: &Rope, longest: u64) -> Self {
        LengthTables { architecture: architecture.clone(), rope: rope.clone(), longest, last: None }
    }

    /// The longest text that is read by the table of one of `length` tokens.
    pub fn covered(&self, length: u64) -> u64 {
        self.rope.scaling.same_up_to(length, self.longest)
    }

    /// The table for texts of `length` tokens.
    pub fn of(&mut self, length: u64) -> &RopeTable {
        let covered = self.covered(length);
        let table = match self.last.take() {
            Some((of, table)) if of == covered => table,
            _ => RopeTable::of(&self.architecture, &self.rope, covered),
        };
        &self.last.insert((covered, table)).1
    }
}

impl RopeTable {
    /// Angles `position · inv_freq[i]` for positions below `positions`. `attention_factor` multiplies
    /// the rotated queries and keys. Angles are taken in f64, so that position 65,536 is as exact as 1.
    pub fn new(inv_freq: &[f64], attention_factor: f64, positions: usize) -> Self {
        let scaled = Arc::new(Angles::new(inv_freq, attention_factor, positions));
        RopeTable { half: inv_freq.len(), scaled, plain: None }
    }

    /// The same with angles of their own, without a factor, for layers that take no part in the scaling. There are as
    /// many frequencies as of the others.
    pub fn with_plain(self, inv_freq: &[f64]) -> Self {
        let plain = Arc::new(Angles::new(inv_freq, 1.0, self.positions()));
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

    /// Whether the other is this one or a clone of it; of two that were made apart it says nothing.
    pub(crate) fn is(&self, other: &RopeTable) -> bool {
        let plain = match (&self.plain, &other.plain) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        plain && Arc::ptr_eq(&self.scaled, &other.scaled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::model::finite_differences::architecture;

    #[test]
    fn a_table_is_its_clones() {
        let table = RopeTable::new(&[1.0, 0.1], 1.0, 8);
        let with_plain = table.clone().with_plain(&[1.0, 0.1]);
        assert!(table.is(&table.clone()) && with_plain.is(&with_plain.clone()));
        assert!(!table.is(&with_plain) && !table.is(&RopeTable::new(&[1.0, 0.1], 1.0, 8)));
        assert!(!with_plain.is(&table.with_plain(&[1.0, 0.1])));
    }

    /// What transformers does: the length of the text at hand decides, not that of the longest.
    #[test]
    fn short_texts_have_the_frequencies_of_short_texts() {
        let architecture = architecture("llama", 4, 2, false);
        let half = architecture.head_dim / 2;
        let (short, long) = (vec![1.0; half], vec![4.0; half]);
        let longrope =
            RopeScaling::Longrope { short, long, original: 64, factor: 4.0, attention_factor: None };
        let dynamic = RopeScaling::DynamicNtk { factor: 4.0, original: 64 };
        for (scaling, expected) in [
            (longrope, [64, 64, 256, 256]),
            (dynamic, [64, 64, 65, 200]),
            (RopeScaling::Pi { factor: 4.0 }, [256; 4]),
        ] {
            let rope = Rope { theta: 1e4, scaling, local_theta: None };
            let mut tables = LengthTables::new(&architecture, &rope, 256);
            for (length, covered) in [20, 64, 65, 200].into_iter().zip(expected) {
                assert_eq!(tables.covered(length), covered, "{length}");
                let own = RopeTable::of(&architecture, &rope, length);
                let (table, values) = (tables.of(length), own.cos().len());
                assert_eq!((table.positions() as u64, &table.cos()[..values]), (covered, own.cos()));
            }
        }
    }
}
