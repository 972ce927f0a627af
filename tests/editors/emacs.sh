#!/usr/bin/env bash
# Emacs with eglot, in batch, with the mode of editors/emacs.
set -euo pipefail
cd "$(dirname "$0")/../.."
skip() { echo "skipped: emacs.sh: $1" >&2; exit "${MIDC_REQUIRE_EDITORS:-0}"; }
command -v emacs >/dev/null || skip "no emacs (Debian: apt-get install emacs-nox elpa-eglot)"
. tests/support/midc.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp tests/editors/*.curriculum "$work"
root=$PWD
cd "$work"
emacs --batch -L "$root/editors/emacs" --eval "(progn (mapc (lambda (d) (add-to-list 'load-path d)) (ignore-errors (directory-files \"/usr/share/emacs/site-lisp/elpa\" t \"^[^.]\"))) (unless (require 'eglot nil t) (kill-emacs 77)))" || skip "emacs has no eglot"
HOME=$work timeout 90 emacs --batch -L "$root/editors/emacs" -l "$root/tests/editors/emacs.el" 2>&1
