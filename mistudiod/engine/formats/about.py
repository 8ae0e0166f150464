"""What writers of other layouts are told beside the weights, and how those layouts call places in a model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mistudiod.facts import FAMILIES, UnknownHook, hook_place, parse_hook


@dataclass(frozen=True)
class About:
    """An SAE's place in its model; None is not known. ``model``: as its maker calls it, ``family``: its model_type."""

    name: str  # of the SAE
    hook: str
    hook_out: str
    model: str | None = None
    family: str | None = None
    context: int | None = None
    l0: float | None = None  # measured
    lr: float | None = None
    steps: int | None = None
    seed: int | None = None

    @property
    def layer(self) -> int | None:
        try:
            return parse_hook(self.hook)[0]
        except UnknownHook:
            return None


def output_hook(hook: str) -> str:
    """A hook as what comes out of a block, where it is that: what block 3 reads is what block 2 gives."""
    layer, dot, point = hook.removeprefix("blocks.").partition(".")
    if dot and layer.isdecimal() and int(layer) and point == "hook_resid_pre":
        return f"blocks.{int(layer) - 1}.hook_resid_post"
    return hook


def module_of(family: str | None, hook: str, side: str) -> str | None:
    """The module of the Hugging Face model, as ``layers.10.mlp``, into which (``side`` "in") or out of which ("out")
    goes what is at a hook; None where there is none, or the family is not known.
    """
    try:
        layer, point = parse_hook(hook)
    except UnknownHook:
        return None
    if family not in FAMILIES:
        return None
    place = hook_place(family, point)
    if place.side != side:
        return None
    block = f"{FAMILIES[family].blocks}.{layer}"
    return f"{block}.{place.module}" if place.module else block


def as_folder(hook: str) -> str:
    """A hook's name, from wherever it came, as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_-]+", ".", hook).strip(".")[:100] or "hook"
