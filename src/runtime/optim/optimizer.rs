//! The state of an optimizer in a backend's buffers, and one update of every weight.

use std::borrow::Cow;

use super::muon::{self, Largest, Orthogonaliser};
use super::{Rule, adamw};
use crate::runtime::backend::Backend;
use crate::runtime::engine::{EngineError, Hyper, Moments, Part};
use crate::runtime::model::parameters::{self, Parameters, Slot};

/// Moments of all weights, and room to work in.
pub(crate) struct Optimizer<B: Backend> {
    pub(crate) rule: Rule,
    first: Parameters<B::Wide>,
    second: Parameters<B::Wide>,
    /// What `second` holds: nothing of a weight that has none.
    second_slots: Parameters<Slot>,
    orthogonaliser: Option<Orthogonaliser<B>>,
}

impl<B: Backend> Optimizer<B> {
    /// Moments of zero.
    pub(crate) fn new(backend: &B, slots: &Parameters<Slot>, rule: Rule) -> Result<Self, EngineError> {
        let second_slots = rule.second_slots(slots);
        Ok(Optimizer {
            rule,
            first: slots.try_map(|slot| backend.wide(slot.len))?,
            second: second_slots.try_map(|slot| backend.wide(slot.len))?,
            second_slots,
            orthogonaliser: match rule {
                Rule::AdamW => None,
                Rule::Muon => Some(Orthogonaliser::new(backend, Largest::of(slots))?),
            },
        })
    }

    /// The moments under the names of the weights.
    ///
    /// # Errors
    /// As [`parameters::read`].
    pub(crate) fn read(&self, backend: &B, slots: &Parameters<Slot>) -> Result<Moments, EngineError> {
        Ok(Moments {
            first: parameters::read(backend, slots, &self.first)?,
            second: parameters::read(backend, &self.second_slots, &self.second)?,
        })
    }

