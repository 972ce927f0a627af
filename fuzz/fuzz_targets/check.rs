//! Any text through the whole checker and every renderer: no panic, no hang.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midc::diag::render::{Format, render};
use midc::sema::{Options, check};
use midc::source::MemoryFiles;

fuzz_target!(|text: &str| {
    let mut files = MemoryFiles::new();
    let file = files.add("fuzz.curriculum", text);
    let (_, diagnostics) = check(&mut files, file, &Options::default());
    for (format, _) in Format::ALL {
        render(format, &diagnostics, &files, false);
    }
});
