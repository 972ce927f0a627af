//! `midc rehearse`: the whole graph of a plan at toy scale, so that every stage edge, RoPE change,
//! branch, soup, gate and measurement really runs before the real thing is paid for.
//!
//! [`shrink`] makes a small plan of a large one; [`props`] brings text for sources that are not
//! there. The run itself is [`crate::runtime::exec`].

mod props;
mod shrink;

pub use props::write_props;
pub use shrink::{Rehearsal, shrink};
