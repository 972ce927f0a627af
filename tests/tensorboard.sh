#!/usr/bin/env bash
# Read event files written by midc with TensorBoard's own reader.   usage: tests/tensorboard.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/python.sh tensorboard=tensorboard
cargo build --quiet --release --example tensorboard_events
target=$(cargo metadata --format-version 1 --no-deps | "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$target/release/examples/tensorboard_events" "$dir"
"$PYTHON" tests/tensorboard_reader.py "$dir"
