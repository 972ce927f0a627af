#!/usr/bin/env bash
# Compare loss, every gradient and fifty training steps with PyTorch and transformers.
# usage: tests/gradients.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/python.sh torch=torch transformers=transformers
# With an example, dependencies have the features that they have in `cargo test`, and nothing is built again.
cargo build --quiet --release --bin midc --example checkpoint_copy
target=$(cargo metadata --format-version 1 --no-deps | "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
# Matrices this small only make PyTorch's threads wait for each other.
export OMP_NUM_THREADS=1
exec "$PYTHON" tests/gradients_torch.py "$target/release/midc"
