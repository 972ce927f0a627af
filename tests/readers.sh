#!/usr/bin/env bash
# Read files written by pyarrow, NumPy, gzip and zstd, and dialogues through chat templates; compare
# documents, tokens and bytes with what these tools and transformers make of the rows.
# usage: tests/readers.sh [MIDC]
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/python.sh pyarrow=pyarrow numpy=numpy tokenizers=tokenizers transformers=transformers jinja2=jinja2 zstandard=zstandard
if [ $# -gt 0 ]; then
    midc=$1
else
    # With an example, dependencies have the features that they have in `cargo test`, and nothing is built again.
    cargo build --quiet --release --bin midc --example checkpoint_copy
    target=$(cargo metadata --format-version 1 --no-deps | "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
    midc=$target/release/midc
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
exec "$PYTHON" tests/readers_compare.py "$midc" "$dir"
