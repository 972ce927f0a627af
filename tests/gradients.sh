#!/usr/bin/env bash
# Compare loss, every gradient and fifty training steps with PyTorch and transformers.
# usage: tests/gradients.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/python.sh torch=torch transformers=transformers
cargo build --quiet --release --bin midc
target=$(cargo metadata --format-version 1 --no-deps | "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
exec "$PYTHON" tests/gradients_torch.py "$target/release/midc"
