#!/usr/bin/env bash
# Launches of other engines as the judge of `midc emit`: the same curriculum by `midc exec` and by each
# engine on two CPU processes, held to the plan by `midc verify`, with mistakes put in on purpose.
# usage: tests/emit_engines.sh [transformers|torchtitan|olmo-core]…
#
# MIDC names the compiler; MIDC_VENV the virtual environment of transformers and torchtitan. OLMo-core wants an
# older PyTorch and has one of its own: MIDC_OLMO_VENV, or .venv-olmo, made on first use (about 5 GB).
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
. tests/support/midc.sh
engines=("$@")
[ ${#engines[@]} -gt 0 ] || engines=(transformers torchtitan olmo-core)
status=0
for engine in "${engines[@]}"; do
    case $engine in
        transformers)
            . tests/support/python.sh torch=torch transformers=transformers safetensors=safetensors numpy=numpy
            ;;
        torchtitan)
            . tests/support/python.sh torch=torch transformers=transformers safetensors=safetensors \
                torchtitan=torchtitan==0.3.0
            "$PYTHON" tests/emit_torchtitan.py "$MIDC" "$PYTHON" || status=1
            continue
            ;;
        olmo-core)
            MIDC_VENV=${MIDC_OLMO_VENV:-$here/.venv-olmo}
            . tests/support/python.sh olmo_core=ai2-olmo-core==3.0.0 transformers=transformers
            ;;
        *)
            echo "no engine called $engine" >&2
            exit 2
            ;;
    esac
    "$PYTHON" tests/emit_engines.py "$MIDC" "$engine" "$PYTHON" || status=1
done
exit $status
