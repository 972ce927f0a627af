#!/usr/bin/env bash
# Neovim, headless, with the plugin of editors/neovim: diagnostics, hover, quick fix, cleared.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v nvim >/dev/null || { echo "skipped: neovim.sh: no nvim (Debian: apt-get install neovim)" >&2; exit "${MIDC_REQUIRE_EDITORS:-0}"; }
. tests/support/midc.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp tests/editors/*.curriculum "$work"
root=$PWD
cd "$work"
XDG_STATE_HOME=$work XDG_CACHE_HOME=$work timeout 60 nvim --headless --clean \
    --cmd "set runtimepath^=$root/editors/neovim" -c "luafile $root/tests/editors/neovim.lua"
