"""What paths and module names say: a layer, a width, an L0, a hook. Used where the files themselves do not say it."""

from __future__ import annotations

import re
from dataclasses import dataclass

_WIDTH = re.compile(r"width[_-]?(\d+)([km]?)", re.IGNORECASE)
_LAYER = re.compile(r"(?:^|[/_.-])(?:layers?[_.-]?|h\.|l(?!0[_-])[_.-]?)(\d+)(?=$|[/_.-])", re.IGNORECASE)
_L0 = re.compile(r"l0[_-](\d+(?:\.\d+)?)(?=$|[/_.-])", re.IGNORECASE)
_HOOK = re.compile(r"blocks\.(\d+)\.((?:attn|mlp)\.)?hook_[a-z_]+")
_MODULE = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)(?:\.([a-z0-9_.]+))?$")
# Of Hugging Face's modules inside a block, by family: what comes out of them, and what goes in.
_OUT = {
    "": "hook_resid_post",
    "mlp": "hook_mlp_out",
    "self_attn": "hook_attn_out",
    "attn": "hook_attn_out",
    "attention": "hook_attn_out",
}
_OUT_POST_NORMED = {
    "": "hook_resid_post",
    "post_attention_layernorm": "hook_attn_out",
    "post_feedforward_layernorm": "hook_mlp_out",
    "pre_feedforward_layernorm": "mlp.hook_in",
}
_IN = {
    "": "hook_resid_pre",
    "mlp": "mlp.hook_in",
    "self_attn.o_proj": "attn.hook_z",
    "attn.c_proj": "attn.hook_z",
    "attention.dense": "attn.hook_z",
    "mlp.down_proj": "mlp.hook_post",
    "mlp.c_proj": "mlp.hook_post",
    "mlp.dense_4h_to_h": "mlp.hook_post",
}


@dataclass(frozen=True)
class Hints:
    layer: int | None
    width: int | None
    l0: float | None
    hook: str | None


def path_hints(path: str) -> Hints:
    """Of a path such as ``layer_12/width_16k/average_l0_82`` or ``blocks.8.hook_resid_pre``; the deepest counts."""
    hook, layer, width, l0 = (_last(pattern, path) for pattern in (_HOOK, _LAYER, _WIDTH, _L0))
    return Hints(
        layer=int(hook[1]) if hook else int(layer[1]) if layer else None,
        width=_width(int(width[1]), width[2].lower()) if width else None,
        l0=float(l0[1]) if l0 else None,
        hook=hook[0] if hook else None,
    )


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(reversed(list(pattern.finditer(text)))), None)


def _width(n: int, unit: str) -> int:
    """16k is 16,384, 65k 65,536 and 1m 1,048,576: a power of two that begins so, else n times 1,024."""
    if not unit:
        return n
    scale = 1000 if unit == "k" else 1000**2
    powers = [1 << bits for bits in range(8, 28) if (1 << bits) // scale == n]
    return powers[-1] if powers else n * (1024 if unit == "k" else 1024**2)


def module_hook(module: str, side: str, post_normed: bool = False) -> str | None:
    """TransformerLens' name of what comes ``out`` of a module in a block, or goes ``in``; None where it has none.

    ``module``: such as ``layers.10``, ``h.5.mlp`` or ``model.layers.3.self_attn.o_proj``. ``post_normed``: families
    (Gemma 2 and 3) that have a norm behind attention and MLP: what the bare modules give is then no hook of ours.
    """
    match = _MODULE.search(module)
    if not match:
        return None
    outs = _OUT_POST_NORMED if post_normed else _OUT
    point = (outs if side == "out" else _IN).get(match[2] or "")
    return f"blocks.{match[1]}.{point}" if point else None


def is_post_normed(model: str | None) -> bool:
    return bool(model and re.search(r"gemma-?[23]", model, re.IGNORECASE))


def number_in(text: str, pattern: str) -> int | None:
    """The last number that ``pattern`` has a group for, as a layer in a path."""
    numbers = re.findall(pattern, text, re.IGNORECASE)
    return int(numbers[-1]) if numbers else None
