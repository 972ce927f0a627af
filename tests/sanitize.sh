#!/usr/bin/env bash
# The unsafe code under AddressSanitizer: the CPU backends at every shape of the conformance tests, the
# models built on them, the token cache and the checkpoint readers.
# usage: tests/sanitize.sh [TEST FILTER…]
#
# The sanitizer's runtime comes with the stable toolchain; the flag that links it is not stable, hence
# RUSTC_BOOTSTRAP. AVX-512 intrinsics are instrumented like any access; inline assembly is not used.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
runtime=$(rustc --print sysroot)/lib/rustlib/$host/lib/librustc-stable_rt.asan.a
if [ ! -f "$runtime" ]; then
    echo "skipped: sanitize.sh: this toolchain brings no AddressSanitizer ($runtime)" >&2
    exit 0
fi
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
[ $# -gt 0 ] || set -- runtime::backend runtime::model runtime::data runtime::soup
# Rust's own memory is never leaked on purpose but by the thread pools' statics, which leak checks count.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Cforce-frame-pointers" ASAN_OPTIONS=detect_leaks=0
export CARGO_TARGET_DIR=$target/asan CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=1
cargo test --quiet --target "$host" --lib -- "$@"
echo "ok: AddressSanitizer found nothing"
