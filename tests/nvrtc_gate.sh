#!/bin/sh
# Compiles every kernel with NVRTC, as the program does at run time, and checks what comes out. Needs no GPU and no
# driver: NVRTC and the disassembler come as Python wheels, cached in target/nvrtc (or $MIDC_NVRTC_VENV).
#
#   tests/nvrtc_gate.sh [FILE.cu…]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
venv=${MIDC_NVRTC_VENV:-$root/target/nvrtc}
if ! [ -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import importlib.metadata as m; assert m.version("nvidia-cuda-nvrtc") == "13.0.88"; m.version("nvidia-cuda-nvdisasm")' 2>/dev/null; then
  if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check \
      nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-cuobjdump==13.2.78 nvidia-cuda-nvdisasm==13.2.78; }; then
    echo "!!! SKIPPED: NVRTC could not be installed, so the kernels were NOT compiled for any GPU !!!" >&2
    [ -z "${MIDC_REQUIRE_NVRTC:-}" ] || exit 1
    exit 0
  fi
fi
"$venv/bin/python" "$root/tests/nvrtc_gate.py" "$@"
# The program's own way to NVRTC and its cache.
if [ $# = 0 ] && command -v cargo >/dev/null; then
  cd "$root"
  MIDC_REQUIRE_NVRTC=1 LD_LIBRARY_PATH=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13/lib) \
    cargo test --release --lib -- backend::cuda::nvrtc backend::cuda::cache
fi
