//! The update rule: from the learning rate and step of the run to the constants of one update. The
//! arithmetic over tensors is the backend's.

pub mod adamw;
