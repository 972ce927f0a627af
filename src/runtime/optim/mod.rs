//! The update rules: what one step does to a weight, given the learning rate and the step of the run. The
//! arithmetic over tensors is the backend's.

pub mod adamw;
pub mod muon;
pub(crate) mod optimizer;

use crate::runtime::backend::Backend;
use crate::runtime::engine::{Hyper, Moments};
use crate::runtime::model::parameters::{Parameters, Slot};

/// Which moments an optimizer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// Two of every weight.
    #[default]
    AdamW,
    /// The first alone of the matrices within layers, two of the rest.
    Muon,
}

impl Rule {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Rule::AdamW => "AdamW",
            Rule::Muon => "Muon",
        }
    }

    /// The one that made these moments.
    pub(crate) fn of(slots: &Parameters<Slot>, moments: &Moments) -> Self {
        let lacks = |slot: &Slot| slot.pieces.iter().all(|piece| !moments.second.contains_key(&piece.name));
        let without = slots.iter().any(|slot| muon::moves(slot.role) && lacks(slot));
        if without { Rule::Muon } else { Rule::AdamW }
    }

    /// Whether there is a second moment of what a slot holds.
    fn has_second(self, slot: &Slot) -> bool {
        self == Rule::AdamW || !muon::moves(slot.role)
    }

    /// What there are second moments of.
    pub(crate) fn second_slots(self, slots: &Parameters<Slot>) -> Parameters<Slot> {
        let mut slots = slots.clone();
        for slot in slots.iter_mut().filter(|slot| !self.has_second(slot)) {
            (slot.len, slot.pieces) = (0, Vec::new());
        }
        slots
    }

    /// Bytes of the moments, and of what the rule works in. Asked for in every step.
    pub(crate) fn bytes<B: Backend>(self, slots: &Parameters<Slot>) -> u64 {
        let work = match self {
            Rule::AdamW => 0,
            Rule::Muon => muon::Largest::of(slots).bytes::<B>(),
        };
        let moments = |slot: &Slot| slot.len * (1 + usize::from(self.has_second(slot)));
        (slots.iter().map(moments).sum::<usize>() * B::WIDE_BYTES) as u64 + work
    }
}

impl Hyper {
    /// The moments its step needs.
    pub fn rule(&self) -> Rule {
        if self.muon.is_some() { Rule::Muon } else { Rule::AdamW }
    }
}
