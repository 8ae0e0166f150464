#!/usr/bin/env bash
# Installs what the tests need, checks the sources and runs pytest:
#   ./run-tests.sh [pytest's arguments]          everything but the drills
#   ./run-tests.sh drill [pytest's arguments]    the long crash drills
#   ./run-tests.sh pythons [pytest's arguments]  daemon and client, without PyTorch, with every other Python there is
set -euo pipefail
ROOT=$(dirname "$(readlink -f "$0")")
cd "$ROOT"
. scripts/install.sh

if [ "${1:-}" = pythons ]; then
    shift
    failed=""
    for version in 3.10 3.12 3.13; do
        install_without_torch "$version" || { say "there is no Python $version here: skipped"; continue; }
        say "Python $version"
        ".venv-$version/bin/python" -m pytest -m "not drill and not browser" "$@" || failed+=" $version"
    done
    [ -z "$failed" ] || fail "the tests failed with Python$failed"
    exit
fi

marked="not drill"
if [ "${1:-}" = drill ]; then
    marked=drill
    shift
fi

install_studio worker,dev
install_judges

say "ruff check, ruff format, mypy"
.venv/bin/ruff check -q
.venv/bin/ruff format -q --check
.venv/bin/mypy

exec .venv/bin/python -m pytest -m "$marked" "$@"
