"""The headers of safetensors files: which tensors there are, and where. Not a byte of the weights is read.

Format: u64 header length, header in JSON, data without holes (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from mistudiod.facts.families import UnknownModel

MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
MAX_TENSORS = 50_000  # a model of 256 blocks, quantised, has half as many
MAX_DEPTH = 16  # of modules in each other
_MAX_DIMENSIONS = 8
_MAX_NAME_CHARS = 250
_ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}
_ITEM_BYTES |= {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    dtype: str  # as safetensors calls it
    shape: tuple[int, ...]
    file: Path
    start: int  # byte in the file
    size_bytes: int

    @property
    def items(self) -> int:
        return math.prod(self.shape)


class _Twice(ValueError):
    pass


def read_weights(folder: Path) -> tuple[list[Path], dict[str, Stored]]:
    """The weight files of ``folder``, and every tensor in them by name; raises UnknownModel."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single], read_header(single)
    if not index.is_file():
        raise UnknownModel(
            f"{folder} has no model.safetensors: weights of another format must be saved as safetensors first"
        )
    return _read_shards(folder, index)


def _read_shards(folder: Path, index: Path) -> tuple[list[Path], dict[str, Stored]]:
    placed = read_json(index, MAX_HEADER_BYTES).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise UnknownModel(f"{index} is damaged: it has no weight_map from tensors to files")
    files: list[Path] = []
    tensors: dict[str, Stored] = {}
    for name in sorted(set(placed.values())):
        file = folder / name
        if file.parent != folder or not file.is_file():
            raise UnknownModel(f"{folder} is not complete: {index.name} names {name[:200]!r}, which is not there")
        files.append(file)
        found = read_header(file)
        if twice := tensors.keys() & found.keys():
            raise UnknownModel(f"{folder} is damaged: two of its files hold {min(twice)[:200]!r}")
        tensors.update(found)
    if absent := placed.keys() - tensors.keys():
        raise UnknownModel(f"{folder} is not complete: no file holds {min(absent)[:200]!r}, which {index.name} names")
    return files, tensors


def read_header(path: Path, most: int = MAX_HEADER_BYTES) -> dict[str, Stored]:
    """The tensors of a safetensors file by name; raises UnknownModel when it is damaged, cut short, or its header has
    more than ``most`` bytes.
    """
    with path.open("rb") as file:

        def read(start: int, n: int) -> bytes:
            file.seek(start)
            return file.read(n)

        return parse_header(path, path.stat().st_size, read, most)


def parse_header(
    path: Path, size: int, read: Callable[[int, int], bytes], most: int = MAX_HEADER_BYTES
) -> dict[str, Stored]:
    """Of a file of ``size`` bytes, of which ``read(start, n)`` gives some, wherever it lies; raises UnknownModel."""
    prefix = read(0, 8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if length < 2:
        raise UnknownModel(f"{path} is damaged: it does not begin with the header of a safetensors file")
    if length > most:
        raise UnknownModel(f"{path} is damaged: its header has {length:,} bytes, and {most:,} may be")
    if length > size - 8:
        raise UnknownModel(f"{path} is cut short: its header has {length:,} bytes, and only {size - 8:,} are there")
    header = _parse_object(path, read(8, length))
    header.pop("__metadata__", None)
    if len(header) > MAX_TENSORS:
        raise UnknownModel(f"{path} holds {len(header):,} tensors, and no known model has more than {MAX_TENSORS:,}")
    data = 8 + length
    tensors = {name: _checked_tensor(path, name, entry, data, size) for name, entry in header.items()}
    _check_tiling(path, tensors, data, size)
    return tensors


def _checked_tensor(path: Path, name: str, entry: object, data: int, size: int) -> Stored:
    """``data`` is where the data begin in a file of ``size`` bytes."""
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(span) or len(span) != 2:
        raise UnknownModel(f"{path} is damaged: its header does not describe {name[:200]!r}")
    if len(shape) > _MAX_DIMENSIONS or name.count(".") >= MAX_DEPTH or len(name) > _MAX_NAME_CHARS:
        raise UnknownModel(f"{path} holds {name[:200]!r}, which is no tensor of a known model")
    if dtype not in _ITEM_BYTES:
        raise UnknownModel(f"{path} holds {name[:200]!r} as {dtype[:50]!r}, a type of number that cannot be read")
    if data + span[1] > size:
        raise UnknownModel(f"{path} is cut short: {name[:200]!r} lies beyond its end")
    if span[1] - span[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise UnknownModel(f"{path} is damaged: the size of {name[:200]!r} does not fit its shape")
    return Stored(dtype, tuple(shape), path, data + span[0], span[1] - span[0])


def _check_tiling(path: Path, tensors: dict[str, Stored], data: int, size: int) -> None:
    """The tensors lie one after another, from the header to the end of the file."""
    end, before = data, "the header"
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].size_bytes)):
        if tensor.start < end:
            raise UnknownModel(f"{path} is damaged: {name[:200]!r} overlaps {before}")
        if tensor.start > end:
            raise UnknownModel(f"{path} is damaged: there are bytes of no tensor before {name[:200]!r}")
        end, before = tensor.start + tensor.size_bytes, repr(name[:200])
    if end != size:
        raise UnknownModel(f"{path} is damaged: there are bytes of no tensor behind {before}")


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def read_json(path: Path, max_bytes: int) -> dict[str, object]:
    """The JSON object in a file; raises UnknownModel when it holds none, or one that is larger."""
    with path.open("rb") as file:
        text = file.read(max_bytes + 1)
    if len(text) > max_bytes:
        raise UnknownModel(f"{path} is larger than {max_bytes / 1e6:.0f} MB, which no real one is")
    return _parse_object(path, text)


def _parse_object(path: Path, text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        raise UnknownModel(f"{path} is damaged: it names {error} twice") from None
    except (ValueError, RecursionError) as error:
        raise UnknownModel(f"{path} is damaged: it does not hold JSON ({error})") from error
    if not isinstance(value, dict):
        raise UnknownModel(f"{path} is damaged: it does not hold a JSON object")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two entries of one name readers take either, so that what was checked need not be what is loaded."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Twice(repr(name[:200]))
    return found
