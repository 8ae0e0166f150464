#!/usr/bin/env bash
# Makes the environments of the libraries that bench/ measures miStudio against: .venv-saelens, .venv-dictionary-learning
# and .venv-sparsify beside .venv. What is already there is kept.
set -euo pipefail
ROOT=$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")
. "$ROOT/scripts/install.sh"

install_saelens
install_peer dictionary-learning dictionary-learning 0.1.0
install_peer sparsify eai-sparsify 1.3.3
# Brought along by nnsight and built for another PyTorch, it would only break the import; nothing here looks at pictures.
"$ROOT/.venv-dictionary-learning/bin/python" -m pip uninstall -q -y torchvision 2>/dev/null || true
