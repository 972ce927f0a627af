//! Any bytes as one of the files of a checkpoint or a sharded model; the first byte says which.
#![no_main]

mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    let names = ["config", "index", "optimizer", "trainer", "checksums"];
    hostile::read(names[usize::from(*which) % names.len()], bytes);
});
