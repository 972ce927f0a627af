#!/usr/bin/env bash
# The playground page in headless Chromium, from file:// and without a network.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/support/node.sh
wasm
PAGE=$PWD/target/playground/index.html
node playground/build.mjs --wasm="$WASM" --out="$PAGE"
PAGE=$PAGE SHOTS=${SHOTS:-$PWD/target/editor-shots} node tests/editors/playground.mjs
