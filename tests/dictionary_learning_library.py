"""dictionary-learning itself, asked what it makes of folders (``judges.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from judges import DICTIONARY_LEARNING
from torch import Tensor

needs_library = DICTIONARY_LEARNING.needed


def ask_library(folders: Sequence[Path], x: Tensor, workplace: Path) -> list[tuple[Tensor, Tensor]]:
    """Of each folder (ae.pt, config.json): the latents of x (tokens, d_in), and what is rebuilt of them."""
    return [(one["z"], one["rebuilt"]) for one in DICTIONARY_LEARNING.read(folders, x, workplace)]
