#!/bin/sh
# fuzz/run.sh TARGET SECONDS: run a fuzz target with the stable compiler. Coverage comes from LLVM's
# own pass, no sanitizer is needed: neither the front end nor the readers have unsafe code but for
# mapping files. Findings go to fuzz/artifacts/TARGET; one that is mended belongs in the everyday
# tests: in tests/findings as FINDING.curriculum, or in
# tests/hostile/findings as FORMAT-FINDING.
set -eu
cd "$(dirname "$0")"
target=$1
seconds=$2
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing" \
  cargo build --release --target "$(rustc -vV | sed -n 's/^host: //p')" --bin "$target"
mkdir -p "corpus/$target" "artifacts/$target" "seeds/$target"
case $target in
  parse | fmt | check | plan)
    for file in ../examples/*.curriculum ../examples/*/*.curriculum ../examples/recipes/shared/*.curriculum \
      ../tests/ui/*.curriculum ../tests/ui/*/*.curriculum; do
      cp "$file" "seeds/$target/$(echo "$file" | tr / _)"
    done
    set -- -dict=curriculum.dict
    ;;
  *)
    # Files are written out to be read: to memory, where there is such a place.
    if [ -w /dev/shm ]; then export TMPDIR=/dev/shm; fi
    # They lay their seeds themselves.
    set -- -use_value_profile=1
    ;;
esac
exec target/*/release/"$target" "corpus/$target" "seeds/$target" "$@" -max_len=6000 -timeout=10 \
  -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" -print_final_stats=1
