"""What a model is, from its ``config.json`` and the headers of its weights: shapes, counts, hooks. Pure, no torch.

A folder is whatever somebody pointed at, so everything read here is checked before it is believed.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

POINTS = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out", "hook_resid_post")  # in a block, as TransformerLens
MAX_BLOCKS = 256  # more than any model has; the list of hooks must fit in one line of a worker's
MAX_SIZE = 1 << 31  # of any dimension in a config
MAX_CONFIG_BYTES = 10 << 20
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format
_HOOK = re.compile(r"blocks\.(0|[1-9][0-9]{0,5})\.([A-Za-z0-9_.]+)")
_BUFFER = re.compile(r"(.*\.)?(attn\.bias|attention\.bias|masked_bias|inv_freq)")  # masks and tables of old checkpoints
_ITEM_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}
_FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_ITEM_BYTES |= {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}


class UnknownModel(ValueError):
    """The folder does not hold a model that can be read, said in one sentence."""


class UnknownHook(ValueError):
    """The model has no such hook, said in one sentence."""


@dataclass(frozen=True)
class ModelFacts:
    family: str  # model_type of config.json
    n_layers: int
    d_model: int
    vocab_size: int
    context: int  # longest sequence, in tokens
    parameters: int  # tied weights counted once
    dtype: str  # of the weights, as torch calls it
    size_bytes: int  # of the weight files


@dataclass(frozen=True)
class _Family:
    """What a family calls things, in its config and in its weights."""

    embedding: str = "embed_tokens.weight"
    head: str = "lm_head.weight"
    tied: bool = False  # when the config does not say
    n_layers: str = "num_hidden_layers"
    d_model: str = "hidden_size"
    context: str = "max_position_embeddings"


FAMILIES = {
    "gpt2": _Family("wte.weight", tied=True, n_layers="n_layer", d_model="n_embd", context="n_positions"),
    "gpt_neox": _Family("embed_in.weight", head="embed_out.weight"),
    "llama": _Family(),
    "mistral": _Family(),
    "qwen2": _Family(),
    "qwen3": _Family(),
    "gemma": _Family(tied=True),
    "gemma2": _Family(tied=True),
    "gemma3_text": _Family(tied=True),
}


@dataclass(frozen=True)
class _Tensor:
    dtype: str  # as safetensors calls it
    shape: tuple[int, ...]


def read_facts(folder: Path) -> ModelFacts:
    """Read what the Hugging Face model in ``folder`` is; raises UnknownModel."""
    try:
        config = _read_config(folder)
        names = _family(folder, config)
        n_layers = _count(folder, config, names.n_layers, MAX_BLOCKS)
        d_model = _count(folder, config, names.d_model)
        vocab_size = _count(folder, config, "vocab_size")
        context = _count(folder, config, names.context)
        files, tensors = _read_weights(folder)
        size_bytes = sum(file.stat().st_size for file in files)
    except OSError as error:
        raise UnknownModel(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error
    weights = _parameters(config, names, tensors)
    _check_embedding(folder, names, weights, (vocab_size, d_model))
    return ModelFacts(
        family=str(config["model_type"]),
        n_layers=n_layers,
        d_model=d_model,
        vocab_size=vocab_size,
        context=context,
        parameters=sum(math.prod(tensor.shape) for tensor in weights.values()),
        dtype=_dtype(folder, config, weights),
        size_bytes=size_bytes,
    )


def hook_names(facts: ModelFacts) -> list[str]:
    """Every hook of the model, in the order in which the values arise; each is ``d_model`` wide."""
    return [f"blocks.{layer}.{point}" for layer in range(facts.n_layers) for point in POINTS]


def check_hook(facts: ModelFacts, hook: str) -> int:
    """The width of ``hook``'s vectors; raises UnknownHook when the model has no such hook."""
    find_hook(hook, facts.n_layers)
    return facts.d_model


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


def _read_config(folder: Path) -> dict[str, object]:
    if not folder.is_dir():
        raise UnknownModel(f"{folder} is not a folder")
    path = folder / "config.json"
    if not path.is_file():
        raise UnknownModel(f"{folder} has no config.json: give the folder of a Hugging Face model")
    return _read_json(path, MAX_CONFIG_BYTES)


def _read_json(path: Path, max_bytes: int) -> dict[str, object]:
    with path.open("rb") as file:
        text = file.read(max_bytes + 1)
    if len(text) > max_bytes:
        raise UnknownModel(f"{path} is larger than {max_bytes / 1e6:.0f} MB, which no real one is")
    return _parse_object(path, text)


def _parse_object(path: Path, text: bytes) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownModel(f"{path} is damaged: it does not hold JSON ({error})") from error
    if not isinstance(value, dict):
        raise UnknownModel(f"{path} is damaged: it does not hold a JSON object")
    return value


