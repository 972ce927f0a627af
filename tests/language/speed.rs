//! Work grows with the length of the text, no faster. Counted by comparing lengths of output, not
//! by a clock: a quadratic step would make this test take hours.

use midc::source::FileId;

#[test]
fn a_hundred_thousand_lines_are_read() {
    let mut text = String::new();
    for i in 0..10_000 {
        text.push_str(&format!("source s{i} {{\n  path   = \"d/{i}/*.jsonl\"\n  tokens = 1B\n}}\n\n"));
    }
    for i in 0..1_000 {
        text.push_str(&format!(
            "stage t{i} {{\n  from = base\n  tokens = 1B\n  lr = 0 then linear(to: 1e-4, over: 5% of stage) then cosine(to: 0)\n  \
             mix = m\n}}\n"
        ));
    }
    for i in 0..44_000 {
        text.push_str(&format!("let v{i} = {i} # comment\n"));
    }
    let lines = text.lines().count();
    assert!(lines >= 100_000, "{lines}");
    let (file, diagnostics) = midc::syntax::parse(FileId(0), &text);
    assert_eq!(diagnostics, []);
    assert_eq!(file.items.len(), 55_000);
    assert_eq!(midc::fmt::format(&text).lines().count(), lines);
}
