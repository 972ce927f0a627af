//! Any text that makes a plan: its numbers hold together, it is written and read back as it was, it
//! does not differ from itself, and it can be asked about any moment and drawn.
#![no_main]

use libfuzzer_sys::fuzz_target;
use midc::plan::{self, Plan};
use midc::sema::{Options, check};
use midc::source::MemoryFiles;

fuzz_target!(|text: &str| {
    let mut files = MemoryFiles::new();
    let file = files.add("fuzz.curriculum", text);
    let (Some(curriculum), _) = check(&mut files, file, &Options::default()) else { return };
    let plan = plan::build(&curriculum);
    for s in &plan.stages {
        assert!(s.steps >= 1 && s.tokens >= 1, "{}", s.name);
        let end = s.step_point(s.steps).tokens;
        assert_eq!(end, s.tokens + s.overshoot_tokens, "{}", s.name);
        assert!(s.step_point(s.steps - 1).tokens < s.tokens, "{}", s.name);
        for at in [0, 1, s.tokens / 3, s.tokens / 2, s.tokens - 1, s.tokens] {
            let m = plan::moment(s, at);
            assert!(m.lr.is_finite() && m.lr >= 0.0, "{} at {at}: lr {}", s.name, m.lr);
            assert!(m.batch_tokens >= 1 && m.batch_tokens.is_multiple_of(m.context));
            let sum: f64 = m.mix.values().sum();
            assert!((sum - 1.0).abs() < 1e-6, "{} at {at}: weights sum to {sum}", s.name);
            assert!(m.mix.values().all(|w| *w >= -1e-9 && *w <= 1.0 + 1e-9));
        }
    }
    let json = serde_json::to_string(&plan).expect("a plan is JSON");
    let back: Plan = serde_json::from_str(&json).expect("a plan reads back");
    assert_eq!(plan::hash(&back), plan.hash);
    let done = plan.stages.iter().map(|s| (s.name.clone(), s.steps / 2)).collect();
    let diff = plan::diff(&plan, &back, Some(&done));
    assert!(diff.same_outcome && diff.stages.iter().all(|s| s.changes.is_empty()), "{diff:?}");
    plan::exhaustion(&plan);
    midc::plot::plan_svg(&plan);
    midc::plot::mermaid(&plan);
});
