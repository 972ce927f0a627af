//! What exact arithmetic promises: the tokens of the sources are those of the steps, and the segments of a
//! curve cover the stage, or the file is refused; for shares as long as files have them.

use midc::diag::Diagnostic;
use midc::sema::{Curriculum, Options};
use midc::source::MemoryFiles;
use proptest::prelude::*;

fn resolve(text: &str) -> (Option<Curriculum>, Vec<Diagnostic>) {
    let mut files = MemoryFiles::new();
    let file = files.add("exact.curriculum", text);
    midc::sema::check(&mut files, file, &Options::default())
}

/// A stage over `mix` and `lr`, beside `more`.
fn curriculum(more: &str, tokens: u64, mix: &str, lr: &str) -> String {
    format!(
        "lints {{ missing_files = allow }}
        model base {{ init = llama3_8b, context = 4Ki }}
        {more}
        stage s {{ from = base, tokens = {tokens}, batch = 1024 seqs, mix = {mix}, data_seed = 1, lr = {lr} }}"
    )
}

/// The tokens of each source in a stage over a nest of measured sizes.
fn portions(sizes: [u64; 3], shares: [u64; 3], factor: u64, tokens: u64) -> Vec<(f64, u64)> {
    let [a, b, c] = sizes;
    let [p, q, u] = shares;
    let more = format!(
        "source a {{ path = \"a.jsonl\", tokens = {a} }}
        source b {{ path = \"b.jsonl\", tokens = {b} }}
        source c {{ path = \"c.jsonl\", tokens = {c} }}
        let both = proportional(a, b)
        let all = proportional(a, b, c)
        mix n {{ all = {p}%, both = {q}%, c = rest }}
        let more_c = upsample(n, c: {factor})
        mix w {{ more_c = {u}%, both = rest }}"
    );
    let (resolved, diagnostics) = resolve(&curriculum(&more, tokens, "w", "1e-4"));
    let Some(resolved) = resolved else { panic!("{diagnostics:#?}") };
    let stage = &resolved.stages[0];
    let found: u64 = stage.mix.iter().map(|p| p.tokens).sum();
    assert_eq!(found, stage.tokens + stage.overshoot);
    stage.mix.iter().map(|p| (p.mean * found as f64, p.tokens)).collect()
}

#[test]
fn shares_of_measured_sizes_are_not_lost_in_products() {
    let sizes = [3_707_123_456_789, 2_903_141_592_653, 901_618_033_988];
    for (exact, tokens) in portions(sizes, [70, 20, 70], 2, 2_000_000_000_000) {
        assert!((tokens as f64 - exact).abs() <= 1.0, "{tokens} of {exact}");
    }
}

/// Digits after a point, as many as a numerator can have.
fn percent() -> impl Strategy<Value = String> {
    (1u64..30, "[0-9]{0,22}1").prop_map(|(whole, fraction)| format!("{whole}.{fraction}%"))
}

fn share() -> impl Strategy<Value = String> {
    let ratio = (1u64..1 << 40, 1u64 << 42..1 << 44).prop_map(|(over, under)| format!("({over}/{under})"));
    prop_oneof![percent(), ratio]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn portions_sum_to_the_tokens_of_the_steps(
        sizes in prop::array::uniform3(1u64..1 << 43),
        shares in (1u64..50, 1u64..50, 1u64..100).prop_map(|(p, q, u)| [p, q, u]),
        factor in 1u64..9,
        tokens in 1u64..1 << 50,
    ) {
        for (exact, tokens) in portions(sizes, shares, factor, tokens) {
            prop_assert!((tokens as f64 - exact).abs() <= 1.0 + 1e-12 * exact, "{} of {}", tokens, exact);
        }
    }

    #[test]
    fn segments_of_a_curve_cover_the_stage(first in share(), last in share(), tokens in 1u64 << 40..1 << 50) {
        let lr = format!(
            "0 then linear(to: 3e-4, over: {first} of stage) then cosine(to: 1e-4) \
             then linear(to: 0, over: {last} of stage)"
        );
        let source = "source web { path = \"web.jsonl\" }";
        let (resolved, diagnostics) = resolve(&curriculum(source, tokens, "web", &lr));
        let Some(resolved) = resolved else {
            let ends = |d: &Diagnostic| d.primary.text.contains("exact arithmetic ends here");
            prop_assert!(diagnostics.iter().any(ends), "{:#?}", diagnostics);
            return Ok(());
        };
        let segments = &resolved.stages[0].lr.segments;
        prop_assert_eq!(segments.len(), 3);
        prop_assert_eq!(segments[0].start, 0);
        prop_assert_eq!(segments[2].end, tokens);
        for pair in segments.windows(2) {
            prop_assert_eq!(pair[0].end, pair[1].start);
            prop_assert!(pair[0].start < pair[0].end && pair[1].start < pair[1].end);
        }
    }
}
