//! Any bytes as a Parquet file.
#![no_main]

mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hostile::read("parquet", bytes));
