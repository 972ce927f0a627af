//! The update rules: what one step does to a weight, given the learning rate and the step of the run. The
//! arithmetic over tensors is the backend's.

pub mod adamw;
pub mod muon;
pub(crate) mod optimizer;

use crate::runtime::backend::Backend;
use crate::runtime::engine::{Hyper, Moments};
use crate::runtime::model::parameters::{Parameters, Slot, weight_bytes};

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

    /// What there are second moments of.
    pub(crate) fn second_slots(self, slots: &Parameters<Slot>) -> Parameters<Slot> {
        let mut slots = slots.clone();
        for slot in slots.iter_mut().filter(|slot| self == Rule::Muon && muon::moves(slot.role)) {
            (slot.len, slot.pieces) = (0, Vec::new());
        }
        slots
    }

    /// Bytes of the moments, and of what the rule works in.
    pub(crate) fn bytes<B: Backend>(self, slots: &Parameters<Slot>) -> u64 {
        let work = match self {
            Rule::AdamW => 0,
            Rule::Muon => muon::Largest::of(slots).bytes::<B>(),
        };
        weight_bytes::<B>(slots, 1) + weight_bytes::<B>(&self.second_slots(slots), 1) + work
    }
}

impl Hyper {
    /// The moments its step needs.
    pub fn rule(&self) -> Rule {
        if self.muon.is_some() { Rule::Muon } else { Rule::AdamW }
    }
}
