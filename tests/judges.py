"""Other libraries, asked what they make of folders of ours, and to make folders themselves (``judge.py``).

Each pins what ours needs newer, so it lives in an environment of its own: MISTUDIO_<NAME>_PYTHON, or .venv-<name> in
the checkout, where ./run-tests.sh puts it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

ROOT = Path(__file__).parent.parent
Answer = dict[str, Tensor]  # x (tokens, d_in), z (tokens, d_sae), rebuilt (tokens, d_out)


@dataclass(frozen=True)
class Judge:
    """``name``: as its environment is called."""

    name: str

    @property
    def variable(self) -> str:
        return f"MISTUDIO_{self.name.upper().replace('-', '_')}_PYTHON"

    @property
    def python(self) -> Path:
        return Path(os.environ.get(self.variable, ROOT / f".venv-{self.name}/bin/python"))

    @property
    def needed(self) -> pytest.MarkDecorator:
        why = f"no {self.name}: {self.python} does not exist (./run-tests.sh installs it, or set {self.variable})"
        return pytest.mark.skipif(not self.python.exists(), reason=why)

    def run(self, script: str, *args: object, home: Path) -> str:
        """What a script of these tests says there, offline and with nothing of this environment."""
        done = subprocess.run(
            [self.python, ROOT / "tests" / script, *map(str, args)],
            env={"PATH": os.defpath, "HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def read(self, folders: Sequence[Path], x: Tensor, workplace: Path) -> list[Answer]:
        """Of each folder, as the library loads it, what becomes of x."""
        return self._ask({"read": list(map(str, folders))}, x, workplace, len(folders))

    def run_code(self, codes: Sequence[tuple[Path, str]], workplace: Path) -> list[Answer]:
        """Run code in a folder, that of a card: what it has made of the x that it drew."""
        asked = [{"folder": str(folder), "code": code} for folder, code in codes]
        return self._ask({"run": asked}, torch.empty(0), workplace, len(codes))

    def make(self, folder: Path, workplace: Path) -> dict[str, Answer]:
        """An SAE of each kind that the library saves, in a folder of its name, and what the library makes of an x."""
        said = self.run("judge.py", self.name, "make", folder, home=workplace)
        return {kind: load_file(folder / f"{kind}.safetensors") for kind in json.loads(said.splitlines()[-1])}

    def _ask(self, asked: dict[str, Any], x: Tensor, workplace: Path, answers: int) -> list[Answer]:
        order, inputs, outputs = (workplace / name for name in ("asked.json", "x.safetensors", "answers.safetensors"))
        order.write_text(json.dumps(asked))
        save_file({"x": x}, inputs)
        self.run("judge.py", self.name, "answer", order, inputs, outputs, home=workplace)
        found = load_file(outputs)
        names = ("x", "z", "rebuilt")
        return [{name: found[f"{number}.{name}"] for name in names} for number in range(answers)]


SAELENS, SPARSIFY, DICTIONARY_LEARNING = Judge("saelens"), Judge("sparsify"), Judge("dictionary-learning")
