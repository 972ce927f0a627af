#!/usr/bin/env bash
# Hugging Face transformers as the judge of midc's checkpoints and losses.
# usage: tests/transformers.sh [CHECKPOINT…]
#
# Without arguments: small random models of every family and RoPE method, and SmolLM2-135M from its
# GGUF file where examples/fetch_smollm2.sh has fetched it (or MIDC_SMOLLM2 names it). With arguments:
# those checkpoints, on examples/data/*.test.jsonl.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/python.sh torch=torch transformers=transformers safetensors=safetensors tokenizers=tokenizers numpy=numpy
cargo build --quiet --release --bin midc --example checkpoint_copy
target=$(cargo metadata --format-version 1 --no-deps | "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
exec "$PYTHON" tests/transformers_compare.py "$target/release" "$@"
