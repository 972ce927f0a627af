#!/bin/sh
# fuzz/run.sh TARGET SECONDS: run a fuzz target with the stable compiler. Coverage comes from LLVM's
# own pass, no sanitizer is needed: the front end has no unsafe code. Findings go to
# fuzz/artifacts/TARGET; one that is mended belongs in tests/findings as FINDING.curriculum.
set -eu
cd "$(dirname "$0")"
target=$1
seconds=$2
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
  cargo build --release --target "$(rustc -vV | sed -n 's/^host: //p')" --bins
mkdir -p "corpus/$target" "artifacts/$target" seeds
for file in ../examples/*.curriculum ../examples/*/*.curriculum ../examples/recipes/shared/*.curriculum \
  ../tests/ui/*.curriculum ../tests/ui/*/*.curriculum; do
  cp "$file" "seeds/$(echo "$file" | tr / _)"
done
exec target/*/release/"$target" "corpus/$target" seeds -dict=curriculum.dict -max_len=6000 -timeout=10 \
  -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" -print_final_stats=1
