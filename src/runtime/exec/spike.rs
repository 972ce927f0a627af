//! Notices losses far above the recent ones, so that the log names the step and the sources to look at.

use crate::runtime::journal::StepRecord;

/// Steps before anything is called a spike.
const WARM_UP: u64 = 20;
/// Share of the past in the running mean and variance.
const KEEP: f64 = 0.95;
/// Standard deviations above the mean.
const DEVIATIONS: f64 = 6.0;
/// A smooth curve has next to no deviation: a spike is also this much above the mean.
const LEAST: f64 = 1.05;

/// Running mean and variance of the loss of a stage.
#[derive(Debug, Default)]
pub(super) struct SpikeWatch {
    seen: u64,
    mean: f64,
    variance: f64,
}

impl SpikeWatch {
    /// Take in a step; a sentence if its loss stands out.
    pub(super) fn see(&mut self, record: &StepRecord) -> Option<String> {
        let loss = record.loss;
        if !loss.is_finite() {
            return None;
        }
        let (mean, deviation) = (self.mean, self.variance.sqrt());
        let spike = self.seen >= WARM_UP && loss > mean + DEVIATIONS * deviation && loss > LEAST * mean;
        let keep = if self.seen == 0 { 0.0 } else { KEEP };
        // A spike counts as the largest ordinary loss, so that one does not hide the next.
        let taken = if spike { loss.min(mean + DEVIATIONS * deviation) } else { loss };
        self.variance = keep * (self.variance + (1.0 - keep) * (taken - mean).powi(2));
        self.mean = keep * mean + (1.0 - keep) * taken;
        self.seen += 1;
        spike.then(|| {
            let mut worst: Vec<_> = record.loss_by_source.iter().collect();
            worst.sort_by(|a, b| b.1.total_cmp(a.1));
            let sources: Vec<String> =
                worst.iter().take(3).map(|(name, loss)| format!("{name} {loss:.3}")).collect();
            format!(
                "loss spike in stage `{}`, step {}: {loss:.3} after {mean:.3} ± {deviation:.3}, gradient norm {:.3} ({})",
                record.stage,
                record.step,
                record.grad_norm,
                sources.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn record(step: u64, loss: f64) -> StepRecord {
        StepRecord {
            stage: "s".into(),
            step,
            tokens: 0,
            lr: 0.0,
            batch_tokens: 0,
            context: 0,
            loss,
            loss_by_source: BTreeMap::from([("web".into(), loss), ("code".into(), loss + 1.0)]),
            grad_norm: 1.0,
            gns: None,
            tokens_per_second: 0.0,
            data_seconds: None,
            mfu: None,
            mix: BTreeMap::new(),
            rows: BTreeMap::new(),
            skipped: false,
        }
    }

    #[test]
    fn a_jump_is_noticed_and_noise_is_not() {
        let mut watch = SpikeWatch::default();
        for step in 0..200 {
            let wobble = [0.0, 0.02, -0.02, 0.01][step as usize % 4];
            assert_eq!(watch.see(&record(step, 3.0 + wobble)), None, "{step}");
        }
        let said = watch.see(&record(200, 4.0)).expect("a spike");
        assert!(
            said.contains("step 200: 4.000 after 3.0") && said.contains("(code 5.000, web 4.000)"),
            "{said}"
        );
        assert!(watch.see(&record(201, 4.0)).is_some(), "the second of two spikes");
        assert_eq!(watch.see(&record(202, f64::NAN)), None);
    }

    #[test]
    fn the_fall_at_the_start_is_none() {
        let mut watch = SpikeWatch::default();
        for step in 0..100 {
            assert_eq!(watch.see(&record(step, 3.0 + 8.0 / (1.0 + step as f64))), None);
        }
    }
}
