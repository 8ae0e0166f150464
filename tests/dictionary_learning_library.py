"""dictionary-learning itself, asked what it makes of folders.

It needs an older nnsight than any that goes with ours, so it lives in an environment of its own:
MISTUDIO_DICTIONARY_LEARNING_PYTHON, or .venv-dictionary-learning in the checkout.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).parent.parent
PYTHON = Path(os.environ.get("MISTUDIO_DICTIONARY_LEARNING_PYTHON", ROOT / ".venv-dictionary-learning/bin/python"))
needs_library = pytest.mark.skipif(
    not PYTHON.exists(),
    reason=f"no dictionary-learning: {PYTHON} does not exist (set MISTUDIO_DICTIONARY_LEARNING_PYTHON)",
)


def ask_library(folders: Sequence[Path], x: Tensor, workplace: Path) -> list[tuple[Tensor, Tensor]]:
    """Of each folder (ae.pt, config.json): the latents of x (tokens, d_in), and what is rebuilt of them."""
    inputs, outputs = workplace / "inputs.safetensors", workplace / "outputs.safetensors"
    save_file({"x": x}, inputs)
    done = subprocess.run(
        [PYTHON, ROOT / "tests/dictionary_learning_check.py", inputs, outputs, *folders],
        env={"PATH": os.defpath, "HOME": str(workplace), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    computed = load_file(outputs)
    return [(computed[f"{number}.z"], computed[f"{number}.rebuilt"]) for number in range(len(folders))]
