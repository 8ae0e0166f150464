#!/usr/bin/env bash
# Installs what the tests need, checks the sources and runs pytest: ./run-tests.sh [drill] [pytest's arguments]
set -euo pipefail
ROOT=$(dirname "$(readlink -f "$0")")
cd "$ROOT"
. scripts/install.sh

marked="not drill"
if [ "${1:-}" = drill ]; then
    marked=drill
    shift
fi

install_studio worker,dev
install_saelens || say "without SAELens, tests/test_saelens.py is skipped"

say "ruff check, ruff format, mypy"
.venv/bin/ruff check -q
.venv/bin/ruff format -q --check
.venv/bin/mypy

exec .venv/bin/python -m pytest -m "$marked" "$@"
