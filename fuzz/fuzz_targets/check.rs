//! Any text through the whole checker and every renderer: no panic, no hang, every place inside the
//! text, and a curriculum only where nothing is denied.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midc::diag::render::{Format, render};
use midc::diag::{Applicability, Level, fix};
use midc::sema::{Options, check};
use midc::source::{Files, MemoryFiles};

fuzz_target!(|text: &str| {
    let mut files = MemoryFiles::new();
    let file = files.add("fuzz.curriculum", text);
    let (curriculum, diagnostics) = check(&mut files, file, &Options::default());
    for d in &diagnostics {
        let edits = d.fixes.iter().flat_map(|f| &f.edits).map(|e| e.span);
        for span in d.labels.iter().map(|l| l.span).chain(edits).chain([d.primary.span]) {
            assert!(files.text(span.file).get(span.range()).is_some(), "{d:?}");
        }
    }
    assert!(curriculum.is_some() || diagnostics.iter().any(|d| d.level == Level::Deny));
    for (format, _) in Format::ALL {
        render(format, &diagnostics, &files, false);
    }
    let sure = |d: &midc::diag::Diagnostic| {
        d.fixes.iter().any(|f| f.applicability == Applicability::MachineApplicable)
    };
    if diagnostics.iter().any(sure) {
        fix::apply(&diagnostics, file, text);
    }
});
