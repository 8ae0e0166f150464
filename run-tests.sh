#!/usr/bin/env bash
# Installs what the tests need, checks the sources and runs pytest:
#   ./run-tests.sh [pytest's arguments]          everything but the drills, a file at a time in each of two processes;
#                                                in one (-n 0) where an argument begins with tests/
#   ./run-tests.sh drill [pytest's arguments]    the long crash drills
#   ./run-tests.sh pythons [pytest's arguments]  daemon and client, without PyTorch, with every other Python there is
set -euo pipefail
ROOT=$(dirname "$(readlink -f "$0")")
cd "$ROOT"
. scripts/install.sh

# spread VENV ARGUMENT…: pytest. Its processes share the cores with all that tests start: one thread of torch each. Files
# come in their order: by their number of tests, the longest of them, in a browser, would be left for the end.
spread() {
    local processes=2
    [[ " $* " != *" tests/"* ]] || processes=0
    OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$1/bin/python" -m pytest -n "$processes" --dist loadfile --no-loadscope-reorder "${@:2}"
}

if [ "${1:-}" = pythons ]; then
    shift
    failed=""
    for version in 3.10 3.12 3.13; do
        install_without_torch "$version" || { say "there is no Python $version here: skipped"; continue; }
        say "Python $version"
        spread ".venv-$version" -m "not drill and not browser" "$@" || failed+=" $version"
    done
    [ -z "$failed" ] || fail "the tests failed with Python$failed"
    exit
fi

drill=""
if [ "${1:-}" = drill ]; then
    drill=yes
    shift
fi

install_studio worker,dev
install_judges
install_page_types

say "ruff check, ruff format, mypy"
.venv/bin/ruff check -q
.venv/bin/ruff format -q --check
.venv/bin/mypy

[ -z "$drill" ] || exec .venv/bin/python -m pytest -m drill "$@"
spread .venv -m "not drill" "$@"
