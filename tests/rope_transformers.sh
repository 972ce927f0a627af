#!/usr/bin/env bash
# Compare every RoPE method with Hugging Face transformers, over a grid, and round-trip the written
# config.json through it.   usage: tests/rope_transformers.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/python.sh torch=torch transformers=transformers
cargo build --quiet --release --example rope_table
target=$(cargo metadata --format-version 1 --no-deps | "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
exec "$PYTHON" tests/rope_transformers.py "$target/release/examples/rope_table"
