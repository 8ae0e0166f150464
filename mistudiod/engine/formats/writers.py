"""Layouts in which an SAE is written for others, a file each: which of them can hold it, and writing it."""

from __future__ import annotations

from pathlib import Path

from mistudiod.engine.formats import (
    write_dictionary_learning,
    write_gemma_scope_npz,
    write_saelens,
    write_sparsify,
)
from mistudiod.engine.formats.about import About
from mistudiod.engine.sae import SparseAutoencoder

_LACKS = {
    "saelens": write_saelens.lacks,
    "sparsify": write_sparsify.lacks,
    "dictionary_learning": write_dictionary_learning.lacks,
    "gemma_scope_npz": write_gemma_scope_npz.lacks,
}
WRITERS = {
    "saelens": write_saelens.write,
    "sparsify": write_sparsify.write,
    "dictionary_learning": write_dictionary_learning.write,
    "gemma_scope_npz": write_gemma_scope_npz.write,
}


def lacks(layout: str, sae: SparseAutoencoder) -> str | None:
    """Why a layout cannot hold an SAE; None when it can."""
    return _LACKS[layout](sae)


def holders(sae: SparseAutoencoder) -> list[str]:
    """The layouts that can hold an SAE."""
    return [name for name in _LACKS if lacks(name, sae) is None]


def check(layout: str, sae: SparseAutoencoder) -> None:
    """Raises ValueError, one sentence, for a layout that cannot hold an SAE: why, and which can."""
    why = lacks(layout, sae)
    if why is None:
        return
    others = " or ".join(holders(sae))
    can = f"write it as {others}" if others else "no layout of others can, so share the folder that this studio keeps"
    raise ValueError(f"{why}: {can}")


def write(layout: str, sae: SparseAutoencoder, folder: Path, about: About) -> list[str]:
    """Fill an empty folder. Returns what was folded, renamed or has no place there, a sentence each.

    Raises ValueError as ``check`` does.
    """
    check(layout, sae)
    return WRITERS[layout](sae, folder, about)
