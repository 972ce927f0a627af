//! Any bytes as `model.safetensors`, as they are and with a length that fits their header.
#![no_main]

mod hostile;

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: hostile::seed("safetensors", &["safetensors"], false), |bytes: &[u8]| {
    hostile::read("safetensors", bytes);
    let header = bytes.get(8..).unwrap_or_default();
    if let Some(end) = header.iter().rposition(|b| *b == b'}') {
        let length = (end as u64 + 1).to_le_bytes();
        hostile::read("safetensors", &[&length, header].concat());
    }
});
