//! Any text: formatting loses nothing, and of text without mistakes it settles at once.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midc::source::FileId;

fuzz_target!(|text: &str| {
    let essence = |text: &str| {
        text.chars().filter(|c| !c.is_whitespace() && !matches!(c, ',' | '\u{feff}')).collect::<String>()
    };
    let once = midc::fmt::format(text);
    assert_eq!(essence(text), essence(&once));
    if midc::syntax::parse(FileId(0), text).1.is_empty() {
        assert!(midc::syntax::parse(FileId(0), &once).1.is_empty());
        assert_eq!(midc::fmt::format(&once), once);
    }
});
