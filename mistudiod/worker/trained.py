"""A trained SAE with what it belongs to, as extraction and steering open it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.train_source import STORED


@dataclass(frozen=True)
class Trained:
    sae: SparseAutoencoder
    recipe: dict[str, Any]  # recipe.json
    model: dict[str, Any]  # model.json of the model that it reads
    hook: str
    hook_out: str  # where what it rebuilds lies: the hook itself, but for a transcoder
    device: torch.device
    precision: str  # in which the model was read


def open_trained(name: str, link: Link) -> Trained:
    """Raises Refused, naming the field ``sae``, when the SAE or its model is not here or damaged."""
    folder = link.paths.artifact("sae", name)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        recipe = json.loads((folder / "recipe.json").read_text())
        sae = SparseAutoencoder.load(folder, device)
    except FileNotFoundError:
        raise Refused(f"there is no SAE called {name}: train one first", "sae") from None
    except ValueError as error:
        raise Refused(str(error), "sae") from error
    model = _read(link.paths.artifact("model", recipe["model"]["name"]) / "model.json")
    if model is None:
        missing = recipe["model"]["name"]
        raise Refused(f"the model {missing} that {name} was trained on is not here: add it again", "sae")
    # Before version 0.3 there was no other.
    usual = "fp32" if device.type == "cpu" else STORED.get(model["dtype"], "fp32")
    spec = recipe["spec"]
    precision = recipe["resolved"].get("precision", usual)
    return Trained(sae, recipe, model, spec["hook"], spec.get("hook_out") or spec["hook"], device, precision)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found
