//! Any bytes as the index of a Megatron data set.
#![no_main]

mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: hostile::seed("megatron", &["megatron"], false), |bytes: &[u8]| hostile::read("megatron", bytes));
