//! Any bytes as a `.gguf` file.
#![no_main]

mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: hostile::seed("gguf", &["gguf"], false), |bytes: &[u8]| hostile::read("gguf", bytes));
