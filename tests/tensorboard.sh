#!/usr/bin/env bash
# Read event files written by midc with TensorBoard's own reader.   usage: tests/tensorboard.sh
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/support/python.sh tensorboard=tensorboard
cargo build --quiet --release --example tensorboard_events
target=$(cargo metadata --format-version 1 --no-deps | "$PYTHON" -c 'import json,sys; print(json.load(sys.stdin)["target_directory"])')
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
"$target/release/examples/tensorboard_events" "$dir/events"
"$PYTHON" tests/tensorboard_reader.py "$dir/events"

# A run that is killed and goes on from a step at which something was measured.
. tests/support/midc.sh
sed -e "s#../../examples/data#$PWD/examples/data#" -e 's/save_every = 7 steps/save_every = 10 steps/' \
    tests/kill_resume/graph.curriculum > "$dir/run.curriculum"
exec_trunk() {
    "$MIDC" exec "$dir/run.curriculum" --until trunk --resume --quiet --run-dir "$dir/run" --cache-dir "$dir/cache"
}
exec_trunk &
until [ "$(cat "$dir/run/metrics.jsonl" 2>/dev/null | wc -l)" -ge 23 ]; do
    kill -0 $! # It must not end before.
    sleep 0.02
done
pkill -KILL -f "$dir/run.curriculum"
wait $! || true
exec_trunk
"$PYTHON" tests/tensorboard_reader.py "$dir/run/tensorboard/trunk" "$dir/run"
