//! Any bytes as a token file: NumPy's, llm.c's and those without a header.
#![no_main]

mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: hostile::seed("tokens", &["npy", "bin", "llmc"], false), |bytes: &[u8]| {
    hostile::read("npy", bytes);
    hostile::read("bin", bytes);
});
