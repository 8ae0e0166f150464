"""Weights that are stored quantised: which tensors belong together, and how many parameters they are.

bitsandbytes keeps a 4-bit matrix packed, two to a byte, with its scales and tables in tensors beside it; an 8-bit one
as it is, with a scale a row (https://huggingface.co/docs/transformers/quantization/bitsandbytes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mistudiod.facts.families import UnknownModel
from mistudiod.facts.headers import Stored

_OFFSET_BYTES = 4  # the mean of a nested absmax, which is stored as text
_BESIDE_4BIT = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_STORAGE = ("uint8", "bfloat16", "float16", "float32")  # what the packed bytes pass for
_STATE = ".quant_state.bitsandbytes__nf4"


@dataclass(frozen=True)
class Unpacked:
    """A weight without what is stored beside it."""

    items: int
    shape: tuple[int, ...] | None  # None: packed, its shape is not in the header
    dtype: str  # as safetensors calls it
    stored_bytes: int  # with what is beside it


def quantization(folder: Path, config: dict[str, object]) -> str | None:
    """The precision in which the weights of ``folder`` are stored quantised, if they are; raises UnknownModel."""
    how = config.get("quantization_config")
    if not how:
        return None
    fields = how if isinstance(how, dict) else {}
    method = fields.get("quant_method", "bitsandbytes" if isinstance(how, dict) else how)
    if method != "bitsandbytes":
        raise UnknownModel(
            f"{folder} holds weights quantised by {str(method)[:50]!r}, which cannot be read: "
            "give the model as it was before quantisation, or one quantised by bitsandbytes"
        )
    if fields.get("load_in_8bit") is True:
        return "int8"
    kind = fields.get("bnb_4bit_quant_type", "fp4") if fields.get("load_in_4bit") is True else "something else"
    if kind != "nf4" or fields.get("bnb_4bit_quant_storage", "uint8") not in _STORAGE:
        said = f"{str(kind)[:50]} in {str(fields.get('bnb_4bit_quant_storage', 'uint8'))[:50]}"
        raise UnknownModel(
            f"{folder} holds weights quantised by bitsandbytes as {said}, which cannot be read: "
            "give the model as nf4, as int8, or as it was before quantisation"
        )
    return "nf4"


def unpack(folder: Path, tensors: dict[str, Stored], quantized: str | None) -> dict[str, Unpacked]:
    """Every weight of ``tensors`` with its true number of parameters; raises UnknownModel."""
    plain = {name: Unpacked(t.items, t.shape, t.dtype, t.size_bytes) for name, t in tensors.items()}
    if quantized is None:
        return plain
    found = _unpack_nf4(folder, plain) if quantized == "nf4" else _unpack_int8(plain)
    if len(found) == len(plain):
        raise UnknownModel(f"{folder} does not fit together: config.json says {quantized}, and no weight is stored so")
    return found


def _unpack_nf4(folder: Path, plain: dict[str, Unpacked]) -> dict[str, Unpacked]:
    found = dict(plain)
    for name in [name.removesuffix(".quant_map") for name in plain if name.endswith(".weight.quant_map")]:
        absent = next((n for n in (name, f"{name}.absmax", f"{name}{_STATE}") if n not in plain), None)
        if absent:
            raise UnknownModel(f"{folder} is not complete: {name[:200]!r} is stored as nf4 without {absent[:200]!r}")
        del found[f"{name}{_STATE}"]
        beside = [found.pop(name + side).stored_bytes for side in _BESIDE_4BIT if name + side in found]
        nested = _OFFSET_BYTES if f"{name}.nested_absmax" in plain else 0
        packed = plain[name].stored_bytes
        found[name] = Unpacked(2 * packed, None, "NF4", packed + sum(beside) + nested)
    return found


def _unpack_int8(plain: dict[str, Unpacked]) -> dict[str, Unpacked]:
    found = dict(plain)
    for module in [name.removesuffix(".SCB") for name in plain if name.endswith(".SCB")]:
        scales = found.pop(f"{module}.SCB").stored_bytes
        found.pop(f"{module}.weight_format", None)
        if weight := found.get(f"{module}.weight"):
            found[f"{module}.weight"] = replace(weight, stored_bytes=weight.stored_bytes + scales)
    return found
