#!/usr/bin/env bash
# Makes the environments of the libraries that bench/ measures miStudio against: .venv-saelens, .venv-dictionary-learning
# and .venv-sparsify beside .venv; told so, .venv-sae-dashboard instead. What is already there is kept.
set -euo pipefail
ROOT=$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")
. "$ROOT/scripts/install.sh"

# Brought along by nnsight and built for another PyTorch, they would only break the import; nothing here looks at pictures.
without_pictures() { "$ROOT/.venv-$1/bin/python" -m pip uninstall -q -y torchvision torchaudio 2>/dev/null || true; }

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
install_peer dictionary-learning dictionary-learning 0.1.0
install_peer sparsify eai-sparsify 1.3.3
without_pictures dictionary-learning
