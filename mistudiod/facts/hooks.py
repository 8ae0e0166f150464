"""The hook points of a model under TransformerLens' names: where each lies, and how wide its vectors are."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from mistudiod.facts.families import FAMILIES, Family

Width = Literal["d_model", "d_attn", "d_mlp"]
# In the order in which the values arise in a block.
POINTS: dict[str, Width] = {
    "hook_resid_pre": "d_model",
    "attn.hook_z": "d_attn",  # the heads' outputs side by side
    "hook_attn_out": "d_model",
    "mlp.hook_in": "d_model",  # what the MLP reads, behind its norm: TransformerBridge's name
    "mlp.hook_post": "d_mlp",  # the neurons
    "hook_mlp_out": "d_model",
    "hook_resid_post": "d_model",
}
_HOOK = re.compile(r"blocks\.(0|[1-9][0-9]{0,5})\.([A-Za-z0-9_.]+)")


class UnknownHook(ValueError):
    """The model has no such hook, said in one sentence."""


@dataclass(frozen=True)
class Place:
    """Where in a block a value is found: what goes into a module, or what comes out of it."""

    module: str  # "" is the block itself
    side: Literal["in", "out"]


def hook_place(family: str, point: str) -> Place:
    """Where ``point`` lies in a block of ``family``.

    ``attn_out`` and ``mlp_out`` are what is added to the residual stream, so behind the post-norms of a family that has
    any; ``hook_z`` and ``hook_post`` have one reader each, so that changing what it reads changes the value.
    """
    names = FAMILIES[family]
    attention, mlp = _written(names)
    return {
        "hook_resid_pre": Place("", "in"),
        "attn.hook_z": Place(names.attention_last, "in"),
        "hook_attn_out": Place(attention, "out"),
        "mlp.hook_in": Place("mlp", "in"),
        "mlp.hook_post": Place(names.mlp_last, "in"),
        "hook_mlp_out": Place(mlp, "out"),
        "hook_resid_post": Place("", "out"),
    }[point]


def _written(names: Family) -> tuple[str, str]:
    """The modules whose outputs are added to the residual stream."""
    return ("post_attention_layernorm", "post_feedforward_layernorm") if names.post_normed else (names.attention, "mlp")


def hook_widths(d_model: int, d_attn: int, d_mlp: int) -> dict[str, int]:
    """How many numbers a vector has at each point of a block."""
    widths: dict[Width, int] = {"d_model": d_model, "d_attn": d_attn, "d_mlp": d_mlp}
    return {point: widths[width] for point, width in POINTS.items()}


def find_hook(hook: str, n_layers: int) -> tuple[int, str]:
    """The block's number and the point in it, in a model of ``n_layers`` blocks; raises UnknownHook."""
    layer, point = parse_hook(hook)
    if layer >= n_layers:
        raise UnknownHook(f"{hook} does not exist: the model has {n_layers} blocks (0 to {n_layers - 1})")
    return layer, point


def parse_hook(hook: str) -> tuple[int, str]:
    """``blocks.3.hook_resid_post`` → ``(3, "hook_resid_post")``; raises UnknownHook when it is no hook's name."""
    match = _HOOK.fullmatch(hook)
    if match and match[2] in POINTS:
        return int(match[1]), match[2]
    block = f"blocks.{match[1]}" if match else "blocks.0"
    known = [f"{block}.{point}" for point in POINTS]
    near = difflib.get_close_matches(hook, known, n=2, cutoff=0.75) or known
    raise UnknownHook(f"{hook[:100]!r} is not the name of a hook: use a name such as {' or '.join(near)}")
