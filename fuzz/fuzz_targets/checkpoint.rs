//! Any bytes as one of the files of a checkpoint or a sharded model; the first byte says which.
#![no_main]

mod hostile;

use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 5] = ["config", "index", "optimizer", "trainer", "checksums"];

fuzz_target!(init: hostile::seed("checkpoint", &NAMES, true), |bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    hostile::read(NAMES[usize::from(*which) % NAMES.len()], bytes);
});
