"""A feature store's record of one feature, all that its page shows: numbers first, then arrays, little-endian.

What the files of a store hold, for writer and reader alike. Standard library only.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

FORMAT = 1  # of the whole store
NO_TOKEN = 2**32 - 1
SEPARATOR = b"\xff"  # behind every text of toptokens.txt: a byte that no UTF-8 has
# columns.bin: one after the other, d_sae values each, every column at a multiple of 8 bytes.
COLUMNS = {"fired": "Q", "max": "f", "mean": "f", "std": "f", "typical": "f"} | dict.fromkeys(
    ("token_0", "token_1", "token_2"), "I"
)
ORDERS = ("density", "max", "typical", "token")  # orders.bin: in each all features, u32
FILES = ("columns.bin", "orders.bin", "pages.idx", "pages.bin", "toptokens.idx", "toptokens.txt", "toptokens.bin",
         "tokens.bin", "windows.bin", "vocab.idx", "vocab.bin")  # fmt: skip
POSTINGS = ("postings.idx", "postings.tok", "postings.val")
_NUMPY = {"B": "|u1", "H": "<u2", "I": "<u4", "Q": "<u8", "f": "<f4"}

# Arrays that have one length, in the order of the record. ``T`` is the type of a token's id: H or I.
_GROUPS: tuple[dict[str, str], ...] = (
    {"histogram": "I"},  # empty when the feature is dead
    {"row": "I", "first": "I", "peak": "I", "value": "f", "length": "H", "fires": "H", "kind": "B", "band": "B"},
    {"shown": "T"},
    {"where": "H", "values": "f"},
    {"tokens": "I", "tokens_fired": "I", "tokens_read": "I"},
    {"label_tokens": "I", "label_tokens_fired": "I", "label_tokens_read": "I"},
    {"cofiring": "I", "cofiring_share": "f", "cofiring_jaccard": "f"},
    {"decoder": "I", "decoder_cosine": "f"},
    {"top": "I", "top_values": "f"},
    {"bottom": "I", "bottom_values": "f"},
    {"logit_counts": "I"},  # empty where there are no logits
)
_FLOATS = [name for group in _GROUPS for name, type_ in group.items() if type_ == "f"]
_HEAD = struct.Struct(f"<2Q4f2d{len(_GROUPS)}I")
_NUMBERS = 8  # in front of the lengths
_SIZES = {"B": 1, "H": 2, "I": 4, "Q": 8, "f": 4}
Arrays = dict[str, Any]  # by name, each a memoryview


@dataclass(frozen=True)
class Numbers:
    """``low`` and ``high`` are the smallest and the largest logit. All but ``fired`` are 0 when the feature is dead."""

    fired: int
    label_fired: int  # in windows that labels may be made from
    maximum: float
    mean: float
    std: float
    typical: float
    low: float
    high: float


def pack(numbers: Numbers, arrays: Mapping[str, bytes], token_type: str) -> bytes:
    """The record. ``arrays``: the bytes of each. Raises ValueError when those of a group are not equally long."""
    lengths = []
    for group in _groups(token_type):
        found = {len(arrays[name]) / _SIZES[type_] for name, type_ in group.items()}
        if len(found) > 1 or not (length := found.pop()).is_integer():
            raise ValueError(f"{', '.join(group)} of a feature are not equally long")
        lengths.append(int(length))
    head = _HEAD.pack(*astuple(numbers), *lengths)
    return b"".join((head, *(arrays[name] for group in _GROUPS for name in group)))


def unpack(data: bytes, token_type: str) -> tuple[Numbers, Arrays]:
    """Raises ValueError for what is no record."""
    if len(data) < _HEAD.size:
        raise ValueError("a record is cut short")
    found = _HEAD.unpack_from(data)
    arrays: Arrays = {}
    at, whole = _HEAD.size, memoryview(data)
    for length, group in zip(found[_NUMBERS:], _groups(token_type), strict=True):
        for name, type_ in group.items():
            end = at + length * _SIZES[type_]
            if end > len(data):
                raise ValueError("a record is cut short")
            arrays[name] = typed(whole[at:end], type_)
            at = end
    if at != len(data):
        raise ValueError("a record is longer than it says")
    if not math.isfinite(sum(found[2:_NUMBERS]) + sum(sum(arrays[name]) for name in _FLOATS)):
        raise ValueError("a record holds NaN or infinity")
    if sum(arrays["length"]) != len(arrays["shown"]) or sum(arrays["fires"]) != len(arrays["where"]):
        raise ValueError("a record has examples of other sizes than it says")
    return Numbers(*found[:_NUMBERS]), arrays


def _groups(token_type: str) -> Iterator[Mapping[str, str]]:
    for group in _GROUPS:
        yield {"shown": token_type} if "shown" in group else group


def typed(view: memoryview, type_: str) -> Any:
    """The bytes as numbers: a memoryview of them."""
    return view.cast(type_)  # type: ignore[call-overload]


def token_type(token_bytes: int) -> str:
    """Of the ids of tokens in the store, as ``array`` and ``memoryview`` name types."""
    return {2: "H", 4: "I"}[token_bytes]


def column_bytes(d_sae: int) -> tuple[dict[str, slice], int]:
    """Which bytes of columns.bin are each column's; and the size of the file."""
    spans, at = {}, 0
    for name, type_ in COLUMNS.items():
        size = d_sae * _SIZES[type_]
        spans[name] = slice(at, at + size)
        at += -(-size // 8) * 8
    return spans, at


def described_columns(d_sae: int) -> dict[str, dict[str, str | int]]:
    """For the manifest: type, as NumPy names it, and first byte of each column."""
    spans, _ = column_bytes(d_sae)
    return {name: {"type": _NUMPY[type_], "offset": spans[name].start} for name, type_ in COLUMNS.items()}
