"""SAELens itself, asked what it makes of folders of ours.

sae-lens pins an older transformers than ours, so it lives in an environment of its own: MISTUDIO_SAELENS_PYTHON, or
.venv-saelens in the checkout (python -m venv .venv-saelens, then pip install sae-lens==6.54.12 in it).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).parent.parent
PYTHON = Path(os.environ.get("MISTUDIO_SAELENS_PYTHON", ROOT / ".venv-saelens/bin/python"))
needs_saelens = pytest.mark.skipif(
    not PYTHON.exists(), reason=f"no sae-lens: {PYTHON} does not exist (set MISTUDIO_SAELENS_PYTHON)"
)


@dataclass
class Theirs:
    """What SAELens makes of one folder."""

    z: Tensor
    rebuilt: Tensor
    W_dec: Tensor
    read: dict[str, object]  # of its config; and ``explained_variance`` of y, by its streaming formula


def ask_saelens(folders: Sequence[Path], x: Sequence[Tensor], y: Sequence[Tensor], workplace: Path) -> list[Theirs]:
    """Of each folder on its x (tokens, d_in), which is to give y (tokens, d_out)."""
    inputs, outputs = workplace / "inputs.safetensors", workplace / "outputs.safetensors"
    named = {f"{number}.{name}": one.clone() for name, all_ in (("x", x), ("y", y)) for number, one in enumerate(all_)}
    save_file(named, inputs)
    done = subprocess.run(
        [PYTHON, ROOT / "tests/saelens_check.py", inputs, outputs, *folders],
        env={"PATH": os.defpath, "HOME": str(workplace), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with safe_open(outputs, framework="pt") as file:
        read = json.loads(file.metadata()["read"])
        names = ("z", "rebuilt", "W_dec")
        return [Theirs(*(file.get_tensor(f"{i}.{name}") for name in names), about) for i, about in enumerate(read)]
