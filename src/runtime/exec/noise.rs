//! The gradient noise scale: the batch size, in tokens, beyond which larger batches bring little
//! (McCandlish et al., arXiv:1812.06162). Estimated from the gradients of the first part of a batch
//! and of the whole of it (appendix A.1, equations 2.8 and A.2 there).

use serde::{Deserialize, Serialize};

use crate::runtime::engine::NoiseSample;

/// Share of the past in a running mean: single estimates are far too noisy to be read.
const KEEP: f64 = 0.9;

/// Running means of the two estimates, whose ratio is the noise scale. The mean of ratios would be
/// biased; the ratio of means much less (appendix A.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct NoiseScale {
    samples: u64,
    /// Of |G|², the squared norm of the true gradient.
    square: f64,
    /// Of tr(Σ), the variance of the gradient of one token.
    trace: f64,
}

impl NoiseScale {
    /// Take in one step's `sample`. The noise scale in tokens; `None` while the estimates make none.
    pub(super) fn add(&mut self, sample: &NoiseSample) -> Option<f64> {
        let (small, big) = (sample.part_tokens as f64, sample.tokens as f64);
        let (of_part, of_all) = (sample.part_norm * sample.part_norm, sample.norm * sample.norm);
        if !(small > 0.0 && big > small && of_part.is_finite() && of_all.is_finite()) {
            return None;
        }
        let square = (big * of_all - small * of_part) / (big - small);
        let trace = (of_part - of_all) / (1.0 / small - 1.0 / big);
        let keep = if self.samples == 0 { 0.0 } else { KEEP };
        self.square = keep * self.square + (1.0 - keep) * square;
        self.trace = keep * self.trace + (1.0 - keep) * trace;
        self.samples += 1;
        (self.square > 0.0 && self.trace > 0.0).then(|| self.trace / self.square)
    }
}

/// A sentence on a stage that goes on from a checkpoint of a run that estimated the noise scale `before` so often, and
/// `now` so: such steps round otherwise. 0 is never; of a checkpoint that does not say nothing is known.
pub(super) fn changed(stage: &str, before: Option<u64>, now: u64) -> Option<String> {
    let often = |every: u64| match every {
        0 => "never".to_owned(),
        1 => "in every step".to_owned(),
        n => format!("every {n} steps"),
    };
    let before = before.filter(|before| *before != now)?;
    Some(format!(
        "stage `{stage}` goes on with the gradient noise scale estimated {} from a checkpoint before which that was done \
         {} (`--noise-every`): not bit for bit as with the one value",
        often(now),
        often(before)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::random::{normal_pair, philox};

    /// Gradients of mean `g` and known variance per token: the estimate finds their ratio.
    #[test]
    fn finds_the_ratio_of_variance_to_mean() {
        let (width, mean, variance) = (400, 0.1, 0.04f64);
        let mut scale = NoiseScale::default();
        let mut found = Vec::new();
        for step in 0..400u32 {
            let (mut part, mut all) = (vec![0.0f64; width], vec![0.0f64; width]);
            for token in 0..8u32 {
                for i in 0..width {
                    let [a, b, ..] = philox(7, [step, token, i as u32, 0]);
                    let g = mean + variance.sqrt() * normal_pair(a, b)[0];
                    if token < 4 {
                        part[i] += g / 4.0;
                    }
                    all[i] += g / 8.0;
                }
            }
            let norm = |g: &[f64]| g.iter().map(|x| x * x).sum::<f64>().sqrt();
            let sample = NoiseSample { part_tokens: 4, tokens: 8, part_norm: norm(&part), norm: norm(&all) };
            found.extend(scale.add(&sample));
        }
        // tr(Σ) / |G|² = width · variance / (width · mean²) = 4.
        let mean = found.iter().sum::<f64>() / found.len() as f64;
        assert!((mean / 4.0 - 1.0).abs() < 0.05, "{mean} of {} values", found.len());
    }

    #[test]
    fn another_number_of_steps_is_said() {
        assert_eq!(changed("trunk", None, 5), None);
        assert_eq!(changed("trunk", Some(0), 0), None);
        assert_eq!(changed("trunk", Some(5), 5), None);
        let said = changed("trunk", Some(0), 5).unwrap();
        assert!(said.contains("estimated every 5 steps") && said.contains("done never"), "{said}");
        assert!(changed("trunk", Some(1), 0).unwrap().contains("estimated never"));
    }

    #[test]
    fn says_nothing_of_what_is_no_sample() {
        let mut scale = NoiseScale::default();
        let sample =
            |part, all| NoiseSample { part_tokens: part, tokens: all, part_norm: 1.0, norm: f64::NAN };
        assert_eq!(scale.add(&sample(1, 2)), None);
        assert_eq!(scale.add(&sample(2, 2)), None);
        assert_eq!(scale, NoiseScale::default());
    }
}
