"""A trained SAE with what it belongs to, as extraction and steering open it, and the model that it reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from mistudiod.engine.hooks import layers_needed
from mistudiod.engine.lm import LM, load_lm
from mistudiod.engine.precision import NoPrecision
from mistudiod.engine.sae import SparseAutoencoder
from mistudiod.facts import UnknownModel
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.read_recipe import check_weights, read_recipe
from mistudiod.worker.train_source import STORED


@dataclass(frozen=True)
class Known:
    """What an SAE belongs to; its weights are not read."""

    folder: Path
    recipe: dict[str, Any]  # recipe.json
    model: dict[str, Any]  # model.json of the model that it reads
    hook: str
    hook_out: str  # where what it rebuilds lies: the hook itself, but for a transcoder
    device: torch.device
    precision: str  # in which the model was read


@dataclass(frozen=True)
class Trained(Known):
    sae: SparseAutoencoder
    sha256: str  # of its weights


def open_trained(name: str, link: Link, at: str = "sae") -> Trained:
    """Raises Refused, naming the field ``at``, when the SAE or its model is not here or damaged."""
    known = know(name, link, at)
    try:
        sae = SparseAutoencoder.load(known.folder, known.device)
    except ValueError as error:
        raise Refused(str(error), at) from error
    sha256 = check_weights(known.folder, known.recipe, at)
    return Trained(**{one.name: getattr(known, one.name) for one in fields(known)}, sae=sae, sha256=sha256)


def know(name: str, link: Link, at: str = "sae") -> Known:
    """Raises Refused, naming the field ``at``, when the SAE or its model is not here."""
    device, recipe = device_here(), read_recipe(name, link, at)
    model = read_model(recipe["model"]["name"], link)
    if model is None:
        missing = recipe["model"]["name"]
        raise Refused(f"the model {missing} that {name} was trained on is not here: add it again", at)
    spec, resolved = recipe["spec"], recipe["resolved"]
    precision = resolved.get("precision") or usual_precision(model, device)  # before version 0.3 there was no other
    hook_out = spec.get("hook_out") or spec["hook"]
    folder = link.paths.artifact("sae", name)
    return Known(folder, recipe, model, spec["hook"], hook_out, device, precision)


def load_model(trained: Trained, hooks: Sequence[str], link: Link) -> LM:
    """The blocks of the SAE's model up to the last of the hooks. Raises Refused."""
    path, layers = Path(trained.model["path"]), max(map(layers_needed, hooks))
    return load(path, trained.device, trained.precision, layers, link, ("sae", "sae"))


def load(
    folder: Path, device: torch.device, precision: str, layers: int | None, link: Link, fields: tuple[str, str]
) -> LM:
    """A model, all of it when no ``layers`` are given. ``fields`` of the spec are named when it is the model that does
    not fit, or the precision. Raises Refused.
    """
    link.progress("load model", 0, 1)
    try:
        lm = load_lm(folder, device, precision, layers)
    except UnknownModel as error:
        raise Refused(str(error), fields[0]) from error
    except NoPrecision as error:
        raise Refused(str(error), fields[1]) from error
    link.progress("load model", 1, 1)
    return lm


def device_here() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def usual_precision(model: Mapping[str, Any], device: torch.device) -> str:
    """Of a model.json: as its weights lie there; half precision is slow on most CPUs."""
    if model.get("quantized"):
        return str(model["quantized"])
    return "fp32" if device.type == "cpu" else STORED.get(model["dtype"], "fp32")


def read_model(name: str, link: Link) -> dict[str, Any] | None:
    """model.json; None when there is no such model."""
    try:
        found: dict[str, Any] = json.loads((link.paths.artifact("model", name) / "model.json").read_text())
    except (OSError, ValueError):
        return None
    return found
