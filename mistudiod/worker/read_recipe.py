"""The recipe of an SAE read again, and files told apart by their content; without the libraries that recipes name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mistudiod.worker.link import Link, Refused

WEIGHTS = "sae_weights.safetensors"


def read_recipe(name: str, link: Link, at: str = "sae") -> dict[str, Any]:
    """recipe.json of an SAE. Raises Refused, naming the field ``at``, when there is none."""
    try:
        found: dict[str, Any] = json.loads((link.paths.artifact("sae", name) / "recipe.json").read_text())
    except FileNotFoundError:
        raise Refused(f"there is no SAE called {name}: train one first", at) from None
    except ValueError as error:
        raise Refused(str(error), at) from error
    return found


def check_weights(folder: Path, recipe: Mapping[str, Any], at: str = "sae") -> str:
    """The sha256 of an SAE's weights as they lie, which are read off the disk: a bit that has turned over shows nowhere
    else. Called after they were loaded, it also tells that their training has replaced them meanwhile.

    Raises Refused, naming the field ``at``, when the recipe has another; an old one has none.
    """
    found, known = sha256_of(folder / WEIGHTS), recipe.get("sae_sha256")
    if known and found != known:
        raise Refused(
            f"the weights of {folder.name} are not those that it was made with: if its training has just replaced "
            "them, do it again; if not, the file is damaged or another's: train or add the SAE again, or take it from "
            "a backup",
            at,
        )
    return found


def trained_as(recipe: Mapping[str, Any]) -> str:
    """What the SAE of a recipe was called when it was trained: by that name its job and its checkpoints know it."""
    return str(recipe["spec"].get("name") or recipe["sae"])


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
