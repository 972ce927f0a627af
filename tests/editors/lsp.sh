#!/usr/bin/env bash
# Every capability of the language server, asked with the profile of VS Code (pytest-lsp).
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/support/python.sh pytest=pytest==9.2.0 pytest_lsp=pytest-lsp==1.0.1 pytest_asyncio=pytest-asyncio==1.5.0
. tests/support/midc.sh
export PYTHONDONTWRITEBYTECODE=1
exec "$PYTHON" -m pytest -q -p no:cacheprovider -c tests/editors/pytest.ini tests/editors/test_lsp.py
