"""SAELens itself, asked what it makes of folders of ours, of its config too; ``judges.py`` says where it is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from judges import SAELENS
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

needs_saelens = SAELENS.needed


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
    SAELENS.run("saelens_check.py", inputs, outputs, *folders, home=workplace)
    with safe_open(outputs, framework="pt") as file:
        read = json.loads(file.metadata()["read"])
        names = ("z", "rebuilt", "W_dec")
        return [Theirs(*(file.get_tensor(f"{i}.{name}") for name in names), about) for i, about in enumerate(read)]
