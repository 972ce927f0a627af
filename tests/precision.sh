#!/usr/bin/env bash
# bf16 training beside f32: SmolLM2-135M trained 200 steps on real text in both; the losses of every step
# may differ by 1% at most.
# usage: tests/precision.sh [MODEL]     (about twenty minutes on two cores)
#
# MODEL is a checkpoint directory or GGUF file; without it the file that examples/fetch_smollm2.sh
# fetched or MIDC_SMOLLM2 names. MIDC_STEPS changes the number of steps, MIDC_ROWS the rows of 512 tokens
# to a step: two, because the loss of a single row says more about that row than about the model.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
model=${1:-${MIDC_SMOLLM2:-$root/examples/models/SmolLM2-135M-Instruct.Q4_1.gguf}}
if [ ! -e "$model" ]; then
    echo "skipped: precision.sh: no $model (bash examples/fetch_smollm2.sh)" >&2
    exit 0
fi
command -v python3 >/dev/null || { echo "skipped: precision.sh: no python3" >&2; exit 0; }
midc=${MIDC:-}
if [ -z "$midc" ]; then
    cargo build --quiet --release --bin midc
    midc=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/midc
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
steps=${MIDC_STEPS:-200}
rows=${MIDC_ROWS:-2}
cat > "$scratch/smollm2.curriculum" <<END
model smollm2 {
  checkpoint = "$(realpath "$model")"
  context    = 8Ki
  rope       = rope(theta: 100_000)
  lr         = 1e-4
}
source prose { path = "$root/examples/data/prose.train.jsonl", kind = web }
source code { path = "$root/examples/data/code.train.jsonl", kind = code }
source math { path = "$root/examples/data/math.train.jsonl", kind = math }
mix all { prose = 50%, code = 25%, math = rest }
stage anneal {
  from      = smollm2
  tokens    = $steps * $rows * 512
  context   = 512
  batch     = $rows seqs
  mix       = all
  lr        = inherit then linear(to: 0)
  optimizer = adamw(betas: [0.9, 0.95], eps: 1e-8, weight_decay: 0.1, clip: 1.0)
  data_seed = 1
}
END
for precision in f32 bf16; do
    "$midc" exec "$scratch/smollm2.curriculum" --precision $precision --run-dir "$scratch/$precision" \
        --cache-dir "$scratch/cache" --quiet
done
python3 - "$scratch" "$steps" <<'END'
import json, statistics, sys

def losses(precision):
    with open(f"{sys.argv[1]}/{precision}/metrics.jsonl") as lines:
        records = [json.loads(line) for line in lines]
    return {r["step"]: r["loss"] for r in records if "loss" in r and "step" in r}

f32, bf16 = losses("f32"), losses("bf16")
assert f32.keys() == bf16.keys() and len(f32) == int(sys.argv[2]), (len(f32), len(bf16))
off = {step: abs(bf16[step] - f32[step]) / f32[step] for step in f32}
worst = max(off, key=off.get)
steps = sorted(f32)
print(f"{len(off)} steps, f32 loss {f32[steps[0]]:.4f} to {f32[steps[-1]]:.4f}; bf16 differs by "
      f"{statistics.mean(off.values()):.2e} on average, at most {off[worst]:.2e} at step {worst}")
if off[worst] > 0.01:
    sys.exit("bf16 left the f32 losses by more than 1%")
END
