//! Any text: no panic, no hang, every span of every diagnostic inside the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midc::source::FileId;

fuzz_target!(|text: &str| {
    let (_, diagnostics) = midc::syntax::parse(FileId(0), text);
    for diagnostic in diagnostics {
        assert!(text.get(diagnostic.primary.span.range()).is_some());
        for label in diagnostic.labels {
            assert!(text.get(label.span.range()).is_some());
        }
        for edit in diagnostic.fixes.iter().flat_map(|fix| &fix.edits) {
            assert!(text.get(edit.span.range()).is_some());
        }
    }
});