def _family(folder: Path, config: dict[str, object]) -> _Family:
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UnknownModel(
            f"{folder} holds a model of type {str(model_type)[:100]!r}, which is not known: "
            f"the known types are {', '.join(FAMILIES)}"
        )
    if config.get("quantization_config"):
        raise UnknownModel(f"{folder} holds quantised weights: give the model as it was before quantisation")
    return FAMILIES[model_type]


def _count(folder: Path, config: dict[str, object], key: str, most: int = MAX_SIZE) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        said = f"says {repr(value)[:100]}" if key in config else "says nothing"
        raise UnknownModel(f"{folder / 'config.json'} {said} for {key}, which must be a whole number from 1 to {most}")
    return value


def _read_weights(folder: Path) -> tuple[list[Path], dict[str, _Tensor]]:
    """The weight files, and every tensor in them by name."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single], read_header(single)
    if not index.is_file():
        raise UnknownModel(
            f"{folder} has no model.safetensors: weights of another format must be saved as safetensors first"
        )
    return _read_shards(folder, index)


def _read_shards(folder: Path, index: Path) -> tuple[list[Path], dict[str, _Tensor]]:
    placed = _read_json(index, MAX_HEADER_BYTES).get("weight_map")
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise UnknownModel(f"{index} is damaged: it has no weight_map from tensors to files")
    files, tensors = [], {}
    for name in sorted(set(placed.values())):
        file = folder / name
        if file.parent != folder or not file.is_file():
            raise UnknownModel(f"{folder} is not complete: {index.name} names {name[:200]!r}, which is not there")
        files.append(file)
        tensors.update(read_header(file))
    if absent := placed.keys() - tensors.keys():
        raise UnknownModel(f"{folder} is not complete: no file holds {min(absent)[:200]!r}, which {index.name} names")
    return files, tensors


def read_header(path: Path) -> dict[str, _Tensor]:
    """The tensors of a safetensors file by name; raises UnknownModel when it is damaged or cut short.

    Format: u64 header length, header in JSON, data (https://huggingface.co/docs/safetensors).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise UnknownModel(f"{path} is damaged: it does not begin with the header of a safetensors file")
        header = _parse_object(path, file.read(length))
    header.pop("__metadata__", None)
    return {name: _checked_tensor(path, name, entry, size - 8 - length) for name, entry in header.items()}


def _checked_tensor(path: Path, name: str, entry: object, data_bytes: int) -> _Tensor:
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(span) or len(span) != 2:
        raise UnknownModel(f"{path} is damaged: its header does not describe {name[:200]!r}")
    if dtype not in _ITEM_BYTES:
        raise UnknownModel(f"{path} holds {name[:200]!r} as {dtype[:50]!r}, a type of number that cannot be read")
    if span[1] > data_bytes:
        raise UnknownModel(f"{path} is cut short: {name[:200]!r} lies beyond its end")
    if span[1] - span[0] != math.prod(shape) * _ITEM_BYTES[dtype]:
        raise UnknownModel(f"{path} is damaged: the size of {name[:200]!r} does not fit its shape")
    return _Tensor(dtype, tuple(shape))


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _parameters(config: dict[str, object], names: _Family, tensors: dict[str, _Tensor]) -> dict[str, _Tensor]:
    """The tensors that are parameters, each once: no masks, no tables, no head that is the embedding again."""
    weights = {name: tensor for name, tensor in tensors.items() if not _BUFFER.fullmatch(name)}
    if config.get("tie_word_embeddings", names.tied) and _find(weights, names.embedding):
        weights.pop(names.head, None)
    return weights


def _find(tensors: dict[str, _Tensor], name: str) -> _Tensor | None:
    """The tensor called ``name``, whatever modules it lies in."""
    return next((tensor for full, tensor in tensors.items() if full == name or full.endswith("." + name)), None)


def _check_embedding(folder: Path, names: _Family, weights: dict[str, _Tensor], shape: tuple[int, int]) -> None:
    """Config and weights of different models are found here rather than in the middle of a job."""
    found = _find(weights, names.embedding) or _find(weights, names.head)
    if found is None or found.shape != shape:
        said = "are not there" if found is None else f"have the shape {found.shape}"
        raise UnknownModel(f"{folder} does not fit together: config.json asks for embeddings of {shape}, which {said}")


def _dtype(folder: Path, config: dict[str, object], weights: dict[str, _Tensor]) -> str:
    stated = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    if stated in _FLOATS.values():
        return stated
    numbers: Counter[str] = Counter()
    for tensor in weights.values():
        numbers[tensor.dtype] += math.prod(tensor.shape)
    commonest = numbers.most_common(1)[0][0]
    if commonest not in _FLOATS:
        raise UnknownModel(f"{folder} holds weights as {commonest}: give the model as it was before quantisation")
    return _FLOATS[commonest]
