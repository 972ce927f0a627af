#!/usr/bin/env bash
# The unsafe code under AddressSanitizer: the CPU backends at every shape of the conformance tests, the
# models built on them, the token cache, the readers of mapped files and the host model of a GPU where
# tests/kernels_host.sh has built it.
# usage: tests/sanitize.sh [TEST FILTER…]
#
# The sanitizer's runtime comes with the stable toolchain; the flag that links it is not stable, hence
# RUSTC_BOOTSTRAP. Only this package is instrumented: the dependencies are those of the release build, and
# what they allocate is watched as well. Intrinsics are instrumented like any access; inline assembly (two
# conversions to bf16) touches registers alone.
set -euo pipefail

# As cargo's wrapper of the compiler for this package.
if [ "${MIDC_SANITIZE_RUSTC:-0}" = 1 ]; then
    export RUSTC_BOOTSTRAP=1
    exec "$@" -Zsanitizer=address -Cforce-frame-pointers -Copt-level=1 -Cdebuginfo=1 -Cdebug-assertions
fi

cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
runtime=$(rustc --print sysroot)/lib/rustlib/$host/lib/librustc-stable_rt.asan.a
if [ ! -f "$runtime" ]; then
    echo "skipped: sanitize.sh: this toolchain brings no AddressSanitizer ($runtime)" >&2
    exit 0
fi
# Left out are whole trainings on the host model of a GPU, whose operations are run one by one, and long texts
# through the tokenizers library: they take longer than all the rest and reach no unsafe code besides.
[ $# -gt 0 ] || set -- runtime::backend runtime::model runtime::data runtime::soup \
    --skip cuda::tests::a_memory --skip cuda::tests::a_resumed --skip cuda::tests::gradients \
    --skip cuda::tests::memory_is --skip cuda::tests::runs_are --skip cuda::tests::steps_become \
    --skip cuda::tests::training --skip tokenizer::tests::long_texts
# Rust's own memory is never leaked on purpose but by the thread pools' statics, which leak checks count.
export ASAN_OPTIONS=detect_leaks=0
MIDC_SANITIZE_RUSTC=1 RUSTC_WORKSPACE_WRAPPER=$PWD/tests/sanitize.sh \
    cargo test --quiet --release --lib -- "$@"
echo "ok: AddressSanitizer found nothing"
