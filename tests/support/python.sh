# Sourced by the scripts that compare with Python: finds or makes the virtual environment and sets
# PYTHON. $MIDC_VENV names one; otherwise .venv in the repository is made on first use.
# usage: . tests/support/python.sh MODULE=PIP_NAME…   (exit 0 with "skipped: …" when it cannot)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${MIDC_VENV:-$root/.venv}
PYTHON=$venv/bin/python

skip() {
    echo "skipped: $(basename "$0"): $1" >&2
    # Under CI a silent skip would look like a pass; MIDC_REQUIRE_PYTHON=1 makes it a failure.
    [ "${MIDC_REQUIRE_PYTHON:-0}" = 1 ] && exit 1
    exit 0
}

if [ ! -x "$PYTHON" ]; then
    command -v python3 >/dev/null || skip "no python3"
    python3 -m venv "$venv" || skip "cannot make a virtual environment in $venv"
fi
# What is imported is compiled once, as it is needed, even where the environment wants nothing written: PyTorch's
# sources take seconds, in every process of a launch. It is kept in the virtual environment, not beside the tests.
unset PYTHONDONTWRITEBYTECODE
export PYTHONPYCACHEPREFIX=$venv/pycache
missing=()
for pair in "$@"; do
    "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('${pair%%=*}') is None)" \
        || missing+=("${pair#*=}")
done
if [ ${#missing[@]} -gt 0 ]; then
    echo "installing into $venv: ${missing[*]}" >&2
    # uv takes a quarter of pip's time for PyTorch and the 15 packages that come with it. Where there is no uv, or it
    # cannot reach what pip is configured for, pip does it.
    { "$PYTHON" -m uv --version >/dev/null 2>&1 || "$PYTHON" -m pip install --quiet uv; } \
        && "$PYTHON" -m uv pip install --quiet --python "$PYTHON" "${missing[@]}" \
        || "$PYTHON" -m pip install --quiet "${missing[@]}" || skip "cannot install ${missing[*]}"
fi