    /// The moment of one weight.
    ///
    /// # Errors
    /// As [`parameters::read`].
    pub(crate) fn look(
        &self,
        backend: &B,
        slots: &Parameters<Slot>,
        part: Part,
        name: &str,
    ) -> Result<Option<Cow<'_, [f32]>>, EngineError> {
        match part {
            Part::Weight => Ok(None),
            Part::First => parameters::look(backend, slots, &self.first, name),
            Part::Second => parameters::look(backend, &self.second_slots, &self.second, name),
        }
    }

    /// The names and shapes of its moments.
    pub(crate) fn shapes(&self, slots: &Parameters<Slot>, part: Part) -> Vec<(String, Vec<usize>)> {
        match part {
            Part::Weight => Vec::new(),
            Part::First => parameters::shapes(slots),
            Part::Second => parameters::shapes(&self.second_slots),
        }
    }

    /// An optimizer with these moments; by which rule they were made is seen from what they have.
    ///
    /// # Errors
    /// When a moment is missing or of another shape than its weight.
    pub(crate) fn of(backend: &B, slots: &Parameters<Slot>, moments: Moments) -> Result<Self, EngineError> {
        let mut optimizer = Self::new(backend, slots, Rule::of(slots, &moments))?;
        parameters::take(backend, slots, moments.first, &mut optimizer.first)?;
        parameters::take(backend, &optimizer.second_slots, moments.second, &mut optimizer.second)?;
        Ok(optimizer)
    }

    /// Set the moments to zero.
    pub(crate) fn clear(&mut self, backend: &B, slots: &Parameters<Slot>) {
        for (slots, buffers) in [(slots, &mut self.first), (&self.second_slots, &mut self.second)] {
            for (slot, buffer) in slots.iter().zip(buffers.iter_mut()) {
                backend.zero(slot.len, buffer);
            }
        }
    }

    /// One update of every weight; gradients are multiplied by `scale` first.
    pub(crate) fn update(
        &mut self,
        backend: &B,
        slots: &Parameters<Slot>,
        hyper: &Hyper,
        scale: f64,
        grads: &Parameters<B::Wide>,
        weights: &mut Parameters<B::Wide>,
    ) {
        let moments = self.first.iter_mut().zip(self.second.iter_mut());
        let buffers = grads.iter().zip(weights.iter_mut().zip(moments));
        for (slot, (grad, (weight, (first, second)))) in slots.iter().zip(buffers) {
            match (&mut self.orthogonaliser, hyper.muon) {
                (Some(orthogonaliser), Some(muon)) if muon::moves(slot.role) => {
                    let step = muon::constants(hyper, muon, scale);
                    orthogonaliser.update(backend, slot, step, grad, weight, first);
                }
                _ => {
                    let constants = adamw::constants(hyper, slot.role, scale);
                    backend.adamw(slot.len, constants, grad, weight, first, second);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::engine::{
        Engine, EngineKind, EngineOptions, Muon, RopeTable, StepReport, engine, init_weights, training_memory,
    };
    use crate::runtime::model::finite_differences::{architecture, batch};
    use crate::runtime::model::tensor::StateDict;

    const NAMES: [&str; 2] = ["model.layers.1.mlp.down_proj.weight", "lm_head.weight"];

    fn new(kind: EngineKind, weights: &StateDict) -> Box<dyn Engine> {
        let a = architecture("qwen3", 4, 2, false);
        engine(kind, &a, weights, EngineOptions::default()).unwrap()
    }

    fn hyper(muon: Option<Muon>, step: u64) -> Hyper {
        Hyper { lr: 5e-3, muon, optimizer_step: step, ..Hyper::default() }
    }

    fn train(engine: &mut dyn Engine, steps: std::ops::RangeInclusive<u64>) -> Vec<StepReport> {
        let rope = RopeTable::new(&[1.0, 0.1], 1.0, 7);
        let muon = Some(Muon::default());
        steps.map(|step| engine.train_step(&batch(true), &rope, &hyper(muon, step)).unwrap()).collect()
    }

    fn fresh() -> StateDict {
        init_weights(&architecture("qwen3", 4, 2, false), 3).unwrap()
    }

    #[test]
    fn muon_trains_and_tracks_the_reference() {
        let weights = fresh();
        let expected = train(&mut *new(EngineKind::Reference, &weights), 1..=8);
        assert!(expected[7].loss < 0.9 * expected[0].loss, "{expected:?}");
        for (kind, tolerance) in [(EngineKind::CpuF32, 1e-5), (EngineKind::CpuBf16, 2e-2)] {
            for (got, want) in train(&mut *new(kind, &weights), 1..=8).iter().zip(&expected) {
                let apart = (got.loss / want.loss - 1.0).abs();
                assert!(apart < tolerance, "{kind:?}: {} beside {}", got.loss, want.loss);
            }
        }
    }

    #[test]
    fn a_resumed_run_is_equal_to_the_bit() {
        let weights = fresh();
        for kind in [EngineKind::Reference, EngineKind::CpuF32, EngineKind::CpuBf16] {
            let mut whole = new(kind, &weights);
            let reports = train(&mut *whole, 1..=4);
            let mut before = new(kind, &weights);
            train(&mut *before, 1..=2);
            let moments = before.moments().unwrap().unwrap();
            assert_eq!(NAMES.map(|name| moments.first.contains_key(name)), [true, true]);
            assert_eq!(NAMES.map(|name| moments.second.contains_key(name)), [false, true]);
            let mut after = new(kind, &before.weights().unwrap());
            after.load_moments(moments).unwrap();
            if kind != EngineKind::Reference {
                // The oracle computes in f64, of which a checkpoint keeps f32.
                assert_eq!(train(&mut *after, 3..=4), reports[2..]);
                assert_eq!(after.weights().unwrap(), whole.weights().unwrap());
                assert_eq!(after.moments().unwrap(), whole.moments().unwrap());
            }
        }
    }

    #[test]
    fn moments_of_another_rule_are_refused_and_nothing_is_lost() {
        let weights = fresh();
        let rope = RopeTable::new(&[1.0, 0.1], 1.0, 7);
        let mut adam = new(EngineKind::CpuF32, &weights);
        adam.train_step(&batch(true), &rope, &hyper(None, 1)).unwrap();
        let held = (adam.weights().unwrap(), adam.moments().unwrap());
        let refused = adam.train_step(&batch(true), &rope, &hyper(Some(Muon::default()), 2)).unwrap_err();
        assert_eq!(refused.to_string(), "the moments are those of AdamW, the step is one of Muon");
        assert_eq!((adam.weights().unwrap(), adam.moments().unwrap()), held);
        // Half of them are nobody's.
        let mut half = held.1.unwrap();
        half.second.remove("lm_head.weight");
        assert!(matches!(adam.load_moments(half), Err(EngineError::WeightMissing { .. })));
        adam.train_step(&batch(true), &rope, &hyper(None, 2)).unwrap();
    }

    #[test]
    fn what_is_held_is_what_was_predicted() {
        let a = architecture("qwen3", 4, 2, false);
        for (rule, muon) in [(Rule::AdamW, None), (Rule::Muon, Some(Muon::default()))] {
            let mut engine = new(EngineKind::CpuF32, &fresh());
            let rope = RopeTable::new(&[1.0, 0.1], 1.0, 7);
            engine.train_step(&batch(true), &rope, &hyper(muon, 1)).unwrap();
            let predicted = training_memory(EngineKind::CpuF32, &a, 2, 7, rule, None).unwrap();
            assert_eq!(engine.memory().parameters_bytes, predicted.parameters_bytes, "{rule:?}");
        }
        // A quarter less of a model whose weights are nearly all in its layers.
        let deep = crate::plan::Architecture { num_hidden_layers: 200, ..a };
        let bytes =
            |rule| training_memory(EngineKind::CpuF32, &deep, 2, 7, rule, None).unwrap().parameters_bytes;
        let ratio = bytes(Rule::Muon) as f64 / bytes(Rule::AdamW) as f64;
        assert!((0.75..0.79).contains(&ratio), "{ratio}");
    }
}
