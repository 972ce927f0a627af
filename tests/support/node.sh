# Sourced by the scripts that need Node: installs what package.json beside the tests pins, once, and
# sets NODE_DIR. $MIDC_NODE names the directory; otherwise .node in the repository.
node_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
NODE_DIR=${MIDC_NODE:-$node_root/.node}

skip() {
    echo "skipped: $(basename "$0"): $1" >&2
    exit "${MIDC_REQUIRE_EDITORS:-0}"
}

command -v node >/dev/null && command -v npm >/dev/null || skip "no node and npm"
CHROMIUM=${MIDC_CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
[ -n "$CHROMIUM" ] || skip "no chromium (Debian: apt-get install chromium)"
export CHROMIUM NODE_DIR
mkdir -p "$NODE_DIR"
if ! cmp -s "$node_root/tests/editors/package.json" "$NODE_DIR/package.json"; then
    cp "$node_root/tests/editors/package.json" "$NODE_DIR/package.json"
    (cd "$NODE_DIR" && npm install --no-audit --no-fund --loglevel=error) || { rm "$NODE_DIR/package.json"; skip "cannot install Node packages"; }
fi

# The compiler as WebAssembly: sets WASM.
wasm() {
    rustup target list --installed 2>/dev/null | grep -qx wasm32-unknown-unknown \
        || rustup target add wasm32-unknown-unknown >/dev/null 2>&1 || skip "no rust-std for wasm32-unknown-unknown"
    (cd "$node_root/playground" && cargo build --quiet --release --target wasm32-unknown-unknown --target-dir "$node_root/target/playground")
    WASM=$node_root/target/playground/wasm32-unknown-unknown/release/midc_playground.wasm
    export WASM
}
