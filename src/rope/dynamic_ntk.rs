//! Dynamic NTK (emozilla, 2023): NTK with s from the current length, s·len/L − (s−1), which is 1 up
//! to the original length L. transformers calls it `dynamic`.

use super::ntk;
use super::plain::Head;

pub(super) fn stretched(head: Head, factor: f64, original: u64, seq_len: u64) -> Head {
    let length = seq_len.max(original) as f64;
    ntk::stretched(head, factor * length / original as f64 - (factor - 1.0))
}
