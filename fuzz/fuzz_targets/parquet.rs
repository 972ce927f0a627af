//! Any bytes as a Parquet file.
#![no_main]

mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: hostile::seed("parquet", &["parquet", "parquet_v2"], false), |bytes: &[u8]| hostile::read("parquet", bytes));
