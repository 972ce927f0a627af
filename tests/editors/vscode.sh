#!/usr/bin/env bash
# VS Code for Web in headless Chromium with the packaged extension. Pictures go to $SHOTS
# (target/editor-shots when not set).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/support/node.sh
wasm
# Node finds packages above a directory, so the extension is built below the ones installed.
work=$NODE_DIR/vscode
rm -rf "$work"
mkdir -p "$work"
cp -r editors/vscode/. "$work"
rm -rf "$work/node_modules" "$work/dist"
(
    cd "$work"
    node build.mjs --wasm="$WASM"
    "$NODE_DIR/node_modules/.bin/vsce" package --no-dependencies --allow-missing-repository --skip-license -o midc.vsix >package.log 2>&1 || { cat package.log; exit 1; }
    mkdir unpacked && cd unpacked && python3 -m zipfile -e ../midc.vsix .
)
ls -l "$work/midc.vsix"
EXTENSION=$work/unpacked/extension TESTS=$PWD/tests/editors SHOTS=${SHOTS:-$PWD/target/editor-shots} node tests/editors/vscode.mjs
