#!/usr/bin/env bash
# Makes the environments of the libraries that bench/ measures miStudio against: .venv-saelens, .venv-dictionary-learning
# and .venv-sparsify beside .venv; told so, .venv-sae-dashboard instead. What is already there is kept.
set -euo pipefail
ROOT=$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")
. "$ROOT/scripts/install.sh"

if [ "${1:-}" = sae-dashboard ]; then
    venv=$ROOT/.venv-sae-dashboard
    install_peer sae-dashboard sae-dashboard 0.8.0
    # It wants NumPy 1, and the pyarrow that comes with datasets is for NumPy 2.
    "$venv/bin/python" -c 'import pyarrow' 2>/dev/null ||
        pip_install "$venv" pyarrow==19.0.1 || give_up "$venv" "installing pyarrow"
    without_pictures sae-dashboard
    exit
fi
install_saelens
install_peer sparsify eai-sparsify "$SPARSIFY"
install_dictionary_learning
