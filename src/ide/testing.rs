//! Cursor fixtures: a text with `$0` where the cursor is.

use super::Analysis;
use crate::source::{FileId, MemoryFiles};

/// The text without its `$0`, and where that was.
pub(super) fn cursor(marked: &str) -> (String, usize) {
    let at = marked.find("$0").unwrap_or_else(|| panic!("no $0 in {marked:?}"));
    (marked.replacen("$0", "", 1), at)
}

/// An analysis of `text` beside a library `lib.curriculum`.
pub(super) fn analyze(text: &str) -> (MemoryFiles, FileId, Analysis) {
    let mut files = MemoryFiles::new();
    let main = files.add("main.curriculum", text);
    files.add("lib.curriculum", LIBRARY);
    let analysis = Analysis::new(&mut files, main);
    (files, main, analysis)
}

/// What `use "lib.curriculum" as s` brings in.
pub(super) const LIBRARY: &str = "\
## Crawled pages.
source web {
  path   = \"web/*.jsonl\"
  kind   = web
  tokens = 500B
}
source math {
  path   = \"math/*.jsonl\"
  kind   = math
  tokens = 4B
}
";

/// A clean curriculum that uses the library.
pub(super) const CLEAN: &str = "\
use \"lib.curriculum\" as s

lints {
  missing_files    = allow
  epochs_over_cap  = allow
  unpinned_source  = allow
}

## Shrink for a trial.
param total_tokens: tokens = 50B

model base {
  checkpoint = \"olmo2-7b\"
  init       = olmo2_7b
  context    = 4Ki
  lr         = 6e-5
  seen       = 3.9T tokens
}

## The better mix.
mix quality {
  s.web  = 85%
  s.math = rest
}

stage anneal {
  from      = base
  tokens    = total_tokens
  context   = 4Ki
  batch     = 1024 seqs
  mix       = quality
  lr        = inherit then linear(to: 0)
  data_seed = 1
  checkpoint half { at = 50% of stage, keep = forever }
}

stage after {
  from      = anneal
  tokens    = 10B
  lr        = 0 then linear(to: 1e-5, over: 200 steps) then linear(to: 0)
  data_seed = 2
  eval reach { every = 1B tokens, needle = [4Ki] }
  gate { needle(4Ki) >= 95% }
}

soup final = average(anneal.half, after)

assert anneal.lr.end == 0
assert anneal.mix.s.math.epochs <= 4, \"the math set is small\"
";

#[test]
fn the_fixture_is_clean() {
    let (_, _, analysis) = analyze(CLEAN);
    let found: Vec<&str> = analysis.diagnostics().iter().map(|d| d.message.as_str()).collect();
    assert!(analysis.plan().is_some(), "{found:?}");
}
